/** Finds the server a command is for: flags before environment before context; and connects to it. */
import { Config, Effect, Layer, Option } from "effect"
import { resolve } from "node:path"
import type { ConnectionError, StokerClient } from "../../client/StokerClient.ts"
import { parseAddress, readCredentials, type Target } from "../../client/Target.ts"
import { type CliFailure, usageFailure } from "../CliFailure.ts"
import { readContexts, type ServerContext } from "./Contexts.ts"
import type { ServerChoice } from "./ServerFlags.ts"

const environment = Config.all({
  context: Config.option(Config.NonEmptyString("STOKER_CONTEXT")),
  server: Config.option(Config.NonEmptyString("STOKER_SERVER")),
  ca: Config.option(Config.NonEmptyString("STOKER_CA")),
  cert: Config.option(Config.NonEmptyString("STOKER_CERT")),
  key: Config.option(Config.NonEmptyString("STOKER_KEY")),
  tokenFile: Config.option(Config.NonEmptyString("STOKER_TOKEN_FILE"))
})

const fields = ["server", "ca", "cert", "key", "tokenFile"] as const

/** What a layer of settings says; paths are relative to where the user is. */
const saidBy = (choice: Omit<ServerChoice, "context">): Partial<ServerContext> =>
  Object.fromEntries(
    fields.flatMap((field) =>
      Option.match(choice[field], {
        onNone: () => [],
        onSome: (value) => [[field, field === "server" ? value : resolve(value)]]
      })
    )
  )

const named = Effect.fnUntraced(function*(name: string): Effect.fn.Return<ServerContext, CliFailure> {
  const { contexts } = yield* readContexts
  const found = Object.hasOwn(contexts, name) ? contexts[name] : undefined
  if (found !== undefined) return found
  const names = Object.keys(contexts)
  return yield* usageFailure(
    `there is no context ${name}`,
    names.length === 0
      ? "Make it: stoker context add."
      : `There are: ${names.join(", ")}. \`stoker context add\` makes one.`
  )
})

/**
 * What counts. A context that a flag names is stronger than the environment; a server that a flag or variable names has
 * nothing of any context that was not named with it: its credentials are nobody else's business.
 */
export const chooseServer = Effect.fnUntraced(function*(
  choice: ServerChoice
): Effect.fn.Return<Partial<ServerContext>, CliFailure> {
  const variables = yield* Effect.orDie(environment)
  const flags = saidBy(choice)
  if (Option.isSome(choice.context)) return { ...yield* named(choice.context.value), ...flags }
  const env = saidBy(variables)
  if (flags.server !== undefined || env.server !== undefined) {
    const base = Option.isSome(variables.context) && flags.server === undefined
      ? yield* named(variables.context.value)
      : {}
    return { ...base, ...env, ...flags }
  }
  const current = Option.isSome(variables.context) ? variables.context.value : (yield* readContexts).current
  return { ...(current === undefined ? {} : yield* named(current)), ...env, ...flags }
})

/** Where to connect to, with the files read. */
export const targetOf = Effect.fnUntraced(function*(
  choice: ServerChoice
): Effect.fn.Return<Target, CliFailure | ConnectionError> {
  const { server, ...files } = yield* chooseServer(choice)
  if (server === undefined) {
    return yield* usageFailure(
      "no server is named",
      "Name one with --server grpc://HOST:PORT, or STOKER_SERVER, or once for all: stoker context add NAME --server …"
    )
  }
  const address = parseAddress(server)
  if (address === undefined) {
    return yield* usageFailure(`the server ${server} is no address`, "Write grpc://HOST:PORT or https://HOST:PORT.")
  }
  return { address, credentials: yield* readCredentials(address.text, files) }
})

/** The client for it. Only its protocol's part is loaded. */
export const clientOf = (choice: ServerChoice): Layer.Layer<StokerClient, CliFailure | ConnectionError> =>
  Layer.unwrap(Effect.gen(function*() {
    const target = yield* targetOf(choice)
    return target.address.protocol === "grpc"
      ? (yield* Effect.promise(() => import("../../client/StokerClientGrpc.ts"))).layer(target)
      : (yield* Effect.promise(() => import("../../client/StokerClientHttp.ts"))).layer(target)
  }))
