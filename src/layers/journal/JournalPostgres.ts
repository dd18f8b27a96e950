/** The journal in a PostgreSQL database, shared by workers of many hosts. */
import { PgClient } from "@effect/sql-pg"
import { Deferred, type Duration, Effect, Layer, Queue, Redacted, Schedule, Schema, Stream } from "effect"
import { Reactivity } from "effect/reactivity"
import { createHash } from "node:crypto"
import * as Release from "../Release.ts"
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
  /** Connections of this worker at most, one transaction each; and one more that listens. 4 by default. */
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

/**
 * Workers and senders tell each other through the server. A connection that is lost is made again. Who has queued a job
 * does not wait for it: another fiber rings, once for all that came meanwhile, and has a second for that at the end.
 */
const makeBell = Effect.fnUntraced(function*(sql: PgClient.PgClient, schema: string) {
  // A name of one length: a schema's may be as long as a channel's, too long for any addition.
  const channel = `stoker_${createHash("sha256").update(schema).digest("hex").slice(0, 32)}`
  const asked = yield* Queue.sliding<void>(1)
  let isOwed = false
  let rung = Deferred.makeUnsafe<void>()
  const ringAll = Effect.gen(function*() {
    yield* Queue.take(asked)
    yield* Effect.ignore(sql.notify(channel, ""))
    isOwed = Queue.sizeUnsafe(asked) > 0
    if (isOwed) return
    Deferred.doneUnsafe(rung, Effect.void)
    rung = Deferred.makeUnsafe()
  })
  yield* Effect.forkScoped(Effect.forever(ringAll))
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => isOwed ? Deferred.await(rung) : Effect.void).pipe(
      Release.within("telling others of a queued job", "1 second")
    )
  )
  const bell: JournalBackend.Bell = {
    ring: Effect.suspend(() => {
      isOwed = true
      return Queue.offer(asked, undefined)
    }),
    rings: Stream.unwrap(Effect.map(sql.listen(channel), Stream.fromQueue)).pipe(
      Stream.map(() => undefined),
      Stream.retry(Schedule.spaced("5 seconds")),
      Stream.orDie
    )
  }
  return bell
})

const make = Effect.fnUntraced(function*(options: PostgresOptions) {
  const { connectTimeout = "5 seconds", connections = 4, url } = options
  const { place, ...transport } = yield* placeOf(options)
  const { schema } = place
  const policy = JournalBackend.policyOf(options)
  const opened = Effect.gen(function*() {
    const sql = yield* PgClient.make({
      url,
      applicationName: "stoker",
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
  return Journal.of(JournalBackend.make(perform, { scope: "shared", bell: yield* makeBell(sql, schema) }))
})

/** Fails when the server cannot be reached, or the schema is another program's or a newer version's. */
export const layer = (options: PostgresOptions): Layer.Layer<Journal, JournalError> =>
  Layer.effect(Journal, make(options)).pipe(Layer.provide(Reactivity.layer))
