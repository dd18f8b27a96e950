/** What `stoker dead` does: one call, one rendering each. */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Context, Effect, Layer, Option, type Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { type DeadLetter, DeadLetters, type OpenLetter, type Selection } from "../../layers/deadletters/DeadLetters.ts"
import * as DeadLettersOf from "../../layers/deadletters/DeadLettersOf.ts"
import { randomName } from "../../layers/host/RandomName.ts"
import { usageFailure } from "../CliFailure.ts"
import * as Loggers from "../Loggers.ts"
import { print, say } from "../Output.ts"
import { existingState, stateDirectory } from "../StateDirectory.ts"
import { table } from "../Style.ts"
import { formatBytes } from "../Units.ts"

interface Common {
  readonly amqp: Option.Option<Redacted.Redacted<string>>
  readonly state: Option.Option<string>
  readonly journal: Option.Option<Redacted.Redacted<string>>
  readonly queue: string
  readonly json: boolean
}

interface Selected extends Common {
  readonly ids: ReadonlyArray<string>
  readonly all: boolean
}

const logged = Loggers.layer({ format: "auto", usual: "Error" })

const ofBroker = Effect.fnUntraced(function*(url: Redacted.Redacted<string>, queue: string) {
  const DeadLettersAmqp = yield* Effect.promise(() => import("../../layers/deadletters/DeadLettersAmqp.ts"))
  const name = `dead-${yield* randomName(yield* SecureRandom.SecureRandom, 6)}`
  return Context.get(yield* Layer.build(DeadLettersAmqp.layer({ url, name, queue })), DeadLetters)
})

const ofJournal = Effect.fnUntraced(function*(journal: Common["journal"], directory: string) {
  const [DeadLettersJournal, Records] = yield* Effect.promise(() =>
    Promise.all([import("../../layers/deadletters/DeadLettersJournal.ts"), import("../Records.ts")])
  )
  const layer = Layer.provide(DeadLettersJournal.layer, Records.layerJournal(journal, directory))
  return Context.get(yield* Layer.build(layer), DeadLetters)
})

/** The broker's, and those of the journal: who has both wants to see both. One that was named has to be there. */
const places = Effect.fnUntraced(function*({ amqp, journal, queue, state }: Common) {
  const found = Option.isSome(journal) ? stateDirectory(state) : existingState(state)
  const directory = Option.isSome(amqp) && Option.isNone(state) && Option.isNone(journal) ?
    yield* Effect.option(found) :
    yield* Effect.asSome(
      Effect.mapError(found, (error) =>
        Option.isSome(amqp) ? error : usageFailure(
          `there is no broker to ask, and ${error.reason}`,
          "Set AMQP_URL, or give --amqp; or name a worker's directory with --state or STOKER_STATE."
        ))
    )
  return [
    ...(Option.isSome(directory) ? [yield* ofJournal(journal, directory.value)] : []),
    ...(Option.isSome(amqp) ? [yield* ofBroker(amqp.value, queue)] : [])
  ]
})

/** Runs with the letters of all those places. */
const withLetters = <A, E, R>(common: Common, act: Effect.Effect<A, E, R | DeadLetters>) =>
  Effect.gen(function*() {
    const [first, ...others] = yield* places(common)
    if (first === undefined) return yield* Effect.die("neither a broker nor a journal")
    return yield* Effect.provideService(act, DeadLetters, DeadLettersOf.make(first, ...others))
  }).pipe(Effect.scoped, Effect.provide([layerSecureRandom, logged]))

const selection = Effect.fnUntraced(function*({ all, ids }: Selected) {
  if (all === ids.length > 0) {
    return yield* usageFailure("name letters or say --all", "`stoker dead list` shows the letters with their ids.")
  }
  const selected: Selection = all ? "all" : ids
  return selected
})

/** A stranger's words on somebody's terminal: no control character but tab and newline. */
const harmless = (text: string) =>
  // oxlint-disable-next-line no-control-regex
  text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, (character) =>
    `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)

const lines = (letters: ReadonlyArray<DeadLetter>) =>
  table([
    ["LETTER", "TIME", "QUEUE", "SIZE", "MESSAGE", "REASON"],
    ...letters.map(({ bytes, id, messageId, queue, reason, time }) => [
      id,
      time ?? "-",
      queue,
      formatBytes(bytes),
      messageId ?? "-",
      reason
    ])
  ])

/** Content as JSON: text where it is UTF-8, else base64. */
const content = (body: Uint8Array) => {
  const text = Buffer.from(body).toString("utf8")
  return Buffer.from(text, "utf8").equals(body)
    ? { text }
    : { base64: Buffer.from(body).toString("base64") }
}

const details = ({ body, bytes, headers, id, isCut, messageId, queue, reason, remedy, time, user }: OpenLetter) => {
  const { base64, text } = { base64: undefined, text: undefined, ...content(body) }
  const facts = table([
    ["letter", id],
    ["reason", reason],
    ["remedy", remedy],
    ["queue", queue],
    ...(time === undefined ? [] : [["time", time]]),
    ...(messageId === undefined ? [] : [["message", messageId]]),
    ...(user === undefined ? [] : [["user", user]]),
    ["size", isCut ? `${formatBytes(bytes)}, cut: it was too large` : formatBytes(bytes)],
    ["headers", JSON.stringify(headers)]
  ])
  return `${facts}\n\n${text ?? `base64: ${base64}`}`
}

export const listDead = Effect.fn("DeadActs.list")((flags: Common & { readonly limit: number }) =>
  withLetters(
    flags,
    Effect.gen(function*() {
      const { letters, total } = yield* (yield* DeadLetters).list(flags.limit)
      if (flags.json) return yield* print(JSON.stringify({ total, letters }))
      if (total === 0) return yield* say("stoker: there are no dead letters")
      yield* print(harmless(lines(letters)))
      if (letters.length < total) yield* say(`stoker: the oldest ${letters.length} of ${total}; --limit shows more`)
    })
  )
)

export const showDead = Effect.fn("DeadActs.show")((flags: Common & { readonly id: string }) =>
  withLetters(
    flags,
    Effect.gen(function*() {
      const letter = yield* (yield* DeadLetters).show(flags.id)
      const { body, ...rest } = letter
      yield* print(flags.json ? JSON.stringify({ ...rest, ...content(body) }) : harmless(details(letter)))
    })
  )
)

const report = (done: string, json: boolean) => (letters: ReadonlyArray<DeadLetter>) =>
  json
    ? print(JSON.stringify(letters))
    : say(`stoker: ${letters.length} ${letters.length === 1 ? "letter" : "letters"} ${done}`)

export const retryDead = Effect.fn("DeadActs.retry")((flags: Selected) =>
  withLetters(
    flags,
    Effect.gen(function*() {
      const letters = yield* DeadLetters
      yield* Effect.flatMap(letters.retry(yield* selection(flags)), report("sent again", flags.json))
    })
  )
)

export const dropDead = Effect.fn("DeadActs.drop")((flags: Selected) =>
  withLetters(
    flags,
    Effect.gen(function*() {
      const letters = yield* DeadLetters
      yield* Effect.flatMap(letters.drop(yield* selection(flags)), report("thrown away", flags.json))
    })
  )
)
