/** What a server of `grpc.ts` says of itself to its parent. */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

/** What the server has used so far. */
export interface Used {
  /** Milliseconds. */
  readonly cpu: number
  /** Bytes: resident, which has garbage in it that V8 has not troubled to collect, and what is held after a collection. */
  readonly resident: number
  readonly held: number
}

setFlagsFromString("--expose-gc")
const collect: unknown = runInNewContext("gc")

/** Answers the parent, until it is gone. A collection is part of no measured time. */
export const tellUsed = () =>
  process.on("message", (asked) => {
    const { system, user } = process.cpuUsage()
    const resident = process.memoryUsage.rss()
    if (asked === "held" && typeof collect === "function") collect()
    const { external, heapUsed } = process.memoryUsage()
    process.send?.({ cpu: (system + user) / 1000, resident, held: heapUsed + external } satisfies Used)
  })
