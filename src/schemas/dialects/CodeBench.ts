/**
 * The jobs of the CodeBench worker, both generations of them, mapped to the job model. CodeBenchStatus is the way back.
 *
 * `{id, language, code[, variant]}` (codebench-dev/worker at 8b87916) and `{id, type: "code" | "command",
 * code | command}` (its README, at ca509ce; `code` without a language is C). Unknown fields are ignored, and as in
 * the old worker's Go a null or empty field is an absent one.
 */
import { Option, Result, Schema } from "effect"
import { FunctionName, IntakeName, JobId, Owner } from "../Ids.ts"
import type { Job } from "../Job.ts"

/** The door's name, and the owner of jobs whose sender the broker does not vouch for. */
export const intake = IntakeName.make("codebench")
const anybody = Owner.make("codebench")

/** Where statuses go: `exchange` to one exchange for all jobs, `queue` to a queue per job (the README's form). */
export const StatusForm = Schema.Literals(["exchange", "queue"])
export type StatusForm = typeof StatusForm.Type

/** What the intake writes down with a job so that the emitter finds the way back. */
export const CodeBenchReply = Schema.Struct({ dialect: Schema.Literal("codebench"), form: StatusForm })
export type CodeBenchReply = typeof CodeBenchReply.Type

/** A message that is no job. `id` is there if it could be read and is a usable one, so that its sender can be told. */
export class CodeBenchInvalid extends Schema.TaggedError<CodeBenchInvalid>()("CodeBenchInvalid", {
  reason: Schema.String,
  remedy: Schema.String,
  id: Schema.optionalKey(JobId)
}) {
  override get message() {
    return `not a CodeBench job: ${this.reason}. ${this.remedy}`
  }
}

/** A message as the transport brings it. */
export interface CodeBenchMessage {
  readonly body: Uint8Array
  /** The broker's `user_id` property, which it has checked. */
  readonly userId?: string | undefined
  readonly traceparent?: string | undefined
}

/** Bytes; RabbitMQ 4 takes no larger message either. */
export const defaultMaximumBytes = 16 * 1024 * 1024

const languages = ["python", "c", "cpp", "go"] as const
type LanguageName = (typeof languages)[number]
const isLanguage = (name: string): name is LanguageName => languages.some((known) => known === name)

const text = Schema.optionalKey(Schema.NullOr(Schema.String))
const Wire = Schema.Struct({ type: text, language: text, variant: text, code: text, command: text })
const decodeWire = Schema.decodeUnknownResult(Wire, { errors: "all" })
const decodeId = Schema.decodeUnknownResult(JobId)
const decodeOwner = Schema.decodeUnknownOption(Owner)

/** Whose job a message is: the broker user's, if it names one that can be an owner. */
export const ownerOf = (userId: string | undefined): Owner => Option.getOrElse(decodeOwner(userId), () => anybody)

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** A stranger's word in a text of ours: quoted, on one line, not longer than it must be. */
const quoted = (word: string) => JSON.stringify(word.length > 40 ? `${word.slice(0, 40)}…` : word)

const oneLine = (message: string) => message.replaceAll(/\s+/g, " ").slice(0, 300)

const invalid = (reason: string, remedy: string, id?: JobId) =>
  Result.fail(new CodeBenchInvalid({ reason, remedy, ...(id === undefined ? {} : { id }) }))

/** The id of a message too large to be parsed: only if it is the first field, as all known clients send it. */
const leadingId = (body: Uint8Array): JobId | undefined => {
  const head = /^\s*\{\s*"id"\s*:\s*"([^"\\]+)"/.exec(new TextDecoder().decode(body.subarray(0, 1024)))
  return Option.getOrUndefined(Result.getSuccess(decodeId(head?.[1])))
}

/** What is to be run, as a function's name and its arguments. */
type Request = Pick<Job, "function" | "args">

const codeRequest = (
  id: JobId,
  language: string,
  code: string | undefined,
  variant: string | undefined
): Result.Result<Request, CodeBenchInvalid> => {
  if (!isLanguage(language)) {
    return invalid(`the language ${quoted(language)} is not known`, `Use one of: ${languages.join(", ")}.`, id)
  }
  if (code === undefined) return invalid("there is no code", "Send the source as code.", id)
  if (code.includes("\u0000")) return invalid("the code has a NUL character", "Send source text without it.", id)
  return Result.succeed({
    function: FunctionName.make("code"),
    // The old worker sent its agent the variant "TODO", whatever the job said.
    args: { language, source: code, ...(variant === undefined || variant === "TODO" ? {} : { variant }) }
  })
}

const commandRequest = (id: JobId, command: string | undefined): Result.Result<Request, CodeBenchInvalid> => {
  if (command === undefined) return invalid("there is no command", "Send one line for the shell as command.", id)
  if (command.includes("\u0000")) return invalid("the command has a NUL character", "Send it without.", id)
  return Result.succeed({ function: FunctionName.make("command"), args: { command } })
}

const requestOf = (id: JobId, wire: typeof Wire.Type): Result.Result<Request, CodeBenchInvalid> => {
  const field = (name: keyof typeof Wire.Type) => wire[name] || undefined
  switch (field("type")) {
    case "command":
      return commandRequest(id, field("command"))
    case "code":
      return codeRequest(id, field("language") ?? "c", field("code"), field("variant"))
    case undefined: {
      const language = field("language")
      return language === undefined
        ? invalid("it says neither a language nor a type", `Send language, one of: ${languages.join(", ")}.`, id)
        : codeRequest(id, language, field("code"), field("variant"))
    }
    default:
      return invalid(`the type ${quoted(field("type") ?? "")} is not known`, "Use code or command.", id)
  }
}

/**
 * A message as a job. Larger than `maximumBytes` it is refused unparsed. Bytes that are not UTF-8 become U+FFFD, as
 * they did in the old worker.
 */
export const decode = (
  message: CodeBenchMessage,
  maximumBytes = defaultMaximumBytes
): Result.Result<Job, CodeBenchInvalid> =>
  Result.gen(function*() {
    const { body } = message
    if (body.byteLength > maximumBytes) {
      return yield* invalid(
        `it has ${body.byteLength} bytes, more than ${maximumBytes}`,
        "Send less, or raise the worker's maximum message size.",
        leadingId(body)
      )
    }
    const parsed = yield* Result.try({
      try: (): unknown => JSON.parse(new TextDecoder().decode(body)),
      catch: () => new CodeBenchInvalid({ reason: "it is not JSON", remedy: "Send one JSON object." })
    })
    if (!isRecord(parsed)) return yield* invalid("it is not a JSON object", "Send one JSON object.")
    const id = yield* Result.mapError(decodeId(parsed["id"]), (error) =>
      new CodeBenchInvalid({
        reason: `its id is not usable: ${oneLine(error.message)}`,
        remedy: "Give the job another id."
      }))
    const wire = yield* Result.mapError(decodeWire(parsed), (error) =>
      new CodeBenchInvalid({ reason: `a field is wrong: ${oneLine(error.message)}`, remedy: "Send text there.", id }))
    const request = yield* requestOf(id, wire)
    const job: Job = {
      id,
      owner: ownerOf(message.userId),
      intake,
      ...request,
      limits: {},
      ...(message.traceparent === undefined || message.traceparent.length > 128
        ? {}
        : { traceparent: message.traceparent })
    }
    return job
  })
