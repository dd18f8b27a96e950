/**
 * Cold start: /bin/true through the whole executor in a fresh sandbox, against bare crun with the same bundle, mounts
 * and filter. Both from this process, taking turns.
 */
import { Effect, Exit, Scope } from "effect"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { makeBare, runOnce } from "./bare.ts"
import { percentile, publish, round, spread } from "./report.ts"

const ROUNDS = Number(process.argv[2] ?? 300)

/** Not counted: until V8 has compiled what is hot. */
const WARM_UP = 200

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
  const bare = yield* makeBare(["/bin/true"])
  const floor: Array<number> = []
  const floorCpu: Array<number> = []
  const took: Array<number> = []
  const whole: Array<number> = []
  const cpu: Array<number> = []
  for (let turn = 0; turn < ROUNDS + WARM_UP; turn++) {
    const start = ownCpu()
    const container = yield* bare
    const middle = ownCpu()
    const job = yield* stoker
    const end = ownCpu()
    if (turn < WARM_UP) continue
    floor.push(container)
    floorCpu.push(middle - start)
    took.push(job.took)
    whole.push(job.whole)
    cpu.push(end - middle)
  }
  return publish({
    name: "cold",
    figures: {
      rounds: ROUNDS,
      ...spread("bare crun, spawn to exit, ms", floor),
      ...spread("stoker, start to outcome, ms", took),
      ...spread("stoker, start to all gone, ms", whole),
      "worker CPU per bare crun, ms (mean)": round(mean(floorCpu)),
      "worker CPU per job, ms (mean)": round(mean(cpu))
    },
    claims: [
      {
        claim: "cold oci /bin/true, p50, to bare crun with the same bundle",
        measured: percentile(took, 0.5) / percentile(floor, 0.5),
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
