/** Logs in memory, for deterministic tests: they keep the promises of Log and end with their layer. */
import { Clock, Effect, Layer } from "effect"
import type { JobKey } from "../../schemas/Ids.ts"
import { keyText } from "../../schemas/Ids.ts"
import { alreadyEnded, failedEnd, replacedByAttempt, stillWritten } from "./LiveLog.ts"
import type { LogEnd, LogWriter } from "./Log.ts"
import { Log, LogNotFound } from "./Log.ts"
import { LogRing } from "./LogRing.ts"
import { advance, assemble, offsetOf, start } from "./LogRun.ts"
import type { LogSource } from "./LogSource.ts"
import { follow, LogNews, textOf } from "./LogSource.ts"
import { LogTally } from "./LogTally.ts"

interface MemoryLog {
  readonly source: LogSource
  readonly writer: LogWriter
  readonly isEnded: () => boolean
  /** When it was opened or last written to. */
  readonly writtenMs: () => number
  readonly close: (complete: boolean) => void
  readonly replace: () => void
}

const makeLog = (identity: string, keepBytes: number, clock: Clock.Clock): MemoryLog => {
  const tally = new LogTally(keepBytes)
  const heads = { stdout: new LogRing("stdout", tally.headBytes, 0), stderr: new LogRing("stderr", tally.headBytes, 0) }
  const news = new LogNews()
  let headEnd = start
  let end: LogEnd | undefined
  let isReplaced = false
  let writtenMs = clock.currentTimeMillisUnsafe()

  const take: LogSource["take"] = (range) =>
    Effect.sync(() => {
      const { maxBytes, offset, stream } = range
      const rings = stream === "all" ? [heads.stdout, heads.stderr] : [heads[stream]]
      const runs = [
        ...rings.flatMap((ring) => ring.runs(stream, offset, maxBytes)),
        ...tally.tailRuns(stream, offset, maxBytes)
      ]
      const limit = tally.produced
      const slice = assemble(range, runs, { limit, lost: tally.lost, headEnd })
      return end === undefined || slice.next < offsetOf(limit, stream) ? slice : { ...slice, end }
    })

  const close = (complete: boolean) => {
    end ??= { summaries: tally.summaries(), complete }
    news.announce()
  }

  const append: LogWriter["append"] = (stream, bytes) =>
    Effect.suspend(() => {
      if (isReplaced) return Effect.fail(replacedByAttempt())
      if (end !== undefined) return Effect.fail(alreadyEnded())
      writtenMs = clock.currentTimeMillisUnsafe()
      const place = tally.produced
      const head = tally.accept(stream, bytes)
      if (head.length > 0) {
        heads[stream].push(head, offsetOf(place, "all"))
        headEnd = advance(place, stream, head.length)
      }
      if (bytes.length > 0) news.announce()
      return Effect.void
    })

  return {
    source: {
      identity,
      take,
      subscribe: Effect.sync(() => news.wait()),
      cutOff: () => ({ summaries: tally.summaries(), complete: false })
    },
    writer: {
      append,
      produced: (stream) => tally.producedBy(stream),
      end: Effect.suspend(() => {
        if (isReplaced) return Effect.fail(failedEnd(replacedByAttempt()))
        close(true)
        return Effect.succeed(end?.summaries ?? [])
      })
    },
    isEnded: () => end !== undefined,
    writtenMs: () => writtenMs,
    close,
    replace: () => {
      isReplaced = true
      news.announce()
    }
  }
}

/** Nothing is written anywhere; time passes only when readers wait. */
export const layerMemory: Layer.Layer<Log> = Layer.sync(Log, () => {
  const logs = new Map<string, MemoryLog>()
  let serial = 0

  const find = (key: JobKey) =>
    Effect.suspend(() => {
      const log = logs.get(keyText(key))
      return log === undefined ? Effect.fail(new LogNotFound({ key })) : Effect.succeed(log.source)
    })

  return Log.of({
    open: (key, { keepBytes }) =>
      Effect.acquireRelease(
        Effect.clockWith((clock) =>
          Effect.sync(() => {
            const log = makeLog(`${keyText(key)}#${serial++}`, keepBytes, clock)
            const former = logs.get(keyText(key))
            logs.set(keyText(key), log)
            former?.replace()
            return log
          })
        ),
        (log) => Effect.sync(() => log.close(false))
      ).pipe(Effect.map((log) => log.writer)),
    read: (key, options) => follow(find(key), options),
    text: (key, stream, maxBytes) => textOf(find(key), stream, maxBytes),
    remove: (key) =>
      Effect.suspend(() => {
        const log = logs.get(keyText(key))
        if (log !== undefined && !log.isEnded()) return Effect.fail(stillWritten(key))
        logs.delete(keyText(key))
        log?.replace()
        return Effect.void
      }),
    prune: Effect.fnUntraced(function*(idleMs, forgotten) {
      const before = (yield* Clock.currentTimeMillis) - idleMs
      const idle = [...logs].filter(([, log]) => log.isEnded() && log.writtenMs() < before)
      const gone = yield* forgotten(idle.map(([key]) => key))
      for (const key of gone) {
        logs.get(key)?.replace()
        logs.delete(key)
      }
      return gone.length
    })
  })
})
