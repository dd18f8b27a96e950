/** The compile cache in the way of a program, step by step, over sandboxes that are scripts. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { CompileCache, type Compiled, type CompileKey } from "../../src/layers/cache/CompileCache.ts"
import { Executor, type RunEvent } from "../../src/layers/executor/Executor.ts"
import * as SandboxExecutor from "../../src/layers/executor/SandboxExecutor.ts"
import {
  type Driver,
  Drivers,
  type PhaseEvent,
  ProvisionFailed,
  type Sandbox,
  SandboxRefused
} from "../../src/layers/sandbox/Sandbox.ts"
import { Sandboxes } from "../../src/layers/sandbox/Sandboxes.ts"
import * as SandboxTest from "../../src/layers/sandbox/SandboxTest.ts"
import { metrics } from "../../src/layers/telemetry/Metrics.ts"
import { SandboxId } from "../../src/schemas/Ids.ts"
import { type Limits, standardDefaults } from "../../src/schemas/Limits.ts"
import { type Phase, WorkPath } from "../../src/schemas/Program.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import { makeJob } from "../actors/World.ts"

const refusal = (operation: "get" | "put", errno: number) =>
  new SandboxRefused({ operation, errno, reason: "of the test" })

interface World {
  /** What was done, in order. */
  readonly did: Array<string>
  readonly entries: Map<CompileKey, Compiled>
  /** What the compile phase writes. Bytes. */
  warnings: number
  /** In place of these. */
  output: ReadonlyArray<{ readonly stream: "stdout" | "stderr"; readonly bytes: Uint8Array }> | undefined
  code: number
  limits: Partial<Limits>
  get: Sandbox["get"]
  putProduct: Effect.Effect<void, SandboxRefused>
  /** Before the cache answers a get, and before it has put. */
  looking: Effect.Effect<void>
  putting: Effect.Effect<void>
  rootIdentity: Driver["rootIdentity"]
}

const makeWorld = (): World => ({
  did: [],
  entries: new Map(),
  warnings: 10,
  output: undefined,
  code: 0,
  limits: {},
  get: () => Effect.succeed(Buffer.from("product")),
  putProduct: Effect.void,
  looking: Effect.void,
  putting: Effect.void,
  rootIdentity: () => Effect.succeed("root")
})

const sandboxOf = (world: World): Sandbox => {
  const does = <A, E>(what: string, effect: Effect.Effect<A, E>) =>
    Effect.andThen(Effect.sync(() => world.did.push(what)), effect)
  const phase = ({ name }: Phase): Stream.Stream<PhaseEvent> => {
    world.did.push(name)
    const isCompile = name === "compile"
    const usual: World["output"] = [{ stream: "stderr", bytes: Buffer.alloc(world.warnings, 7) }]
    const output = isCompile ? world.output ?? usual : [{ stream: "stdout" as const, bytes: Buffer.alloc(3) }]
    return Stream.make<ReadonlyArray<PhaseEvent>>(
      { _tag: "Started" },
      ...output.map((piece): PhaseEvent => ({ _tag: "Output", ...piece })),
      {
        _tag: "Ended",
        exit: { _tag: "Exited", code: isCompile ? world.code : 0 },
        usage: { phase: name, wallMicros: 5 }
      }
    )
  }
  return {
    id: SandboxId.make("fake"),
    driver: "oci",
    place: "/fake",
    put: (files) => {
      const names = files.map(({ path }) => path).join(" ")
      return does(`put ${names}`, names === "program" ? world.putProduct : Effect.void)
    },
    run: (of) => Stream.suspend(() => phase(of)),
    signal: () => Effect.void,
    kill: Effect.void,
    measure: Effect.succeed({}),
    get: (path, maximum) => does(`get ${path}`, world.get(path, maximum))
  }
}

