/** Two workers without sandboxes at one broker in memory: what one has is asked for at the other. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Scope, Stream } from "effect"
import * as ControlLive from "../../src/actors/ControlLive.ts"
import * as Desk from "../../src/actors/Desk.ts"
import * as DiskWatch from "../../src/actors/DiskWatch.ts"
import * as Dispatcher from "../../src/actors/Dispatcher.ts"
import * as Outbox from "../../src/actors/Outbox.ts"
import { Amqp } from "../../src/layers/amqp/Amqp.ts"
import * as AmqpTest from "../../src/layers/amqp/AmqpTest.ts"
import { StokerAmqpClient } from "../../src/layers/amqpclient/StokerAmqpClient.ts"
import * as StokerAmqpClientLive from "../../src/layers/amqpclient/StokerAmqpClientLive.ts"
import { Artefacts } from "../../src/layers/artefacts/Artefacts.ts"
import * as ArtefactsMemory from "../../src/layers/artefacts/ArtefactsMemory.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import { Control } from "../../src/layers/control/Control.ts"
import * as ControlBrokered from "../../src/layers/control/ControlBrokered.ts"
import { Emitters } from "../../src/layers/emitter/Emitter.ts"
import * as EmitterTest from "../../src/layers/emitter/EmitterTest.ts"
import * as ExecutorTest from "../../src/layers/executor/ExecutorTest.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import * as DiskSpaceTest from "../../src/layers/host/DiskSpaceTest.ts"
import * as HostTest from "../../src/layers/host/HostTest.ts"
import * as Embedded from "../../src/layers/intake/Embedded.ts"
import * as StokerControl from "../../src/layers/intake/StokerControl.ts"
import { controlQueue } from "../../src/layers/intake/StokerTopology.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import * as LedgerMemory from "../../src/layers/ledger/LedgerMemory.ts"
import type { LogStream } from "../../src/layers/log/Log.ts"
import * as LogMemory from "../../src/layers/log/LogMemory.ts"
import { InstanceId, type JobKey, Owner } from "../../src/schemas/Ids.ts"
import { keyOf } from "../../src/schemas/Job.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import * as Sample from "../journal/samples.ts"
import { randomOf } from "../support/Random.ts"
import { say } from "../support/Say.ts"

const silent = Logger.layer([])
const enough = { reason: "enough", graceMs: 0 }

/** As large as it says, the same for each seed. */
const noise = (seed: number, size: number) => {
  const random = randomOf(seed)
  return Uint8Array.from({ length: size }, () => random(256))
}

/** Writes both streams in pieces of random size, now and then pausing, and goes on until it is stopped. */
const noisy = (bytes: Uint8Array, seed: number): ExecutorTest.Script => (_assignment, stop) => {
  const random = randomOf(seed)
  const pieces: Array<{ readonly stream: "stdout" | "stderr"; readonly bytes: Uint8Array }> = []
  for (let from = 0; from < bytes.length;) {
    const to = from + 1 + random(4000)
    pieces.push({ stream: random(3) === 0 ? "stderr" : "stdout", bytes: bytes.slice(from, to) })
    from = to
  }
  return Stream.make(
    { _tag: "Ready" as const, place: "/fake", provisionMicros: 1 },
    { _tag: "PhaseStarted" as const, phase: "run" as const }
  ).pipe(
    Stream.concat(
      Stream.mapEffect(
        Stream.fromIterable(pieces),
        (piece) => Effect.as(Effect.sleep(random(4) === 0 ? 5 : 0), { _tag: "Output" as const, ...piece })
      )
    ),
    Stream.concat(Stream.fromEffect(Effect.map(
      Deferred.await(stop),
      ({ reason }) => ExecutorTest.finished(Outcome.cases.Stopped.make({ reason }))
    )))
  )
}

