/** A worker's own cgroups when its end does not go as it should: somebody always knows of them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { spawn } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { Cgroups } from "../../src/layers/cgroup/Cgroup.ts"
import * as CgroupsHost from "../../src/layers/cgroup/CgroupsHost.ts"
import * as FakeKernel from "../../src/layers/cgroup/FakeKernel.ts"
import { recordedCgroups } from "../../src/layers/host/CgroupRecord.ts"
import { Host } from "../../src/layers/host/Host.ts"
import { layerDrivers } from "../../src/wiring.ts"
import { eventually } from "../guest/Native.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"
import { WorkerProcess } from "../worker/WorkerProcess.ts"

const state = Effect.acquireRelease(
  Effect.sync(() => Jobs.stateDirectory()),
  (path) => Effect.sync(() => Jobs.remove(path))
)

/** A process that does nothing, in these cgroups, until the scope closes. */
const sleeper = (directories: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn("sleep", ["600"], { stdio: "ignore" })
      for (const directory of directories) writeFileSync(join(directory, "cgroup.procs"), String(child.pid))
      return child
    }),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )

/** Somebody else's group in a worker's: nobody but they removes it. */
const groupBelow = (directory: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const path = join(directory, "foreign")
      mkdirSync(path)
      return path
    }),
    (path) =>
      eventually(`${path} is left`, 5, () => {
        if (readFileSync(join(path, "cgroup.events"), "utf8").includes("populated 1")) return false
        rmdirSync(path)
        return true
      })
  )

describe("the cgroups of a worker", () => {
  it.effect("are written down before they are made, and the note goes after them", () =>
    Effect.gen(function*() {
      const kernel = FakeKernel.make("v1")
      const steps: Array<string> = []
      const syscalls = {
        ...kernel,
        mkdir: (path: string) => {
          steps.push("mkdir")
          kernel.mkdir(path)
        },
        rmdir: (path: string) => {
          kernel.rmdir(path)
          steps.push("rmdir")
        }
      }
      const record = {
        write: () => Effect.sync(() => void steps.push("write")),
        drop: Effect.sync(() => void steps.push("drop"))
      }
      yield* Effect.scoped(Layer.build(CgroupsHost.layer({ instance: "a", syscalls, record })))
      const five = (step: string) => Array.from({ length: 5 }, () => step)
      assert.deepStrictEqual(steps, ["write", ...five("mkdir"), ...five("rmdir"), "drop"])
    }))

  it.live(
    "that are not empty at its end are still known, and the next worker removes them",
    () =>
      Effect.gen(function*() {
        const path = yield* state
        const scope = yield* Scope.make()
        const context = yield* Layer.buildWithScope(Layer.fresh(layerDrivers(path, ["process"])), scope)
        const { directories, version } = yield* Effect.provideContext(Cgroups, context)
        const { instance, paths } = yield* Effect.provideContext(Host, context)
        const foreign = yield* Scope.make()
        const last = directories.at(-1) ?? ""
        // On v2 a group that gives controllers to those below it has no processes of its own.
        const place = version === "v1" ? last : yield* Scope.provide(groupBelow(last), foreign)
        yield* sleeper([place]).pipe(Scope.provide(foreign))
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(
          directories.map((each) => existsSync(each)),
          directories.map((_, n) => n === directories.length - 1)
        )
        assert.deepStrictEqual(yield* recordedCgroups(paths.instance(instance)), directories)
        yield* Scope.close(foreign, Exit.void)
        yield* Effect.promise(() => WorkerProcess.sweep(path))
        assert.deepStrictEqual(directories.filter((each) => existsSync(each)), [])
        assert.notInclude(readdirSync(join(path, "instances")), instance)
      }).pipe(Effect.scoped),
    patience(30_000)
  )

  it.live("that a watchdog left stopped are thawed to be killed", () =>
    Effect.gen(function*() {
      const path = yield* state
      yield* Effect.gen(function*() {
        const cgroups = yield* Cgroups
        const freezer = cgroups.directories.find((directory) => existsSync(join(directory, "freezer.state")))
        // Version 2 kills what is frozen.
        if (freezer === undefined) return assert.strictEqual(cgroups.version, "v2")
        const leaf = yield* cgroups.make("job")
        const child = yield* sleeper(leaf.procsFiles.map((file) => file.slice(0, -"/cgroup.procs".length)))
        writeFileSync(join(freezer, "freezer.state"), "FROZEN")
        const other = cgroups.forInstance(basename(freezer).slice("stoker-".length), cgroups.directories).open("job")
        yield* other.kill
        assert.isFalse(readFileSync(`${freezer}/freezer.state`, "utf8").startsWith("FROZEN"))
        assert.isTrue(child.killed || !existsSync(`/proc/${child.pid}/task`) || (yield* other.isEmpty))
        yield* other.remove
        return undefined
      }).pipe(Effect.scoped, Effect.provide(Layer.fresh(layerDrivers(path, ["process"]))))
      mkdirSync(join(path, "instances"), { recursive: true })
      assert.deepStrictEqual(readdirSync(join(path, "instances")), [])
    }).pipe(Effect.scoped), patience(30_000))
})
