/**
 * The compile cache: a C program from its job's start to its outcome when it has to be compiled, against the same program
 * when it was compiled before. All from this process, taking turns.
 */
import { Effect, Layer, Stream } from "effect"
import * as Pools from "../src/actors/Pools.ts"
import { code } from "../src/functions/Code.ts"
import * as Settings from "../src/layers/config/Settings.ts"
import { Executor } from "../src/layers/executor/Executor.ts"
import * as SandboxExecutor from "../src/layers/executor/SandboxExecutor.ts"
import * as DiskSpaceLive from "../src/layers/host/DiskSpaceLive.ts"
import { standardCeiling, standardDefaults } from "../src/schemas/Limits.ts"
import { standardClass, standardConfig } from "../src/schemas/WorkerConfig.ts"
import { layerCompileCache, layerDrivers } from "../src/wiring.ts"
import { makeJob } from "../test/actors/World.ts"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { percentile, publish, round, spread } from "./report.ts"

const ROUNDS = Number(process.argv[2] ?? 100)

/** Not counted: until V8 has compiled what is hot. */
const WARM_UP = 10

const oci = standardClass("oci", "oci")
const config = { ...standardConfig, classes: [oci] as const }

const sourceOf = (n: number) => `#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n// ${n}\n`

/** From start to outcome, milliseconds, and whether it was compiled. */
const run = Effect.fnUntraced(function*(source: string) {
  const program = yield* code.program({ language: "c", source }, { compile: standardCeiling, run: standardDefaults })
  const began = performance.now()
  const { events } = yield* (yield* Executor).start({ job: makeJob("bench"), attempt: 1, class: oci, program })
  let took = Number.NaN
  let compile = Number.NaN
  let cached = false
  yield* Stream.runForEach(events, (event) =>
    Effect.sync(() => {
      if (event._tag !== "Finished" || event.outcome._tag !== "Exited" || event.outcome.code !== 0) return
      took = performance.now() - began
      const [first] = event.usage.phases
      cached = first?.cached === true
      compile = (first?.wallMicros ?? Number.NaN) / 1000
    }))
  return { took, compile, cached }
}, Effect.scoped)

const program = Effect.gen(function*() {
  const rows = { misses: new Array<number>(), hits: new Array<number>(), lookups: new Array<number>() }
  let wrong = 0
  yield* run(sourceOf(-1))
  for (let n = 0; n < WARM_UP + ROUNDS; n++) {
    const miss = yield* run(sourceOf(n))
    const hit = yield* run(sourceOf(-1))
    if (miss.cached || (!hit.cached && n > 0) || Number.isNaN(miss.took + hit.took)) wrong += 1
    if (n < WARM_UP) continue
    rows.misses.push(miss.took)
    rows.hits.push(hit.took)
    rows.lookups.push(hit.compile)
  }
  return publish({
    name: "compileCache",
    figures: {
      rounds: ROUNDS,
      ...spread("compiled, start to outcome, ms", rows.misses),
      ...spread("compiled before, start to outcome, ms", rows.hits),
      ...spread("looking it up beside the sandbox's start, ms", rows.lookups)
    },
    claims: [
      {
        claim: "cold oci, C program compiled before, start to outcome, p50, to the same compiled",
        measured: round(percentile(rows.hits, 0.5) / percentile(rows.misses, 0.5)),
        bound: 0.5,
        unit: "×"
      },
      {
        claim: "programs that should have been compiled and were not, or the other way",
        measured: wrong,
        bound: 0,
        unit: ""
      }
    ]
  })
})

const state = Jobs.stateDirectory()
const layer = SandboxExecutor.layer.pipe(
  Layer.provide(layerCompileCache(config)),
  Layer.provide(Pools.layer({})),
  Layer.provideMerge(Layer.mergeAll(DiskSpaceLive.layer, Settings.layer(config))),
  Layer.provideMerge(layerDrivers(state, ["oci"]))
)
const held = await Effect.runPromise(program.pipe(Effect.provide(layer)))
Jobs.remove(state)
process.exit(held ? 0 : 1)
