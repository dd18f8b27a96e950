/** The journal in a PostgreSQL database, shared by workers of many hosts. */
import { PgClient } from "@effect/sql-pg"
import { type Duration, Effect, Layer, Redacted, Schedule, Schema, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { Journal, JournalError } from "./Journal.ts"
import * as JournalBackend from "./JournalBackend.ts"
import { explain, failureOf, type PostgresPlace } from "./PostgresFailure.ts"
import { migrate } from "./PostgresMigrations.ts"
import * as PostgresSocket from "./PostgresSocket.ts"
import * as PostgresTransactions from "./PostgresTransactions.ts"

export interface PostgresOptions extends JournalBackend.JournalOptions {
  /** postgres://user:password@host:port/database, with `?sslmode=require` for TLS and `?schema=` for the schema. */
  readonly url: Redacted.Redacted<string>
  /** Made if it is not there. What the URL says by default, else `stoker`. */
  readonly schema?: string
  /** Connections of this worker at most. 4 by default: one transaction each. */
  readonly connections?: number
  /** How long a connection may take to come about. 5 seconds by default. */
  readonly connectTimeout?: Duration.Input
}

/** A name that needs no quotes, so that it is the same wherever it is written. */
const SchemaName = Schema.String.check(Schema.isPattern(/^[a-z_][a-z0-9_]{0,62}$/))

const unusable = (what: string, remedy: string) => new JournalError({ operation: "be opened", reason: what, remedy })

/** Never with what the URL holds: it may be a password in the wrong place. */
const placeOf = Effect.fnUntraced(function*({ schema: name, url }: PostgresOptions) {
  const value = Redacted.value(url)
  const parsed = URL.canParse(value) ? new URL(value) : undefined
  if (parsed === undefined || !["postgres:", "postgresql:"].includes(parsed.protocol)) {
    return yield* unusable("its URL is none of PostgreSQL's", "Write postgres://user:password@host:port/database")
  }
  const schema = name ?? parsed.searchParams.get("schema") ?? "stoker"
  if (!Schema.is(SchemaName)(schema)) {
    return yield* unusable(
      `${JSON.stringify(schema)} is no name for its schema`,
      "Use up to 63 lower-case letters, digits and underscores, no digit first"
    )
  }
  const host = parsed.searchParams.get("host") ?? (parsed.hostname === "" ? "localhost" : parsed.hostname)
  const port = parsed.searchParams.get("port") ?? (parsed.port === "" ? "5432" : parsed.port)
  const place: PostgresPlace = { server: `${host}:${port}${parsed.pathname}`, schema }
  // Under TLS the client must have the socket to itself.
  const isPlain = ["disable", null].includes(parsed.searchParams.get("sslmode"))
  return { place, ...(isPlain ? { stream: () => PostgresSocket.open({ host, port: Number(port) }) } : {}) }
})

/** Whatever hangs (a lock, a statement, a transaction whose worker froze) is ended by the server. */
const session = (schema: string) => ({
  search_path: schema,
  statement_timeout: "10s",
  lock_timeout: "5s",
  idle_in_transaction_session_timeout: "15s"
})

/** Workers and senders tell each other through the server. A connection that is lost is made again. */
const bellOf = (sql: PgClient.PgClient, schema: string): JournalBackend.Bell => {
  const channel = `${schema}_arrivals`
  return {
    ring: sql.notify(channel, "").pipe(Effect.timeout("1 second"), Effect.ignore),
    rings: Stream.unwrap(Effect.map(sql.listen(channel), Stream.fromQueue)).pipe(
      Stream.map(() => undefined),
      Stream.retry(Schedule.spaced("5 seconds")),
      Stream.orDie
    )
  }
}

const make = Effect.fnUntraced(function*(options: PostgresOptions) {
  const { connectTimeout = "5 seconds", connections = 4, url } = options
  const { place, ...transport } = yield* placeOf(options)
  const { schema } = place
  const policy = JournalBackend.policyOf(options)
  const opened = Effect.gen(function*() {
    const sql = yield* PgClient.make({
      url,
      applicationName: "stoker",
      // One of them listens.
      maxConnections: connections + 1,
      connectTimeout,
      keepAlive: "10 seconds",
      ...transport,
      // Of one message: a request may be large, and no client may send a larger one than this.
      maxMessageSize: 1024 * 1024 * 1024,
      startupParameters: session(schema)
    })
    yield* migrate(sql, schema)
    return sql
  })
  const sql = yield* opened.pipe(
    Effect.mapError((error) => {
      const failure = failureOf(error)
      return new JournalError({ operation: "be opened", ...explain(failure, place), cause: failure })
    })
  )
  const perform = PostgresTransactions.make(sql, place, policy)
  return Journal.of(JournalBackend.make(perform, { scope: "shared", bell: bellOf(sql, schema) }))
})

/** Fails when the server cannot be reached, or the schema is another program's or a newer version's. */
export const layer = (options: PostgresOptions): Layer.Layer<Journal, JournalError> =>
  Layer.effect(Journal, make(options)).pipe(Layer.provide(Reactivity.layer))
