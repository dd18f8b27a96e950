/** What this process and its disk are like now. */
import { Effect } from "effect"
import { statfs } from "node:fs/promises"

/** Of the worker process; its jobs are processes of their own. */
export const usage = Effect.sync(() => {
  const { heapUsed, rss } = process.memoryUsage()
  const { system, user } = process.cpuUsage()
  return {
    residentBytes: rss,
    heapBytes: heapUsed,
    cpuSeconds: (system + user) / 1e6,
    uptimeSeconds: process.uptime()
  }
})

export const nodeVersion = process.version

/** Of the file system a path is on, for this user; nothing if it cannot be asked. */
export const disk = (path: string) =>
  Effect.promise(() =>
    statfs(path).then(
      ({ bavail, blocks, bsize }) => ({ freeBytes: bavail * bsize, sizeBytes: blocks * bsize }),
      () => undefined
    )
  )
