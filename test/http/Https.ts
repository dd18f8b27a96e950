/** The API over real TLS, and callers who bring certificates. */
import { Effect, Stream } from "effect"
import { NetAddress } from "effect/net"
import type { IncomingMessage } from "node:http"
import { type Agent, request, type RequestOptions } from "node:https"
import { type ConnectionOptions, TLSSocket } from "node:tls"
import { clientTls, type TlsMaterial } from "../../src/layers/api/TlsMaterial.ts"
import { type HttpOptions, serve } from "../../src/layers/http/HttpServer.ts"
import { Owner } from "../../src/schemas/Ids.ts"
import { certificates } from "../support/Certs.ts"

/** By the name in the verified certificate, and nothing else. */
const identify: HttpOptions["identify"] = ({ source }) =>
  Effect.suspend(() => {
    const { socket } = source as IncomingMessage
    const certificate = socket instanceof TLSSocket && socket.authorized ? socket.getPeerCertificate() : undefined
    return certificate === undefined || Object.keys(certificate).length === 0
      ? Effect.fail({ _tag: "Unauthenticated", reason: "no certificate", remedy: "Bring one." } as const)
      : Effect.succeed({ name: Owner.make(String(certificate.subject.CN)), via: "certificate" } as const)
  })

/** A server at a free port of 127.0.0.1; gives the port. */
export const server = Effect.fnUntraced(function*(options: Partial<HttpOptions> = {}) {
  const { server: material } = yield* Effect.promise(certificates)
  const address = yield* serve({
    listen: "127.0.0.1:0",
    material,
    renewals: Stream.empty,
    clientCertificate: "required",
    identify,
    rateLimit: { perSecond: 1e6, burst: 1e6 },
    ...options
  })
  return NetAddress.isInetAddress(address) ? address.port : 0
})

export interface Answer {
  readonly status: number
  readonly headers: IncomingMessage["headers"]
  readonly body: Buffer
}

export interface Call extends Pick<RequestOptions, "method" | "headers"> {
  readonly body?: string
  readonly tls?: ConnectionOptions
}

/** A connection's side of a caller; nobody if there is no material. */
export const tlsOf = (material: TlsMaterial | undefined, ca: string): ConnectionOptions =>
  material === undefined ? { ca, minVersion: "TLSv1.3" } : clientTls(material)

/** Sends a request; gives the answer with its body still to come. */
export const open = (port: number, path: string, { body, tls, ...rest }: Call & { readonly agent?: Agent }) =>
  Effect.callback<IncomingMessage, Error>((resume) => {
    const outgoing = request({
      agent: false,
      ...tls,
      ...rest,
      headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...rest.headers },
      host: "127.0.0.1",
      port,
      path
    }, (answer) => {
      answer.on("error", () => undefined)
      resume(Effect.succeed(answer))
    })
    outgoing.on("error", (error) => resume(Effect.fail(error)))
    outgoing.end(body)
    return Effect.sync(() => outgoing.destroy())
  })

/** Sends a request and takes in the whole answer. */
export const call = (port: number, path: string, options: Call = {}): Effect.Effect<Answer, Error> =>
  Effect.flatMap(open(port, path, options), (answer) =>
    Effect.callback<Answer, Error>((resume) => {
      const chunks: Array<Buffer> = []
      answer.on("data", (chunk: Buffer) => chunks.push(chunk))
      answer.once("error", (error) => resume(Effect.fail(error)))
      answer.once("end", () =>
        resume(Effect.succeed({
          status: answer.statusCode ?? 0,
          headers: answer.headers,
          body: Buffer.concat(chunks)
        })))
    }))

/** JSON of an answer. */
export const json = ({ body }: Answer): unknown => JSON.parse(body.toString())
