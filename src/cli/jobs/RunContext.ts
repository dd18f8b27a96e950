/** `stoker context add`, `use`, `list`, `remove` and `show`. */
import { Effect, Option } from "effect"
import { resolve } from "node:path"
import { parseAddress, readCredentials } from "../../client/Target.ts"
import { type CliFailure, usageFailure } from "../CliFailure.ts"
import { print, say } from "../Output.ts"
import { table } from "../Style.ts"
import { telling } from "./Ask.ts"
import { type ContextsFile, isContextName, readContexts, type ServerContext, writeContexts } from "./Contexts.ts"

interface AddFlags {
  readonly name: string
  readonly server: string
  readonly ca: Option.Option<string>
  readonly cert: Option.Option<string>
  readonly key: Option.Option<string>
  readonly tokenFile: Option.Option<string>
  readonly use: boolean
  readonly overwrite: boolean
}

const path = <K extends string>(name: K, value: Option.Option<string>): { readonly [P in K]?: string } =>
  Option.isSome(value) ? { [name]: resolve(value.value) } as { readonly [P in K]: string } : {}

const missing = (name: string, { contexts }: ContextsFile) =>
  usageFailure(
    `there is no context ${name}`,
    Object.keys(contexts).length === 0
      ? "Make it: stoker context add."
      : `There are: ${Object.keys(contexts).join(", ")}.`
  )

const existing = (name: string, file: ContextsFile): Effect.Effect<ServerContext, CliFailure> => {
  const found = Object.hasOwn(file.contexts, name) ? file.contexts[name] : undefined
  return found === undefined ? Effect.fail(missing(name, file)) : Effect.succeed(found)
}

/** The first one is the one that is meant. */
export const addContext = Effect.fnUntraced(function*(flags: AddFlags) {
  const { name } = flags
  if (!isContextName(name)) {
    return yield* usageFailure(
      `${name} is no name for a context`,
      "Use 1 to 64 letters, digits, '.', '_', '@' and '-', beginning with a letter or digit."
    )
  }
  const address = parseAddress(flags.server)
  if (address === undefined) {
    return yield* usageFailure(
      `the server ${flags.server} is no address`,
      "Write grpc://HOST:PORT or https://HOST:PORT."
    )
  }
  const files = {
    ...path("ca", flags.ca),
    ...path("cert", flags.cert),
    ...path("key", flags.key),
    ...path("tokenFile", flags.tokenFile)
  }
  // What cannot be read now will not be readable when a job is to be started.
  yield* telling(readCredentials(address.text, files))
  const file = yield* readContexts
  if (Object.hasOwn(file.contexts, name) && !flags.overwrite) {
    return yield* usageFailure(`there is a context ${name} already`, "Choose another name, or say --overwrite.")
  }
  const current = flags.use ? name : file.current ?? name
  yield* writeContexts({ current, contexts: { ...file.contexts, [name]: { server: address.text, ...files } } })
  yield* say(`stoker: context ${name} is ${address.text}${current === name ? ", and the one that is meant" : ""}`)
})

export const useContext = Effect.fnUntraced(function*(name: string) {
  const file = yield* readContexts
  const { server } = yield* existing(name, file)
  yield* writeContexts({ ...file, current: name })
  yield* say(`stoker: from now on ${name} is meant: ${server}`)
})

export const removeContext = Effect.fnUntraced(function*(name: string) {
  const file = yield* readContexts
  yield* existing(name, file)
  const { current, contexts: { [name]: _, ...contexts } } = file
  yield* writeContexts({ contexts, ...(current === undefined || current === name ? {} : { current }) })
  yield* say(`stoker: context ${name} is forgotten`)
})

const identity = ({ cert, tokenFile }: ServerContext) => cert ?? tokenFile ?? ""

export const listContexts = Effect.fnUntraced(function*(json: boolean) {
  const file = yield* readContexts
  if (json) return yield* print(JSON.stringify(file))
  const names = Object.entries(file.contexts)
  if (names.length === 0) return yield* say("stoker: there are no contexts; `stoker context add` makes one")
  yield* print(table([
    ["", "NAME", "SERVER", "CERTIFICATE OR TOKEN"],
    ...names.map(([name, context]) => [name === file.current ? "*" : "", name, context.server, identity(context)])
  ]))
})

export const showContext = Effect.fnUntraced(function*(name: Option.Option<string>, json: boolean) {
  const file = yield* readContexts
  const wanted = Option.getOrUndefined(name) ?? file.current
  if (wanted === undefined) {
    return yield* usageFailure("no context is meant", "Choose one: stoker context use NAME.")
  }
  const context = yield* existing(wanted, file)
  if (json) return yield* print(JSON.stringify({ name: wanted, ...context }))
  yield* print(table([["name", wanted], ...Object.entries(context).map(([field, value]) => [field, String(value)])]))
})
