import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { RunEvent } from "../../src/layers/executor/Executor.ts"
import type { Journal } from "../../src/layers/journal/Journal.ts"
import { type Job, keyOf } from "../../src/schemas/Job.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import {
  endless,
  exited,
  finished,
  hello,
  makeJob,
  makeWorker,
  makeWorld,
  outcomes,
  output,
  ready,
  type Script,
  toldOnce,
  type World
} from "./World.ts"

const every: ReadonlyArray<Outcome> = [
  exited(0),
  exited(3),
  Outcome.cases.Exited.make({ phase: "compile", code: 1 }),
  Outcome.cases.Signalled.make({ phase: "run", signal: 11 }),
  Outcome.cases.TimedOut.make({ phase: "run", limit: "wall", limitMs: 1000 }),
  Outcome.cases.OutOfMemory.make({ phase: "run", limitBytes: 1 }),
  Outcome.cases.OutputExceeded.make({ phase: "run", stream: "stdout", limitBytes: 1 }),
  Outcome.cases.SandboxFailed.make({ driver: "fake", reason: "no", remedy: "none" })
]

describe("a job", () => {
  it.effect("that waited for a slot beyond its time is not begun: it is settled as rejected, told, and acked", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const script: Script = () =>
        Stream.concat(Stream.make(ready), Stream.fromEffect(Effect.as(Effect.sleep("1 minute"), finished(exited(0)))))
      const worker = yield* makeWorker(world, { name: "w1", script, config: { slots: 1 } })
      const [first, late, inTime] = [makeJob("a"), makeJob("late"), makeJob("in-time")]
      const heard: Array<string> = []
      const retry = (outcome: Outcome) => Effect.sync(() => heard.push(outcome._tag) === 0)
      yield* worker.deliver(first)
      yield* worker.deliver(late, "two", { expiresAtMs: 60_000, retry })
      yield* worker.deliver(inTime, "three", { expiresAtMs: 60_001 })
      yield* TestClock.adjust("2 minutes")
      yield* worker.idle
      assert.deepStrictEqual(outcomes(world, late), [JSON.stringify(Outcome.cases.Rejected.make({
        reason: "expired in the queue",
        remedy: "Send it again with more time to live, or start more workers."
      }))])
      assert.deepStrictEqual(world.begun.map((key) => key.split("/")[2]), ["a", "in-time"])
      // Its door hears of it before it is settled, and may keep it.
      assert.deepStrictEqual(heard, ["Rejected"])
      assert.strictEqual(world.unacked.size, 0)
    }))

  it.effect("of the embedded queue that another worker runs is let go, and takes no place here until that has ended", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const [first, second] = [
        yield* makeWorker(world, { name: "w1", script: endless }),
        yield* makeWorker(world, { name: "w2" })
      ]
      const job = makeJob("a")
      let givenBack = 0
      const fromJournal = { fromJournal: true, giveBack: Effect.sync(() => void (givenBack += 1)) }
      yield* first.deliver(job)
      yield* TestClock.adjust("1 second")
      yield* second.deliver(job, "one", fromJournal)
      yield* TestClock.adjust("1 second")
      yield* second.idle
      assert.strictEqual(givenBack, 1)
      assert.deepStrictEqual(world.begun.length, 1)
      yield* first.stop(job)
    }))

  for (const outcome of every) {
    it.effect(`that ends as ${outcome._tag} is settled, told in order, acked, and leaves nothing`, () =>
      Effect.gen(function*() {
        const world = makeWorld()
        const job = makeJob("a")
        const script: Script = () => Stream.make(ready, output("x"), finished(outcome))
        const worker = yield* makeWorker(world, { name: "w1", script })
        yield* worker.deliver(job)
        yield* worker.idle
        assert.deepStrictEqual(toldOnce(world, job), ["Received", "Running", "Ended"])
        assert.deepStrictEqual(outcomes(world, job), [JSON.stringify(outcome)])
        assert.deepStrictEqual((yield* worker.journal.get(keyOf(job)))?.settlement?.outcome, outcome)
        assert.strictEqual(world.unacked.size, 0)
        assert.strictEqual(world.held, 0)
        assert.strictEqual(worker.desk.claims.size, 0)
        assert.strictEqual((yield* worker.journal.owed(10)).length, 0)
      }))
  }

  it.effect("with arguments the function does not take is rejected without a sandbox", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = { ...makeJob("a"), args: { word: 7 } }
      const worker = yield* makeWorker(world, { name: "w1" })
      yield* worker.deliver(job)
      yield* worker.idle
      const record = yield* worker.journal.get(keyOf(job))
      assert.strictEqual(record?.settlement?.outcome._tag, "Rejected")
      assert.strictEqual(world.begun.length, 0)
      assert.strictEqual(world.unacked.size, 0)
    }))

  it.effect("that asks for more than its class gives is rejected, naming the limit", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a", { memoryBytes: 2 ** 40 })
      const worker = yield* makeWorker(world, { name: "w1" })
      yield* worker.deliver(job)
      yield* worker.idle
      assert.include(outcomes(world, job)[0], "memoryBytes")
    }))

  it.effect("whose log cannot be written ends as SandboxFailed with the reason, and its sandbox goes", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a")
      const worker = yield* makeWorker(world, { name: "w1", logFails: true })
      yield* worker.deliver(job)
      yield* worker.idle
      assert.include(outcomes(world, job)[0], "the disk is full")
      assert.strictEqual(world.held, 0)
    }))

  it.effect("waits for a journal that is away, and loses nothing", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a")
      const worker = yield* makeWorker(world, { name: "w1", journalFails: 6 })
      yield* worker.deliver(job)
      yield* TestClock.adjust("2 minutes")
      yield* worker.idle
      assert.deepStrictEqual(outcomes(world, job), [JSON.stringify(exited(0))])
      assert.strictEqual(world.unacked.size, 0)
    }))

  it.effect("is acked only after its outcome was confirmed", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a")
      const confirmed = yield* Deferred.make<void>()
      const worker = yield* makeWorker(world, { name: "w1", confirm: Deferred.await(confirmed) })
      yield* worker.deliver(job)
      yield* Effect.repeat(Effect.yieldNow, { times: 200 })
      assert.include(toldOnce(world, job), "Ended")
      assert.strictEqual(world.unacked.size, 1)
      // Neither of the earlier messages is confirmed: all three are in the outbox.
      assert.strictEqual((yield* worker.journal.owed(10)).length, 3)
      yield* Deferred.succeed(confirmed, undefined)
      yield* worker.idle
      assert.strictEqual(world.unacked.size, 0)
      assert.strictEqual(world.told.length, 3)
    }))

  it.effect("whose telling takes longer than its lease has lost nothing: it was settled, and is acked in the end", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const confirmed = yield* Deferred.make<void>()
      const worker = yield* makeWorker(world, { name: "w1", confirm: Deferred.await(confirmed) })
      yield* Effect.forkChild(worker.keep, { startImmediately: true })
      yield* worker.deliver(makeJob("a"))
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual((yield* worker.journal.owed(10)).length, 3)
      yield* Deferred.succeed(confirmed, undefined)
      yield* worker.idle
      yield* Effect.repeat(Effect.yieldNow, { times: 50 })
      assert.strictEqual(world.unacked.size, 0)
      assert.strictEqual((yield* worker.journal.owed(10)).length, 0)
    }))

  it.effect("whose early message is confirmed while its outcome is written down is not told it twice", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a")
      const confirmed = yield* Deferred.make<void>()
      const worker = yield* makeWorker(world, {
        name: "w1",
        confirm: Deferred.await(confirmed),
        settling: Effect.andThen(Deferred.succeed(confirmed, undefined), Effect.repeat(Effect.yieldNow, { times: 50 }))
      })
      yield* worker.deliver(job)
      yield* worker.idle
      assert.deepStrictEqual(world.told.map(({ event }) => event._tag), ["Received", "Running", "Ended"])
    }))

  it.effect("is not told twice by a sweep of the outbox that comes while it is settled", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const sweeps: Array<Effect.Effect<unknown>> = []
      const worker = yield* makeWorker(world, {
        name: "w1",
        settled: Effect.suspend(() => Effect.all(sweeps))
      })
      sweeps.push(Effect.orDie(worker.sweep))
      yield* worker.deliver(makeJob("a"))
      yield* worker.idle
      assert.deepStrictEqual(world.told.map(({ event }) => event._tag), ["Received", "Running", "Ended"])
      assert.strictEqual(yield* worker.sweep, 0)
    }))

  it.effect("that is delivered twice at once runs once, and both deliveries are acked", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a")
      const worker = yield* makeWorker(world, {
        name: "w1",
        script: () => Stream.tap(hello(null as never, null as never), () => Effect.sleep("1 second"))
      })
      yield* worker.deliver(job)
      yield* Effect.repeat(Effect.yieldNow, { times: 50 })
      yield* worker.deliver(job)
      yield* TestClock.adjust("10 seconds")
      yield* worker.idle
      assert.strictEqual(world.begun.length, 1)
      assert.strictEqual(world.steps.filter((step) => step === "before ack").length, 2)
    }))

  it.effect("that is delivered again after its end is answered again and not run", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a")
      const worker = yield* makeWorker(world, { name: "w1" })
      yield* worker.deliver(job)
      yield* worker.idle
      const before = world.told.length
      yield* worker.deliver(job)
      yield* worker.idle
      assert.strictEqual(world.begun.length, 1)
      assert.include(world.told.slice(before).map(({ event }) => event._tag), "Ended")
      assert.strictEqual(outcomes(world, job).length, 1)
    }))

  it.effect("with another's id is refused and dead-lettered; the other one is not touched", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a")
      const worker = yield* makeWorker(world, { name: "w1" })
      yield* worker.deliver(job)
      yield* worker.idle
      yield* worker.deliver({ ...job, args: { word: "other" } }, "two")
      yield* worker.idle
      assert.strictEqual(world.begun.length, 1)
      assert.strictEqual(world.dead.length, 1)
      assert.strictEqual((yield* worker.journal.get(keyOf(job)))?.settlement?.outcome._tag, "Exited")
    }))

  for (const [how, release] of [["dies", Effect.die("broken finalizer")], ["hangs", Effect.never]] as const) {
    it.effect(`whose finalizer ${how} has its outcome all the same, and its slot comes back`, () =>
      Effect.gen(function*() {
        const world = makeWorld()
        const job = makeJob("a")
        const worker = yield* makeWorker(world, { name: "w1", release, config: { slots: 1 } })
        yield* worker.deliver(job)
        yield* TestClock.adjust("1 minute")
        yield* worker.idle
        assert.deepStrictEqual(outcomes(world, job), [JSON.stringify(exited(0))])
        assert.strictEqual(world.unacked.size, 0)
      }))
  }

  it.effect("that ends in a defect of ours is SandboxFailed, and the next job runs", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const script: Script = ({ job }) => job.id === "a" ? Stream.die("broken") : hello(null as never, null as never)
      const worker = yield* makeWorker(world, { name: "w1", script })
      yield* worker.deliver(makeJob("a"))
      yield* worker.deliver(makeJob("b"))
      yield* worker.idle
      assert.include(outcomes(world, makeJob("a"))[0], "internal error")
      assert.deepStrictEqual(outcomes(world, makeJob("b")), [JSON.stringify(exited(0))])
    }))

  it.effect("more jobs than slots wait their turn; no more than the slots run", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      let most = 0
      const script: Script = () =>
        Stream.tap(Stream.make(ready, finished(exited(0))), () =>
          Effect.andThen(Effect.sync(() => most = Math.max(most, world.held)), Effect.sleep("1 second")))
      const worker = yield* makeWorker(world, { name: "w1", script, config: { slots: 3, waiting: 100 } })
      yield* Effect.forEach(
        Array.from({ length: 20 }, (_, n) =>
          makeJob(`j${n}`)),
        (job) => worker.deliver(job)
      )
      yield* TestClock.adjust("1 minute")
      yield* worker.idle
      assert.strictEqual(most, 3)
      assert.strictEqual(world.unacked.size, 0)
    }))

  it.effect("given back at a drain is free for others only when its sandbox is gone", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a")
      const worker = yield* makeWorker(world, { name: "w1", script: endless, release: Effect.sleep("3 seconds") })
      yield* worker.deliver(job)
      yield* TestClock.adjust("1 second")
      const ending = yield* Effect.forkChild(worker.abort, { startImmediately: true })
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual((yield* worker.journal.get(keyOf(job)))?.state, "running")
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(ending)
      assert.strictEqual(world.held, 0)
      assert.isUndefined(yield* worker.journal.get(keyOf(job)))
    }))

  it.effect("given back at a drain counts no attempt and runs elsewhere", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a")
      const first = yield* makeWorker(world, { name: "w1", script: endless })
      yield* first.deliver(job)
      yield* Effect.repeat(Effect.yieldNow, { times: 100 })
      yield* first.abort
      assert.strictEqual(world.held, 0)
      const second = yield* makeWorker(world, { name: "w2" })
      yield* second.deliver(job)
      yield* second.idle
      const record = yield* second.journal.get(keyOf(job))
      assert.strictEqual(record?.settlement?.outcome._tag, "Exited")
      assert.strictEqual(record?.settlement?.attempt, 1)
    }))
})

