/** `stoker jobs start`: the server's functions and their arguments, checked here before it is asked. */
import { DateTime, Effect, Option, Result } from "effect"
import { CliError, Command } from "effect/cli"
import { readFile } from "node:fs/promises"
import { type ClientFailure, ConnectionError, StokerClient } from "../../client/StokerClient.ts"
import type { StartRequest } from "../../layers/api/JobApi.ts"
import type { FunctionView } from "../../schemas/JobView.ts"
import type { Terms } from "../../schemas/Terms.ts"
import { type CliFailure, ExitWith, exitWith, usageFailure } from "../CliFailure.ts"
import { exitCode } from "../ExitCode.ts"
import { givenTerms, limitsOf, termsOf } from "../Flags.ts"
import { print, say } from "../Output.ts"
import { asking } from "./Ask.ts"
import { type Call, callOf } from "./Fields.ts"
import { showStarted } from "./RunStarted.ts"
import { codeOf, showOutput } from "./RunTail.ts"
import { clientOf } from "./Server.ts"
import type { ServerChoice } from "./ServerFlags.ts"
import { helpText, listText, usageText } from "./StartHelp.ts"
import { startFlags, startOptions } from "./StartOptions.ts"
import { assemble, type Given, readWords, splitStart } from "./StartWords.ts"

/** What can be started, and whether a server said so. */
interface Known {
  readonly functions: ReadonlyArray<FunctionView>
  /** Why they are the built-in ones. */
  readonly instead?: CliFailure | ClientFailure
}

/** The functions that come with Stoker, as a server shows them. */
const builtInViews = Effect.gen(function*() {
  const [{ builtIns }, { functionViewOf }] = yield* Effect.promise(() =>
    Promise.all([import("../../functions/BuiltIn.ts"), import("../../layers/api/Views.ts")])
  )
  return builtIns.map(functionViewOf)
})

const known = (choice: ServerChoice): Effect.Effect<Known> =>
  Effect.flatMap(StokerClient, (client) => client.functions).pipe(
    Effect.map((functions): Known => ({ functions })),
    Effect.provide(clientOf(choice)),
    Effect.catch((instead: CliFailure | ClientFailure) =>
      Effect.map(builtInViews, (functions): Known => ({ functions, instead }))
    )
  )

/** As the RFD has it: the error, the usage, the error again, where somebody who scrolled past the usage sees it. */
const misused = Effect.fnUntraced(function*(error: string, usage: string) {
  yield* say(`Error: ${error}\n${usage}\nError: ${error}`)
  return yield* new ExitWith({ code: exitCode.usage })
})

const startUsage = `Usage:
  stoker jobs start [command]

Flags:
  -h, --help   help for start
`

const textOf = (cause: unknown) => cause instanceof Error ? cause.message : String(cause)

const standardInput = Effect.tryPromise({
  try: async () => {
    const pieces: Array<Buffer> = []
    for await (const piece of process.stdin) pieces.push(Buffer.from(piece))
    return Buffer.concat(pieces).toString("utf8")
  },
  catch: (cause) => usageFailure(`standard input cannot be read: ${textOf(cause)}`, "Write @FILE instead of @-.")
})

/** `@FILE` and `@-` are what is in them. */
const contentOf = (text: string): Effect.Effect<string, CliFailure> =>
  !text.startsWith("@")
    ? Effect.succeed(text)
    : text === "@-"
    ? standardInput
    : Effect.tryPromise({
      try: () => readFile(text.slice(1), "utf8"),
      catch: (cause) => usageFailure(`${text.slice(1)} cannot be read: ${textOf(cause)}`, "Check the name behind @.")
    })

/** The words with the contents of the files they name. */
const withContents = Effect.fnUntraced(function*(given: Given) {
  const fields = new Map<Call["flags"][number], ReadonlyArray<string>>()
  for (const [field, texts] of given.fields) {
    fields.set(field, field.kind === "json" ? yield* Effect.forEach(texts, contentOf) : texts)
  }
  const json = given.json === undefined ? undefined : yield* contentOf(given.json === "-" ? "@-" : given.json)
  return { ...given, fields, json }
})

const unknownFunction = (name: string, { functions, instead }: Known) =>
  instead === undefined
    ? `unknown command "${name}" for "stoker jobs start": there are ${
      functions.map((one) => one.name).toSorted().join(", ")
    }`
    : undefined

