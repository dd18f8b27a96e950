/** Loopback ports for what tests start. */
import { createServer } from "node:net"

// Below what the kernel hands out to outgoing connections (32768 and up): a port that was free when it was chosen is
// still free when its server is started again.
const lowest = 20_000
const highest = 32_000

const given = new Set<number>()

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once("error", () => resolve(false))
    server.listen({ host: "127.0.0.1", port, exclusive: true }, () => server.close(() => resolve(true)))
  })

/** A TCP port nobody listens on at 127.0.0.1, and never the same one twice from this process. */
export const freePort = async (): Promise<number> => {
  for (let attempt = 0; attempt < 200; attempt++) {
    const port = lowest + Math.floor(Math.random() * (highest - lowest))
    if (given.has(port) || !(await isFree(port))) continue
    given.add(port)
    return port
  }
  throw new Error(`no free port between ${lowest} and ${highest} in 200 tries`)
}
