/** A log that is being written by this process. */
import { Cause, Effect, Semaphore } from "effect"
import type { JobKey } from "../../schemas/Ids.ts"
import type { StreamName } from "../../schemas/Outcome.ts"
import { textOf } from "../host/Errno.ts"
import type { LogStream, LogWriter } from "./Log.ts"
import { LogError } from "./Log.ts"
import { LogBatch } from "./LogBatch.ts"
import type { Preamble } from "./LogFormat.ts"
import { encodePreamble, identityOf } from "./LogFormat.ts"
import type { LogHandle } from "./LogHandle.ts"
import { readPart } from "./LogPart.ts"
import { LogRecent } from "./LogRecent.ts"
import type { Place, Range } from "./LogRun.ts"
import { advance, assemble, placeOf, start } from "./LogRun.ts"
import type { LogSource } from "./LogSource.ts"
import { LogNews } from "./LogSource.ts"
import { LogTally } from "./LogTally.ts"
import { readStored, StoredLog } from "./StoredLog.ts"

/** `append` suspends while so much is waiting for the disk. */
const mostUnwrittenBytes = 1024 * 1024

export interface LiveLog {
  readonly source: LogSource
  readonly writer: LogWriter
  /** Ends the log as incomplete if nobody ended it: its actor is gone, and what it wrote may be a part. */
  readonly abandon: Effect.Effect<void>
  /** Makes waiting readers look again. */
  readonly wake: Effect.Effect<void>
  /** A new attempt takes the name: appends fail from now on. Waits for what is on its way to the disk. */
  readonly replace: Effect.Effect<void>
  /** What is in the file; undefined as long as there is none. */
  readonly stored: () => StoredLog | undefined
}

export const stillWritten = (key: JobKey): LogError =>
  new LogError({
    operation: "remove",
    reason: `job ${key.id} still writes it`,
    remedy: "Stop the job first"
  })

export const alreadyEnded = (): LogError =>
  new LogError({
    operation: "append",
    reason: "it has ended",
    remedy: "This is a defect of Stoker: please report it"
  })

export const replacedByAttempt = (): LogError =>
  new LogError({
    operation: "append",
    reason: "another attempt of the job has begun and writes its own log",
    remedy: "Nothing is to be done: this attempt's output is not wanted any more"
  })

const unforeseen = (cause: unknown): LogError =>
  new LogError({
    operation: "append",
    reason: textOf(cause),
    remedy: "This is a defect of Stoker: please report it",
    cause
  })

/** The same trouble, met at the end. */
export const failedEnd = ({ cause, reason, remedy }: LogError): LogError =>
  new LogError({ operation: "end", reason, remedy, cause })

/**
 * `create` makes the file, empty, as soon as there is something to write.
 *
 * Nothing is synced to the disk: a log survives the worker's death, whose writes are in the kernel's hands then, and
 * need not survive the machine's, after which its job runs again. The end record and its CRC tell whether it is whole.
 */