describe("a delivery that asks for it", () => {
  it.effect("is tried again instead of settled, each try with attempts of its own", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a")
      const failing: Script = ({ attempt }) => Stream.make(ready, finished(exited(attempt === 1 ? 1 : 0)))
      const worker = yield* makeWorker(world, { name: "w1", script: failing, config: { maxAttempts: 1 } })
      const tries: Array<string> = []
      const retry = (outcome: Outcome) => Effect.sync(() => tries.push(outcome._tag) < 2)
      yield* worker.deliver(job, "one", { attempt: 1, retry })
      yield* worker.idle
      assert.strictEqual(outcomes(world, job).length, 0)
      assert.strictEqual(world.unacked.size, 0)
      yield* worker.deliver(job, "one", { attempt: 2, retry })
      yield* worker.idle
      assert.deepStrictEqual(outcomes(world, job), [JSON.stringify(exited(0))])
      assert.strictEqual((yield* worker.journal.get(keyOf(job)))?.settlement?.attempt, 2)
      assert.deepStrictEqual(tries, ["Exited", "Exited"])
    }))

  it.effect("and may not be held as long as its job may run is acked at the claim and owned by the journal", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a", { wallMs: 60_000 })
      const worker = yield* makeWorker(world, { name: "w1", script: endless })
      yield* worker.deliver(job, "one", { hold: { limitMs: 30_000, journalMayOwn: true } })
      yield* Effect.repeat(Effect.yieldNow, { times: 200 })
      assert.strictEqual(world.unacked.size, 0)
      assert.strictEqual(world.held, 1)
      yield* worker.stop(job)
      yield* worker.idle
      assert.include(outcomes(world, job)[0], "Stopped")
    }))

  it.effect("and may not be held that long is rejected where the journal may not own it", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a", { wallMs: 60_000 })
      const worker = yield* makeWorker(world, { name: "w1" })
      yield* worker.deliver(job, "one", { hold: { limitMs: 30_000, journalMayOwn: false } })
      yield* worker.idle
      assert.include(outcomes(world, job)[0], "held for 30000 ms")
      assert.strictEqual(world.begun.length, 0)
    }))
})

