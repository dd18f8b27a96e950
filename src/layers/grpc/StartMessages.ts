/** A request of `stoker.v1` to start a job, as the control plane takes it. Arguments are for the function to check. */
import { Effect, Schema } from "effect"
import { LimitsRequest } from "../../schemas/Limits.ts"
import { Terms } from "../../schemas/Terms.ts"
import { InvalidRequest, type StartRequest } from "../api/JobApi.ts"
import { isTooDeep, MOST_DEPTH } from "../api/JsonDepth.ts"
import {
  type Code,
  type Command,
  type InputFile,
  type Limits,
  OutputPolicy,
  Priority,
  type StartRequest as StartMessage,
  type Terms as TermsMessage
} from "./gen/stoker/v1/stoker_pb.js"
import { msIf, narrow, present, textIf } from "./Numbers.ts"

const mostWaitSeconds = 3600

const policies = { [OutputPolicy.TRUNCATE]: "truncate", [OutputPolicy.KILL]: "kill" } as const
const priorities = { [Priority.HIGH]: "high", [Priority.NORMAL]: "normal", [Priority.LOW]: "low" } as const

/** Values of later versions are passed on as they are: the Schema refuses them by their number. */
const policyOf = (policy: OutputPolicy) =>
  policy === OutputPolicy.UNSPECIFIED ? undefined : policies[policy as OutputPolicy.KILL] ?? policy
const priorityOf = (priority: Priority) =>
  priority === Priority.UNSPECIFIED ? undefined : priorities[priority as Priority.HIGH] ?? priority

const limitsOf = ({ outputPolicy, ...limits }: Limits) =>
  present({
    ...Object.fromEntries(
      Object.entries(limits).filter(([name]) => !name.startsWith("$")).map(([name, value]) => [
        name,
        typeof value === "bigint" ? narrow(value) : value
      ])
    ),
    outputPolicy: policyOf(outputPolicy)
  })

const termsOf = ({ expiresAt, notBefore, priority, retry }: TermsMessage) =>
  present({
    priority: priorityOf(priority),
    notBeforeMs: msIf(notBefore),
    expiresAtMs: msIf(expiresAt),
    retry: retry === undefined
      ? undefined
      : { on: retry.on, maxAttempts: retry.maxAttempts, backoffMs: retry.backoffMs }
  })

const PartialTerms = Schema.Struct({
  priority: Schema.optionalKey(Terms.fields.priority),
  notBeforeMs: Terms.fields.notBeforeMs,
  expiresAtMs: Terms.fields.expiresAtMs,
  retry: Schema.optionalKey(Terms.fields.retry)
})

const invalid = (reason: string, remedy: string) => new InvalidRequest({ reason, remedy })

const decoded = <S extends Schema.Codec<unknown, unknown>>(schema: S, what: string) => {
  const decode = Schema.decodeUnknownEffect(schema, { errors: "all" })
  return (value: unknown): Effect.Effect<S["Type"], InvalidRequest> =>
    Effect.mapError(decode(value), ({ message }) => invalid(`${what}: ${message.replaceAll("\n", " ")}`, "Correct it."))
}
const decodeLimits = decoded(LimitsRequest, "limits")
const decodeTerms = decoded(PartialTerms, "terms")

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64")
const unlessEmpty = <A>(list: ReadonlyArray<A>): ReadonlyArray<A> | undefined => list.length === 0 ? undefined : list
const files = (list: ReadonlyArray<InputFile>) =>
  unlessEmpty(list.map(({ content, executable, path }) => ({ path, contentBase64: base64(content), executable })))

const inputs = ({ artefacts, env, files: list, stdin }: Code | Command) => ({
  files: files(list),
  stdinBase64: stdin.length === 0 ? undefined : base64(stdin),
  env: Object.keys(env).length === 0 ? undefined : env,
  artefacts: unlessEmpty(artefacts)
})

const codeArgs = (code: Code) =>
  present({
    language: code.language,
    variant: textIf(code.variant),
    source: code.source,
    entry: textIf(code.entry),
    args: unlessEmpty(code.args),
    compilerArgs: unlessEmpty(code.compilerArgs),
    cache: code.cache,
    ...inputs(code)
  })

const commandArgs = (command: Command) =>
  present({ argv: unlessEmpty(command.argv), command: textIf(command.line), ...inputs(command) })

const parseJson = (text: string): Effect.Effect<unknown, InvalidRequest> =>
  isTooDeep(text)
    ? Effect.fail(invalid(`args_json is nested deeper than ${MOST_DEPTH} levels`, "Send flatter JSON."))
    : Effect.try({
      try: () => JSON.parse(text) as unknown,
      catch: (cause) => invalid(`args_json is no JSON: ${String(cause)}`, "Send the arguments as a JSON object.")
    })

interface Called {
  readonly function: string
  readonly args: unknown
}

/** A position beyond 2^53 is beyond what any function takes, and refused by it. */
const calledOf = ({ job }: StartMessage): Effect.Effect<Called, InvalidRequest> => {
  switch (job.case) {
    case "noop":
      return Effect.succeed({ function: "noop", args: {} })
    case "fib":
      return Effect.succeed({ function: "fib", args: { number: narrow(job.value.number) } })
    case "eval": {
      const { args, expression } = job.value
      return Effect.succeed({
        function: "eval",
        args: Object.keys(args).length === 0 ? { expression } : { expression, args }
      })
    }
    case "wait": {
      const { private: isPrivate, seconds, url } = job.value
      return Effect.succeed({ function: "wait", args: isPrivate ? { url, seconds, private: true } : { url, seconds } })
    }
    case "code":
      return Effect.succeed({ function: "code", args: codeArgs(job.value) })
    case "command":
      return Effect.succeed({ function: "command", args: commandArgs(job.value) })
    case "call": {
      const { args, function: name } = job.value
      if (args.case !== "argsJson") return Effect.succeed({ function: name, args: args.value ?? {} })
      return Effect.map(parseJson(args.value), (args) => ({ function: name, args }))
    }
    case undefined:
      return Effect.fail(invalid("there is nothing to start", "Set one of noop, fib, eval, wait, code, command, call."))
  }
}

/** Seconds of a request as milliseconds; more than `most` or none at all are refused. */
export const waitOf = (seconds: number, most: number): Effect.Effect<number | undefined, InvalidRequest> =>
  seconds === 0
    ? Effect.succeed(undefined)
    : seconds > 0 && seconds <= most
    ? Effect.succeed(Math.ceil(seconds * 1000))
    : Effect.fail(invalid(`${seconds} is no time to wait`, `Give seconds from 0 to ${most}.`))

/** The request, its limits and terms checked. */
export const startRequest = Effect.fnUntraced(function*(
  message: StartMessage,
  traceparent: string | undefined
): Effect.fn.Return<StartRequest, InvalidRequest> {
  const limits = message.limits === undefined ? undefined : yield* decodeLimits(limitsOf(message.limits))
  const terms = message.terms === undefined ? undefined : yield* decodeTerms(termsOf(message.terms))
  return {
    ...yield* calledOf(message),
    ...present({
      id: textIf(message.id),
      owner: textIf(message.owner),
      class: textIf(message.class),
      webhook: textIf(message.webhook),
      waitMs: yield* waitOf(message.waitSeconds, mostWaitSeconds),
      limits,
      terms,
      traceparent
    })
  }
})
