/** Bearer tokens, for callers without certificates: off unless a file of them is configured. */
import { Context, DateTime, Effect, Layer, Result } from "effect"
import { createHash, timingSafeEqual } from "node:crypto"
import type { Caller } from "../../schemas/Access.ts"
import { documentReader } from "../../schemas/JsonDocument.ts"
import { type Token, TokensFile } from "../../schemas/TokensFile.ts"
import { type FileRefused, watched, type WatchOptions } from "../config/Watched.ts"
import { nowMs } from "../Now.ts"
import { decodeFile } from "./ConfiguredFile.ts"
import type { Unauthenticated } from "./Fault.ts"

/** Who a token belongs to. */
export class Tokens extends Context.Service<Tokens, {
  /** Whether any could be good: what a door says it takes. */
  readonly accepted: boolean
  /** `authorization`: the header as it came, if it did. `from`: HOST:PORT. */
  readonly callerOf: (
    authorization: string | undefined,
    from?: string
  ) => Effect.Effect<Result.Result<Caller, Unauthenticated>>
}>()("stoker/layers/api/Tokens") {}

const stranger = (reason: string, remedy: string): Result.Result<never, Unauthenticated> =>
  Result.fail({ _tag: "Unauthenticated", reason, remedy })

const anew = "Ask the operator for a token."

const bearer = /^Bearer +([A-Za-z0-9._~+/-]{1,512}=*) *$/i

/** Compares with all of them, each in the same time, wherever a difference begins. */
const find = (tokens: ReadonlyArray<Token>, secret: string): ReadonlyArray<Token> => {
  const hash = createHash("sha256").update(secret).digest()
  return tokens.filter(({ sha256 }) => timingSafeEqual(hash, Buffer.from(sha256, "hex")))
}

const caller = (
  tokens: ReadonlyArray<Token>,
  authorization: string | undefined,
  from: string | undefined,
  now: number
) => {
  if (authorization === undefined) return stranger("no token was sent", `Send "Authorization: Bearer TOKEN". ${anew}`)
  const secret = bearer.exec(authorization)?.[1]
  if (secret === undefined) return stranger("the Authorization header holds no bearer token", anew)
  const found = find(tokens, secret)
  if (found.length === 0) return stranger("the token is not known", anew)
  const good = found.find(({ expiresAt }) => expiresAt === undefined || DateTime.toEpochMillis(expiresAt) > now)
  if (good === undefined) return stranger("the token has expired", anew)
  const known: Caller = { name: good.name, via: "token", ...(from === undefined ? {} : { from }) }
  return Result.succeed(known)
}

const readTokens = documentReader(TokensFile, new Set(["tokens"]))

/** A file of hashes, read again when it changes: who is taken out of it is refused from then on. */
export const layerFile = (
  file: string,
  options: Pick<WatchOptions<string, unknown>, "poll"> = {}
): Layer.Layer<Tokens, FileRefused> =>
  Layer.effect(
    Tokens,
    Effect.map(
      watched({
        what: "the tokens",
        files: { file },
        read: (texts) => decodeFile(file, readTokens(texts.file), "`stoker certs token NAME` prints a line for it."),
        ...options
      }),
      ({ current }) => ({
        accepted: true,
        callerOf: (authorization, from) =>
          Effect.map(
            Effect.all([current, nowMs]),
            ([{ tokens }, now]) => caller(tokens, authorization, from, now)
          )
      })
    )
  )

/** None is good. */
export const layerNone: Layer.Layer<Tokens> = Layer.succeed(Tokens, {
  accepted: false,
  callerOf: () =>
    Effect.succeed(
      stranger("this worker takes no tokens", "Show a client certificate, or ask the operator to allow tokens.")
    )
})
