import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import { readFileSync, renameSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalBackend from "../../src/layers/journal/JournalBackend.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import * as SqliteStore from "../../src/layers/journal/SqliteStore.ts"
import * as SqliteThread from "../../src/layers/journal/SqliteThread.ts"
import * as Place from "./places.ts"
import * as Sample from "./samples.ts"

const ann = Sample.instance("ann")
const claiming = { instance: ann, leaseMs: 60_000, maxAttempts: 2 }
const file = Effect.map(Place.directory, (path) => join(path, "journal.sqlite"))

const withJournal = <A, E>(filename: string, use: (journal: Journal["Service"]) => Effect.Effect<A, E>) =>
  Journal.use(use).pipe(Effect.provide(JournalSqlite.layer({ filename }), { local: true }))

/** The error of a journal that does not open. */
const refusal = (filename: string) => Effect.flip(withJournal(filename, () => Effect.void))

/** SQLite by hand, as another program would. */
const byHand = (filename: string, sql: string) =>
  Effect.sync(() => {
    const db = new DatabaseSync(filename)
    db.exec(sql)
    db.close()
  })

/** A connection that keeps the file locked until the scope closes or `release` is run. */
const locked = (filename: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const db = new DatabaseSync(filename)
      db.exec("begin immediate")
      return { release: Effect.sync(() => db.exec("rollback")), close: () => db.close() }
    }),
    ({ close }) => Effect.sync(close)
  )

const thread = (filename: string, busyMs: number) =>
  Effect.map(SqliteThread.make({ filename, busyMs, policy: JournalBackend.policyOf() }), (thread) => ({
    ...thread,
    journal: JournalBackend.make(thread.perform)
  }))

const submitMany = (journal: Journal["Service"], ids: ReadonlyArray<string>) =>
  Effect.forEach(ids, (id) => Effect.exit(journal.submit(Sample.request(id))), { concurrency: "unbounded" })

