import { Context, Effect, Layer } from "effect"
import { type CgroupError, Cgroups } from "./Cgroup.ts"
import type { Syscalls } from "./CgroupFs.ts"
import * as CgroupsHost from "./CgroupsHost.ts"
import * as FakeKernel from "./FakeKernel.ts"

/** What a test sees and does where the kernel would be. */
export class CgroupsTest extends Context.Service<CgroupsTest, {
  /** Names of the leaves that were made and not removed: none, if nothing was left behind. */
  readonly live: Effect.Effect<ReadonlyArray<string>, CgroupError>
  /** Text of a control file of a leaf as v2 names it ("memory.max"); undefined if there is no such leaf. */
  readonly file: (name: string, file: string) => Effect.Effect<string | undefined>
  /** Changes what a leaf tells, for instance "memory.events" to "oom_kill 1". */
  readonly setFile: (name: string, file: string, text: string) => Effect.Effect<void>
  /** Puts a process with this number into a leaf; `kill` takes it out. */
  readonly enter: (name: string, pid: number) => Effect.Effect<void>
  /** Lets the next calls on paths that end so fail with an errno: ("mkdir", "/job-1", "ENOSPC"). */
  readonly failNext: (call: keyof Syscalls, pathEnd: string, code: string) => Effect.Effect<void>
}>()("stoker/layers/cgroup/CgroupsTest") {}

/**
 * Cgroups v2 in memory, under the real layer: what waits (`awaitEmpty`, the removal of a group with processes) waits on
 * the test's clock.
 */
export const layerTest: Layer.Layer<Cgroups | CgroupsTest> = Layer.unwrap(Effect.sync(() => {
  const kernel = FakeKernel.make("v2")
  const instance = "test"
  const path = (name: string, file: string) => `/sys/fs/cgroup/stoker-${instance}/${name}/${file}`
  const inspection = Layer.effect(
    CgroupsTest,
    Effect.map(Cgroups, (cgroups) => ({
      live: cgroups.forInstance(instance).leaves,
      file: (name, file) =>
        Effect.sync(() => kernel.exists(path(name, "").slice(0, -1)) ? kernel.read(path(name, file)) : undefined),
      setFile: (name, file, text) => Effect.sync(() => kernel.set(path(name, file), text)),
      enter: (name, pid) => Effect.sync(() => kernel.write(path(name, "cgroup.procs"), `${pid}`)),
      failNext: (call, pathEnd, code) => Effect.sync(() => kernel.failNext(call, pathEnd, code))
    }))
  )
  return inspection.pipe(
    Layer.provideMerge(CgroupsHost.layer({ instance, syscalls: kernel })),
    Layer.orDie
  )
}))
