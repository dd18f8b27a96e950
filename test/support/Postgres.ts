/** Schemas on a test file's one PostgreSQL, with verbs; each goes with its scope. */
import { PgClient } from "@effect/sql-pg"
import { assert } from "@effect/vitest"
import { Clock, Context, Effect, Layer, Redacted, type Scope } from "effect"
import { Reactivity } from "effect/reactivity"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalPostgres from "../../src/layers/journal/JournalPostgres.ts"
import { PostgresServer } from "./PostgresServer.ts"

/** Time runs here, whatever the test's clock says: a pool that counts idle seconds is no business of the test's. */
export const live = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Clock.Clock, Clock.Clock.defaultValue())

/** Makes one when it is first asked for; `dispose` in `afterAll`. */
export class Postgres {
  private server: Promise<PostgresServer> | undefined
  private schemas = 0

  get started(): Promise<PostgresServer> {
    this.server ??= PostgresServer.start()
    return this.server
  }

  async dispose(): Promise<void> {
    await this.server?.then((server) => server.dispose(), () => undefined)
  }

  /** A client of the tests' own. */
  readonly admin: Effect.Effect<PgClient.PgClient, never, Scope.Scope> = Effect.gen({ self: this }, function*() {
    const server = yield* Effect.promise(() => this.started)
    // It waits for no disk: what it writes is for the test alone.
    const startupParameters = { synchronous_commit: "off" }
    return yield* PgClient.make({ url: Redacted.make(server.url()), maxConnections: 2, startupParameters })
  }).pipe(Effect.provide(Reactivity.layer), Effect.orDie, live)

  /** Name of a schema that nobody has; what is in it at the end is dropped. */
  readonly schema: Effect.Effect<string, never, Scope.Scope> = Effect.gen({ self: this }, function*() {
    const name = `test_${process.pid}_${++this.schemas}`
    // By a client that is made then: a pool whose scope closes makes no first connection any more, and waits for ever.
    const drop = Effect.flatMap(this.admin, (admin) => admin.unsafe(`drop schema if exists "${name}" cascade`))
    yield* Effect.addFinalizer(() => Effect.ignore(live(Effect.scoped(drop)), { log: true }))
    return name
  })

  /** Options of a journal in a schema of its own. */
  readonly options: Effect.Effect<JournalPostgres.PostgresOptions & { readonly schema: string }, never, Scope.Scope> =
    Effect.gen({ self: this }, function*() {
      const server = yield* Effect.promise(() => this.started)
      return { url: Redacted.make(server.url()), schema: yield* this.schema }
    })
}

/**
 * A journal whose server has the test's clock: the function that gives its time is replaced in its schema, and put
 * forward before each operation.
 */
export const layerTestClock = (postgres: Postgres, options: JournalPostgres.PostgresOptions, schema: string) =>
  Layer.effect(
    Journal,
    Effect.gen(function*() {
      const context = yield* Layer.build(JournalPostgres.layer({ ...options, schema }))
      const journal = Context.get(context, Journal)
      const admin = yield* postgres.admin
      const put = (text: string) => Effect.orDie(live(admin.unsafe(text)))
      yield* put(`create sequence if not exists "${schema}".test_clock minvalue 0`)
      yield* put(
        `create or replace function "${schema}".now_ms() returns double precision language sql volatile
           as 'select last_value::float8 from "${schema}".test_clock'`
      )
      const tick = Effect.flatMap(
        Clock.currentTimeMillis,
        (ms) => put(`select setval('"${schema}".test_clock', ${Math.floor(ms)})::text`)
      )
      return Journal.of({
        ...journal,
        submit: (...args) => Effect.andThen(tick, journal.submit(...args)),
        claim: (...args) => Effect.andThen(tick, journal.claim(...args)),
        renew: (...args) => Effect.andThen(tick, journal.renew(...args)),
        queued: (...args) => Effect.andThen(tick, journal.queued(...args)),
        postpone: (...args) => Effect.andThen(tick, journal.postpone(...args)),
        bury: (...args) => Effect.andThen(tick, journal.bury(...args)),
        revive: (...args) => Effect.andThen(tick, journal.revive(...args)),
        prune: Effect.andThen(tick, journal.prune),
        settle: (...args) => Effect.andThen(tick, journal.settle(...args)),
        lapsed: (...args) => Effect.andThen(tick, journal.lapsed(...args)),
        expire: (...args) => Effect.andThen(tick, journal.expire(...args))
      })
    })
  )

/** Asks until the answer is right. */
export const until = <A>(what: string, ask: () => Promise<A>, right: (answer: A) => boolean) =>
  Effect.promise(async () => {
    const deadline = performance.now() + 15_000
    for (;;) {
      const answer = await ask()
      if (right(answer)) return answer
      if (performance.now() > deadline) return assert.fail(`${what}: not within 15 s`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  })
