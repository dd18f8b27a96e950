/**
 * The lock of an instance: a unix socket it listens on. The kernel closes it when the process dies, whatever the death
 * was, and it stays open while the process is merely stopped or busy, so a connection tells the dead from the living.
 */
import { Data, Effect } from "effect"
import type { Scope } from "effect"
import { connect, createServer } from "node:net"
import { codeOf } from "./Errno.ts"
import { socketAddress } from "./SocketAddress.ts"

export const lockName = "lock.sock"

/** The socket could not be made or asked: `cause` is what the kernel said. */
export class LockFailed extends Data.TaggedError("LockFailed")<{ readonly cause: unknown }> {}

const addressIn = (folder: string) =>
  socketAddress(folder, lockName).pipe(Effect.mapError(({ cause }) => new LockFailed({ cause })))

/** Listens in `folder` until the scope closes. Whoever connects learns that we live, and nothing else. */
export const hold = (folder: string): Effect.Effect<void, LockFailed, Scope.Scope> =>
  Effect.flatMap(addressIn(folder), (address) =>
    Effect.acquireRelease(
      Effect.callback<ReturnType<typeof createServer>, LockFailed>((resume) => {
        const server = createServer((socket) => {
          socket.on("error", () => undefined)
          socket.destroy()
        })
        // A worker that has nothing else to do may end.
        server.unref()
        server.once("error", (cause) => resume(Effect.fail(new LockFailed({ cause }))))
        server.listen({ path: address }, () => {
          server.on("error", () => undefined)
          resume(Effect.succeed(server))
        })
      }),
      // It stops listening at once; connections that are still open are of no interest.
      (server) => Effect.sync(() => void server.close())
    )).pipe(Effect.asVoid)

/** Connecting failed for one of these reasons only when nobody listens. Everything else is doubt, and doubt is life. */
const deadCodes: ReadonlySet<string> = new Set(["ECONNREFUSED", "ENOENT"])

/** Whether somebody listens in `folder`. A full backlog (EAGAIN) counts as alive: its process is stopped or busy. */
export const isHeld = (folder: string): Effect.Effect<boolean> =>
  addressIn(folder).pipe(
    Effect.flatMap((address) =>
      Effect.callback<boolean, LockFailed>((resume) => {
        const socket = connect({ path: address })
        socket.once("connect", () => {
          socket.destroy()
          resume(Effect.succeed(true))
        })
        socket.once("error", (cause) => resume(Effect.fail(new LockFailed({ cause }))))
        return Effect.sync(() => void socket.destroy())
      })
    ),
    Effect.catch(({ cause }) => Effect.succeed(!deadCodes.has(codeOf(cause)))),
    Effect.scoped
  )
