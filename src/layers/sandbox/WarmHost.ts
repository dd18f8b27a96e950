/** A function host that waits in a sandbox for its one call. */
import { Effect, Fiber, Stream } from "effect"
import { readyMark } from "../../guest/Invocation.ts"
import type { RunLimits, RunRequest } from "../../guest/Protocol.ts"
import type { Limits } from "../../schemas/Limits.ts"
import type { GuestLink, LinkEvent } from "./GuestLink.ts"
import { ProvisionFailed, SandboxLost, type SandboxRefused } from "./Sandbox.ts"

/** A host says that it is ready within this. It takes 50 ms of a free core. */
const READY_LIMIT = "20 seconds"

/** A host that was killed is reported by its guest within this. */
const END_LIMIT = "5 seconds"

const SIGKILL = 9

/** Its start is not the call's: so much CPU time more may the process take, should the worker be held up. Milliseconds. */
const START_CPU_MS = 2000

export interface WarmHost {
  readonly feed: (
    invocation: Uint8Array,
    lowered: RunLimits
  ) => Stream.Stream<LinkEvent, SandboxLost | SandboxRefused>
  readonly hasEnded: () => boolean
  /** Ends when the host does before it was fed. */
  readonly lost: Effect.Effect<SandboxLost>
  /** Kills it, and waits until nothing of it is left. */
  readonly end: Effect.Effect<void>
}

/** What a process has from its start can only be lowered; the cgroup's limits are the phase's whatever they were. */
export const fits = (asked: Limits, standing: Limits): boolean =>
  asked.memoryBytes <= standing.memoryBytes && asked.cpuMs <= standing.cpuMs &&
  asked.fileBytes <= standing.fileBytes && asked.openFiles <= standing.openFiles

/** For its start. */
export const startLimits = (limits: Limits): Limits => ({ ...limits, cpuMs: limits.cpuMs + START_CPU_MS })

/** For the call: 0 where nothing changes. */
export const lowered = (asked: Limits, standing: Limits): RunLimits => {
  const lower = (field: "fileBytes" | "openFiles") => asked[field] < standing[field] ? asked[field] : 0
  return {
    fileBytes: lower("fileBytes"),
    openFiles: lower("openFiles"),
    stackBytes: 0,
    cpuSeconds: asked.cpuMs < standing.cpuMs ? Math.ceil((asked.cpuMs + START_CPU_MS) / 1000) + 1 : 0
  }
}

/** Starts it and waits until it is ready. */
export const start = Effect.fnUntraced(function*(driver: string, link: GuestLink, request: RunRequest) {
  const failed = (reason: string) =>
    new ProvisionFailed({
      driver,
      step: "ready",
      reason: `the function host: ${reason}`,
      remedy: "Does the class give it enough memory (64 MiB), and has its root what Node needs?"
    })
  const waiting = yield* link.wait(request, readyMark).pipe(
    Effect.tap(({ ready }) => ready),
    Effect.mapError(({ reason }) => failed(reason)),
    Effect.timeoutOrElse({
      duration: READY_LIMIT,
      orElse: () => Effect.fail(failed(`it was not ready within ${READY_LIMIT}`))
    })
  )
  const watching = yield* Effect.forkScoped(waiting.ended, { startImmediately: true })
  const hasEnded = () => watching.pollUnsafe() !== undefined
  let isFed = false
  const host: WarmHost = {
    feed: (invocation, limits) =>
      Stream.suspend(() => {
        isFed = true
        return waiting.feed(invocation, limits)
      }),
    hasEnded,
    lost: Fiber.join(watching).pipe(
      Effect.flatMap((reason) =>
        isFed
          ? Effect.never
          : Effect.succeed(
            new SandboxLost({
              driver,
              reason: `its function host: ${reason}`,
              remedy: "See the worker's log; is there enough memory?"
            })
          )
      )
    ),
    end: Effect.suspend(() => {
      isFed = true
      if (hasEnded()) return Effect.void
      return Effect.ignore(link.signal(SIGKILL, "all")).pipe(
        Effect.andThen(Effect.timeoutOption(Fiber.join(watching), END_LIMIT)),
        Effect.asVoid
      )
    })
  }
  return host
})
