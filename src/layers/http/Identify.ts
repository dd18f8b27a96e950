/** Who asks over HTTP: by the certificate of the connection, or, where the operator gave some out, by a token. */
import { Effect, Option, type Result } from "effect"
import type { HttpServerRequest } from "effect/http"
import { IncomingMessage } from "node:http"
import { TLSSocket } from "node:tls"
import type { Caller } from "../../schemas/Access.ts"
import type { Unauthenticated } from "../api/Fault.ts"
import { callerOf, type IdentityField } from "../api/Identity.ts"
import type { Tokens } from "../api/Tokens.ts"
import { nowMs } from "../Now.ts"

const socketOf = ({ source }: HttpServerRequest.HttpServerRequest): TLSSocket | undefined =>
  source instanceof IncomingMessage && source.socket instanceof TLSSocket ? source.socket : undefined

/** HOST:PORT a request comes from. */
export const fromOf = (request: HttpServerRequest.HttpServerRequest): string | undefined => {
  const { remoteAddress, remotePort } = socketOf(request) ?? {}
  if (remoteAddress === undefined) return Option.getOrUndefined(request.remoteAddress)
  return `${remoteAddress.includes(":") ? `[${remoteAddress}]` : remoteAddress}:${remotePort}`
}

interface Shown {
  readonly caller: Result.Result<Caller, Unauthenticated>
  /** When the certificate ends. Milliseconds since 1970. */
  readonly untilMs: number
}

const ended: Unauthenticated = {
  _tag: "Unauthenticated",
  reason: "the certificate has ended since the connection was made",
  remedy: "Renew it, and connect again: stoker certs renew NAME"
}

/** A certificate that TLS found good comes first; a bad one is none. A connection's is read once, and looked at until it ends. */
export const make = (field: IdentityField, tokens: Tokens["Service"]) => {
  const known = new WeakMap<TLSSocket, Shown>()
  const shownBy = (socket: TLSSocket, from: string | undefined): Shown => {
    const before = known.get(socket)
    if (before !== undefined) return before
    const certificate = socket.authorized ? socket.getPeerCertificate() : undefined
    const shown = { caller: callerOf(certificate, field, from), untilMs: Date.parse(certificate?.valid_to ?? "") }
    known.set(socket, shown)
    return shown
  }
  return Effect.fnUntraced(
    function*(request: HttpServerRequest.HttpServerRequest): Effect.fn.Return<Caller, Unauthenticated> {
      const socket = socketOf(request)
      const from = fromOf(request)
      if (tokens.accepted && socket?.authorized !== true) {
        return yield* Effect.fromResult(yield* tokens.callerOf(request.headers["authorization"], from))
      }
      if (socket === undefined) return yield* Effect.fromResult(callerOf(undefined, field, from))
      const { caller, untilMs } = shownBy(socket, from)
      return untilMs <= (yield* nowMs) ? yield* Effect.fail(ended) : yield* Effect.fromResult(caller)
    }
  )
}
