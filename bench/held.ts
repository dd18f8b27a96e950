/** Memory that is reachable; the process's own is also what the collector has not got to. */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")
const collect: unknown = runInNewContext("gc")

/** Bytes, of the heap and of buffers. */
export const heldBytes = (): number => {
  if (typeof collect !== "function") throw new Error("this Node has no gc()")
  collect()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return arrayBuffers + heapUsed
}
