/** Where a reader's bytes come from, and how it waits for more. */
import { Deferred, Effect, Metric } from "effect"
import { monotonicMs } from "../Now.ts"
import { metrics } from "../telemetry/Metrics.ts"
import type { LogEnd, LogError, LogNotFound, LogSlice, ReadOptions } from "./Log.ts"
import type { LogHandleClosed } from "./LogHandle.ts"
import type { Range } from "./LogRun.ts"

/** One attempt's output, growing or ended. */
export interface LogSource {
  /** Another one means: the log was replaced by another attempt's. */
  readonly identity: string
  /** What there is now. */
  readonly take: (range: Range) => Effect.Effect<Omit<LogSlice, "run">, LogError | LogHandleClosed>
  /** Run before `take`, gives the wait for whatever happens from that moment on. The wait may end early. */
  readonly subscribe: Effect.Effect<Effect.Effect<void>>
  /** What its readers are told when it is replaced or removed under their hands. */
  readonly cutOff: () => LogEnd
}

/** Wakes all who wait for a log, with one Deferred for all of them, and nothing at all while nobody waits. */
export class LogNews {
  private next: Deferred.Deferred<void> | undefined

  get isAwaited(): boolean {
    return this.next !== undefined
  }

  announce(): void {
    const { next } = this
    this.next = undefined
    if (next !== undefined) Deferred.doneUnsafe(next, Effect.void)
  }

  /** Subscribes when it is called, waits when it is run: what is announced in between is not missed. */
  wait(): Effect.Effect<void> {
    return Deferred.await(this.next ??= Deferred.makeUnsafe<void>())
  }
}

const followers = metrics.logFollowers.series({})

/** Counted among those who wait while it does. */
const following = <A>(wait: Effect.Effect<A>) =>
  Effect.acquireUseRelease(Metric.modify(followers, 1), () => wait, () => Metric.modify(followers, -1))

/** Reads from whatever `find` gives, and waits until there is something to tell or the time is over. */
export const follow = Effect.fnUntraced(function*(
  find: Effect.Effect<LogSource, LogNotFound | LogError>,
  options: ReadOptions
): Effect.fn.Return<LogSlice, LogNotFound | LogError> {
  const until = (yield* monotonicMs) + options.waitMs
  const range: Range = { stream: options.stream, offset: options.offset, maxBytes: Math.max(1, options.maxBytes) }
  const found = yield* find
  const run = found.identity
  const cutOff: LogSlice = {
    entries: [],
    next: options.offset,
    available: options.offset,
    run,
    end: found.cutOff()
  }
  if (options.run !== undefined && options.run !== run) return cutOff
  let source = found
  while (true) {
    const wait = options.waitMs > 0 ? yield* source.subscribe : undefined
    const slice = yield* source.take(range).pipe(Effect.catchTag("LogHandleClosed", () => Effect.undefined))
    if (slice !== undefined) {
      const left = until - (yield* monotonicMs)
      if (slice.entries.length > 0 || slice.end !== undefined || wait === undefined || left <= 0) {
        return { ...slice, run }
      }
      yield* following(wait.pipe(Effect.timeoutOption(left)))
    }
    const now = yield* find.pipe(Effect.catchTag("LogNotFound", () => Effect.undefined))
    if (now?.identity !== run) return cutOff
    source = now
  }
})

/** The kept bytes of one stream from its beginning, gaps left out. */
export const textOf = Effect.fnUntraced(function*(
  find: Effect.Effect<LogSource, LogNotFound | LogError>,
  stream: "stdout" | "stderr",
  maxBytes: number
): Effect.fn.Return<Uint8Array, LogNotFound | LogError> {
  const pieces: Array<Uint8Array> = []
  let left = maxBytes
  let offset = 0
  while (left > 0) {
    const slice: LogSlice = yield* follow(find, { stream, offset, maxBytes: left, waitMs: 0 })
    for (const entry of slice.entries) {
      if (entry._tag === "Gap") continue
      pieces.push(entry.bytes)
      left -= entry.bytes.length
    }
    if (slice.end !== undefined || slice.next === offset) break
    offset = slice.next
  }
  return Buffer.concat(pieces)
})
