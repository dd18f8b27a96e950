/** A worker with things of the program's own, in place of its standard ones and beside them. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Schema, Stream } from "effect"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { expectTypeOf } from "vitest"
import {
  artefactPieces,
  Control,
  Direct,
  DuplicateName,
  Functions,
  Ids,
  Job,
  Journal,
  layerApi,
  layerWorker,
  Log,
  Outcome,
  requestHash,
  type WorkerServices
} from "../../src/index.ts"
import * as ArtefactsMemory from "../../src/layers/artefacts/ArtefactsMemory.ts"
import * as ExecutorTest from "../../src/layers/executor/ExecutorTest.ts"
import type { Intake } from "../../src/layers/intake/Intake.ts"
import * as IntakeTest from "../../src/layers/intake/IntakeTest.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import * as LogMemory from "../../src/layers/log/LogMemory.ts"
import * as SandboxTest from "../../src/layers/sandbox/SandboxTest.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { EmitterTest, layerWorkerTest } from "../../src/testing.ts"
import { say } from "../support/Say.ts"
import { Tree } from "../support/Tree.ts"

const jobOf = (name: string, args: Job.Job["args"]): Job.Job => ({
  intake: Ids.IntakeName.make("direct"),
  owner: Ids.Owner.make("local"),
  id: Ids.JobId.make("one"),
  function: Ids.FunctionName.make(name),
  args,
  limits: {}
})

/** Runs it through the program's own door, and gives its outcome. */
const outcomeOf = Effect.fnUntraced(function*(job: Job.Job) {
  const parted = yield* (yield* Direct).submit({ job, hash: requestHash(job), reply: null })
  assert.deepStrictEqual(yield* parted, { _tag: "Settled" })
  return (yield* (yield* Control).status(Job.keyOf(job))).settlement?.outcome
})

const quiet = EmitterTest.make({ name: "mail", tells: () => false, onSent: () => undefined })
const intake = (name: string) => Effect.map(IntakeTest.make(name), (made) => made.intake)

describe("the files of a job", () => {
  it.effect("are read by the program around the worker, whole or a piece, by the names it asked for", () =>
    Effect.gen(function*() {
      const content = Uint8Array.from({ length: 3_000_000 }, (_, index) => (index * 11) & 255)
      const script: ExecutorTest.Script = ({ program }) =>
        Stream.fromIterable([
          ...program.artefacts.map((path) => ({ _tag: "Artefact" as const, path, content })),
          ExecutorTest.finished(Outcome.Outcome.cases.Exited.make({ phase: "run", code: 3 }))
        ])
      yield* Effect.gen(function*() {
        const job = jobOf("say", { word: "hello", artefacts: ["d/x"] })
        assert.strictEqual((yield* outcomeOf(job))?._tag, "Exited")
        const control = yield* Control
        const piece = yield* control.artefact(job, "d/x", { offset: 1_000_000, maxBytes: 4 })
        assert.deepStrictEqual([...piece.bytes], [...content.subarray(1_000_000, 1_000_004)])
        assert.deepInclude(piece.artefact, { path: "d/x", bytes: 3_000_000 })
        const all = yield* Stream.runCollect(artefactPieces((range) => control.artefact(job, "d/x", range)))
        assert.isTrue(Buffer.from(content).equals(Buffer.concat(all)))
        const other = yield* Effect.flip(control.artefact(job, "x", { offset: 0, maxBytes: 1 }))
        assert.strictEqual(other._tag, "ArtefactNotFound")
        const stranger = { ...job, id: Ids.JobId.make("two") }
        assert.strictEqual(
          (yield* Effect.flip(control.artefact(stranger, "d/x", { offset: 0, maxBytes: 1 })))._tag,
          "JobNotFound"
        )
      }).pipe(Effect.provide(layerWorkerTest({ functions: [say], script })))
    }))
})

