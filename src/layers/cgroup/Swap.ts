import { Effect } from "effect"
import { CgroupError } from "./Cgroup.ts"
import type { CgroupFs } from "./CgroupFs.ts"

/**
 * Writes a limit of swap. A kernel without swap accounting has no such file: that is no weaker limit while the host has
 * nothing to swap to, and an error otherwise. `swaps` is /proc/swaps (a heading, then a line per device).
 */
export const limitSwap = (fs: CgroupFs, swaps: string) => (path: string, value: string) =>
  fs.write(path, value).pipe(
    Effect.catchIf((error) => error.code === "ENOENT", (error) =>
      Effect.flatMap(fs.readOptional(swaps), (text) =>
        (text ?? "").trim().split("\n").length <= 1 ? Effect.void : Effect.fail(
          new CgroupError({
            operation: error.operation,
            path,
            reason: "this kernel does not account swap per cgroup, and the host has swap",
            remedy: "boot with swapaccount=1, or turn swap off",
            code: "ENOENT",
            cause: error
          })
        )))
  )
