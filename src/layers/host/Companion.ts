/** A small process of ours beside the worker, for as long as the worker lives: it says when it is ready, and ends when told. */
import { Deferred, Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { within } from "../Release.ts"
import { HostError } from "./Host.ts"

/** It has little to do before it is ready. */
const READY_LIMIT = "5 seconds"

export interface CompanionOptions {
  /** As messages call it, e.g. `watchdog`. */
  readonly name: string
  readonly program: string
  readonly args: ReadonlyArray<string>
  readonly cwd?: string
  /** What an operator does when it cannot be started or dies. */
  readonly remedy: string
  /** Said on its stdin before the end of file that ends it. */
  readonly farewell?: string
}

export interface Companion {
  readonly pid: number
  /** Fails when it ends, which nothing of ours causes while the scope is open. */
  readonly died: Effect.Effect<never, HostError>
}

/** Starts it and waits until it has said that it is ready; closing the scope ends it, by force after two seconds. */
export const start = Effect.fnUntraced(function*(
  options: CompanionOptions
): Effect.fn.Return<Companion, HostError, Scope.Scope> {
  const { args, farewell = "", name, program, remedy } = options
  const failed = (reason: string) => new HostError({ operation: `start the ${name}`, reason, remedy })
  const died = yield* Deferred.make<never, HostError>()
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const process = spawn(program, [...args], {
        stdio: ["pipe", "pipe", "pipe"],
        env: {},
        ...(options.cwd === undefined ? {} : { cwd: options.cwd })
      })
      process.stdin.on("error", () => {}) // it is told of by `close`
      return process
    }),
    (process) =>
      Effect.promise(async () => {
        if (process.pid === undefined || process.exitCode !== null || process.signalCode !== null) return
        const gone = once(process, "exit")
        process.stdin.end(farewell)
        await gone
      }).pipe(
        within(`the ${name}`, "2 seconds"),
        Effect.andThen(Effect.sync(() => process.kill("SIGKILL"))) // of one that is stopped; the dead are not asked
      )
  )
  let complaint = ""
  child.stderr.on("data", (bytes: Buffer) => {
    complaint = (complaint + bytes.toString("utf8")).slice(0, 1000)
  })
  const end = (reason: string) => Deferred.doneUnsafe(died, Effect.fail(failed(`${reason} ${complaint.trim()}`.trim())))
  child.on("error", (error) => end(error.message))
  child.on("close", (code, signal) => end(`it ended (${signal ?? code})`))
  yield* Effect.callback<void>((resume) => {
    child.stdout.once("data", () => resume(Effect.void))
  }).pipe(
    Effect.raceFirst(Deferred.await(died)),
    Effect.timeoutOrElse({
      duration: READY_LIMIT,
      orElse: () => Effect.fail(failed(`it did not say within ${READY_LIMIT} that it is ready`))
    })
  )
  return { pid: child.pid ?? 0, died: Deferred.await(died) }
})
