/** Files that are read again when they change, without a restart: certificates, roles, tokens. */
import {
  Cause,
  Data,
  type Duration,
  Effect,
  Queue,
  Schedule,
  Schema,
  type Scope,
  Stream,
  SubscriptionRef
} from "effect"
import { watch } from "node:fs"
import { readFile } from "node:fs/promises"
import { dirname } from "node:path"
import { codeOf, textOf } from "../host/Errno.ts"

/** A file that cannot be used. `file` is its path. */
export class FileRefused extends Schema.TaggedError<FileRefused>()("FileRefused", {
  file: Schema.String,
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.file}: ${this.reason}. ${this.remedy}`
  }
}

/** What the files say, as of now. */
export interface Watched<A> {
  readonly current: Effect.Effect<A>
  /** The current one, then each that takes its place. */
  readonly changes: Stream.Stream<A>
}

export interface WatchOptions<Names extends string, A> {
  /** What it is, for the log: "the roles". */
  readonly what: string
  readonly files: Readonly<Record<Names, string>>
  /** What the texts mean; asked again as long as it refuses, because time may heal it. */
  readonly read: (texts: Readonly<Record<Names, string>>) => Effect.Effect<A, FileRefused>
  /** How often the files are looked at when the kernel tells nothing. */
  readonly poll?: Duration.Input
}

/** Two files of one change are written one after the other. */
const SETTLE = "200 millis"

class Unwatched extends Data.TaggedError("Unwatched")<{ readonly cause: unknown }> {}

/**
 * The folder, not the file: a file that is replaced is another one, and a link may be turned to another one beside it, as
 * Kubernetes does with secrets. Links further up are found by looking now and then.
 */
const stirs = (folder: string): Stream.Stream<void> =>
  Stream.callback<void, Unwatched>(
    (queue) =>
      Effect.acquireRelease(
        Effect.try({
          try: () => {
            const watcher = watch(folder, { persistent: false })
            watcher.on("change", () => Queue.offerUnsafe(queue, undefined))
            watcher.on("error", (cause) => Queue.failCauseUnsafe(queue, Cause.fail(new Unwatched({ cause }))))
            return watcher
          },
          catch: (cause) => new Unwatched({ cause })
        }),
        (watcher) => Effect.sync(() => watcher.close())
      ),
    { bufferSize: 1, strategy: "sliding" }
  ).pipe(Stream.retry(Schedule.spaced("5 seconds")), Stream.orDie)

const readText = (file: string): Effect.Effect<string, FileRefused> =>
  Effect.tryPromise({
    try: () => readFile(file, "utf8"),
    catch: (cause) =>
      new FileRefused({
        file,
        reason: `it cannot be read: ${textOf(cause)}`,
        remedy: codeOf(cause) === "EACCES"
          ? "Let the worker's user read it, and nobody else if it holds a secret."
          : "Put the file there, or name another one."
      })
  })

/**
 * Reads the files, or fails. From then on it reads them again when they change, as long as the scope lives: what cannot be
 * used is told in the log, once, and what was good before stays.
 */
export const watched = Effect.fnUntraced(function*<const Names extends string, A>(
  options: WatchOptions<Names, A>
): Effect.fn.Return<Watched<A>, FileRefused, Scope.Scope> {
  const files = Object.entries<string>(options.files)
  const texts = Effect.map(
    Effect.forEach(files, ([name, file]) => Effect.map(readText(file), (text) => [name, text] as const)),
    (entries) => Object.fromEntries(entries) as Record<Names, string>
  )
  // The kernel is asked first: what changes while we read is then read again.
  const stirred = yield* Queue.sliding<void>(1)
  const folders = new Set(files.map(([, file]) => dirname(file)))
  const ask = Queue.offer(stirred, undefined)
  for (const folder of folders) {
    yield* Effect.forkScoped(Stream.runForEach(stirs(folder), () => ask), { startImmediately: true })
  }

  const first = yield* texts
  // A renewal may be half done just now.
  const value = yield* options.read(first).pipe(
    Effect.catchTag("FileRefused", () => Effect.delay(Effect.flatMap(texts, options.read), SETTLE))
  )
  const ref = yield* SubscriptionRef.make(value)

  let good = JSON.stringify(first)
  let told: string | undefined
  const look = Effect.gen(function*() {
    const next = yield* texts
    const text = JSON.stringify(next)
    if (text === good) {
      told = undefined
      return
    }
    yield* SubscriptionRef.set(ref, yield* options.read(next))
    good = text
    told = undefined
    yield* Effect.logInfo(`${options.what}: read again`)
  }).pipe(Effect.catchTag("FileRefused", (refused) => {
    if (told === refused.message) return Effect.void
    told = refused.message
    return Effect.logError(`${options.what}: the change is not taken over, the former stay. ${refused.message}`)
  }))

  yield* Effect.repeat(ask, Schedule.spaced(options.poll ?? "10 seconds")).pipe(Effect.forkScoped)
  yield* Queue.take(stirred).pipe(
    Effect.andThen(Effect.sleep(SETTLE)),
    Effect.andThen(Queue.clear(stirred)),
    Effect.andThen(look),
    Effect.catchDefect((defect) => Effect.logError(`${options.what}: looking for changes failed`, defect)),
    Effect.forever,
    Effect.forkScoped
  )
  return { current: SubscriptionRef.get(ref), changes: SubscriptionRef.changes(ref) }
})
