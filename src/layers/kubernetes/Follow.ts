/** One container's output from its beginning to its end, however often its connection breaks. */
import { Effect, Stream } from "effect"
import type { Cluster, KubernetesError } from "./Kubernetes.ts"
import { LogLines, pauseAfter, read } from "./Logs.ts"
import { CONTAINER } from "./Manifest.ts"

/** A broken or refused connection is tried again this often once the container has ended; before, for ever. */
const LAST_TRIES = 60

/**
 * Hands over what is new until the container has ended and all of it is read. Fails when the log cannot be read to its end:
 * no right to, or gone with its node.
 */
export const follow = Effect.fnUntraced(function*(
  cluster: Cluster,
  pod: string,
  /** Whether the container is known to have ended. */
  isOver: () => boolean,
  hear: (bytes: Uint8Array) => Effect.Effect<unknown>
): Effect.fn.Return<void, KubernetesError> {
  const lines = new LogLines()
  let failures = 0
  let lastTries = 0
  while (true) {
    // What is asked for after the end is all of it, when it comes whole; an end before may only be the connection's.
    const isLast = isOver()
    let isFruitful = false
    const request = { pod, container: CONTAINER, follow: true }
    const done = yield* read(cluster, lines, request).pipe(
      Stream.runForEach((bytes) => {
        isFruitful = true
        return hear(bytes)
      }),
      Effect.result
    )
    if (done._tag === "Success" && isLast) return
    if (done._tag === "Failure") {
      const { trouble } = done.failure
      if (trouble === "forbidden" || (trouble === "absent" && isOver())) return yield* done.failure
      if (isLast && ++lastTries > LAST_TRIES) return yield* done.failure
    }
    failures = isFruitful ? 0 : failures + 1
    // It ended by itself: most often the container has, and its status is on its way.
    yield* pauseAfter(done._tag === "Success" ? Math.min(failures - 1, 3) : failures)
  }
})
