/**
 * Drives a CodeBench agent, which knows `GET /health` and `POST /run` and nothing else: one exchange is a whole job of one
 * source file, compiled and run. Nothing it says is believed beyond how the job ended and what it wrote.
 */
import { Effect, Option, Result, Schedule, type Scope, Stream } from "effect"
import type { Duplex } from "node:stream"
import { goSignalNumber } from "../../../schemas/dialects/CodeBenchStatus.ts"
import type { PhaseName, Source } from "../../../schemas/Program.ts"
import type { DriverName } from "../../../schemas/SandboxClass.ts"
import { type PhaseExit, SandboxLost, SandboxRefused } from "../Sandbox.ts"
import { type AgentWords, makeScanner } from "./AgentAnswer.ts"
import { type Answered, exchange } from "./AgentHttp.ts"

/** Where an agent waits in its machine. */
export const AGENT_PORT = 8080

/** Between two questions whether it is there. */
const PAUSE = "20 millis"
/** One such question. */
const HEALTH_LIMIT = "2 seconds"

/** The agent makes a file of this name, so it is none that somebody else chose. */
const ID = "job"
/** What the old worker sent always. Agents want one, and none looks at it. */
const VARIANT = "TODO"

const EFBIG = 27
const EINVAL = 22
const ENOENT = 2

/** Bytes of an answer that is no job's, and characters of what is told of it. */
const MOST_COMPLAINT = 16 * 1024
const MOST_TOLD = 300

const remedy = "The job is answered as failed; is it an image with a CodeBench agent?"

/** What happens, in order. `phase`: which part of the exchange it is of; the agent tells that before any output. */
export type AgentEvent =
  | { readonly _tag: "Started"; readonly phase: PhaseName }
  | { readonly _tag: "Output"; readonly stream: "stdout" | "stderr"; readonly bytes: Uint8Array }
  | {
    readonly _tag: "Exited"
    readonly phase: PhaseName
    readonly exit: PhaseExit
    /** In the agent's words; 0 when it has none. */
    readonly maxRssBytes: number
  }

export interface CodeBenchAgent {
  /** It answers, which it must within the time. */
  readonly ready: (deadlineMs: number) => Effect.Effect<void, SandboxLost>
  /**
   * Compiles, where the language has it so, and runs: one exchange, that begins to tell what happened when all is over. It
   * ends with `Exited`. How long it may take is its reader's affair: an interrupt closes the connection.
   */
  readonly source: (source: Source) => Stream.Stream<AgentEvent, SandboxLost | SandboxRefused>
}

/** Words of a stranger in a text of ours. */
const told = (words: string) => words.replaceAll(/[\p{Cc}\s]+/gu, " ").trim().slice(0, MOST_TOLD)

/** `exit status N`, and what Go says of signals, with whatever it adds in brackets. */
const exitOf = (error: string): PhaseExit | undefined => {
  const code = /^exit status ([0-9]{1,3})$/.exec(error)?.[1]
  if (code !== undefined && Number(code) >= 1 && Number(code) <= 255) return { _tag: "Exited", code: Number(code) }
  const name = /^signal: ([^()]+?|stopped \([a-z ]+\))(?: \((?!signal|tty)[^()]*\))?$/.exec(error)?.[1]
  const signal = name === undefined ? undefined : goSignalNumber(name)
  return signal === undefined ? undefined : { _tag: "Signalled", signal }
}

/** Which part of the job an answer is of, by its status and message; undefined: it is of none. */
const phaseOf = (status: number, message: string): PhaseName | undefined => {
  if (status === 200 && message === "Success") return "run"
  if (status !== 400) return undefined
  return message === "Failed to run" ? "run" : message === "Failed to compile" ? "compile" : undefined
}

