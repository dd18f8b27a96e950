/** How a command ends badly: something to tell the user, or only a code because all is told. */
import { Cause, Config, Data, Effect } from "effect"
import { CliError } from "effect/cli"
import { exitCode } from "./ExitCode.ts"

/** A user can understand and repair it: what happened and why, and what to do. `code` is the exit code. */
export class CliFailure extends Data.TaggedError("CliFailure")<{
  readonly reason: string
  readonly remedy: string
  readonly code: number
}> {
  override get message() {
    return `${this.reason}\n  ${this.remedy}`
  }
}

/** Everything has been said; only the exit code is left. */
export class ExitWith extends Data.TaggedError("ExitWith")<{ readonly code: number }> {}

export const usageFailure = (reason: string, remedy: string) => new CliFailure({ reason, remedy, code: exitCode.usage })

/** Ends with a code once everything is said; 0 is success. */
export const exitWith = (code: number): Effect.Effect<void, ExitWith> =>
  code === 0 ? Effect.void : Effect.fail(new ExitWith({ code }))

/** What a failed command prints on stderr, without a stack, and its exit code: `trouble` where the error has none. */
export const explain = Effect.fnUntraced(function*(cause: Cause.Cause<unknown>, trouble: number) {
  const level = yield* Config.LogLevel("LOG_LEVEL").pipe(Effect.orElseSucceed(() => "Info" as const))
  const debug = ["All", "Trace", "Debug"].includes(level)
  const detail = debug ? [Cause.pretty(cause)] : []
  if (Cause.hasInterruptsOnly(cause)) return { lines: [], code: exitCode.stopped }
  const error = Cause.squash(cause)
  if (error instanceof ExitWith) return { lines: [], code: error.code }
  // The presenter has told it already.
  if (CliError.isCliError(error) && error._tag === "ShowHelp") {
    return { lines: [], code: error.errors.length === 0 ? 0 : exitCode.usage }
  }
  if (error instanceof CliFailure) return { lines: [`stoker: ${error.message}`, ...detail], code: error.code }
  const isOurs = Cause.hasFails(cause) && error instanceof Error && "_tag" in error
  return isOurs
    ? { lines: [`stoker: ${oneLine(error.message)}`, ...detail], code: trouble }
    : {
      lines: [
        `stoker: internal error: ${oneLine(error instanceof Error ? error.message : String(error))}`,
        "  This is a defect of Stoker; please report it. LOG_LEVEL=Debug shows where it happened.",
        ...detail
      ],
      code: trouble
    }
})

const oneLine = (text: string) => text.replaceAll(/\s*\n\s*/g, " ").trim()
