/** The API over real TLS, and callers who bring certificates. */
import { Effect, Stream } from "effect"
import { NetAddress } from "effect/net"
import type { IncomingMessage } from "node:http"
import { type Agent, request, type RequestOptions } from "node:https"
import type { ConnectionOptions } from "node:tls"
import { Tls } from "../../src/layers/api/Tls.ts"
import { clientTls, type TlsMaterial } from "../../src/layers/api/TlsMaterial.ts"
import { type HttpOptions, serve } from "../../src/layers/http/HttpServer.ts"
import { certificates } from "../support/Certs.ts"

/** A server at a free port of 127.0.0.1; gives the port. */
export const server = Effect.fnUntraced(
  function*(options: Partial<HttpOptions> & { readonly tls?: Tls["Service"] } = {}) {
    const { tls, ...rest } = options
    const { server: material } = yield* Effect.promise(certificates)
    const fixed = { material: Effect.succeed(material), changes: Stream.make(material) }
    const address = yield* serve({ listen: "127.0.0.1:0", rateLimit: { perSecond: 1e6, burst: 1e6 }, ...rest }).pipe(
      Effect.provideService(Tls, tls ?? fixed)
    )
    return NetAddress.isInetAddress(address) ? address.port : 0
  }
)

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