/** One run of the same program; its events. */
const runIt = Effect.fnUntraced(function*(world: World) {
  const { driver } = SandboxTest.makeDriver()
  const { rootIdentity, ...plain }: Driver = { ...driver, rootIdentity: world.rootIdentity ?? (() => Effect.never) }
  const cache = Layer.succeed(CompileCache, {
    mostBytes: 1000,
    get: (key) => Effect.as(world.looking, Option.fromUndefinedOr(world.entries.get(key))),
    put: (key, compiled) => Effect.andThen(world.putting, Effect.sync(() => void world.entries.set(key, compiled)))
  })
  const layer = SandboxExecutor.layer.pipe(Layer.provide([
    cache,
    Layer.succeed(Drivers, [world.rootIdentity === undefined ? plain : { ...plain, rootIdentity }]),
    Layer.succeed(Sandboxes, Sandboxes.of({ accepts: () => Effect.void, take: () => Effect.succeed(sandboxOf(world)) }))
  ]))
  const executor = yield* Effect.provideContext(Executor, yield* Layer.build(layer))
  const limits = { ...standardDefaults, ...world.limits }
  const phase = (name: Phase["name"]): Phase => ({ name, argv: [name], env: {}, stdin: new Uint8Array(), limits })
  const run = yield* executor.start({
    job: makeJob("a"),
    attempt: 1,
    class: standardClass("oci", "oci"),
    program: {
      files: [{ path: WorkPath.make("main.c"), content: new Uint8Array(), executable: false }],
      phases: [phase("compile"), phase("run")],
      artefacts: [],
      products: [WorkPath.make("program")]
    }
  })
  const events: Array<RunEvent> = []
  yield* Stream.runForEach(run.events, (event) => Effect.sync(() => events.push(event)))
  const last = events.at(-1)
  if (last?._tag !== "Finished") return yield* Effect.die("no outcome")
  const did = world.did.splice(0)
  return { did, outcome: last.outcome, compile: last.usage.phases[0], events }
}, Effect.scoped)

const COMPILED = ["put main.c", "compile", "get program", "run"]
const NOT_KEPT = ["put main.c", "compile", "run"]
const HIT = ["put main.c", "put program", "run"]

