/**
 * Warm start: from a job's start to its first output byte and to its outcome, in a sandbox that stood ready, against a
 * bare container that stood ready at a gate. All from this process, taking turns.
 */
import { Effect, Layer, Schedule, Stream } from "effect"
import * as Pools from "../src/actors/Pools.ts"
import * as Settings from "../src/layers/config/Settings.ts"
import { Executor } from "../src/layers/executor/Executor.ts"
import * as SandboxExecutor from "../src/layers/executor/SandboxExecutor.ts"
import { standardPool } from "../src/schemas/PoolConfig.ts"
import { standardClass, standardConfig } from "../src/schemas/WorkerConfig.ts"
import { layerDrivers } from "../src/wiring.ts"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { assignment, makeGated } from "./bare.ts"
import { percentile, publish, round, spread } from "./report.ts"

const BLOCK = 25
const BLOCKS = Number(process.argv[2] ?? 12)

/** Blocks not counted: until V8 has compiled what is hot. */
const WARM_UP = 4

/** As `stoker worker` keeps them. */
const READY = 4
const sandboxClass = {
  ...standardClass("oci", "oci"),
  pool: { ...standardPool, minimum: READY, maximum: 2 * READY, refillPauseMs: 5 }
}

/** Enough stand ready, and what the one before left is over. */
const quiet = Effect.flatMap(Pools.Pools, (pools) => pools.stats).pipe(
  Effect.filterOrFail(({ classes }) =>
    classes.every(({ idle, leaving, making, target }) => idle >= target && making + leaving === 0)
  ),
  Effect.retry(Schedule.spaced("2 millis")),
  Effect.andThen(Effect.sleep("20 millis"))
)

const stoker = (argv: readonly [string, ...Array<string>]) =>
  Effect.scoped(Effect.gen(function*() {
    const began = performance.now()
    const run = yield* (yield* Executor).start({ ...assignment(argv), class: sandboxClass })
    let first = Number.NaN
    let ended = Number.NaN
    yield* Stream.runForEach(run.events, (event) =>
      Effect.sync(() => {
        if (event._tag === "Output" && Number.isNaN(first)) first = performance.now() - began
        if (event._tag === "Finished" && event.outcome._tag === "Exited") ended = performance.now() - began
      }))
    return { first, ended }
  }))

const program = Effect.gen(function*() {
  const makeOne = yield* makeGated
  const gated = (command: string) =>
    Effect.gen(function*() {
      const container = yield* makeOne
      yield* Effect.sleep("20 millis")
      return yield* Effect.promise(() => container.go(command))
    })
  const rows = {
    gatedFirst: new Array<number>(),
    gatedEnded: new Array<number>(),
    stokerFirst: new Array<number>(),
    stokerEnded: new Array<number>()
  }
  for (let block = 0; block < WARM_UP + BLOCKS; block++) {
    for (let n = 0; n < BLOCK; n++) {
      const first = (yield* gated("/bin/echo x")).first
      const ended = (yield* gated("/bin/true")).ended
      if (block < WARM_UP) continue
      rows.gatedFirst.push(first)
      rows.gatedEnded.push(ended)
    }
    for (let n = 0; n < BLOCK; n++) {
      const first = (yield* Effect.andThen(quiet, stoker(["/bin/echo", "x"]))).first
      const ended = (yield* Effect.andThen(quiet, stoker(["/bin/true"]))).ended
      if (block < WARM_UP) continue
      rows.stokerFirst.push(first)
      rows.stokerEnded.push(ended)
    }
  }
  const { classes: [stats] } = yield* (yield* Pools.Pools).stats
  const ratio = (ours: ReadonlyArray<number>, floor: ReadonlyArray<number>) =>
    round(percentile(ours, 0.5) / percentile(floor, 0.5))
  return publish({
    name: "warm",
    figures: {
      rounds: BLOCK * BLOCKS,
      ...spread("bare gated container, line to first byte, ms", rows.gatedFirst),
      ...spread("bare gated container, line to exit, ms", rows.gatedEnded),
      ...spread("stoker, start to first byte, ms", rows.stokerFirst),
      ...spread("stoker, start to outcome, ms", rows.stokerEnded),
      "pool hits": stats?.hits ?? 0,
      "pool misses": stats?.misses ?? 0
    },
    claims: [
      {
        claim: "warm oci, take to first output byte, p50, to a bare gated container",
        measured: ratio(rows.stokerFirst, rows.gatedFirst),
        bound: 2,
        unit: "×"
      },
      {
        claim: "warm oci, start to outcome of /bin/true, p50, to a bare gated container",
        measured: ratio(rows.stokerEnded, rows.gatedEnded),
        bound: 1.5,
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
  ))
)
const held = await Effect.runPromise(program.pipe(Effect.provide(layer)))
Jobs.remove(state)
process.exit(held ? 0 : 1)
