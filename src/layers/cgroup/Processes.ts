import { Effect, Result } from "effect"
import type { CgroupError } from "./Cgroup.ts"
import type { CgroupFs } from "./CgroupFs.ts"

/** The text of `cgroup.procs` of a group and all groups below it; empty if it is gone. */
export const textBelow = (fs: CgroupFs, directory: string): Effect.Effect<string, CgroupError> =>
  Effect.gen(function*() {
    let text = (yield* fs.readOptional(`${directory}/cgroup.procs`)) ?? ""
    for (const name of yield* fs.directories(directory)) text += yield* textBelow(fs, `${directory}/${name}`)
    return text
  })

/** SIGKILL to each; one that cannot be signalled does not spare the others, and is the failure afterwards. */
export const signalAll = Effect.fnUntraced(function*(fs: CgroupFs, pids: ReadonlyArray<number>) {
  let failure: CgroupError | undefined
  for (const pid of pids) {
    const result = yield* Effect.result(fs.kill(pid))
    if (Result.isFailure(result)) failure ??= result.failure
  }
  if (failure !== undefined) return yield* failure
})
