/** The Effect side of the SQLite thread: starts it, hands it batches, replaces it when it dies, ends it with the scope. */
import { type Context, Deferred, Duration, Effect, Schedule, type Scope } from "effect"
import { Worker } from "node:worker_threads"
import { built } from "../Built.ts"
import * as Release from "../Release.ts"
import { count, metrics } from "../telemetry/Metrics.ts"
import * as GroupCommit from "./GroupCommit.ts"
import { JournalError } from "./Journal.ts"
import type { Perform } from "./JournalBackend.ts"
import type { Answer, Operation, OperationName } from "./Operation.ts"
import { explain, type Failure, failureOf } from "./SqliteFailure.ts"
import type { FromThread, ThreadOptions, ToThread } from "./SqliteProtocol.ts"

export interface SqliteThread {
  readonly perform: Perform
  /** Transactions asked of the thread so far. */
  readonly batches: Effect.Effect<number>
  /** Ends the thread in the middle of whatever it does, as a crash would. It is replaced. */
  readonly crash: Effect.Effect<void>
}

/** The thread is the file beside this one; bundled, it is an entry of the bundle. */
const entry = {
  source: new URL("./sqliteWorker.ts", import.meta.url),
  modules: new URL("./sqliteWorker.js", import.meta.url),
  bundle: new URL("./sqliteWorker.mjs", import.meta.url)
}[built]

/** Rows live briefly, so a small young generation does; it is what makes a thread's memory grow. */
const resourceLimits = { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 256 }

const closed: Failure = { code: "STOKER_CLOSED", message: "the worker is ending" }

/** What a thread's end means for those who waited for it. */
const endOf = ({ code, message }: Failure): Failure =>
  code === "ERR_WORKER_OUT_OF_MEMORY" ? { code, message } : { code: "STOKER_THREAD_ENDED", message }

/** How long to wait until the file is tried again: a tenth of a second, then longer and longer. */
const backoff = Schedule.exponential("100 millis").pipe(
  Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, Duration.seconds(5))))
)

interface Thread {
  readonly worker: Worker
  readonly ended: Deferred.Deferred<Failure>
}

const terminate = (worker: Worker) =>
  Effect.promise(() => worker.terminate()).pipe(Release.within("the journal's thread", "1 second"))

/** Asks it to close the file, which ends it. */
const close = ({ ended, worker }: Thread) =>
  Effect.sync(() => worker.postMessage({ _tag: "Close" } satisfies ToThread)).pipe(
    Effect.andThen(Deferred.await(ended)),
    Release.within("the journal's file", "2 seconds")
  )

/** Starts a thread, which is `started` even if it cannot open the file; succeeds once it has. */
const start = (options: ThreadOptions, commits: GroupCommit.GroupCommit, started: (thread: Thread) => void) =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.callback<void, Failure>((resume) => {
      const ended = Deferred.makeUnsafe<Failure>()
      let isOpen = false
      let failure: Failure = endOf({ message: "it ended by itself" })
      // Neither environment nor options of the process: the thread needs none, and must not run others' hooks.
      const given = { workerData: options, env: {}, execArgv: [], resourceLimits }
      const worker = new Worker(entry, { name: "stoker-journal", ...given })
      started({ worker, ended })
      worker.on("message", (message: FromThread) => {
        switch (message._tag) {
          case "Opened":
            isOpen = true
            commits.open((operations) => {
              count(context, metrics.journalBatches, {})
              worker.postMessage({ _tag: "Batch", operations } satisfies ToThread)
            })
            return resume(Effect.void)
          case "Refused":
            return resume(Effect.fail(message.failure))
          case "Results":
            return commits.results(message.results)
        }
      })
      worker.on("error", (error) => {
        failure = endOf(failureOf(error))
      })
      // "exit" comes last, whatever the end was.
      worker.on("exit", () => {
        if (isOpen) commits.lost(failure)
        Deferred.doneUnsafe(ended, Effect.succeed(failure))
        resume(Effect.fail(failure))
      })
      return terminate(worker)
    })
  )

/**
 * Fails if the file cannot be opened. Later deaths of the thread are survived: what it had in its hands fails, what
 * waits goes to the next one, or fails when that one cannot open the file. Closing the scope first writes what waits,
 * for five seconds at most, and ends within eight.
 */
export const make = Effect.fnUntraced(
  function*(options: ThreadOptions): Effect.fn.Return<SqliteThread, JournalError, Scope.Scope> {
    const commits = GroupCommit.make()
    let isClosed = false
    const errorOf = (operation: string, cause: Failure) =>
      new JournalError({ operation, ...explain(cause, options.filename), cause })

    let thread: Thread | undefined
    const open = start(options, commits, (started) => {
      thread = started
    })

    /** Of the present thread. */
    const ended = Effect.suspend(() => (thread === undefined ? Effect.never : Deferred.await(thread.ended)))

    yield* Effect.addFinalizer(Effect.fnUntraced(function*() {
      isClosed = true
      if (thread === undefined) return
      const written = Effect.callback<void>((resume) => commits.onIdle(() => resume(Effect.void)))
      // A thread that has ended will write nothing more, and none follows it.
      yield* Effect.raceFirst(written, ended).pipe(
        Release.within("what the journal had still to write", "5 seconds")
      )
      commits.fail(closed)
      yield* close(thread)
      yield* terminate(thread.worker)
    }))
    yield* open.pipe(Effect.mapError((failure) => errorOf("be opened", failure)))

    /** Until the scope closes there is a thread, or an attempt to have one. */
    const replace = Effect.gen(function*() {
      const { message } = yield* ended
      yield* Effect.logError(`the journal's thread ended (${message}), starting another`)
      // Even if each one dies at once there are no more than ten a second.
      yield* Effect.sleep("100 millis")
      yield* open.pipe(
        Effect.tapError((failure) => Effect.sync(() => commits.fail(failure))),
        Effect.tapError(({ message }) => Effect.logError(`the journal's file cannot be opened again (${message})`)),
        Effect.retry(backoff)
      )
    })
    yield* Effect.forever(replace).pipe(
      Effect.annotateLogs({ journal: options.filename }),
      Effect.forkScoped({ startImmediately: true })
    )

    const perform: Perform = <N extends OperationName>(doing: string, operation: Operation<N>) =>
      Effect.callback<Answer<N>, JournalError>((resume) => {
        const failed = (failure: Failure) => resume(Effect.fail(errorOf(doing, failure)))
        if (isClosed) return failed(closed)
        // Our own thread answers with what `Rules.applySync` gave, and the type is its.
        const done = (answer: unknown) => resume(Effect.succeed(answer as Answer<N>))
        const waiting: GroupCommit.Waiting = { operation: operation as Operation, done, failed }
        commits.add(waiting)
        // Interrupted before it went, it never happens; after that it does, and nobody hears of it.
        return Effect.sync(() => commits.drop(waiting))
      })

    return {
      perform,
      batches: Effect.sync(() => commits.batches()),
      crash: Effect.suspend(() => (thread === undefined ? Effect.void : terminate(thread.worker)))
    }
  }
)
