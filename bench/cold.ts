/**
 * Cold start: /bin/true through the whole executor in a fresh sandbox, against bare crun with the same bundle, mounts
 * and filter. All from this process, taking turns.
 */
import { Effect, Exit, Scope } from "effect"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { makeBare, runOnce } from "./bare.ts"
import { percentile, publish, round, spread } from "./report.ts"

/** In blocks, not in turns: the kernel waits at the first of several entries into cgroups, and whoever came next would not. */
const BLOCK = 25
const BLOCKS = Number(process.argv[2] ?? 20)

/** Blocks not counted: until V8 has compiled what is hot. */
const WARM_UP = 12

/** CPU of this process alone, milliseconds. */
const ownCpu = () => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1000
}

/** One job: from the start to its outcome, and to the moment when all of it is gone. */
const stoker = Effect.gen(function*() {
  const scope = yield* Scope.make()
  const began = performance.now()
  yield* runOnce(["/bin/true"]).pipe(Scope.provide(scope))
  const took = performance.now() - began
  yield* Scope.close(scope, Exit.void)
  return { took, whole: performance.now() - began }
})

const mean = (values: ReadonlyArray<number>) => values.reduce((sum, value) => sum + value, 0) / values.length

const program = Effect.gen(function*() {
  const bare = yield* makeBare(["/bin/true"], false)
  const limited = yield* makeBare(["/bin/true"], true)
  const plain: Array<number> = []
  const floor: Array<number> = []
  const floorCpu: Array<number> = []
  const took: Array<number> = []
  const whole: Array<number> = []
  const cpu: Array<number> = []
  for (let block = 0; block < WARM_UP + BLOCKS; block++) {
    const counts = block >= WARM_UP
    for (let n = 0; n < BLOCK; n++) {
      const took = yield* bare
      if (counts) plain.push(took)
    }
    for (let n = 0; n < BLOCK; n++) {
      const start = ownCpu()
      const took = yield* limited
      if (counts) {
        floor.push(took)
        floorCpu.push(ownCpu() - start)
      }
    }
    for (let n = 0; n < BLOCK; n++) {
      const start = ownCpu()
      const job = yield* stoker
      if (counts) {
        took.push(job.took)
        whole.push(job.whole)
        cpu.push(ownCpu() - start)
      }
    }
  }
  return publish({
    name: "cold",
    figures: {
      rounds: BLOCK * BLOCKS,
      ...spread("bare crun without limits, spawn to exit, ms", plain),
      ...spread("bare crun in a limited cgroup, spawn to exit, ms", floor),
      ...spread("stoker, start to outcome, ms", took),
      ...spread("stoker, start to all gone, ms", whole),
      "stoker to bare crun in a limited cgroup, p50, ×": round(percentile(took, 0.5) / percentile(floor, 0.5)),
      "worker CPU per bare crun, ms (mean)": round(mean(floorCpu)),
      "worker CPU per job, ms (mean)": round(mean(cpu))
    },
    claims: [
      {
        claim: "cold oci /bin/true, p50, to bare crun with the same bundle and no limits",
        measured: percentile(took, 0.5) / percentile(plain, 0.5),
        bound: 1.5,
        unit: "×"
      },
      {
        claim: "worker CPU per job beyond what spawning bare crun takes",
        measured: mean(cpu) - mean(floorCpu),
        bound: 3,
        unit: "ms"
      }
    ]
  })
}).pipe(Effect.scoped)

const state = Jobs.stateDirectory()
const held = await Effect.runPromise(program.pipe(Effect.provide(Jobs.layer("oci", state))))
Jobs.remove(state)
process.exit(held ? 0 : 1)
