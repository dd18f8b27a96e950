/** Who asks over HTTP: by the certificate of the connection, or, where the operator gave some out, by a token. */
import { Effect, Option, type Result } from "effect"
import type { HttpServerRequest } from "effect/http"
import { IncomingMessage } from "node:http"
import { TLSSocket } from "node:tls"
import type { Caller } from "../../schemas/Access.ts"
import type { Unauthenticated } from "../api/Fault.ts"
import { callerOf, type IdentityField } from "../api/Identity.ts"
import type { Tokens } from "../api/Tokens.ts"

const socketOf = ({ source }: HttpServerRequest.HttpServerRequest): TLSSocket | undefined =>
  source instanceof IncomingMessage && source.socket instanceof TLSSocket ? source.socket : undefined

/** HOST:PORT a request comes from. */
export const fromOf = (request: HttpServerRequest.HttpServerRequest): string | undefined => {
  const { remoteAddress, remotePort } = socketOf(request) ?? {}
  if (remoteAddress === undefined) return Option.getOrUndefined(request.remoteAddress)
  return `${remoteAddress.includes(":") ? `[${remoteAddress}]` : remoteAddress}:${remotePort}`
}

/** A certificate that TLS found good comes first; a bad one is none. A connection's is looked at once. */
export const make = (field: IdentityField, tokens: Tokens["Service"]) => {
  const known = new WeakMap<TLSSocket, Result.Result<Caller, Unauthenticated>>()
  const shown = (socket: TLSSocket | undefined, from: string | undefined) => {
    if (socket === undefined) return callerOf(undefined, field, from)
    const before = known.get(socket)
    if (before !== undefined) return before
    const caller = callerOf(socket.authorized ? socket.getPeerCertificate() : undefined, field, from)
    known.set(socket, caller)
    return caller
  }
  return (request: HttpServerRequest.HttpServerRequest): Effect.Effect<Caller, Unauthenticated> =>
    Effect.suspend(() => {
      const socket = socketOf(request)
      const from = fromOf(request)
      return tokens.accepted && socket?.authorized !== true
        ? Effect.flatMap(tokens.callerOf(request.headers["authorization"], from), Effect.fromResult)
        : Effect.fromResult(shown(socket, from))
    })
}