describe("Journal: sqlite, the file", { timeout: 30_000 }, () => {
  it.effect("200 concurrent claims and settles share a few transactions", () =>
    Effect.gen(function*() {
      const { batches, journal } = yield* thread(yield* file, 5000)
      const ids = Array.from({ length: 200 }, (_, number) => `job-${number}`)
      const one = Effect.fnUntraced(function*(id: string) {
        const answer = yield* journal.claim(Sample.request(id), claiming)
        if (answer._tag === "Granted") yield* journal.settle(answer.claim, Sample.settlement(1), [Sample.message(id)])
      })
      yield* Effect.forEach(ids, one, { concurrency: "unbounded" })
      assert.isAtMost(yield* batches, 10)
      assert.strictEqual((yield* journal.list({ state: "ended", limit: 1000 })).length, 200)
    }))

  it.effect("many large requests at once do not go to the thread all together", () =>
    Effect.gen(function*() {
      const { batches, journal } = yield* thread(yield* file, 5000)
      const body = "x".repeat(5_000_000)
      const submit = (id: string) => journal.submit(Sample.request(id, body))
      yield* Effect.forEach(["a", "b", "c", "d", "e", "f", "g"], submit, { concurrency: "unbounded" })
      // The first alone, then three by three: each is a little over 5 million characters.
      assert.strictEqual(yield* batches, 3)
      assert.strictEqual((yield* journal.get(Sample.key("g")))?.request.hash, Sample.request("g", body).hash)
    }))

  it.effect("workers that start at once make the file once", () =>
    Effect.gen(function*() {
      const filename = yield* file
      const workers = Array.from({ length: 4 }, (_, number) => `job-${number}`)
      yield* Effect.forEach(
        workers,
        (id) => withJournal(filename, (journal) => journal.submit(Sample.request(id))),
        { concurrency: "unbounded" }
      )
      yield* withJournal(filename, (journal) =>
        Effect.map(Sample.queued(journal, 10), (queued) => assert.strictEqual(queued.length, 4)))
    }))

  it.effect("an operation that fails does not spoil those it shares a transaction with", () =>
    Effect.gen(function*() {
      const filename = yield* file
      const { batches, journal } = yield* thread(filename, 5000)
      yield* byHand(
        filename,
        `create trigger refuse after insert on jobs when new.id = 'bad' begin
           insert into outbox (job, fence, emitter, id, content, made_ms) values ('', 0, '', '', '', 0);
           select raise(fail, 'refused by a trigger');
         end`
      )
      const exits = yield* submitMany(journal, ["first", "a", "bad", "b"])
      assert.deepStrictEqual(exits.map(({ _tag }) => _tag), ["Success", "Success", "Failure", "Success"])
      assert.strictEqual(yield* batches, 2)
      const left = yield* journal.list({ limit: 10 })
      assert.deepStrictEqual(left.map(({ request }) => String(request.job.id)), ["b", "a", "first"])
      assert.deepStrictEqual(yield* journal.owed(10), [])
    }))

  it.effect("when a whole transaction fails, everyone in it is told and nothing of it is written", () =>
    Effect.gen(function*() {
      const filename = yield* file
      const { journal } = yield* thread(filename, 5000)
      yield* byHand(
        filename,
        `create trigger refuse after insert on jobs when new.id = 'bad' begin select raise(rollback, 'all'); end`
      )
      const exits = yield* submitMany(journal, ["first", "a", "bad", "b"])
      assert.deepStrictEqual(exits.map(({ _tag }) => _tag), ["Success", "Failure", "Failure", "Failure"])
      yield* journal.submit(Sample.request("c"))
      const left = yield* journal.list({ limit: 10 })
      assert.deepStrictEqual(left.map(({ request }) => String(request.job.id)), ["c", "first"])
    }))

  it.effect("the file is its owner's alone", () =>
    Effect.gen(function*() {
      const filename = yield* file
      yield* withJournal(filename, (journal) =>
        Effect.gen(function*() {
          yield* journal.submit(Sample.request("a"))
          const modes = ["", "-wal", "-shm"].map((suffix) => statSync(filename + suffix).mode & 0o777)
          assert.deepStrictEqual(modes, [0o600, 0o600, 0o600])
        }))
    }))

  it.effect("a file of the first layout is brought up to date: its jobs keep their places, claims and outbox", () =>
    Effect.gen(function*() {
      const filename = yield* file
      yield* byHand(filename, readFileSync(join(import.meta.dirname, "layout1.sql"), "utf8"))
      yield* withJournal(filename, (journal) =>
        Effect.gen(function*() {
          assert.deepStrictEqual((yield* Sample.queued(journal)).map(({ job }) => String(job.id)), ["first", "second"])
          const held = { key: Sample.key("held"), instance: ann, attempt: 2, fence: 3 }
          assert.deepStrictEqual(yield* journal.renew([held], 1000), [])
          assert.strictEqual((yield* journal.owed(10)).length, 1)
          assert.strictEqual((yield* journal.get(Sample.key("over")))?.settlement?.outcome._tag, "Exited")
          const full = yield* Effect.flip(journal.submit(Sample.request("new"), { maximum: 2 }))
          assert.strictEqual(full._tag, "Overloaded")
          // A row that is made now comes behind those that were there.
          yield* journal.submit(Sample.request("new"))
          const [newest] = yield* journal.list({ limit: 1 })
          assert.strictEqual(newest?.request.job.id, "new")
          // Also those that were there are found by their function.
          const commands = yield* journal.list({ function: "command", limit: 10 })
          assert.deepStrictEqual(commands.map(({ request }) => String(request.job.id)), [
            "new",
            "second",
            "over",
            "held",
            "first"
          ])
        }))
    }))

  it.effect("a row whose request cannot be read does not keep a file from being brought up to date", () =>
    Effect.gen(function*() {
      const filename = yield* file
      yield* byHand(filename, readFileSync(join(import.meta.dirname, "layout1.sql"), "utf8"))
      yield* byHand(filename, "update jobs set request = '{\"id\": ' where id = 'first'")
      yield* withJournal(filename, (journal) =>
        Effect.gen(function*() {
          assert.strictEqual((yield* journal.list({ function: "command", limit: 10 })).length, 3)
        }))
    }))

  it.effect("every list goes through an index in the order of the list, and through no more rows than it gives", () =>
    Effect.gen(function*() {
      const filename = yield* file
      yield* withJournal(filename, (journal) => journal.submit(Sample.request("a")))
      const plans = yield* Effect.sync(() => {
        const db = new DatabaseSync(filename)
        const optional = <K extends string>(name: K, value: string) => [{}, { [name]: value }]
        const filters = optional("id", "a").flatMap((id) =>
          optional("state", "ended").flatMap((state) =>
            optional("owner", "ann").flatMap((owner) =>
              optional("function", "noop").map((name) => ({ ...id, ...state, ...owner, ...name }))
            )
          )
        )
        const explained = filters.map((filter) => ({
          filter: JSON.stringify(filter),
          plan: db.prepare(`explain query plan ${SqliteStore.listing({ ...filter, limit: 10 })}`)
            .all({ ...filter, before: 5, limit: 10 }).map(({ detail }) => String(detail))
        }))
        db.close()
        return explained
      })
      assert.strictEqual(plans.length, 16)
      for (const { filter, plan } of plans) {
        const text = `${filter}: ${plan.join("; ")}`
        assert.isTrue(
          plan.some((step) => /SEARCH jobs USING (COVERING INDEX|INDEX|INTEGER PRIMARY KEY)/.test(step)),
          text
        )
        assert.notMatch(text, /SCAN jobs|TEMP B-TREE FOR ORDER/, text)
      }
    }))

  it.effect("a damaged file is said, and another one can take its place", () =>
    Effect.gen(function*() {
      const filename = yield* file
      writeFileSync(filename, "this was a journal once ".repeat(1000))
      const { message } = yield* refusal(filename)
      assert.match(message, /the journal could not be opened: .*journal\.sqlite is damaged.*move .* away/)
      renameSync(filename, `${filename}.damaged`)
      yield* withJournal(filename, (journal) => journal.submit(Sample.request("a")))
    }))

  it.effect("a file of a newer version is refused and left as it is", () =>
    Effect.gen(function*() {
      const filename = yield* file
      yield* withJournal(filename, (journal) => journal.submit(Sample.request("a")))
      yield* byHand(filename, "pragma user_version = 999; pragma journal_mode = delete")
      const before = readFileSync(filename)
      const { message } = yield* refusal(filename)
      assert.match(message, /written by a newer version of Stoker \(it has layout 999, .*\)\. Use that version/)
      assert.isTrue(before.equals(readFileSync(filename)))
    }))

  it.effect("another program's database is refused and left as it is", () =>
    Effect.gen(function*() {
      const filename = yield* file
      yield* byHand(filename, "create table jobs (title text)")
      const before = readFileSync(filename)
      assert.match((yield* refusal(filename)).message, /no journal of Stoker's/)
      assert.isTrue(before.equals(readFileSync(filename)))
    }))

  it.effect("a directory that is not there is said", () =>
    Effect.gen(function*() {
      const { message } = yield* refusal(join(yield* Place.directory, "missing", "journal.sqlite"))
      assert.match(message, /cannot be opened for writing \(ENOENT.*See that its directory exists/)
    }))

  it.effect("a row that cannot be understood is an error that names it, never left out", () =>
    Effect.gen(function*() {
      const filename = yield* file
      yield* withJournal(filename, (journal) =>
        Effect.gen(function*() {
          for (const id of ["a", "b"]) yield* journal.submit(Sample.request(id))
          const answer = yield* journal.claim(Sample.request("c"), claiming)
          if (answer._tag !== "Granted") return assert.fail(answer._tag)
          yield* journal.settle(answer.claim, Sample.settlement(1), [Sample.message("m")])
          yield* byHand(
            filename,
            `update jobs set request = '{"id":1}' where id = 'a'; update jobs set settlement = 'x' where id = 'c';
             update outbox set content = '{'`
          )
          const key = /could not read (how )?job embedded\/local\/[ac].*what is written there cannot be understood/
          assert.match((yield* Effect.flip(journal.queued(10))).message, key)
          assert.match((yield* Effect.flip(journal.get(Sample.key("a")))).message, key)
          assert.match((yield* Effect.flip(journal.list({ id: "c", limit: 1 }))).message, key)
          assert.match((yield* Effect.flip(journal.claim(Sample.request("c"), claiming))).message, key)
          assert.match((yield* Effect.flip(journal.owed(10))).message, /could not read message m \(outbox 1\)/)
          assert.strictEqual((yield* journal.get(Sample.key("b")))?.state, "queued")
        }))
    }))

  it.live("a journal that another process keeps locked is said, and works when it is let go", () =>
    Effect.gen(function*() {
      const filename = yield* file
      const { journal } = yield* thread(filename, 50)
      yield* journal.submit(Sample.request("a"))
      const lock = yield* locked(filename)
      assert.match(
        (yield* Effect.flip(journal.submit(Sample.request("b")))).message,
        /another process kept .* locked.*fuser/
      )
      assert.strictEqual((yield* Sample.queued(journal, 10)).length, 1)
      yield* lock.release
      yield* journal.submit(Sample.request("b"))
      assert.strictEqual((yield* Sample.queued(journal, 10)).length, 2)
    }))

  it.live("a dead thread is replaced: what it had fails, what waited is done", () =>
    Effect.gen(function*() {
      const filename = yield* file
      const { batches, crash, journal } = yield* thread(filename, 400)
      yield* journal.submit(Sample.request("before"))
      const lock = yield* locked(filename)
      // The first goes to the thread, which waits for the lock; the second gathers.
      const stuck = yield* Effect.forkChild(journal.submit(Sample.request("stuck")), { startImmediately: true })
      while ((yield* batches) < 2) yield* Effect.yieldNow
      const waiting = yield* Effect.forkChild(journal.submit(Sample.request("waiting")), { startImmediately: true })
      yield* crash
      assert.match((yield* Effect.flip(Fiber.join(stuck))).message, /ended before it answered.*a repeat is harmless/)
      yield* lock.release
      yield* Fiber.join(waiting)
      yield* journal.submit(Sample.request("after"))
      const left = yield* journal.list({ limit: 10 })
      assert.deepStrictEqual(left.map(({ request }) => String(request.job.id)), ["after", "waiting", "before"])
    }))

  it.live("when the file cannot be opened again those who wait are told, until it can", () =>
    Effect.gen(function*() {
      const filename = yield* file
      const { crash, journal } = yield* thread(filename, 50)
      yield* journal.submit(Sample.request("before"))
      yield* crash
      yield* byHand(filename, "pragma user_version = 999")
      assert.match((yield* Effect.flip(journal.submit(Sample.request("a")))).message, /written by a newer version/)
      yield* byHand(filename, "pragma user_version = 4")
      yield* journal.submit(Sample.request("a"))
      assert.strictEqual((yield* Sample.queued(journal, 10)).length, 2)
    }))

  it.live("closing writes what was asked before and refuses what comes after", () =>
    Effect.gen(function*() {
      const filename = yield* file
      const scope = yield* Scope.make()
      const { journal } = yield* thread(filename, 5000).pipe(Scope.provide(scope))
      const ids = Array.from({ length: 50 }, (_, number) => `job-${number}`)
      const asked = yield* Effect.forkChild(submitMany(journal, ids), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      assert.isTrue((yield* Fiber.join(asked)).every(Exit.isSuccess))
      assert.match((yield* Effect.flip(journal.submit(Sample.request("late")))).message, /is closed/)
      yield* withJournal(filename, (journal) =>
        Effect.map(Sample.queued(journal, 100), (queued) => assert.strictEqual(queued.length, 50)))
    }))

  it.live("closing ends in time although the file stays locked, and whoever waits is told", () =>
    Effect.gen(function*() {
      const filename = yield* file
      const scope = yield* Scope.make()
      const { journal } = yield* thread(filename, 300).pipe(Scope.provide(scope))
      yield* journal.submit(Sample.request("a"))
      yield* locked(filename)
      const asked = yield* Effect.forkChild(submitMany(journal, ["b", "c"]), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      assert.isTrue((yield* Fiber.join(asked)).every(Exit.isFailure))
    }))

  it.live("one that is interrupted before it went never happens", () =>
    Effect.gen(function*() {
      const { journal } = yield* thread(yield* file, 5000)
      const [, second] = yield* Effect.forEach(["first", "second"], (id) =>
        Effect.forkChild(journal.submit(Sample.request(id)), { startImmediately: true }))
      if (second !== undefined) {
        yield* Fiber.interrupt(second)
      }
      assert.deepStrictEqual(yield* Sample.queued(journal, 10), [Sample.request("first")])
    }))

  it.effect("a layer that could not be built can be built again", () =>
    Effect.gen(function*() {
      const directory = yield* Place.directory
      const filename = join(directory, "journal.sqlite")
      writeFileSync(filename, "no journal at all, but long enough to be seen as one that is damaged".repeat(20))
      const layer = JournalSqlite.layer({ filename })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(Layer.build(layer))))
      renameSync(filename, `${filename}.away`)
      yield* Layer.build(Layer.fresh(layer))
    }))

  it.live("settling takes no longer when very many jobs have ended", () =>
    Effect.gen(function*() {
      const filename = yield* file
      const ids = Array.from({ length: 100 }, (_, number) => `job-${number}`)
      const settleAll = (journal: Journal["Service"], prefix: string) =>
        Effect.gen(function*() {
          const claims = yield* Effect.forEach(
            ids,
            (id) => journal.claim(Sample.request(`${prefix}-${id}`), claiming),
            {
              concurrency: "unbounded"
            }
          )
          const started = performance.now()
          yield* Effect.forEach(
            claims,
            (answer) =>
              answer._tag === "Granted" ? journal.settle(answer.claim, Sample.settlement(1), []) : Effect.void,
            { concurrency: "unbounded" }
          )
          return performance.now() - started
        })
      const few = yield* withJournal(filename, (journal) => settleAll(journal, "few"))
      const columns =
        "intake, owner, id, hash, delivered, state, attempt, tries, spent, due_ms, counted, fence, instance,"
        + " lease_until_ms, received_ms, started_ms, ended_ms, priority, expires_ms, retry, settlement, reply, request"
      yield* byHand(
        filename,
        `with recursive n (i) as (select 1 union all select i + 1 from n where i < 600)
         insert into jobs (key, ${columns}) select key || '-' || i, ${columns} from jobs, n where state = 'ended'`
      )
      const many = yield* withJournal(filename, (journal) => settleAll(journal, "many"))
      // Sorting 60,000 rows for each of them would take seconds.
      assert.isBelow(many, 8 * few + 400)
    }))
})
