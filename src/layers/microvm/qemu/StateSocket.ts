/** Where a machine that is saved says its state: QEMU may start no program and open no file for it, but connect to us. */
import { Deferred, Effect, Exit, type Scope } from "effect"
import * as fs from "node:fs"
import { chown, open } from "node:fs/promises"
import { createServer, type Socket } from "node:net"
import { join } from "node:path"
import { textOf } from "../../host/Errno.ts"

const NAME = "state.sock"
/** The state of a machine without its memory is 60 KiB. */
const MOST_BYTES = 32 * 1024 ** 2

export interface StateSocket {
  readonly path: string
  /** All that was said, when whoever said it has hung up. Fails with the reason, in words. */
  readonly received: Effect.Effect<Buffer, string>
}

/** In the folder, for this user; the scope removes it. Fails with the reason, in words. */
export const listen = Effect.fnUntraced(function*(
  folder: string,
  owner: { readonly uid: number; readonly gid: number }
): Effect.fn.Return<StateSocket, string, Scope.Scope> {
  const received = yield* Deferred.make<Buffer, string>()
  // However deep the folder lies, its path is short enough for a socket this way.
  const handle = yield* Effect.acquireRelease(
    Effect.tryPromise({ try: () => open(folder, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY), catch: textOf }),
    (file) => Effect.promise(() => file.close()).pipe(Effect.ignore)
  )
  let taken: Socket | undefined
  const server = createServer((socket) => {
    if (taken !== undefined) return void socket.destroy()
    taken = socket
    const parts: Array<Buffer> = []
    let bytes = 0
    socket.on("error", () => {})
    socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes > MOST_BYTES) return void socket.destroy()
      parts.push(chunk)
    })
    socket.once("end", () => Deferred.doneUnsafe(received, Exit.succeed(Buffer.concat(parts))))
    socket.once("close", () => Deferred.doneUnsafe(received, Exit.fail("it broke off, or said too much")))
  })
  yield* Effect.acquireRelease(
    Effect.callback<void, string>((resume) => {
      server.once("error", (cause) => resume(Effect.fail(textOf(cause))))
      server.listen(`/proc/self/fd/${handle.fd}/${NAME}`, () => resume(Effect.void))
    }),
    () =>
      Effect.sync(() => {
        taken?.destroy()
        server.close()
      })
  )
  const path = join(folder, NAME)
  yield* Effect.tryPromise({ try: () => chown(path, owner.uid, owner.gid), catch: textOf })
  return { path, received: Deferred.await(received) }
})
