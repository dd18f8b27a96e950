/** Making directories. */
import { Effect } from "effect"
import * as fs from "node:fs/promises"
import { dirname } from "node:path"
import { codeOf } from "./Errno.ts"

/**
 * Makes a private directory (0700) and those above it; fails with what the kernel said, mapped by `failed`.
 *
 * Step by step, because node's `recursive` runs for ever where a parent is there and the kernel answers ENOENT all the
 * same, as it does below /proc (Node 24.21).
 */
export const makeFolder = <E>(path: string, failed: (cause: unknown) => E): Effect.Effect<void, E> => {
  const mkdir = Effect.tryPromise({ try: () => fs.mkdir(path, { mode: 0o700 }), catch: (cause) => ({ cause }) })
  const isFolder = Effect.tryPromise({ try: () => fs.stat(path), catch: (cause) => ({ cause }) }).pipe(
    Effect.map((stat) => stat.isDirectory())
  )
  return mkdir.pipe(
    Effect.catchIf(
      ({ cause }) => codeOf(cause) === "ENOENT" && dirname(path) !== path,
      () => makeFolder(dirname(path), (cause) => ({ cause })).pipe(Effect.andThen(mkdir))
    ),
    Effect.catchIf(
      ({ cause }) => codeOf(cause) === "EEXIST",
      (error) => Effect.flatMap(isFolder, (is) => is ? Effect.void : Effect.fail(error))
    ),
    Effect.mapError(({ cause }) => failed(cause))
  )
}
