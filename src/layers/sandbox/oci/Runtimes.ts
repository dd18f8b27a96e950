/** The runtimes a class may choose: how each makes a sandbox out of a bundle, and how one knows that it did. */
import { Effect } from "effect"
import { realpathSync } from "node:fs"
import { join } from "node:path"
import type { InstanceId, SandboxId } from "../../../schemas/Ids.ts"
import type { SandboxClass } from "../../../schemas/SandboxClass.ts"
import { once } from "../../Once.ts"
import type { Check, ProvisionFailed } from "../Sandbox.ts"
import * as Crun from "./Crun.ts"
import * as Runsc from "./Runsc.ts"

/** Absent in a class: crun. */
export type RuntimeName = NonNullable<SandboxClass["runtime"]>

/** One that was found and is new enough. */
export interface Runtime {
  readonly name: RuntimeName
  /** In the cgroup beside the job's own. */
  readonly ownPids: number
  readonly ownMemoryBytes: number
  /** See `Recipe`. */
  readonly hasOwnKernel: boolean
  readonly command: (bundle: string, id: SandboxId) => ReadonlyArray<string>
  /** It runs from a copy in memory: what is inside could reach it otherwise (`LaunchRequest`). */
  readonly sealed: boolean
}

/** In the cgroup beside the job: crun, which waits, and the guest. */
const CRUN_PIDS = 2

/** crun: the driver has checked it. */
export const crun = (program: string, stateRoot: string): Runtime => ({
  name: "crun",
  ownPids: CRUN_PIDS,
  ownMemoryBytes: 0,
  hasOwnKernel: false,
  command: (bundle, id) => [program, ...Crun.globals(stateRoot), "run", "--bundle", bundle, id],
  sealed: true
})

/** runsc, looked for when the first class asks for it. Each sandbox has a state directory of its own, which goes with it. */
export const runsc = (program: string, stateRoot: string) =>
  once(Effect.map(Runsc.version(program), (version): Runtime => ({
    name: "runsc",
    ownPids: Runsc.OWN_PIDS,
    ownMemoryBytes: Runsc.OWN_MEMORY_BYTES,
    hasOwnKernel: true,
    command: (bundle, id) => [program, ...Runsc.globals(join(stateRoot, id), version), "run", "--bundle", bundle, id],
    // It starts itself again by its file, and nothing of the host's is seen inside.
    sealed: false
  })))

/** Whether a class's runtime is there, where it is not crun, which all need. */
export const check = Effect.fnUntraced(function*(program: string, { name, runtime }: SandboxClass) {
  if (runtime !== "runsc") return []
  const found = yield* Effect.result(Runsc.version(program))
  const check: Check = found._tag === "Success"
    ? { name: "runtime", status: "ok", detail: `class ${name}: ${program} ${found.success}` }
    : {
      name: "runtime",
      status: "missing",
      detail: `class ${name}: ${found.failure.reason}`,
      remedy: found.failure.remedy
    }
  return [check]
})

/** What one of them may have left of a sandbox. */
export const leftovers = (
  pathOf: (instance: InstanceId, ...parts: ReadonlyArray<string>) => string
) =>
(instance: InstanceId, id: SandboxId) => [pathOf(instance, "crun", id), pathOf(instance, "runsc", id)]

/** See `Runsc.verify`. */
export const verifyRunsc = (program: string, pids: ReadonlyArray<number>): Effect.Effect<void, ProvisionFailed> =>
  Effect.suspend(() => Runsc.verify(realpathSync(program), pids))
