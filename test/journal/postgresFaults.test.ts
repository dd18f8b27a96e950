import { afterAll, assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Redacted, Schedule, Stream } from "effect"
import { type Claim, Journal, type JournalError } from "../../src/layers/journal/Journal.ts"
import * as JournalPostgres from "../../src/layers/journal/JournalPostgres.ts"
import * as PostgresStore from "../../src/layers/journal/PostgresStore.ts"
import { standardTerms } from "../../src/schemas/Terms.ts"
import { freePort } from "../support/Ports.ts"
import { live, Postgres } from "../support/Postgres.ts"
import { PostgresServer } from "../support/PostgresServer.ts"
import * as Sample from "./samples.ts"

const postgres = new Postgres()
afterAll(() => postgres.dispose())

/** A worker's journal: a pool of its own. */
const open = (options: JournalPostgres.PostgresOptions) =>
  Effect.map(Layer.build(Layer.fresh(JournalPostgres.layer(options))), (context) => Context.get(context, Journal))

const pause = Schedule.spaced("50 millis")

const by = (name: string) => ({ instance: Sample.instance(name), leaseMs: 60_000, maxAttempts: 2 })

const granted = (journal: Journal["Service"], id: string) =>
  Effect.flatMap(
    journal.claim(Sample.request(id), by("ann")),
    (answer) => answer._tag === "Granted" ? Effect.succeed(answer.claim) : Effect.die(answer._tag)
  )

/** All a log or a person could see of it. */
const shown = (error: JournalError) => `${error.message} ${JSON.stringify(error)} ${String(error.cause)}`

const saysNothingSecret = (error: JournalError) => {
  assert.notInclude(shown(error), PostgresServer.password)
  assert.notInclude(shown(error), encodeURIComponent(PostgresServer.password))
}

const refusal = (options: JournalPostgres.PostgresOptions) =>
  Effect.tap(Effect.flip(Effect.scoped(open(options))), (error) => Effect.sync(() => saysNothingSecret(error)))

