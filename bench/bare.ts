/** The floor under a cold start: crun by itself, with the bundle that Stoker uses but the program as its pid 1. */
import { Effect, Stream } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
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

/** One phase that runs `argv`. */
export const assignment = (argv: readonly [string, ...Array<string>]) => ({
  job: makeJob("bench"),
  attempt: 1,
  class: standardClass("oci", "oci"),
  program: {
    files: [],
    phases: [{ name: "run" as const, argv, env: baseEnv, stdin: new Uint8Array(), limits: standardDefaults }] as const,
    artefacts: []
  }
})

/** Runs a job to its outcome, which must be success. */
export const runOnce = Effect.fnUntraced(function*(argv: readonly [string, ...Array<string>]) {
  const run = yield* (yield* Executor).start(assignment(argv))
  let outcome = ""
  yield* Stream.runForEach(run.events, (event) =>
    Effect.sync(() => {
      if (event._tag === "Finished") outcome = JSON.stringify(event.outcome)
    }))
  if (!outcome.includes("\"code\":0")) return yield* Effect.die(`not a success: ${outcome}`)
})

/** The bundle of a sandbox with another pid 1, and how one container of it is started. */
const prepare = Effect.fnUntraced(function*(argv: ReadonlyArray<string>, kind: string) {
  yield* Effect.scoped(runOnce(["/bin/true"]))
  const host = yield* Host
  const native = yield* Native
  const { mountNamespace } = yield* Watchdog
  const instance = host.paths.instance(host.instance)
  const bundles = join(instance, "bundles")
  const ours = readdirSync(bundles).find((name) => name !== "seccomp") ?? ""
  const config = JSON.parse(readFileSync(join(bundles, ours, "config.json"), "utf8"))
  const bare = join(bundles, kind)
  mkdirSync(bare)
  yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(bare, { recursive: true, force: true })))
  const user = { uid: 1000, gid: 1000 }
  const env = Object.entries(baseEnv).map(([name, value]) => `${name}=${value}`)
  writeFileSync(
    join(bare, "config.json"),
    JSON.stringify({ ...config, process: { ...config.process, args: argv, user, env } })
  )
  const enter = mountNamespace._tag === "Some" ? ["-n", mountNamespace.value] : []
  const root = join(instance, "crun")
  return {
    launch: native.launch,
    /** Arguments of `launch`; `entering` names files of cgroups to be in. */
    args: (name: string, entering: ReadonlyArray<string> = []) => [
      ...enter,
      ...entering,
      "--",
      "crun",
      "--root",
      root,
      "--cgroup-manager=disabled",
      "run",
      "--bundle",
      bare,
      name
    ]
  }
})

/**
 * Prepares the bundle; each run of the effect it gives is one container, from spawn to exit, in milliseconds. `limited`
 * containers are put into a fresh cgroup with a job's limits, made and removed outside the measured time: entering one
 * waits for the kernel (an RCU grace period on v1, some milliseconds), whoever does it.
 */
export const makeBare = Effect.fnUntraced(function*(argv: readonly [string, ...Array<string>], limited: boolean) {
  const kind = limited ? "limited" : "bare"
  const bundle = yield* prepare(argv, kind)
  const cgroups = yield* Cgroups
  let count = 0
  const run = (name: string, entering: ReadonlyArray<string>) =>
    Effect.callback<number>((resume) => {
      const began = performance.now()
      spawn(bundle.launch, bundle.args(name, entering), { stdio: ["ignore", "pipe", "pipe"] })
        .once(
          "exit",
          (code) =>
            resume(code === 0 ? Effect.succeed(performance.now() - began) : Effect.die(`bare crun ended with ${code}`))
        )
    })
  const one = Effect.gen(function*() {
    const name = `${kind}${count++}`
    if (!limited) return yield* run(name, [])
    const { cpus, memoryBytes, pids } = standardDefaults
    const group = yield* cgroups.make(name)
    yield* group.limit({ cpus, memoryBytes, pids })
    const took = yield* run(name, group.procsFiles.flatMap((file) => ["-g", file]))
    yield* group.remove
    return took
  })
  return one
})

/** As shell sees it: the command that starts one such container, for a loop that does nothing else. */
export const bareCommand = Effect.fnUntraced(function*(argv: readonly [string, ...Array<string>]) {
  const { args, launch } = yield* prepare(argv, "loop")
  return (name: string): ReadonlyArray<string> => [launch, ...args(name)]
})

/** A container that runs already and waits for one line: what a warm sandbox is without Stoker. */
export interface Gated {
  /** Writes the line; milliseconds to the first byte of its output (NaN without), and to the container's exit. */
  readonly go: (command: string) => Promise<{ readonly first: number; readonly ended: number }>
}

/** Prepares the bundle; each run of the effect it gives starts a container and waits until it stands at its gate. */
export const makeGated = Effect.gen(function*() {
  const bundle = yield* prepare(["/bin/sh", "-c", "echo ready; IFS= read -r a; eval \"exec $a\""], "gated")
  let count = 0
  return Effect.promise(async (): Promise<Gated> => {
    const child = spawn(bundle.launch, bundle.args(`gated${count++}`), { stdio: ["pipe", "pipe", "inherit"] })
    await once(child.stdout, "data")
    return {
      go: async (command) => {
        const ended = once(child, "exit")
        let first = Number.NaN
        child.stdout.once("data", () => first = performance.now() - began)
        const began = performance.now()
        child.stdin.write(`${command}\n`)
        const [code] = await ended
        if (code !== 0) throw new Error(`a gated container ended with ${code}`)
        return { first, ended: performance.now() - began }
      }
    }
  })
})
