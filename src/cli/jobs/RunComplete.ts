/** `stoker jobs complete`: what can stand where the cursor is, one a line. For completion scripts; says nothing else. */
import { Effect, Option } from "effect"
import { StokerClient } from "../../client/StokerClient.ts"
import { print } from "../Output.ts"
import { callOf, entrySchema, type Field } from "./Fields.ts"
import { clientOf } from "./Server.ts"
import { type ServerChoice, serverFlagNames } from "./ServerFlags.ts"
import { startOptions } from "./StartOptions.ts"
import { choicesOf, jsonArgs, splitStart } from "./StartWords.ts"

/** Nobody waits longer for a completion. */
const PATIENCE = "1 second"
const MOST_IDS = 50

const functions = Effect.flatMap(StokerClient, (client) => client.functions)

const ids = (state: "running" | undefined) =>
  Effect.flatMap(StokerClient, (client) => client.list({ limit: MOST_IDS, ...(state === undefined ? {} : { state }) }))
    .pipe(Effect.map(({ jobs }) => jobs.map(({ id }) => id)))

const flagWord = ({ flag }: Field) => `--${flag}`

/** Words after `jobs start`, the last one unfinished. */
const ofStart = Effect.fnUntraced(function*(before: ReadonlyArray<string>) {
  const split = splitStart(before, startOptions)
  const name = split._tag === "Success" ? split.success.name : undefined
  const general = [...Object.keys(startOptions), ...serverFlagNames.map((each) => `--${each}`), "--help"]
  if (name === undefined) return [...(yield* functions).map((one) => one.name), ...general]
  const view = (yield* functions).find((one) => one.name === name)
  if (view === undefined) return general
  const call = callOf(view)
  const last = before.at(-1)
  const field = call.flags.find((each) => flagWord(each) === last && each.kind !== "switch")
  if (field !== undefined) {
    return choicesOf(field.kind === "map" ? entrySchema(field.schema, call.root) ?? {} : field.schema)
  }
  return [...call.flags.map(flagWord), `--${jsonArgs}`, ...general]
})

/** `words`: what stands behind `jobs`, the last one being the one to complete. */
export const complete = (choice: ServerChoice, words: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.gen(function*() {
    const word = words.at(-1) ?? ""
    const [command = "", ...before] = words.slice(0, -1)
    const found = command === "start"
      ? yield* ofStart(before)
      : command === "stop"
      ? yield* ids("running")
      : ["status", "tail", "delete"].includes(command)
      ? yield* ids(undefined)
      : []
    const matching = found.filter((each) => each.startsWith(word))
    if (matching.length > 0) yield* print([...new Set(matching)].join("\n"))
  }).pipe(
    Effect.provide(clientOf(choice)),
    Effect.timeoutOption(PATIENCE),
    Effect.exit,
    Effect.asVoid
  )

/** None of the server's flags: they stand among the words to complete, and are found there. */
export const choiceIn = (words: ReadonlyArray<string>): ServerChoice => {
  const valueOf = (flag: string) => {
    const at = words.findIndex((word) => word === `--${flag}` || word.startsWith(`--${flag}=`))
    const word = words[at] ?? ""
    return Option.fromUndefinedOr(
      at < 0 ? undefined : word.includes("=") ? word.slice(word.indexOf("=") + 1) : words[at + 1]
    )
  }
  return {
    context: valueOf("context"),
    server: valueOf("server"),
    ca: valueOf("ca"),
    cert: valueOf("cert"),
    key: valueOf("key"),
    tokenFile: valueOf("token-file")
  }
}