describe("names", () => {
  const twice = [
    ["function", "say", layerWorkerTest({ functions: [say, say] })],
    ["emitter", "mail", layerWorkerTest({ doors: Effect.succeed({ emitters: [quiet, quiet] }) })],
    [
      "intake",
      "mine",
      layerWorkerTest({ doors: Effect.all({ intakes: Effect.all([intake("mine"), intake("mine")]) }) })
    ],
    ["intake", "embedded", layerWorkerTest({ doors: Effect.all({ intakes: Effect.all([intake("embedded")]) }) })],
    ["intake", "direct", layerWorkerTest({ doors: Effect.all({ intakes: Effect.all([intake("direct")]) }) })],
    [
      "sandbox class",
      "oci",
      layerWorkerTest({
        config: { ...standardConfig, classes: [standardClass("oci", "oci"), standardClass("oci", "process")] }
      })
    ]
  ] as const
  for (const [kind, name, worker] of twice) {
    it.effect(`let no worker start that has two of ${kind} ${name}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Effect.scoped(Layer.build(worker)))
        assert.instanceOf(error, DuplicateName)
        assert.deepStrictEqual([error.kind, error.name], [kind, name])
        assert.match(error.message, /there are two of that name\. Give one of them another name/)
      }))
  }

  it.effect("may be a closed door's", () =>
    Effect.gen(function*() {
      const doors = Effect.all({ intakes: Effect.all([intake("embedded")]) })
      yield* Effect.scoped(Layer.build(layerWorkerTest({ embedded: false, doors })))
    }))
})

describe("functions", () => {
  it.effect("that are given are all there are", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual((yield* Functions).definitions.map(({ name }) => `${name}`), ["say"])
      const refused = yield* outcomeOf(jobOf("code", { language: "python", source: "" }))
      assert.include(Outcome.describe(refused ?? Outcome.Outcome.cases.Lost.make({ attempts: 0 })), "Use one of: say.")
    }).pipe(Effect.provide(layerWorkerTest({ functions: [say] }))))

  it.effect("are code and command when none are given", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* outcomeOf(jobOf("command", { argv: ["true"] })))?._tag, "Exited")
      const [run] = yield* (yield* ExecutorTest.ExecutorTest).begun
      assert.deepStrictEqual(run?.program.phases[0].argv, ["true"])
    }).pipe(Effect.provide(layerWorkerTest())))
})

/** Something of the program that its door needs. */
class Mailbox extends Context.Service<Mailbox, { readonly open: Effect.Effect<Intake> }>()("test/Mailbox") {}
class NoMail extends Schema.TaggedError<NoMail>()("NoMail", {}) {}

const mailDoors = Effect.gen(function*() {
  const mailbox = yield* Mailbox
  const { queued } = yield* Journal
  yield* Effect.addFinalizer(() => Effect.void)
  if ((yield* Effect.orElseSucceed(queued(1), () => ({ jobs: [] }))).jobs.length > 0) return yield* new NoMail()
  return { intakes: [yield* mailbox.open], emitters: [quiet] }
})

describe("doors", () => {
  it.effect("are made with the program's services and the worker's own, and hand over jobs", () =>
    Effect.gen(function*() {
      const door = yield* IntakeTest.make("mail")
      const worker = layerWorkerTest({ doors: mailDoors, functions: [say] }).pipe(
        Layer.provide(Layer.succeed(Mailbox, { open: Effect.succeed(door.intake) }))
      )
      const job = { ...jobOf("say", { word: "hello" }), intake: Ids.IntakeName.make("mail") }
      yield* Effect.gen(function*() {
        yield* door.offer({ job, hash: "one", reply: null })
        yield* Effect.repeat(Effect.yieldNow, { times: 200 })
        assert.deepStrictEqual(door.settled, [["one", "acked"]])
      }).pipe(Effect.provide(worker))
    }))

  it("show in the worker's type what they need and how they fail, and nothing the worker gives them", () => {
    const worker = layerWorker({ stateDirectory: "/nowhere", doors: mailDoors })
    const plain = layerWorker({ stateDirectory: "/nowhere" })
    expectTypeOf<Layer.Services<typeof worker>>().toEqualTypeOf<Mailbox>()
    expectTypeOf<Layer.Services<typeof plain>>().toEqualTypeOf<never>()
    expectTypeOf<Layer.Success<typeof plain>>().toEqualTypeOf<WorkerServices>()
    expectTypeOf<Exclude<Layer.Error<typeof worker>, Layer.Error<typeof plain>>>().toEqualTypeOf<NoMail>()
  })

  it("show what other drivers and another journal need", () => {
    const journal = Layer.effect(Journal, Effect.andThen(Mailbox, Effect.fail(new NoMail())))
    const drivers = Effect.as(Mailbox, [SandboxTest.makeDriver().driver])
    const stored = layerWorker({ stateDirectory: "/nowhere", journal })
    const driven = layerWorker({ stateDirectory: "/nowhere", drivers })
    expectTypeOf<Layer.Services<typeof stored>>().toEqualTypeOf<Mailbox>()
    expectTypeOf<Layer.Services<typeof driven>>().toEqualTypeOf<Mailbox>()
  })
})

describe("a worker on this machine", () => {
  const config = {
    ...standardConfig,
    classes: [standardClass("mine", "mine")] as const,
    defaultClass: Ids.ClassName.make("mine")
  }

  it.live("runs jobs in sandboxes of a driver that was added, over another journal and log", () =>
    Effect.gen(function*() {
      using tree = Tree.of({})
      const fake = SandboxTest.makeDriver({ name: "mine" })
      const worker = layerWorker({
        stateDirectory: join(tree.path, "state"),
        config,
        functions: [say],
        drivers: Effect.succeed([fake.driver]),
        journal: JournalMemory.layerMemory,
        log: LogMemory.layerMemory,
        artefacts: ArtefactsMemory.layerMemory
      })
      yield* Effect.gen(function*() {
        const job = jobOf("say", { word: "hello", artefacts: ["x"] })
        assert.strictEqual((yield* outcomeOf(job))?._tag, "Exited")
        assert.strictEqual(fake.made.length, 1)
        const { end } = yield* (yield* Log).read(Job.keyOf(job), { stream: "all", offset: 0, maxBytes: 1, waitMs: 0 })
        assert.isTrue(end?.complete)
        for (const name of ["journal.sqlite", "logs", "artefacts"]) {
          assert.isFalse(existsSync(join(tree.path, "state", name)))
        }
      }).pipe(Effect.provide(worker))
      assert.strictEqual(fake.alive.size, 0)
    }))

  it.live("does not start without a driver that a class names, nor with two of one name", () =>
    Effect.gen(function*() {
      using tree = Tree.of({})
      const stateDirectory = join(tree.path, "state")
      const build = (worker: Layer.Layer<WorkerServices, unknown>) => Effect.exit(Effect.scoped(Layer.build(worker)))
      const without = yield* build(layerWorker({ stateDirectory, config }))
      assert.match(
        String(Exit.isFailure(without) && without.cause),
        /mine made no sandbox \(driver\): this worker does not have it/
      )
      const fake = SandboxTest.makeDriver({ name: "mine" })
      const twice = yield* build(
        layerWorker({ stateDirectory, config, drivers: Effect.succeed([fake.driver, fake.driver]) })
      )
      assert.match(String(Exit.isFailure(twice) && twice.cause), /driver mine: there are two of that name/)
    }))

  it.live("opens no control plane whose jobs it would not run", () =>
    Effect.gen(function*() {
      using tree = Tree.of({})
      const fake = SandboxTest.makeDriver({ name: "mine" })
      const worker = layerWorker({
        stateDirectory: join(tree.path, "state"),
        config,
        functions: [say],
        embedded: false,
        drivers: Effect.succeed([fake.driver])
      })
      const tls = { ca: "ca.crt", cert: "server.crt", key: "server.key" }
      const doors = layerApi({ grpc: "127.0.0.1:0", tls }).pipe(Layer.provide(worker))
      const refused = yield* Effect.exit(Effect.scoped(Layer.build(doors)))
      assert.match(
        String(Exit.isFailure(refused) && refused.cause),
        /waits in the embedded queue, which this worker does not/
      )
    }))
})