/** One worker: its own log and files, on that journal. `die`: it says nothing any more, and its claims stand. */
const startWorker = Effect.fnUntraced(function*(
  name: string,
  { isTaking = true, script = noisy(noise(1, 0), 1), state = JournalMemory.makeState() }: {
    readonly state?: JournalMemory.JournalState
    readonly script?: ExecutorTest.Script
    readonly isTaking?: boolean
  } = {}
) {
  const instance = InstanceId.make(name)
  const context = yield* Layer.build(Layer.fresh(
    ControlLive.layer.pipe(
      Layer.provideMerge(Layer.mergeAll(Dispatcher.layer, DiskWatch.layer)),
      Layer.provideMerge(Layer.mergeAll(Outbox.layer, Desk.layer)),
      Layer.provideMerge(Layer.mergeAll(
        Layer.succeed(Emitters, [EmitterTest.make({ tells: () => false, onSent: () => undefined })]),
        Embedded.layer,
        Functions.layer([say]),
        ExecutorTest.layerTest(script)
      )),
      Layer.provideMerge(Layer.mergeAll(
        JournalMemory.layer(state),
        LogMemory.layerMemory,
        ArtefactsMemory.layerMemory,
        DiskSpaceTest.layerTest(),
        Layer.provideMerge(LedgerMemory.layerMemory, HostTest.layerTest({ instance: name })),
        Settings.layer({ ...standardConfig, slots: 4 })
      ))
    )
  ))
  const answering = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(answering, Exit.void))
  yield* StokerControl.make({ instance, user: "guest" }).pipe(Effect.provideContext(context), Scope.provide(answering))
  const { look } = yield* AmqpTest.AmqpTest
  yield* Effect.repeat(look(controlQueue(instance)), { until: (queue) => queue !== undefined })
  const { deliver } = Context.get(context, Dispatcher.Dispatcher)
  const { intake } = Context.get(context, Embedded.Embedded)
  if (isTaking) yield* Effect.forkScoped(Stream.runForEach(intake.deliveries, deliver))
  return {
    instance,
    control: Context.get(context, Control),
    artefacts: Context.get(context, Artefacts),
    journal: Context.get(context, Journal),
    die: Scope.close(answering, Exit.void)
  }
})

type Worker = Effect.Success<ReturnType<typeof startWorker>>

/** As that worker's doors have it. */
const doorOf = Effect.fnUntraced(function*({ control, instance }: Worker, listsOthers = true) {
  const client = StokerAmqpClientLive.layer({
    name: instance,
    userId: "guest",
    answerLimit: "1 second",
    brokerLimit: "2 seconds"
  })
  const context = yield* Layer.build(Layer.fresh(
    ControlBrokered.layer({ instance, listsOthers }).pipe(
      Layer.provide(Layer.merge(Layer.succeed(Control, control), client)),
      Layer.provide(Layer.succeed(Amqp, yield* Amqp))
    )
  ))
  return Context.get(context, Control)
})

const requestOf = (id: string, owner = "ann") => {
  const request = Sample.request(id)
  return { ...request, job: Sample.jobOf({ ...request.job, owner, function: "say", args: { word: id }, limits: {} }) }
}

const running = (control: Control["Service"], key: JobKey) =>
  control.status(key).pipe(Effect.repeat({ until: ({ state }) => state === "running" }))

/** Follows to the end, each read of another size and wait; gives the streams as they came. */
const follow = Effect.fnUntraced(function*(
  control: Control["Service"],
  key: JobKey,
  stream: LogStream,
  seed: number,
  onBytes: (total: number) => Effect.Effect<unknown> = () => Effect.void
) {
  const random = randomOf(seed)
  const pieces: Array<Uint8Array> = []
  let offset = 0
  let run: string | undefined
  while (true) {
    const slice = yield* control.read(key, {
      stream,
      offset,
      maxBytes: 1 + random(random(2) === 0 ? 100 : 20_000),
      waitMs: random(600),
      ...(run === undefined ? {} : { run })
    })
    for (const entry of slice.entries) {
      if (entry._tag === "Gap") return assert.fail("a gap")
      assert.strictEqual(entry.offset, offset)
      offset += entry.bytes.length
      pieces.push(entry.bytes)
    }
    assert.strictEqual(slice.next, offset)
    assert.strictEqual(slice.run, run ?? slice.run)
    run = slice.run
    yield* onBytes(offset)
    if (slice.end !== undefined) return { bytes: Buffer.concat(pieces), end: slice.end, run }
  }
})

const inMemory = (what: string, body: Effect.Effect<void, unknown, Amqp | AmqpTest.AmqpTest | Scope.Scope>) =>
  it.live(what, () => Effect.scoped(body).pipe(Effect.provide([Layer.fresh(AmqpTest.layerTest), silent])))