export const makeLiveLog = Effect.fnUntraced(function*(
  preamble: Preamble,
  create: Effect.Effect<LogHandle, LogError>
): Effect.fn.Return<LiveLog> {
  const runDetached = Effect.runForkWith(yield* Effect.context())
  const tally = new LogTally(preamble.keepBytes)
  const recent = new LogRecent()
  const ending = Semaphore.makeUnsafe(1)
  const forReaders = new LogNews()
  const forWriters = new LogNews()
  let stored: StoredLog | undefined
  let failure: LogError | undefined
  let isEnding = false
  let isPumping = false
  /** Not on their way yet, and on their way to the disk. */
  let pending = new LogBatch()
  let flight: LogBatch | undefined
  /** Behind the last byte that was given to a batch. */
  let filePlace: Place = start
  /** The tail in memory has grown, and somebody waits for that. */
  let hasTailNews = false

  const ended = () => stored?.end

  const unwritten = () => pending.bytes + (flight?.bytes ?? 0)

  const toFile = (stream: StreamName, place: Place, bytes: Uint8Array) => {
    if (filePlace.stdout !== place.stdout || filePlace.stderr !== place.stderr) pending.addPlace(place)
    pending.add(stream, place, bytes)
    filePlace = advance(place, stream, bytes.length)
  }

  const writeFirst = Effect.fnUntraced(function*(batch: LogBatch) {
    const handle = yield* create
    const head = encodePreamble(preamble)
    yield* handle.write([head, ...batch.seal()], 0).pipe(Effect.tapError(() => Effect.sync(() => handle.close())))
    return new StoredLog(handle, preamble, head.length)
  })

  const writeMore = Effect.fnUntraced(
    function*(stored: StoredLog, batch: LogBatch) {
      yield* stored.handle.use(stored.handle.write(batch.seal(), stored.position))
      return stored
    },
    Effect.catchTag("LogHandleClosed", () => Effect.fail(replacedByAttempt()))
  )

  const write = Effect.fnUntraced(
    function*(batch: LogBatch) {
      const file = yield* stored === undefined ? writeFirst(batch) : writeMore(stored, batch)
      for (const record of batch.records) file.add(record)
      stored = file
    },
    Effect.catchCause((cause) =>
      Effect.sync(() => {
        const error = Cause.squash(cause)
        failure ??= error instanceof LogError ? error : unforeseen(error)
      })
    )
  )

  const hasWork = () => failure === undefined && (hasTailNews || !pending.isEmpty)

  /** Writes what is pending until nothing is: all that one turn of the event loop brought goes in one go. */
  const pumping = Effect.gen(function*() {
    while (hasWork()) {
      yield* Effect.yieldNow
      hasTailNews = false
      if (!pending.isEmpty) {
        const batch = pending
        flight = batch
        pending = new LogBatch()
        yield* write(batch)
        flight = undefined
      }
      forWriters.announce()
      forReaders.announce()
    }
  }).pipe(
    Effect.ensuring(Effect.sync(() => {
      isPumping = false
      flight = undefined
      if (failure !== undefined) pending = new LogBatch()
      pump()
      forWriters.announce()
      forReaders.announce()
    })),
    Effect.uninterruptible
  )

  // Apart from the appending fiber, whose interruption must not leave a log half-pumped. It cannot fail: `write` keeps
  // its errors for the next append.
  const pump = () => {
    if (isPumping || !hasWork()) return
    isPumping = true
    runDetached(pumping)
  }

  /** Until there is room again for more. */
  const drained: Effect.Effect<void, LogError> = Effect.suspend(() => {
    if (failure !== undefined) return Effect.fail(failure)
    return unwritten() <= mostUnwrittenBytes
      ? Effect.void
      : Effect.andThen(forWriters.wait(), drained)
  })

  /** Until nothing is on its way. */
  const settled: Effect.Effect<void> = Effect.suspend(() =>
    isPumping ? Effect.andThen(forWriters.wait(), settled) : Effect.void
  )

  const append: LogWriter["append"] = (stream, bytes) =>
    Effect.suspend(() => {
      if (failure !== undefined) return Effect.fail(failure)
      if (isEnding) return Effect.fail(alreadyEnded())
      if (bytes.length === 0) return Effect.void
      const place = tally.produced
      const head = tally.accept(stream, bytes)
      recent.push(stream, place, bytes)
      if (head.length > 0) toFile(stream, place, head)
      if (head.length < bytes.length && forReaders.isAwaited) hasTailNews = true
      pump()
      return unwritten() > mostUnwrittenBytes ? drained : Effect.void
    })

  const addTail = () => {
    pending.addTail(tally.lost)
    filePlace = start
    const runs = tally.tailRuns("all", 0, Number.MAX_SAFE_INTEGER)
    for (const run of runs.toSorted((a, b) => a.all - b.all)) toFile(run.stream, placeOf(run), run.bytes)
  }

  const finish = Effect.fnUntraced(
    function*(complete: boolean) {
      const former = ended()
      if (former !== undefined) return former.summaries
      if (failure === undefined && !isEnding) {
        isEnding = true
        if (tally.hasTail) addTail()
        pending.addEnd(complete, tally.summaries())
        pump()
      }
      yield* settled
      if (failure !== undefined) return yield* failedEnd(failure)
      tally.forgetTails()
      recent.clear()
      return ended()?.summaries ?? []
    },
    ending.withPermit.bind(ending),
    Effect.uninterruptible
  )

  /** Head bytes that are not in the file yet are not shown, nor what arrived after them. */
  const limitOf = (stream: LogStream): Place => {
    if (failure !== undefined) return stored?.head.bytesEnd ?? start
    const { produced } = tally
    if (stream === "all") return flight?.first ?? pending.first ?? produced
    const written = stored?.head.kept[stream] ?? 0
    return written < tally.headOf(stream) ? { ...produced, [stream]: written } : produced
  }

  const cutOff = () => ({ summaries: ended()?.summaries ?? tally.summaries(), complete: false })

  const take: LogSource["take"] = Effect.fnUntraced(function*(range: Range) {
    const file = stored
    if (file?.end !== undefined) return yield* file.handle.use(readStored(file, range))
    // Before the file is read: what reaches it meanwhile lies behind.
    const limit = limitOf(range.stream)
    const extent = () => ({ limit, lost: tally.lost, headEnd: file?.head.bytesEnd ?? start })
    const newest = failure === undefined && tally.keepsFrom(range.stream, range.offset)
      ? recent.from(range.stream, range.offset, range.maxBytes)
      : undefined
    if (newest !== undefined) return assemble(range, newest, extent())
    const runs = file === undefined
      ? []
      : yield* file.handle.use(readPart(file.head, file.handle, range.stream, range.offset, range.maxBytes))
    // It may have ended meanwhile, and the tail gone to the file.
    if (stored?.end !== undefined) return yield* stored.handle.use(readStored(stored, range))
    runs.push(...tally.tailRuns(range.stream, range.offset, range.maxBytes))
    return assemble(range, runs, extent())
  })

  return {
    source: { identity: identityOf(preamble), take, subscribe: Effect.sync(() => forReaders.wait()), cutOff },
    writer: { append, produced: (stream) => tally.producedBy(stream), end: Effect.suspend(() => finish(true)) },
    abandon: Effect.suspend(() =>
      // Whoever appended was told already.
      failure === undefined ? Effect.ignore(finish(false), { log: "Warn", message: "a log has no end" }) : Effect.void
    ),
    wake: Effect.sync(() => forReaders.announce()),
    replace: Effect.suspend(() => {
      failure ??= replacedByAttempt()
      stored?.handle.close()
      forReaders.announce()
      return settled
    }),
    stored: () => stored
  }
})