describe("Journal: postgres", { timeout: 60_000 }, () => {
  it.live("what one worker queues is told to the others", () =>
    Effect.gen(function*() {
      const options = yield* postgres.options
      const [ann, bob] = [yield* open(options), yield* open(options)]
      const told = yield* Effect.forkChild(Stream.runHead(bob.arrivals))
      // Until it listens, nothing is told.
      const submits = Effect.forEach(
        Array.from({ length: 100 }, (_, n) => Sample.request(`job-${n}`)),
        (request) => Effect.andThen(ann.submit(request), Effect.sleep("50 millis")),
        { discard: true }
      )
      yield* Effect.raceFirst(Effect.andThen(submits, Effect.die("not told")), Fiber.join(told))
    }))

  it.live("what is queued last before the end is told too", () =>
    Effect.gen(function*() {
      const options = yield* postgres.options
      const told = yield* Effect.forkChild(Stream.runHead((yield* open(options)).arrivals))
      const submits = Effect.forEach(
        Array.from({ length: 50 }, (_, n) => Sample.request(`job-${n}`)),
        // As a command that submits one job and ends.
        (request) => Effect.scoped(Effect.flatMap(open(options), (journal) => journal.submit(request))),
        { discard: true }
      )
      yield* Effect.raceFirst(Effect.andThen(submits, Effect.die("not told")), Fiber.join(told))
    }))

  it.live("workers that start together make one schema", () =>
    Effect.gen(function*() {
      const options = yield* postgres.options
      const journals = yield* Effect.forEach(
        Array.from({ length: 6 }, () => open({ ...options, connections: 1 })),
        (opening) => opening,
        { concurrency: "unbounded" }
      )
      yield* Effect.forEach(journals, (journal, index) => journal.submit(Sample.request(`job-${index}`)))
      assert.strictEqual((yield* (yield* open(options)).list({ limit: 10 })).length, 6)
    }))

  it.live("of two workers that claim a new job at once exactly one has it, 200 times", () =>
    Effect.gen(function*() {
      const options = yield* postgres.options
      const workers = [yield* open(options), yield* open(options)]
      yield* Effect.forEach(Array.from({ length: 200 }, (_, index) => `job-${index}`), (id) =>
        Effect.gen(function*() {
          const answers = yield* Effect.forEach(
            workers,
            (journal, index) => journal.claim(Sample.request(id), by(`worker-${index}`)),
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual(answers.map(({ _tag }) => _tag).toSorted(), ["Granted", "Held"], id)
        }), { concurrency: 3 })
    }))

  it.live("workers that renew, settle, submit and abandon the same jobs never wait for each other for ever", () =>
    Effect.gen(function*() {
      const options = { ...(yield* postgres.options), retention: 0, dedupeWindow: 0 }
      const workers = [yield* open(options), yield* open(options)]
      const ids = Array.from({ length: 12 }, (_, index) => `job-${index}`)
      const turmoil = (journal: Journal["Service"], seed: number) =>
        Effect.forEach(Array.from({ length: 12 }, (_, round) => round), (round) =>
          Effect.gen(function*() {
            const instance = Sample.instance(`ann-${(seed + round) % 3}`)
            const mixed = ids.toSorted((a, b) => (a.length * 7 + seed * round) % 5 - (b.length * 3 + round) % 5)
            const claims: Array<Claim> = []
            for (const id of mixed.slice(0, 6)) {
              const answer = yield* journal.claim(Sample.request(id), { instance, leaseMs: 1, maxAttempts: 99 })
              if (answer._tag === "Granted") claims.push(answer.claim)
            }
            yield* journal.renew(claims.toReversed(), 1000)
            yield* Effect.forEach(claims, (claim) => Effect.ignore(journal.settle(claim, Sample.settlement(1), [])))
            yield* journal.abandon(instance)
            yield* journal.told([5, 3, 1])
          }))
      yield* Effect.forEach([1, 2, 3, 4], (seed) => turmoil(workers[seed % 2] ?? assert.fail(), seed), {
        concurrency: "unbounded"
      })
    }))

  it.live("a connection that is cut is made again, and what was confirmed is there", () =>
    Effect.gen(function*() {
      const options = yield* postgres.options
      const journal = yield* open({ ...options, connections: 2 })
      const admin = yield* postgres.admin
      const cut = admin.unsafe(
        "select pg_terminate_backend(pid)::text from pg_stat_activity where application_name = 'stoker'"
      )
      for (const id of ["a", "b", "c"]) {
        yield* journal.submit(Sample.request(id))
        yield* cut
        // At most the operations that the cut met.
        yield* Effect.retry(journal.get(Sample.key(id)), { times: 3 })
      }
      assert.strictEqual((yield* journal.list({ limit: 10 })).length, 3)
    }))

  it.live("a server that is killed and comes back has everything that was confirmed, and work goes on by itself", () =>
    Effect.gen(function*() {
      const server = yield* Effect.acquireRelease(
        Effect.promise(() => PostgresServer.start()),
        (server) => Effect.sync(() => server.dispose())
      )
      const journal = yield* open({ url: Redacted.make(server.url()) })
      const settled: Array<string> = []
      const failures: Array<JournalError> = []
      const worker = Effect.forEach(
        Array.from({ length: 10 }, (_, number) => number),
        (worker) =>
          Effect.forEach(
            Array.from({ length: 15 }, (_, number) => `job-${worker}-${number}`),
            (id) =>
              Effect.gen(function*() {
                const claim = yield* granted(journal, id).pipe(
                  Effect.tapError((error) => Effect.sync(() => "reason" in error ? failures.push(error) : 0)),
                  Effect.retry({ while: ({ _tag }) => _tag === "JournalError", schedule: pause }),
                  // A claim that was written down although nobody heard: it is his who asked.
                  Effect.catchDefect(() =>
                    Effect.succeed<Claim>({
                      key: Sample.key(id),
                      instance: Sample.instance("ann"),
                      attempt: 1,
                      fence: 1
                    })
                  )
                )
                yield* journal.settle(claim, Sample.settlement(1), [Sample.message(id)]).pipe(
                  Effect.tapError((error) => Effect.sync(() => "reason" in error ? failures.push(error) : 0)),
                  Effect.retry({ while: ({ _tag }) => _tag === "JournalError", schedule: pause })
                )
                settled.push(id)
              })
          ),
        { concurrency: "unbounded" }
      )
      const working = yield* Effect.forkChild(worker)
      yield* Effect.sleep("300 millis")
      for (const _ of [1, 2]) {
        yield* Effect.promise(() => server.kill())
        yield* Effect.sleep("200 millis")
        yield* Effect.promise(() => server.start())
        yield* Effect.sleep("200 millis")
      }
      yield* Fiber.join(working)
      assert.strictEqual(settled.length, 150)
      const owed = yield* journal.owed(1000)
      assert.deepStrictEqual(owed.map(({ message }) => message.id).toSorted(), settled.toSorted())
      assert.isAbove(failures.length, 0)
      for (const failure of failures) saysNothingSecret(failure)
      assert.match(
        failures.map(({ reason }) => reason).join("\n"),
        /PostgreSQL at 127\.0\.0\.1:\d+\/postgres cannot be reached/
      )
    }))

  it.live("a server that hangs is given up in time, and its connections too", () =>
    Effect.gen(function*() {
      const journal = yield* open({ ...(yield* postgres.options), connections: 2 })
      const server = yield* Effect.promise(() => postgres.started)
      yield* Effect.forEach(["a", "b"], (id) => journal.submit(Sample.request(id)), { concurrency: 2 })
      const admin = yield* postgres.admin
      const backends = yield* admin.unsafe<{ readonly pid: number }>(
        "select pid from pg_stat_activity where application_name = 'stoker'"
      )
      const signal = (name: "SIGSTOP" | "SIGCONT") =>
        Effect.sync(() => backends.forEach(({ pid }) => server.signalBackend(pid, name)))
      yield* Effect.acquireRelease(signal("SIGSTOP"), () => signal("SIGCONT"))
      const errors = yield* Effect.forEach(["c", "d"], (id) => Effect.flip(journal.submit(Sample.request(id))), {
        concurrency: 2
      })
      for (const { message } of errors) assert.match(message, /cannot be reached|did not answer in time/)
      // Others are made in their place, although those still hang.
      yield* journal.submit(Sample.request("c"))
    }))

  it.live("says what is wrong with a server that is absent, a password, a database, a URL and a schema's name", () =>
    Effect.gen(function*() {
      const server = yield* Effect.promise(() => postgres.started)
      const port = yield* Effect.promise(freePort)
      const secret = encodeURIComponent(PostgresServer.password)
      const told = (url: string, schema?: string) =>
        Effect.map(
          refusal({ url: Redacted.make(url), ...(schema === undefined ? {} : { schema }) }),
          (error) => error.message
        )
      assert.match(
        yield* told(`postgres://stoker:${secret}@127.0.0.1:${port}/postgres`),
        /could not be opened: PostgreSQL at 127\.0\.0\.1:\d+\/postgres cannot be reached .*ECONNREFUSED.*See that it runs/
      )
      assert.match(yield* told(server.url("wrong")), /does not let this user in.*Correct user and password/)
      assert.match(yield* told(server.url().replace("/postgres", "/nowhere")), /no such database.*createdb/)
      assert.match(yield* told(`mysql://stoker:${secret}@127.0.0.1/x`), /URL is none of PostgreSQL's.*postgres:\/\//)
      assert.match(yield* told(`postgres//stoker:${secret}`), /URL is none of PostgreSQL's/)
      assert.match(yield* told(server.url(), "No Name"), /"No Name" is no name for its schema/)
    }))

  it.live("refuses a newer version's schema and another program's, and leaves them as they are", () =>
    Effect.gen(function*() {
      const options = yield* postgres.options
      const admin = yield* postgres.admin
      yield* Effect.scoped(open(options))
      yield* admin.unsafe(`update "${options.schema}".stoker_layout set version = 99`)
      assert.match((yield* refusal(options)).message, /newer version of Stoker.*layout 99/)
      const foreign = yield* postgres.options
      yield* admin.unsafe(`create schema "${foreign.schema}"`)
      yield* admin.unsafe(`create table "${foreign.schema}".jobs (mine text)`)
      assert.match((yield* refusal(foreign)).message, /no journal of Stoker's/)
      const tables = yield* admin.unsafe("select relname from pg_class where relnamespace = to_regnamespace($1)", [
        foreign.schema
      ])
      assert.strictEqual(tables.length, 1)
    }))

  it.live("a schema of the second layout is brought up to date: its jobs are found by their functions", () =>
    Effect.gen(function*() {
      const options = yield* postgres.options
      const admin = yield* postgres.admin
      yield* Effect.scoped(Effect.flatMap(open(options), (journal) =>
        Effect.gen(function*() {
          yield* journal.submit(Sample.request("kept"))
          yield* journal.submit(Sample.request("dead"))
          const letter = { request: Sample.request("dead"), terms: standardTerms, tries: 1, receivedAtMs: 0 }
          yield* journal.bury(letter, { reason: "why", remedy: "none" })
        })))
      // As that layout had it.
      for (const table of ["jobs", "dead_letters"]) {
        yield* admin.unsafe(`alter table "${options.schema}".${table} drop column function`)
      }
      yield* admin.unsafe(`drop index "${options.schema}".jobs_of_owner`).pipe(Effect.ignore)
      yield* admin.unsafe(`update "${options.schema}".stoker_layout set version = 2`)
      const journal = yield* open(options)
      const found = () =>
        Effect.map(
          journal.list({ function: "command", limit: 10 }),
          (records) => records.map(({ request }) => String(request.job.id))
        )
      assert.deepStrictEqual(yield* found(), ["dead", "kept"])
      yield* journal.revive(Sample.key("dead"))
      assert.deepStrictEqual(yield* found(), ["dead", "kept"])
      assert.deepStrictEqual(yield* journal.list({ function: "code", limit: 10 }), [])
    }))

  it.live("among very many jobs each list goes through an index, and through few rows more than it gives", () =>
    Effect.gen(function*() {
      const options = yield* postgres.options
      const admin = yield* postgres.admin
      const journal = yield* open(options)
      yield* journal.submit(Sample.request("a"))
      const columns =
        "intake, id, hash, delivered, attempt, tries, spent, due_ms, counted, fence, received_ms, priority,"
        + " reply, request"
      const jobs = `"${options.schema}".jobs`
      yield* admin.unsafe(
        `insert into ${jobs} (key, owner, function, state, ${columns})
           select key || i, 'owner' || i % 50, 'function' || i % 7, case when i % 1000 = 0 then 'queued' else 'ended' end,
             ${columns} from ${jobs}, generate_series(1, 30000) as i where id = 'a'`
      )
      yield* admin.unsafe(`vacuum analyze ${jobs}`)
      const filters = [
        {},
        { state: "ended" },
        { owner: "owner3" },
        { owner: "owner3", state: "ended" },
        { owner: "owner0", state: "queued" },
        { owner: "nobody" },
        { function: "function3" },
        { function: "function3", state: "queued" },
        { function: "none", state: "running" }
      ] as const
      for (const filter of filters) {
        const { text, values } = PostgresStore.listing({ ...filter, before: 1_000_000, limit: 10 })
        const plan = yield* admin.withTransaction(Effect.andThen(
          admin.unsafe(`set local search_path to "${options.schema}"`),
          admin.unsafe<Record<string, string>>(
            `explain (analyze, timing off, summary off) ${text}`,
            values.map((value) => typeof value === "number" ? String(value) : value)
          )
        ))
        const lines = plan.map((row) => Object.values(row).join())
        const what = `${JSON.stringify(filter)}\n${lines.join("\n")}`
        assert.isFalse(lines.some((line) => line.includes("Seq Scan on jobs")), what)
        for (const line of lines) {
          const [, rows = "0", loops = "0"] = /actual rows=(\d+)[.\d]* loops=(\d+)/.exec(line) ?? []
          assert.isAtMost(Number(rows) * Number(loops), 40, what)
          assert.notMatch(line, /Rows Removed by Filter: [1-9]\d\d/, what)
        }
      }
    }))

  it.live("a user who may not make a schema is told, and may use one that was made for him", () =>
    Effect.gen(function*() {
      const options = yield* postgres.options
      const admin = yield* postgres.admin
      yield* admin.unsafe("create role guest login password 'guest'")
      yield* Effect.addFinalizer(() =>
        Effect.ignore(
          Effect.scoped(Effect.flatMap(postgres.admin, (admin) =>
            Effect.andThen(admin.unsafe("drop owned by guest cascade"), admin.unsafe("drop role guest"))))
        )
      )
      const server = yield* Effect.promise(() => postgres.started)
      const url = Redacted.make(server.url("guest").replace("//stoker:", "//guest:"))
      assert.match((yield* refusal({ ...options, url })).message, /may not use the schema.*create schema/)
      yield* admin.unsafe(`create schema "${options.schema}" authorization guest`)
      const journal = yield* open({ ...options, url })
      yield* journal.submit(Sample.request("a"))
    }))

  it.live("does not wait for ever for what somebody keeps locked", () =>
    Effect.gen(function*() {
      const options = yield* postgres.options
      const journal = yield* open(options)
      const claim = yield* granted(journal, "a")
      const admin = yield* postgres.admin
      const error = yield* admin.withTransaction(Effect.gen(function*() {
        yield* admin.unsafe(`select 1 from "${options.schema}".jobs for update`)
        return yield* Effect.flip(journal.settle(claim, Sample.settlement(1), []))
      }))
      assert.match(error.message, /another transaction .* was in the way .*55P03/)
      yield* journal.settle(claim, Sample.settlement(1), [])
    }))

  // it.effect: the worker's clock stands at 1970.
  it.effect("leases begin and end by the server's clock, whatever a worker's says", () =>
    Effect.gen(function*() {
      const options = yield* postgres.options
      const journal = yield* open(options)
      const admin = yield* postgres.admin
      const [time] = yield* live(
        admin.unsafe<{ readonly ms: number }>("select extract(epoch from now())::float8 * 1000 as ms")
      )
      yield* journal.submit(Sample.request("a"))
      const answer = yield* journal.claim(Sample.request("a"), by("ann"))
      const record = yield* journal.get(Sample.key("a"))
      assert.isBelow(Math.abs((record?.receivedAtMs ?? 0) - (time?.ms ?? 0)), 60_000)
      assert.strictEqual(answer._tag, "Granted")
      assert.strictEqual((yield* journal.claim(Sample.request("a"), by("bob")))._tag, "Held")
      assert.deepStrictEqual(yield* journal.lapsed(10), [])
    }))
})