describe("a program with products", () => {
  const world = (change: Partial<World>) => Object.assign(makeWorld(), change)
  /** Twice, each in a worker of its own, whose end waits for what is to be kept. */
  const twice = (world: World) => Effect.all([runIt(world), runIt(world)])

  it.effect("is compiled once, and its products are fetched before it runs", () =>
    Effect.gen(function*() {
      const [miss, hit] = yield* twice(makeWorld())
      assert.deepStrictEqual(miss.did, COMPILED)
      assert.deepStrictEqual(hit.did, HIT)
      assert.deepStrictEqual(hit.compile, {
        phase: "compile",
        wallMicros: 0,
        stdoutBytes: 0,
        stderrBytes: 10,
        cached: true
      })
      const told = ({ events }: typeof miss) =>
        events.map((event) => "phase" in event ? `${event._tag} ${event.phase}` : event._tag)
      assert.deepStrictEqual(told(hit), told(miss))
      assert.deepInclude(hit.outcome, { _tag: "Exited", phase: "run", code: 0 })
    }))

  it.effect("does not wait for what is written down", () =>
    Effect.gen(function*() {
      const written = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(runIt(world({ putting: Deferred.await(written) })), {
        startImmediately: true
      })
      // Its worker does, when it ends, and not for ever.
      yield* TestClock.adjust("4 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual((yield* Fiber.join(fiber)).did, COMPILED)
    }))

  it.effect("is compiled when the cache does not answer, or what compiles it cannot be told", () =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(runIt(world({ looking: Effect.never })), { startImmediately: true })
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual((yield* Fiber.join(fiber)).did, NOT_KEPT)
      const unknown = new ProvisionFailed({ driver: "oci", step: "image", reason: "of the test", remedy: "none" })
      for (const rootIdentity of [undefined, () => Effect.fail(unknown)]) {
        for (const { did } of yield* twice(world({ rootIdentity }))) assert.deepStrictEqual(did, NOT_KEPT)
      }
    }))

  it.effect("is compiled each time if it does not compile, writes too much, or its product is no file or too large", () =>
    Effect.gen(function*() {
      const failing = world({ code: 1 })
      for (const { did } of yield* twice(failing)) assert.deepStrictEqual(did, ["put main.c", "compile"])
      for (const change of [{ warnings: 64 * 1024 + 1 }, { limits: { outputBytes: 9 } }]) {
        for (const { did } of yield* twice(world(change))) assert.deepStrictEqual(did, NOT_KEPT)
      }
      const large = world({
        get: (_, maximum) => maximum === 1000 ? Effect.fail(refusal("get", 27)) : Effect.die("not asked for a bound")
      })
      for (const { did } of yield* twice(large)) assert.deepStrictEqual(did, COMPILED)
      assert.strictEqual(large.entries.size, 0)
    }))

  it.effect("is kept with all it wrote, in order, however it was cut; not if it went to and fro without end", () =>
    Effect.gen(function*() {
      const talking = (turns: number) =>
        world({
          output: Array.from({ length: 3 * turns }, (_, n) => ({
            stream: n % 3 === 0 ? "stdout" : "stderr",
            bytes: Buffer.from([n % 256])
          }))
        })
      const [miss, hit] = yield* twice(talking(400))
      const heard = ({ events }: typeof miss) =>
        events.flatMap((event) => event._tag === "Output" ? [...event.bytes] : [])
      assert.deepStrictEqual(hit.did, HIT)
      assert.deepStrictEqual(heard(hit), heard(miss))
      assert.deepInclude(hit.compile, { stdoutBytes: 400, stderrBytes: 800 })
      for (const { did } of yield* twice(talking(600))) assert.deepStrictEqual(did, NOT_KEPT)
    }))

  it.effect("is compiled, and runs, whatever defect the cache has", () =>
    Effect.gen(function*() {
      for (const change of [{ looking: Effect.die("a defect") }, { putting: Effect.die("a defect") }]) {
        for (const { did, outcome } of yield* twice(world(change))) {
          assert.deepStrictEqual(did, "looking" in change ? NOT_KEPT : COMPILED)
          assert.deepInclude(outcome, { _tag: "Exited", phase: "run", code: 0 })
        }
      }
    }))

  it.effect("is counted: found, or looked for in vain", () =>
    Effect.gen(function*() {
      const context = yield* Effect.context<never>()
      const counted = () =>
        ["hit", "miss"].map((result) => metrics.compileCache.series({ result }).valueUnsafe(context).count)
      const [hits = 0, misses = 0] = counted()
      yield* runIt(world({ rootIdentity: undefined }))
      assert.deepStrictEqual(counted(), [hits, misses])
      const own = makeWorld()
      yield* twice(own)
      yield* runIt(own)
      assert.deepStrictEqual(counted(), [hits + 2, misses + 1])
    }))

  it.effect("is compiled when its product does not fit into the sandbox", () =>
    Effect.gen(function*() {
      const full = makeWorld()
      yield* runIt(full)
      full.putProduct = Effect.fail(refusal("put", 28))
      const { compile, did, outcome } = yield* runIt(full)
      assert.deepStrictEqual(did, ["put main.c", "put program", "compile", "get program", "run"])
      assert.isUndefined(compile?.cached)
      assert.deepInclude(outcome, { _tag: "Exited", phase: "run", code: 0 })
    }))

  it.effect("is compiled when its warnings are more than the phase may write now", () =>
    Effect.gen(function*() {
      const strict = makeWorld()
      yield* runIt(strict)
      strict.limits = { outputBytes: 9, outputPolicy: "kill" }
      const { did, outcome } = yield* runIt(strict)
      assert.deepStrictEqual(did, ["put main.c", "compile"])
      assert.deepInclude(outcome, { _tag: "OutputExceeded", phase: "compile" })
    }))
})