/** `connect` gives a connection to the agent, for as long as its scope. */
export const make = (
  driver: DriverName,
  connect: Effect.Effect<Duplex, SandboxLost, Scope.Scope>
): CodeBenchAgent => {
  const lose = (reason: string) => new SandboxLost({ driver, reason: `its agent: ${reason}`, remedy })
  const lost = Effect.mapError((error: { readonly reason: string }) => lose(error.reason))

  const health = Effect.gen(function*() {
    const { status } = yield* lost(exchange(yield* connect, "GET", "/health"))
    if (status !== 200) return yield* lose(`it answered its health question with ${status}`)
  }).pipe(
    Effect.scoped,
    Effect.timeoutOrElse({ duration: HEALTH_LIMIT, orElse: () => Effect.fail(lose("it did not answer in time")) })
  )

  const ready = (deadlineMs: number) =>
    Effect.suspend(() => {
      let last = "nothing came of it"
      return health.pipe(
        Effect.tapError((error) =>
          Effect.sync(() => {
            last = error.reason
          })
        ),
        Effect.retry(Schedule.spaced(PAUSE)),
        Effect.timeoutOrElse({
          duration: deadlineMs,
          orElse: () => Effect.fail(lose(`it was not ready within ${deadlineMs} ms; at last: ${last}`))
        })
      )
    })

  /** An answer that is no job's. The sandbox is well if the request was to blame. */
  const complaint = (status: number, message: string): SandboxLost | SandboxRefused => {
    const words = told(message) || "without a word"
    return status >= 400 && status < 500
      ? new SandboxRefused({
        operation: "run",
        errno: status === 413 ? EFBIG : EINVAL,
        reason: `the machine's agent refused the source (${status}): ${words}`
      })
      : lose(`it answered ${status}: ${words}`)
  }

  const ended = (phase: PhaseName, status: number, words: AgentWords): Result.Result<AgentEvent, AgentFailure> => {
    const maxRssBytes = Math.min((words.mem_usage ?? 0) * 1024, Number.MAX_SAFE_INTEGER)
    const error = words.error ?? ""
    const exit: PhaseExit | undefined = status === 200 ? { _tag: "Exited", code: 0 } : exitOf(error)
    if (exit !== undefined) return Result.succeed({ _tag: "Exited", phase, exit, maxRssBytes })
    if (/^exec: ".*": executable file not found/.test(error)) {
      return Result.fail(new SandboxRefused({ operation: "run", errno: ENOENT, reason: told(error) }))
    }
    return Result.fail(lose(`it does not say how the ${phase} phase ended: ${told(error)}`))
  }

  /** The whole of a small body, for what it says. */
  const complaintOf = Effect.fnUntraced(function*({ body, status }: Answered) {
    let text = Buffer.alloc(0)
    while (text.length < MOST_COMPLAINT) {
      const chunk = yield* lost(body)
      if (chunk === undefined) break
      text = Buffer.concat([text, chunk])
    }
    return complaint(status, text.toString("utf8", 0, MOST_COMPLAINT))
  })

  const eventsOf = (answered: Answered): Stream.Stream<AgentEvent, AgentFailure> => {
    const { body, status } = answered
    if (status !== 200 && status !== 400) {
      return Stream.fromEffect(Effect.flatMap(complaintOf(answered), Effect.fail))
    }
    const scanner = makeScanner()
    let phase: PhaseName | undefined
    return Stream.paginate(
      undefined,
      Effect.fnUntraced(function*() {
        const chunk = yield* lost(body)
        const { isComplete, pieces, wrong } = scanner.push(chunk ?? new Uint8Array())
        if (wrong !== undefined) return yield* lose(`its answer is not usable: ${wrong}`)
        const message = scanner.message()
        const events: Array<AgentEvent> = []
        if (phase === undefined && message !== undefined) {
          phase = phaseOf(status, message)
          if (phase !== undefined) events.push({ _tag: "Started", phase })
        }
        if (phase !== undefined) { for (const piece of pieces) events.push({ _tag: "Output", ...piece }) }
        if (!isComplete && chunk !== undefined) return [events, Option.some(undefined)] as const
        const words = Result.mapError(scanner.words(), (reason) => lose(`its answer is not usable: ${told(reason)}`))
        if (Result.isFailure(words)) return yield* words.failure
        if (phase === undefined) return yield* complaint(status, words.success.message)
        events.push(yield* Effect.fromResult(ended(phase, status, words.success)))
        return [events, Option.none()] as const
      })
    )
  }

  return {
    ready,
    source: ({ code, language, variant }) =>
      Stream.unwrap(Effect.gen(function*() {
        const request = JSON.stringify({ id: ID, language, code, variant: variant ?? VARIANT })
        const answered = yield* lost(exchange(yield* connect, "POST", "/run", Buffer.from(request)))
        return eventsOf(answered)
      }))
  }
}

type AgentFailure = SandboxLost | SandboxRefused
