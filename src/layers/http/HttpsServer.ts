/** The `node:https` server below: TLS, timeouts, bounds, and what a connection that speaks no HTTP is told. */
import { Effect, type Scope } from "effect"
import { STATUS_CODES } from "node:http"
import { createServer, type Server } from "node:https"
import type { Socket } from "node:net"
import type { Duplex } from "node:stream"
import { problemType } from "../../schemas/api/Problem.ts"
import { follow, type Tls } from "../api/Tls.ts"
import { secureContext, serverTls } from "../api/TlsMaterial.ts"
import { Places } from "./Places.ts"
import { largeHeaders, malformed, problemOf, slowRequest } from "./Problems.ts"

export interface HttpsOptions {
  /** A later material is used for connections from then on; those that are open stay. */
  readonly tls: Tls["Service"]
  /** `required`: who has no certificate of our authority never gets to speak. */
  readonly clientCertificate: "required" | "optional"
  readonly maximumConnections: number
}

/** Milliseconds. */
const HANDSHAKE = 10_000
const HEADERS = 10_000
const REQUEST = 60_000
const BETWEEN_REQUESTS = 10_000
/** Nothing is read and nothing can be written: longer than any wait a request may ask for. */
const STANDSTILL = 150_000
const CHECK_INTERVAL = 1000

const codeOf = (error: Error): unknown => "code" in error ? error.code : undefined

const refusalOf = (error: Error) => {
  switch (codeOf(error)) {
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return slowRequest("the request did not come in in time", "Send it faster.")
    case "HPE_HEADER_OVERFLOW":
      return largeHeaders("the headers are larger than 16 KiB", "Send less.")
    default:
      return malformed("this is not HTTP/1.1", "Send an HTTP request.")
  }
}

const endWith = (error: Error, socket: Duplex) => {
  if (codeOf(error) === "ECONNRESET" || !socket.writable) {
    socket.destroy()
    return
  }
  const problem = problemOf(refusalOf(error))
  const body = JSON.stringify(problem)
  socket.end(
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status] ?? ""}\r\nConnection: close\r\n`
      + `Content-Type: ${problemType}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    () => socket.destroy()
  )
}

/** A server that does not listen yet, and what cuts off whatever is still open when it is to end. */
export const make = Effect.fnUntraced(function*(
  { clientCertificate, maximumConnections, tls }: HttpsOptions
): Effect.fn.Return<{ readonly server: Server; readonly cutOff: Effect.Effect<void> }, never, Scope.Scope> {
  const places = new Places(maximumConnections)
  const server = createServer({
    ...serverTls(yield* tls.material),
    rejectUnauthorized: clientCertificate === "required",
    handshakeTimeout: HANDSHAKE,
    headersTimeout: HEADERS,
    requestTimeout: REQUEST,
    keepAliveTimeout: BETWEEN_REQUESTS,
    connectionsCheckingInterval: CHECK_INTERVAL,
    maxHeaderSize: 16 * 1024
  })
  server.timeout = STANDSTILL
  server.on("connection", (socket: Socket) => places.opened(socket))
  server.on("secureConnection", (socket) => places.secured(socket))
  server.on("clientError", endWith)
  server.on("tlsClientError", (_error, socket) => socket.destroy())
  yield* follow(tls, (next) => server.setSecureContext(secureContext(next)))
  return { server, cutOff: Effect.sync(() => places.closeAll()) }
})