/** Of the command's own words: those of the server have been taken out. */
export const startJob = Effect.fnUntraced(function*(choice: ServerChoice, words: ReadonlyArray<string>) {
  const split = splitStart(words, startOptions)
  if (Result.isFailure(split)) return yield* misused(split.failure, startUsage)
  const { help, name, options, rest } = split.success
  const offered = yield* known(choice)
  const { functions, instead } = offered
  if (name === undefined) {
    if (options.length > 0 && !help) return yield* misused("accepts the name of a function, received none", startUsage)
    yield* print(listText(functions))
    if (instead !== undefined) {
      yield* say(`stoker: these are the built-in functions; the server's are not known: ${lineOf(instead)}`)
    }
    return
  }
  const view = functions.find((one) => one.name === name)
  if (view === undefined) {
    const error = unknownFunction(name, offered)
    // Whether there is such a function only the server knows.
    return yield* error === undefined ? asking(choice, Effect.fail(instead ?? lost)) : misused(error, startUsage)
  }
  const call = callOf(view)
  const read = readWords(call, rest, startOptions)
  if (help || (Result.isSuccess(read) && read.success.help)) return yield* print(helpText(call))
  if (Result.isFailure(read)) return yield* misused(read.failure, usageText(call))
  const args = assemble(call, yield* withContents(read.success))
  if (Result.isFailure(args)) return yield* misused(args.failure, usageText(call))
  if (instead !== undefined) return yield* asking(choice, Effect.fail(instead))
  yield* withOptions(
    view.name,
    [...options, ...read.success.options],
    (flags) => send(choice, view, args.success, flags)
  )
})

const lineOf = (failure: CliFailure | ClientFailure) => failure.message.replaceAll(/\s*\n\s*/g, ". ")

const lost = new ConnectionError({ problem: "lost", server: "the server", reason: "it does not answer", remedy: "" })

type StartFlags = Command.Command.Config.Infer<typeof startFlags>

/** Reads the options of every job as all other commands read theirs. */
const withOptions = <E, R>(
  name: string,
  words: ReadonlyArray<string>,
  run: (flags: StartFlags) => Effect.Effect<void, E, R>
) =>
  Command.runWith(Command.make(`stoker jobs start ${name}`, startFlags, run), { version: "" })(words).pipe(
    // It has been told; the command around this one would tell it again.
    Effect.catchIf(CliError.isCliError, () => Effect.fail(new ExitWith({ code: exitCode.usage })))
  )

/** Only what was asked for: the server has its own usual terms. */
const termsGiven = (flags: StartFlags["terms"], nowMs: number): Partial<Terms> => {
  const { expiresAtMs, notBeforeMs, priority, retry } = termsOf(flags, nowMs)
  return {
    ...(Option.isSome(flags.priority) ? { priority } : {}),
    ...(notBeforeMs === undefined ? {} : { notBeforeMs }),
    ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
    ...(Option.isSome(flags.tries) ? { retry } : {})
  }
}

const send = Effect.fnUntraced(function*(
  choice: ServerChoice,
  view: FunctionView,
  args: Readonly<Record<string, unknown>>,
  flags: StartFlags
) {
  if (flags.exitCode && !flags.follow) {
    return yield* usageFailure("--exit-code means nothing without --follow", "Say --follow too, or leave it out.")
  }
  const nowMs = DateTime.toEpochMillis(yield* DateTime.now)
  const limits = limitsOf(flags.limits)
  const request: StartRequest = {
    function: view.name,
    args,
    ...(Option.isSome(flags.id) ? { id: flags.id.value } : {}),
    ...(Option.isSome(flags.owner) ? { owner: flags.owner.value } : {}),
    ...(Option.isSome(flags.class) ? { class: flags.class.value } : {}),
    ...(Option.isSome(flags.webhook) ? { webhook: flags.webhook.value } : {}),
    ...(Option.isSome(flags.wait) ? { waitMs: flags.wait.value } : {}),
    ...(Object.keys(limits).length === 0 ? {} : { limits }),
    ...(givenTerms(flags.terms).length === 0 ? {} : { terms: termsGiven(flags.terms, nowMs) })
  }
  const ended = yield* asking(
    choice,
    Effect.gen(function*() {
      const client = yield* StokerClient
      const job = yield* client.start(request)
      yield* showStarted(job, view.title, flags.json)
      if (!flags.follow) return undefined
      if (!flags.json) yield* print("")
      return yield* showOutput({
        id: job.id,
        owner: Option.some(job.owner),
        lines: Option.none(),
        new: false,
        stream: "all",
        raw: false,
        noFollow: false,
        exitCode: flags.exitCode,
        json: flags.json
      })
    })
  )
  if (ended !== undefined && flags.exitCode) yield* exitWith(codeOf(ended))
})