describe("a stop", () => {
  it.effect("before there is a slot ends the job as Stopped without a sandbox", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const worker = yield* makeWorker(world, { name: "w1", script: endless, config: { slots: 1 } })
      yield* worker.deliver(makeJob("first"))
      yield* Effect.repeat(Effect.yieldNow, { times: 50 })
      yield* worker.deliver(makeJob("second"))
      yield* Effect.repeat(Effect.yieldNow, { times: 50 })
      assert.isTrue(yield* worker.stop(makeJob("second")))
      assert.include(outcomes(world, makeJob("second"))[0], "Stopped")
      assert.strictEqual(world.begun.length, 1)
      yield* worker.stop(makeJob("first"))
      yield* worker.idle
    }))

  it.effect("while it runs gives the grace, once, however often it is asked for", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a")
      const worker = yield* makeWorker(world, { name: "w1", script: endless })
      yield* worker.deliver(job)
      yield* Effect.repeat(Effect.yieldNow, { times: 50 })
      const stops = yield* Effect.forEach([1, 2, 3], () =>
        Effect.forkChild(worker.stop(job, 5000), { startImmediately: true }))
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(outcomes(world, job).length, 0)
      yield* TestClock.adjust("1 second")
      yield* Fiber.joinAll(stops)
      assert.deepStrictEqual(outcomes(world, job), [JSON.stringify(Outcome.cases.Stopped.make({ reason: "enough" }))])
      assert.strictEqual(world.held, 0)
    }))

  it.effect("of a job that is not here says so", () =>
    Effect.gen(function*() {
      const worker = yield* makeWorker(makeWorld(), { name: "w1" })
      assert.isFalse(yield* worker.stop(makeJob("nobody")))
    }))

  it.effect("at every moment of a job's life ends it in exactly one outcome with nothing held", () =>
    Effect.gen(function*() {
      const slow: Script = () => Stream.tap(hello(null as never, null as never), () => Effect.sleep("1 second"))
      for (let moment = 0; moment < 60; moment++) {
        const world = makeWorld()
        const job = makeJob("a")
        const worker = yield* makeWorker(world, { name: "w1", script: moment % 2 === 0 ? slow : endless })
        yield* Effect.forkChild(worker.deliver(job), { startImmediately: true })
        for (let turn = 0; turn < moment; turn++) yield* Effect.yieldNow
        const stop = yield* Effect.forkChild(worker.stop(job), { startImmediately: true })
        yield* TestClock.adjust("20 seconds")
        yield* Fiber.join(stop)
        // A stop that came before the job was in hand changed nothing: stop what is there now.
        yield* worker.stop(job)
        yield* worker.idle
        assert.strictEqual(outcomes(world, job).length, 1, `moment ${moment}`)
        assert.strictEqual(world.held, 0, `moment ${moment}`)
        assert.strictEqual(world.unacked.size, 0, `moment ${moment}`)
      }
    }))
})

