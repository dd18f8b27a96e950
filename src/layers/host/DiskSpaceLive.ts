/** Asks the file system that the state directory is on. */
import { Effect, Layer } from "effect"
import { statfs } from "node:fs/promises"
import { DiskSpace } from "./DiskSpace.ts"
import { remedyOf, textOf } from "./Errno.ts"
import { Host, HostError } from "./Host.ts"

const freeBelow = (path: string) =>
  Effect.tryPromise({
    try: () => statfs(path),
    catch: (cause) =>
      new HostError({
        operation: "ask for free disk space",
        reason: `${path}: ${textOf(cause)}`,
        remedy: remedyOf(cause, path),
        cause
      })
  }).pipe(Effect.map(({ bavail, bsize }) => bavail * bsize))

export const layer: Layer.Layer<DiskSpace, never, Host> = Layer.effect(
  DiskSpace,
  Effect.map(Host, ({ paths }) => DiskSpace.of({ free: freeBelow(paths.state) }))
)
