/**
 * Cold start: /bin/true through the whole executor in a fresh sandbox, against bare crun with the same bundle, mounts,
 * filter and cgroup. Both from this process, taking turns.
 */
import { Effect, Exit, Scope, Stream } from "effect"
import { spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Cgroups } from "../src/layers/cgroup/Cgroup.ts"
import { Executor } from "../src/layers/executor/Executor.ts"
import { Host } from "../src/layers/host/Host.ts"
import { Native } from "../src/layers/host/Native.ts"
import { Watchdog } from "../src/layers/host/Watchdog.ts"
import { standardDefaults } from "../src/schemas/Limits.ts"
import { baseEnv } from "../src/schemas/Program.ts"
import { standardClass } from "../src/schemas/WorkerConfig.ts"
import { makeJob } from "../test/actors/World.ts"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { percentile, publish, round, spread } from "./report.ts"

const ROUNDS = Number(process.argv[2] ?? 200)

/** Not counted: until V8 has compiled what is hot. */
const WARM_UP = 200

/** CPU of this process alone, milliseconds. */
const ownCpu = () => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1000
}

const assignment = {
  job: makeJob("bench"),
  attempt: 1,
  class: standardClass("oci", "oci"),
  program: {
    files: [],
    phases: [{
      name: "run" as const,
      argv: ["/bin/true"] as const,
      env: baseEnv,
      stdin: new Uint8Array(),
      limits: standardDefaults
    }] as const,
    artefacts: []
  }
}

const program = Effect.gen(function*() {
  const executor = yield* Executor
  const host = yield* Host
  const native = yield* Native
  const cgroups = yield* Cgroups
  const { mountNamespace } = yield* Watchdog
  const instance = host.paths.instance(host.instance)

  /** One job: from the start to its outcome, and then its scope. */
  const stoker = Effect.gen(function*() {
    const scope = yield* Scope.make()
    const began = performance.now()
    const run = yield* executor.start(assignment).pipe(Scope.provide(scope))
    let outcome = ""
    yield* Stream.runForEach(run.events, (event) =>
      Effect.sync(() => {
        if (event._tag === "Finished") outcome = JSON.stringify(event.outcome)
      }))
    const took = performance.now() - began
    yield* Scope.close(scope, Exit.void)
    if (!outcome.includes("\"code\":0")) return yield* Effect.die(`not a success: ${outcome}`)
    return { took, whole: performance.now() - began }
  })

  yield* stoker // prepares the bundle
  const bundles = join(instance, "bundles")
  const ours = readdirSync(bundles).find((name) => name !== "seccomp")
  const config = JSON.parse(readFileSync(join(bundles, ours ?? "", "config.json"), "utf8"))
  const bare = mkdtempSync(join(tmpdir(), "stoker-bench-"))
  mkdirSync(join(bare, "bundle"))
  writeFileSync(
    join(bare, "bundle", "config.json"),
    JSON.stringify({ ...config, process: { ...config.process, args: ["/bin/true"], user: { uid: 1000, gid: 1000 } } })
  )
  let count = 0
  /** crun itself: cgroup with the same limits, launcher, container, exit, cgroup removed. */
  const floor = Effect.gen(function*() {
    const name = `bare${count++}`
    const began = performance.now()
    const cgroup = yield* cgroups.make(name)
    yield* cgroup.limit({
      memoryBytes: standardDefaults.memoryBytes,
      pids: standardDefaults.pids,
      cpus: standardDefaults.cpus
    })
    const namespace = mountNamespace._tag === "Some" ? ["-n", mountNamespace.value] : []
    const args = [
      ...namespace,
      ...cgroup.procsFiles.flatMap((file) => ["-g", file]),
      "--",
      "crun",
      "--root",
      join(bare, "state"),
      "--cgroup-manager=disabled",
      "run",
      "--bundle",
      join(bare, "bundle"),
      name
    ]
    const code = yield* Effect.callback<number | null>((resume) => {
      spawn(native.launch, args, { stdio: ["ignore", "pipe", "pipe"] }).once(
        "exit",
        (status) => resume(Effect.succeed(status))
      )
    })
    const took = performance.now() - began
    yield* cgroup.remove
    if (code !== 0) return yield* Effect.die(`bare crun ended with ${code}`)
    return { took, whole: performance.now() - began }
  })

  const measured: Record<"stoker" | "floor", { took: Array<number>; whole: Array<number>; cpu: Array<number> }> = {
    stoker: { took: [], whole: [], cpu: [] },
    floor: { took: [], whole: [], cpu: [] }
  }
  for (let round = 0; round < ROUNDS + WARM_UP; round++) {
    for (const [name, one] of [["floor", floor], ["stoker", stoker]] as const) {
      const before = ownCpu()
      const { took, whole } = yield* one
      if (round < WARM_UP) continue
      measured[name].took.push(took)
      measured[name].whole.push(whole)
      measured[name].cpu.push(ownCpu() - before)
    }
  }
  rmSync(bare, { recursive: true, force: true })
  const mean = (values: ReadonlyArray<number>) => values.reduce((sum, value) => sum + value, 0) / values.length
  const ratio = percentile(measured.stoker.took, 0.5) / percentile(measured.floor.took, 0.5)
  return publish({
    name: "cold",
    figures: {
      rounds: ROUNDS,
      ...spread("bare crun, start to exit, ms", measured.floor.took),
      ...spread("stoker, start to outcome, ms", measured.stoker.took),
      ...spread("stoker, start to all gone, ms", measured.stoker.whole),
      "worker CPU per bare crun, ms (mean)": round(mean(measured.floor.cpu)),
      "worker CPU per job, ms (mean)": round(mean(measured.stoker.cpu))
    },
    claims: [
      { claim: "cold oci /bin/true, p50, to bare crun with the same bundle", measured: ratio, bound: 1.5, unit: "×" },
      {
        claim: "worker CPU per job beyond bare crun's",
        measured: mean(measured.stoker.cpu) - mean(measured.floor.cpu),
        bound: 3,
        unit: "ms"
      }
    ]
  })
})

const state = Jobs.stateDirectory()
const held = await Effect.runPromise(program.pipe(Effect.provide(Jobs.layer("oci", state)), Effect.scoped))
Jobs.remove(state)
process.exit(held ? 0 : 1)