describe("a job of another worker", { timeout: 60_000 }, () => {
  inMemory(
    "with a journal of its own is seen, followed byte by byte, stopped, and read after its end",
    Effect.gen(function*() {
      const bytes = noise(7, 100_000)
      const far = yield* startWorker("far", { script: noisy(bytes, 3) })
      const door = yield* doorOf(yield* startWorker("near"))
      const { job, ...rest } = requestOf("a")
      const key = keyOf(job)
      yield* far.control.submit({ job, ...rest })
      yield* running(far.control, key)
      const seen = yield* door.status(key)
      assert.deepInclude(seen, { state: "running", instance: far.instance, attempt: 1, isTold: true })
      assert.strictEqual(seen.startedAtMs, (yield* far.control.status(key)).startedAtMs)
      assert.deepInclude(seen.request.job, { id: job.id, owner: job.owner, function: job.function })

      const all = yield* Deferred.make<void>()
      const following = yield* Effect.forEach(
        ["all", "stdout", "stderr", "all"] as const,
        (stream, index) =>
          Effect.forkChild(
            follow(door, key, stream, index, (total) =>
              total === bytes.length ? Deferred.succeed(all, undefined) : Effect.void)
          )
      )
      yield* Deferred.await(all)
      const stopped = yield* door.stop(key, enough)
      assert.deepStrictEqual(stopped.settlement?.outcome, Outcome.cases.Stopped.make({ reason: "enough" }))
      const streams = ["all", "stdout", "stderr", "all"] as const
      for (const [index, fiber] of following.entries()) {
        const heard = yield* Fiber.join(fiber)
        const there = yield* follow(far.control, key, streams[index] ?? "all", 99)
        assert.isTrue(heard.bytes.equals(there.bytes), streams[index])
        assert.deepStrictEqual({ end: heard.end, run: heard.run }, { end: there.end, run: there.run })
      }
      // Both streams come in the order in which they were written.
      assert.isTrue((yield* follow(door, key, "all", 5)).bytes.equals(bytes))
      assert.deepStrictEqual((yield* door.stop(key, { reason: "again", graceMs: 0 })).settlement, stopped.settlement)
      assert.strictEqual((yield* door.status(key)).state, "ended")
    })
  )

  inMemory(
    "in a shared journal is stopped there, and its settled record comes back; its output is read there",
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      const bytes = noise(8, 30_000)
      const far = yield* startWorker("far", { state, script: noisy(bytes, 4) })
      const near = yield* startWorker("near", { state, isTaking: false })
      const door = yield* doorOf(near, false)
      const request = requestOf("a")
      const key = keyOf(request.job)
      yield* near.control.submit(request)
      yield* running(near.control, key)
      // By itself a worker can stop nothing of another one.
      assert.strictEqual((yield* near.control.stop(key, enough)).state, "running")
      const all = yield* Deferred.make<void>()
      const following = yield* Effect.forkChild(
        follow(door, key, "all", 6, (total) => total === bytes.length ? Deferred.succeed(all, undefined) : Effect.void)
      )
      yield* Deferred.await(all)
      const stopped = yield* door.stop(key, enough)
      assert.strictEqual(stopped.settlement?.outcome._tag, "Stopped")
      assert.deepStrictEqual(stopped.request, request)
      assert.isUndefined(stopped.isTold)
      assert.isTrue((yield* Fiber.join(following)).bytes.equals(bytes))
      assert.strictEqual((yield* far.control.status(key)).state, "ended")
      assert.isTrue((yield* follow(door, key, "all", 7)).bytes.equals(bytes))
    })
  )

  inMemory(
    "whose worker dies in mid-follow is told by that worker's name, never as an empty log",
    Effect.gen(function*() {
      for (const isShared of [false, true]) {
        const state = isShared ? JournalMemory.makeState() : undefined
        const names = isShared ? ["far2", "near2"] : ["far1", "near1"]
        const far = yield* startWorker(names[0] ?? "", {
          script: noisy(noise(9, 20_000), 5),
          ...(state === undefined ? {} : { state })
        })
        const near = yield* startWorker(names[1] ?? "", { isTaking: false, ...(state === undefined ? {} : { state }) })
        const door = yield* doorOf(near)
        const request = requestOf(`dies-${isShared}`)
        const key = keyOf(request.job)
        yield* far.control.submit(request)
        yield* running(far.control, key)
        const following = follow(door, key, "all", 8, (total) => total === 20_000 ? far.die : Effect.void)
        const away = yield* Effect.flip(following)
        if (away._tag !== "WorkerAway") return assert.fail(away._tag)
        assert.strictEqual(away.instance, far.instance)
        assert.match(away.message, new RegExp(`lies on the host of worker ${far.instance}, which does not answer`))
        if (!isShared) continue
        const unstopped = yield* Effect.flip(door.stop(key, enough))
        assert.match(unstopped.message, new RegExp(`runs on worker ${far.instance}, which does not answer`))
        assert.strictEqual((yield* door.status(key)).state, "running")
      }
    })
  )

  inMemory(
    "leaves files that are brought from there; what it did not leave is not found",
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      const far = yield* startWorker("far", { state, isTaking: false })
      const door = yield* doorOf(yield* startWorker("near", { state, isTaking: false }))
      const request = requestOf("a")
      const key = keyOf(request.job)
      const content = noise(10, 50_000)
      const writer = yield* far.artefacts.open(key)
      const artefacts = [yield* writer.add("out.bin", content)]
      yield* writer.keep
      const claim = yield* far.journal.claim(request, { instance: far.instance, leaseMs: 60_000, maxAttempts: 2 })
      if (claim._tag !== "Granted") return assert.fail(claim._tag)
      yield* far.journal.settle(claim.claim, { ...Sample.settlement(1), artefacts }, [])
      const whole: Array<Uint8Array> = []
      for (let offset = 0; offset < content.length;) {
        const piece = yield* door.artefact(key, "out.bin", { offset, maxBytes: 12_345 })
        assert.deepStrictEqual(piece.artefact, artefacts[0])
        whole.push(piece.bytes)
        offset += piece.bytes.length
      }
      assert.isTrue(Buffer.concat(whole).equals(content))
      const range = { offset: 0, maxBytes: 10 }
      assert.strictEqual((yield* Effect.flip(door.artefact(key, "other", range)))._tag, "ArtefactNotFound")
      yield* far.die
      const away = yield* Effect.flip(door.artefact(key, "out.bin", range))
      assert.strictEqual(away._tag, "WorkerAway")
    })
  )

  inMemory(
    "that nobody knows, or that belongs to another owner, is not found; without a broker that is said",
    Effect.gen(function*() {
      const far = yield* startWorker("far")
      const near = yield* startWorker("near")
      const door = yield* doorOf(near)
      const { job, ...rest } = requestOf("a")
      yield* far.control.submit({ job, ...rest })
      yield* running(far.control, keyOf(job))
      const foreign = { ...keyOf(job), owner: Owner.make("eve") }
      const reading = { stream: "all", offset: 0, maxBytes: 10, waitMs: 0 } as const
      assert.strictEqual((yield* Effect.flip(door.status(foreign)))._tag, "JobNotFound")
      assert.strictEqual((yield* Effect.flip(door.stop(foreign, enough)))._tag, "JobNotFound")
      assert.strictEqual((yield* Effect.flip(door.read(foreign, reading)))._tag, "LogNotFound")
      assert.strictEqual((yield* far.control.status(keyOf(job))).state, "running")
      yield* (yield* AmqpTest.AmqpTest).disconnect
      assert.strictEqual((yield* Effect.flip(door.status(foreign)))._tag, "WorkerAway")
      // What is here is answered as ever.
      const mine = requestOf("mine")
      yield* near.control.submit(mine)
      yield* running(door, keyOf(mine.job))
      assert.strictEqual((yield* door.stop(keyOf(mine.job), enough)).state, "ended")
    })
  )

  inMemory(
    "is in the first page of a list, newest first and once; further pages are of our own journal",
    Effect.gen(function*() {
      const far = yield* startWorker("far", { isTaking: false })
      const near = yield* startWorker("near", { isTaking: false })
      const door = yield* doorOf(near)
      for (const [index, id] of ["a", "b", "c", "d", "e", "f"].entries()) {
        yield* (index % 2 === 0 ? near : far).control.submit(requestOf(id))
        yield* Effect.sleep(5)
      }
      yield* far.control.submit(requestOf("e"))
      yield* far.control.submit(requestOf("bobs", "bob"))
      const idsOf = (jobs: Effect.Success<ReturnType<typeof door.list>>) =>
        jobs.map(({ request: { job } }) => String(job.id))
      assert.deepStrictEqual(idsOf(yield* door.list({ owner: "ann", limit: 10 })), ["f", "e", "d", "c", "b", "a"])
      assert.deepStrictEqual(idsOf(yield* door.list({ limit: 2 })), ["bobs", "f"])
      assert.deepStrictEqual(idsOf(yield* door.list({ id: "bobs", limit: 2 })), ["bobs"])
      assert.deepStrictEqual(idsOf(yield* door.list({ function: "none", limit: 2 })), [])
      // Every job of our own is on one page, whatever the size of pages.
      for (const limit of [1, 2, 3, 4]) {
        const own: Array<string> = []
        let page = yield* door.list({ owner: "ann", limit })
        while (page.length > 0) {
          own.push(...idsOf(page.filter(({ isTold }) => isTold !== true)))
          const last = page.at(-1)
          page = last === undefined ? [] : yield* door.list({ owner: "ann", limit, before: last.cursor })
        }
        assert.deepStrictEqual(own, ["e", "c", "a"], `pages of ${limit}`)
      }
    })
  )

  inMemory(
    "a user the broker vouches for is told of its own jobs, however many newer ones others have",
    Effect.gen(function*() {
      const far = yield* startWorker("far", { isTaking: false })
      yield* far.control.submit(requestOf("hers", "alice"))
      for (const id of ["x", "y", "z"]) yield* far.control.submit(requestOf(id, "bob"))
      const client = Context.get(
        yield* Layer.build(StokerAmqpClientLive.layer({ name: "alice", userId: "alice", answerLimit: "1 second" })),
        StokerAmqpClient
      )
      assert.deepStrictEqual((yield* client.list({ limit: 2 })).map(({ id }) => String(id)), ["hers"])
      assert.deepStrictEqual(yield* client.list({ owner: Owner.make("bob"), limit: 2 }), [])
    })
  )
})