const utf8 = new TextEncoder()

/** Leaves each file that was asked for, with this in it; one called `absent` is not there. */
const leaving = (content: string, outcome: Outcome = exited(0)): Script => ({ program }) =>
  Stream.fromIterable<RunEvent>([
    { _tag: "Ready", place: "/fake", provisionMicros: 1000 },
    { _tag: "PhaseStarted", phase: "run" },
    { _tag: "PhaseEnded", phase: "run", usage: { phase: "run", wallMicros: 5 } },
    ...program.artefacts.map((path): RunEvent =>
      path === "absent"
        ? { _tag: "ArtefactMissing", path, reason: "there is no such file" }
        : { _tag: "Artefact", path, content: utf8.encode(content) }
    ),
    finished(outcome)
  ])

const asking = (artefacts: ReadonlyArray<string>) => ({ ...makeJob("a"), args: { word: "hello", artefacts } })

/** What was written down of its files, with their contents as they are kept. */
const filesOf = Effect.fnUntraced(
  function*(world: World, { journal }: { readonly journal: Journal["Service"] }, job: Job) {
    const settlement = (yield* journal.get(keyOf(job)))?.settlement
    const kept = yield* Effect.forEach(settlement?.artefacts ?? [], (artefact) =>
      Effect.map(
        world.artefacts.read(keyOf(job), artefact, { offset: 0, maxBytes: 100 }),
        (bytes) => `${artefact.path}: ${new TextDecoder().decode(bytes)}`
      ))
    return { kept, missing: settlement?.artefactsMissing ?? [] }
  }
)

