/**
 * Functions with a handler. Warm: from a call's start to its outcome, in a host that waited, against a bare container that
 * stood ready at a gate. Sustained: calls a second when each takes a host that has to be replaced, against what crun and Node
 * need to start at all, two at a time. `functions.ts [BLOCKS] [CALLS]`
 */
import { Effect, Layer, Schedule, Stream } from "effect"
import { join } from "node:path"
import * as Pools from "../src/actors/Pools.ts"
import * as Settings from "../src/layers/config/Settings.ts"
import { Executor } from "../src/layers/executor/Executor.ts"
import * as SandboxExecutor from "../src/layers/executor/SandboxExecutor.ts"
import * as FunctionFiles from "../src/layers/functions/FunctionFiles.ts"
import { FUNCTIONS_PATH } from "../src/layers/sandbox/oci/Bundle.ts"
import { FunctionName } from "../src/schemas/Ids.ts"
import { standardDefaults } from "../src/schemas/Limits.ts"
import { standardPool } from "../src/schemas/PoolConfig.ts"
import { ofInvocation } from "../src/schemas/Program.ts"
import { standardClass, standardConfig } from "../src/schemas/WorkerConfig.ts"
import { layerDrivers } from "../src/wiring.ts"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { assignment, makeBare, makeGated } from "./bare.ts"
import { percentile, publish, round, spread } from "./report.ts"

const BLOCK = 25
const BLOCKS = Number(process.argv[2] ?? 8)
const CALLS = Number(process.argv[3] ?? 300)

/** Blocks not counted: until V8 has compiled what is hot. */
const WARM_UP = 2

/** At once: as many as there are cores on the machine this is measured on. */
const LANES = 2

const READY = 4
const sandboxClass = {
  ...standardClass("oci", "oci"),
  functions: true,
  pool: { ...standardPool, minimum: READY, maximum: 2 * READY, parallel: LANES, refillPauseMs: 5 }
}

/** Enough stand ready, and what the one before left is over. */
const quiet = Effect.flatMap(Pools.Pools, (pools) => pools.stats).pipe(
  Effect.filterOrFail(({ classes }) =>
    classes.every(({ idle, leaving, making, target }) => idle >= target && making + leaving === 0)
  ),
  Effect.retry(Schedule.spaced("2 millis")),
  Effect.andThen(Effect.sleep("20 millis"))
)

const program = ofInvocation({ function: FunctionName.make("nothing"), args: {} }, standardDefaults)

/** One call, from its start to its outcome, in milliseconds. */
const call = Effect.scoped(Effect.gen(function*() {
  const began = performance.now()
  const run = yield* (yield* Executor).start({ ...assignment(["/bin/true"]), program, class: sandboxClass })
  let ended = Number.NaN
  yield* Stream.runForEach(run.events, (event) =>
    Effect.sync(() => {
      if (event._tag !== "Finished") return
      if (event.outcome._tag === "Exited" && event.outcome.code === 0) ended = performance.now() - began
      else throw new Error(`a call came to ${JSON.stringify(event.outcome)}`)
    }))
  return ended
}))

/** So many in a second, with `LANES` of them under way all the time. */
const rate = <E, R>(times: number, one: Effect.Effect<unknown, E, R>) =>
  Effect.gen(function*() {
    const began = performance.now()
    yield* Effect.forEach(Array.from({ length: times }), () => one, { concurrency: LANES, discard: true })
    return times / ((performance.now() - began) / 1000)
  })

const measure = Effect.gen(function*() {
  const makeOne = yield* makeGated
  const node = yield* makeBare([join(FUNCTIONS_PATH, "node"), "-e", "0"], false)
  const gated = Effect.gen(function*() {
    const container = yield* makeOne
    yield* Effect.sleep("20 millis")
    return (yield* Effect.promise(() => container.go("/bin/true"))).ended
  })
  const floor: Array<number> = []
  const ours: Array<number> = []
  for (let block = 0; block < WARM_UP + BLOCKS; block++) {
    for (let n = 0; n < BLOCK; n++) {
      const ended = yield* gated
      if (block >= WARM_UP) floor.push(ended)
    }
    for (let n = 0; n < BLOCK; n++) {
      const ended = yield* Effect.andThen(quiet, call)
      if (block >= WARM_UP) ours.push(ended)
    }
  }
  // In turns, for the machine is not the same from minute to minute.
  const floors: Array<number> = []
  const rates: Array<number> = []
  const PARTS = 5
  for (let part = 0; part < PARTS; part++) {
    yield* quiet
    floors.push(yield* rate(CALLS / PARTS, node))
    // What stood ready before is not replaced within the measured time.
    for (let n = 0; n < READY; n++) yield* call
    rates.push(yield* rate(CALLS / PARTS, call))
  }
  const { classes: [stats] } = yield* (yield* Pools.Pools).stats
  const refillFloor = percentile(floors, 0.5)
  const sustained = percentile(rates, 0.5)
  return publish({
    name: "functions",
    figures: {
      rounds: BLOCK * BLOCKS,
      ...spread("bare gated container, line to exit of /bin/true, ms", floor),
      ...spread("stoker, start to outcome of a call in a waiting host, ms", ours),
      "crun and Node, starts a second, two at a time": round(refillFloor),
      "stoker, calls a second, two at a time": round(sustained),
      "pool hits": stats?.hits ?? 0,
      "pool misses": stats?.misses ?? 0
    },
    claims: [
      {
        claim: "warm function host, start to outcome, p50, to a bare gated container",
        measured: round(percentile(ours, 0.5) / percentile(floor, 0.5)),
        bound: 3,
        unit: "×"
      },
      {
        claim: "sustained calls: time for each, to crun and Node started bare, two at a time (80 % of its rate)",
        measured: round(refillFloor / sustained),
        bound: 1.25,
        unit: "×"
      }
    ]
  })
}).pipe(Effect.scoped)

const state = Jobs.stateDirectory()
const layer = SandboxExecutor.layer.pipe(
  Layer.provideMerge(Pools.layer({})),
  Layer.provideMerge(Layer.mergeAll(
    layerDrivers(state, ["oci"]),
    Settings.layer({ ...standardConfig, classes: [sandboxClass] })
  )),
  Layer.provideMerge(
    FunctionFiles.layer({
      definitions: [],
      files: [join(import.meta.dirname, "functionsNoop.ts")],
      stateDirectory: state
    })
  )
)
const held = await Effect.runPromise(measure.pipe(Effect.provide(layer)))
Jobs.remove(state)
process.exit(held ? 0 : 1)
