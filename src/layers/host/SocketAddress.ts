/** Paths of unix sockets, short enough for the kernel. */
import { Data, Effect } from "effect"
import type { Scope } from "effect"
import * as fs from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"

/** The folder could not be opened: `cause` is what the kernel said. */
export class NoSuchFolder extends Data.TaggedError("NoSuchFolder")<{ readonly cause: unknown }> {}

/** What fits into `sockaddr_un`, with the NUL at its end. */
const mostPathBytes = 107

/**
 * The path of a socket in a folder: below a deep one it is reached through a descriptor of that folder, which the scope
 * holds. (A symlink would have to live somewhere, and be cleared away.)
 */
export const socketAddress = (folder: string, name: string): Effect.Effect<string, NoSuchFolder, Scope.Scope> => {
  const address = join(folder, name)
  if (Buffer.byteLength(address) <= mostPathBytes) return Effect.succeed(address)
  return Effect.acquireRelease(
    Effect.tryPromise({
      try: () => open(folder, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY),
      catch: (cause) => new NoSuchFolder({ cause })
    }),
    (handle) => Effect.promise(() => handle.close()).pipe(Effect.ignore)
  ).pipe(Effect.map((handle) => `/proc/self/fd/${handle.fd}/${name}`))
}
