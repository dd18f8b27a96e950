/**
 * A connection that gives up a server which does not answer. The kernel does that only after a quarter of an hour when
 * packets vanish, and never when the server's process hangs; meanwhile the pool would keep the connection.
 */
import { connect, type Socket } from "node:net"

/** Longer than the server lets any statement take. Milliseconds. */
const longestSilence = 15_000

export interface Address {
  /** A name, or the directory of a unix socket. */
  readonly host: string
  readonly port: number
}

/** Its timer counts from what was last sent or heard; while nothing was asked, silence is no fault. */
export const open = ({ host, port }: Address): Socket => {
  const socket = host.startsWith("/")
    ? connect({ path: `${host}/.s.PGSQL.${port}` })
    : connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: 10_000 })
  let answered = 0
  socket.on("data", () => {
    answered = socket.bytesWritten
  })
  socket.setTimeout(longestSilence, () => {
    if (socket.bytesWritten > answered) socket.destroy(new Error(`no answer within ${longestSilence / 1000} s`))
  })
  return socket
}
