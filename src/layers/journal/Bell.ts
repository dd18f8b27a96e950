/** A file beside the journal's: whoever queues a job writes to it, and the kernel tells the worker. */
import { Cause, Data, Effect, Queue, Schedule, Stream } from "effect"
import { closeSync, constants, openSync, watch, writeSync } from "node:fs"

const letter = Uint8Array.of(10)

const open = (path: string) => openSync(path, constants.O_WRONLY | constants.O_CREAT, 0o600)

/** Tells all who listen. What cannot be told is not: they look now and then anyhow. */
export const ring = (path: string): Effect.Effect<void> =>
  Effect.ignore(Effect.try(() => {
    const file = open(path)
    try {
      writeSync(file, letter, 0, 1, 0)
    } finally {
      closeSync(file)
    }
  }))

class Unwatched extends Data.TaggedError("Unwatched")<{ readonly cause?: unknown }> {}

const listen = (path: string) =>
  Stream.callback<void, Unwatched>(
    (queue) =>
      Effect.acquireRelease(
        Effect.try({
          try: () => {
            closeSync(open(path))
            const lost = (cause?: Error) => Queue.failCauseUnsafe(queue, Cause.fail(new Unwatched({ cause })))
            const watcher = watch(path, { persistent: false })
            // Renamed or removed, the file would never ring again.
            watcher.on("change", (event) => event === "rename" ? lost() : Queue.offerUnsafe(queue, undefined))
            watcher.on("error", lost)
            return watcher
          },
          catch: (cause) => new Unwatched({ cause })
        }),
        (watcher) => Effect.sync(() => watcher.close())
      ),
    { bufferSize: 1, strategy: "sliding" }
  )

/** Each time somebody rings, or once for several times. Silent for as long as the system has no watch to give. */
export const rings = (path: string): Stream.Stream<void> =>
  Stream.orDie(Stream.retry(listen(path), Schedule.spaced("5 seconds")))