describe("the artefacts of a job", () => {
  it.effect("are written down and told with its end, whatever that was, and said again to who asks again", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = asking(["x", "absent", "d/y"])
      const late = Outcome.cases.TimedOut.make({ phase: "run", limit: "wall", limitMs: 5 })
      const worker = yield* makeWorker(world, { name: "w1", script: leaving("left", late) })
      yield* worker.deliver(job)
      yield* worker.idle
      assert.deepStrictEqual(outcomes(world, job), [JSON.stringify(late)])
      assert.deepStrictEqual(yield* filesOf(world, worker, job), {
        kept: ["x: left", "d/y: left"],
        missing: [{ path: "absent", reason: "there is no such file" }]
      })
      yield* worker.deliver(job)
      yield* worker.idle
      const told = world.told.flatMap(({ event }) => event._tag === "Ended" ? [event] : [])
      assert.strictEqual(told.length, 2)
      const { settlement } = (yield* worker.journal.get(keyOf(job))) ?? {}
      for (const { artefacts, artefactsMissing } of told) {
        assert.deepStrictEqual(artefacts, settlement?.artefacts)
        assert.deepStrictEqual(artefactsMissing, settlement?.artefactsMissing)
      }
    }))

  it.effect("that find no room are missing for that reason, and change nothing else", () =>
    Effect.gen(function*() {
      const reason = "it could not be kept: the disk is full"
      for (
        const [artefactsFail, kept, missing] of [
          ["artefact", ["x: left"], [{ path: "fails", reason }]],
          ["keep", [], [{ path: "x", reason }, { path: "fails", reason }]]
        ] as const
      ) {
        const world = makeWorld()
        const job = asking(["x", "fails"])
        const worker = yield* makeWorker(world, { name: "w1", script: leaving("left"), artefactsFail })
        yield* worker.deliver(job)
        yield* worker.idle
        assert.deepStrictEqual(outcomes(world, job), [JSON.stringify(exited(0))])
        assert.deepStrictEqual(yield* filesOf(world, worker, job), { kept: [...kept], missing: [...missing] })
      }
    }))

  it.effect("of a try that is not the last are nobody's, and those of the last are its own", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = asking(["x"])
      const first = yield* makeWorker(world, { name: "w1", script: leaving("one", exited(1)) })
      yield* first.deliver(job, "one", { retry: () => Effect.succeed(true) })
      yield* first.idle
      assert.include(world.steps, "after artefact")
      assert.notInclude(world.steps, "after keep")
      assert.deepStrictEqual(outcomes(world, job), [])
      const second = yield* makeWorker(world, { name: "w2", script: leaving("two") })
      yield* second.deliver(job, "one", { attempt: 2, retry: () => Effect.succeed(false) })
      yield* second.idle
      assert.deepStrictEqual(yield* filesOf(world, second, job), { kept: ["x: two"], missing: [] })
    }))

  it.effect("of a run that ended before any was looked for are missing, each", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = asking(["x"])
      const worker = yield* makeWorker(world, { name: "w1", script: hello })
      yield* worker.deliver(job)
      yield* worker.idle
      const { kept, missing } = yield* filesOf(world, worker, job)
      assert.deepStrictEqual(kept, [])
      assert.deepStrictEqual(missing.map(({ path }) => path), ["x"])
    }))

  it.effect("that no worker brings back reject it before anything is held", () =>
    Effect.gen(function*() {
      const names = (count: number) => Array.from({ length: count }, (_, n) => `f${n}`)
      for (
        const [wanted, config] of [
          [["x"], { artefactBytes: 0 }],
          [names(1001), {}],
          [["x", "x"], {}],
          [["a\nb"], {}],
          [names(900).map((name) => name.padEnd(100, "x")), {}]
        ] as const
      ) {
        const world = makeWorld()
        const job = asking(wanted)
        const worker = yield* makeWorker(world, { name: "w1", script: leaving("left"), config })
        yield* worker.deliver(job)
        yield* worker.idle
        assert.include(outcomes(world, job)[0], "Rejected")
        assert.deepStrictEqual(world.begun, [])
      }
    }))
})

describe("a worker's death", () => {
  it.effect("between any two steps of a job that leaves files leaves those of the attempt that was settled", () =>
    Effect.gen(function*() {
      const job = asking(["x", "absent"])
      const alive = makeWorld()
      const undisturbed = yield* makeWorker(alive, { name: "w0", script: leaving("one") })
      yield* undisturbed.deliver(job)
      yield* undisturbed.idle
      assert.includeMembers([...alive.steps], ["before artefact", "after keep", "before settle"])
      const answers = new Set<string>()
      for (let at = 1; at <= alive.steps.length; at++) {
        const where = `death at step ${at}, ${alive.steps[at - 1]}`
        const world = makeWorld()
        const first = yield* makeWorker(world, { name: "w1", script: leaving("one"), diesAt: at })
        yield* Effect.forkDetach(first.deliver(job), { startImmediately: true })
        yield* first.died
        world.held = 0
        world.running.clear()
        const second = yield* makeWorker(world, { name: "w2", script: leaving("two") })
        yield* second.journal.abandon((yield* first.journal.holders)[0] ?? ("w1" as never))
        yield* second.sweep
        for (const redelivered of Array.from(world.unacked.values())) yield* second.deliver(redelivered)
        yield* second.idle
        yield* Effect.repeat(Effect.yieldNow, { times: 100 })
        const { kept, missing } = yield* filesOf(world, second, job)
        assert.deepStrictEqual(missing, [{ path: "absent", reason: "there is no such file" }], where)
        assert.strictEqual(kept.length, 1, where)
        assert.strictEqual(kept[0], world.begun.length === 2 ? "x: two" : kept[0], where)
        for (const answer of kept) answers.add(answer)
      }
      // Both happened: settled by the first before its death, and run again by the second after it.
      assert.deepStrictEqual([...answers].toSorted(), ["x: one", "x: two"])
    }))

  it.effect("after its files were kept, in its last attempt, leaves none of them", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = asking(["x"])
      const config = { maxAttempts: 1 }
      const alive = makeWorld()
      const undisturbed = yield* makeWorker(alive, { name: "w0", script: leaving("one"), config })
      yield* undisturbed.deliver(job)
      yield* undisturbed.idle
      const artefact = (yield* undisturbed.journal.get(keyOf(job)))?.settlement?.artefacts?.[0]
      if (artefact === undefined) return yield* Effect.die("nothing was left")
      const diesAt = alive.steps.indexOf("before settle") + 1
      const first = yield* makeWorker(world, { name: "w1", script: leaving("one"), config, diesAt })
      yield* Effect.forkDetach(first.deliver(job), { startImmediately: true })
      yield* first.died
      const range = { offset: 0, maxBytes: 10 }
      assert.strictEqual((yield* world.artefacts.read(keyOf(job), artefact, range)).length, 3)
      const second = yield* makeWorker(world, { name: "w2", config })
      for (const holder of yield* second.journal.holders) yield* second.journal.abandon(holder)
      yield* second.deliver(job)
      yield* second.idle
      assert.deepStrictEqual(outcomes(world, job), [JSON.stringify(Outcome.cases.Lost.make({ attempts: 1 }))])
      assert.strictEqual(
        (yield* Effect.flip(world.artefacts.read(keyOf(job), artefact, range)))._tag,
        "ArtefactNotFound"
      )
    }))

  const stepsOfALife = Effect.gen(function*() {
    const world = makeWorld()
    const worker = yield* makeWorker(world, { name: "w0" })
    yield* worker.deliver(makeJob("a"))
    yield* worker.idle
    return world.steps
  })

  it.effect("between any two steps of a job leaves one outcome, told at least once, and an empty queue", () =>
    Effect.gen(function*() {
      const steps = yield* stepsOfALife
      assert.isAbove(steps.length, 15)
      for (let at = 1; at <= steps.length; at++) {
        const where = `death at step ${at}, ${steps[at - 1]}`
        const world = makeWorld()
        const job = makeJob("a")
        const first = yield* makeWorker(world, { name: "w1", diesAt: at })
        yield* Effect.forkDetach(first.deliver(job), { startImmediately: true })
        yield* first.died
        // The kernel and the watchdog take what it held; the janitor ends its claims; the broker redelivers.
        world.held = 0
        world.running.clear()
        const second = yield* makeWorker(world, { name: "w2" })
        yield* second.journal.abandon((yield* first.journal.holders)[0] ?? ("w1" as never))
        yield* second.sweep
        for (const redelivered of Array.from(world.unacked.values())) yield* second.deliver(redelivered)
        yield* second.idle
        yield* Effect.repeat(Effect.yieldNow, { times: 100 })
        assert.strictEqual(world.unacked.size, 0, where)
        assert.deepStrictEqual(outcomes(world, job), [JSON.stringify(exited(0))], where)
        const told = toldOnce(world, job)
        assert.include(told, "Received", where)
        assert.include(told, "Running", where)
        assert.strictEqual(told.at(-1), "Ended", where)
        assert.isAtMost(world.begun.length, 2, where)
        assert.strictEqual(world.overlap, 1, where)
        assert.strictEqual((yield* second.journal.owed(10)).length, 0, where)
        assert.strictEqual(world.held, 0, where)
      }
    }))

  it.effect("in every attempt ends the job as Lost", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const job = makeJob("a")
      for (const name of ["w1", "w2"]) {
        const worker = yield* makeWorker(world, { name, script: endless, diesAt: 10 })
        yield* Effect.forkDetach(worker.deliver(job), { startImmediately: true })
        yield* Effect.raceFirst(worker.died, Effect.repeat(Effect.yieldNow, { times: 500 }))
        const { journal } = yield* makeWorker(world, { name: `${name}-janitor` })
        for (const holder of yield* journal.holders) yield* journal.abandon(holder)
      }
      const last = yield* makeWorker(world, { name: "w3" })
      yield* last.deliver(job)
      yield* last.idle
      assert.deepStrictEqual(outcomes(world, job), [JSON.stringify(Outcome.cases.Lost.make({ attempts: 2 }))])
      assert.strictEqual(world.begun.length, 2)
      assert.strictEqual(world.unacked.size, 0)
    }))
})
