/**
 * The transport: TLS 1.3 with client certificates by Node, HTTP/2 and gRPC by grpc-js, calls as fibers. Connections are
 * accepted here and handed to grpc-js, because it can neither count them nor say whose they are without reading the
 * certificate again at each call (measured: three times slower).
 */
import { Server as GrpcServer, ServerCredentials, type ServerInterceptor } from "@grpc/grpc-js"
import { Clock, Effect, FiberSet, Result, type Scope } from "effect"
import type { SecureRandom } from "effect/crypto"
import { createServer, type Server } from "node:tls"
import { auditStranger } from "../api/Audit.ts"
import { callerOf, type IdentityField } from "../api/Identity.ts"
import { follow, type Tls } from "../api/Tls.ts"
import { secureContext, serverTls } from "../api/TlsMaterial.ts"
import { codeOf, textOf } from "../host/Errno.ts"
import { HostError } from "../host/Host.ts"
import { within } from "../Release.ts"
import { type Calls, implement } from "./Calls.ts"
import { type ConnectionLimits, Connections } from "./Connections.ts"
import type { Offered } from "./Service.ts"
import { statusOfCause } from "./Status.ts"
import { Unread } from "./Unread.ts"

/** How much of itself the door gives. What is absent is standard. */
export interface ServeLimits {
  readonly connections?: Partial<ConnectionLimits>
  /** Calls at once on one connection; more wait at the client. */
  readonly streams?: number
  /** The largest request. Bytes. */
  readonly requestBytes?: number
  /** From a connection to its certificate. */
  readonly handshakeMs?: number
  /** From a call's beginning to the last byte of its request. */
  readonly requestMs?: number
  /** A connection without a call is closed after so long. */
  readonly idleMs?: number
  /**
   * Every peer is asked so often whether it is there, and closed if it does not answer for `keepAliveAnswerMs`. That is how a
   * follower is noticed that went away while it did not read: Node reads no socket whose writes are stuck, not even its end.
   */
  readonly keepAliveMs?: number
  readonly keepAliveAnswerMs?: number
  /** At the end: for calls to come to theirs, before they are told to try elsewhere. */
  readonly graceMs?: number
}

const standard = {
  connections: { all: 4096, ofOne: 1024, shaking: 512 },
  streams: 1000,
  requestBytes: 4 * 1024 * 1024,
  handshakeMs: 10_000,
  requestMs: 20_000,
  idleMs: 600_000,
  keepAliveMs: 10_000,
  keepAliveAnswerMs: 20_000,
  graceMs: 3000
} satisfies ServeLimits

/** For the last answers to get out, at the end. */
const LAST_BYTES = "1 second"

/** What is served, where, and to whom. */
export interface ServeOptions {
  /** "HOST:PORT"; port 0 is any that is free. */
  readonly listen: string
  /** Where in a certificate's subject the caller's name stands. */
  readonly identity: IdentityField
  readonly services: ReadonlyArray<Offered>
  readonly limits?: ServeLimits
  /** Done first when the server ends. */
  readonly onEnd?: Effect.Effect<void>
}

/** Where it listens. */
export interface Served {
  readonly port: number
  /** Connections and calls there are now. */
  readonly load: Effect.Effect<{ readonly connections: number; readonly calls: number }>
}

/** A call whose request does not come in is ended: grpc-js would wait for ever. */
const requestWithin = (limitMs: number): ServerInterceptor => (method, call) => {
  if (method.requestStream) return call as ReturnType<ServerInterceptor>
  const start = call.start.bind(call)
  call.start = (listener) => {
    const late = setTimeout(
      () => call.sendStatus({ code: 4, details: `the request did not come in within ${limitMs} ms` }),
      limitMs
    )
    start({
      onReceiveMetadata: (metadata) => listener.onReceiveMetadata(metadata),
      onReceiveMessage: (message) => listener.onReceiveMessage(message),
      onReceiveHalfClose: () => {
        clearTimeout(late)
        listener.onReceiveHalfClose()
      },
      onCancel: () => {
        clearTimeout(late)
        listener.onCancel()
      }
    })
  }
  // What grpc-js gives, changed in place: a wrapper would make each call some microseconds slower.
  return call as ReturnType<ServerInterceptor>
}

const bindRemedy = (code: string | undefined): string => {
  switch (code) {
    case "EADDRINUSE":
      return "Another program has this port: choose another one, or port 0 for any that is free."
    case "EACCES":
      return "Ports below 1024 need a privilege: choose a higher one."
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return "This host has no such address: use one of its own, 127.0.0.1 or 0.0.0.0."
    default:
      return "Choose another address for gRPC."
  }
}

const listening = (server: Server, listen: string): Effect.Effect<number, HostError> =>
  Effect.callback((resume) => {
    const colon = listen.lastIndexOf(":")
    const failed = (cause: Error) =>
      resume(Effect.fail(
        new HostError({
          operation: `listen on ${listen} for gRPC`,
          reason: textOf(cause),
          remedy: bindRemedy(codeOf(cause)),
          cause
        })
      ))
    server.once("error", failed)
    server.listen(
      { host: listen.slice(0, colon).replaceAll(/[[\]]/g, ""), port: Number(listen.slice(colon + 1)) },
      () => {
        server.off("error", failed)
        server.on("error", () => undefined)
        const address = server.address()
        resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0))
      }
    )
  })

/** Serves until the scope closes: then nobody new comes in, calls have `graceMs` to end, and the rest is interrupted. */
export const serve = Effect.fnUntraced(function*(
  tls: Tls["Service"],
  options: ServeOptions
): Effect.fn.Return<Served, HostError, Scope.Scope | SecureRandom.SecureRandom> {
  const limits = { ...standard, ...options.limits }
  const clock = yield* Clock.Clock
  const services = yield* Effect.context<SecureRandom.SecureRandom>()
  const connections = new Connections(
    { ...standard.connections, ...options.limits?.connections },
    () => clock.currentTimeMillisUnsafe()
  )
  const running = yield* FiberSet.make<unknown, unknown>()
  const fork = yield* FiberSet.runtime(running)()
  const calls: Calls = {
    fork,
    callerOf: (peer) => connections.caller(peer),
    unread: new Unread(),
    statusOfCause: (cause, method) => Effect.provide(statusOfCause(cause, method), services)
  }

  const grpc = new GrpcServer({
    "grpc.max_receive_message_length": limits.requestBytes,
    "grpc.max_concurrent_streams": limits.streams,
    "grpc.max_connection_idle_ms": limits.idleMs,
    "grpc.keepalive_time_ms": limits.keepAliveMs,
    "grpc.keepalive_timeout_ms": limits.keepAliveAnswerMs,
    // Its counters are of use to nobody here, and cost at each call.
    "grpc.enable_channelz": 0,
    interceptors: [requestWithin(limits.requestMs)]
  })
  for (const service of options.services) {
    const { definition, implementation } = implement(calls, service)
    grpc.addService(definition, implementation)
  }
  // TLS is done before: for grpc-js these are plain connections.
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure())

  const server = createServer({
    ...serverTls(yield* tls.material),
    ALPNProtocols: ["h2"],
    handshakeTimeout: limits.handshakeMs,
    noDelay: true
  }, (socket) => {
    const identify = (from: string) => {
      const identity = callerOf(socket.getPeerCertificate(), options.identity, from)
      // Once for each connection, however often it then calls.
      if (Result.isFailure(identity)) fork(auditStranger(identity.failure, from))
      return identity
    }
    if (connections.secured(socket, identify)) injector.injectConnection(socket)
  })
  server.on("connection", (socket) => connections.opened(socket))
  // Of those without a good certificate. They are told by TLS; a line of the log for each would be theirs to write.
  server.on("tlsClientError", (_, socket) => void socket.destroy())

  // grpc-js's own word on it comes at once: Node's `close` has marked the sessions already (grpc-js 1.14, Node 24).
  const callsEnded = FiberSet.awaitEmpty(running)
  const bytesOut = Effect.repeat(Effect.andThen(Effect.sleep("10 millis"), Effect.sync(() => connections.size)), {
    until: (count) => count === 0
  })
  yield* Effect.addFinalizer(() =>
    Effect.gen(function*() {
      yield* options.onEnd ?? Effect.void
      server.close()
      connections.closeShaking()
      grpc.tryShutdown(() => undefined)
      // Who is interrupted answers that the worker goes away.
      yield* Effect.timeoutOrElse(callsEnded, { duration: limits.graceMs, orElse: () => FiberSet.clear(running) })
      yield* Effect.timeoutOption(bytesOut, LAST_BYTES)
    }).pipe(
      Effect.ensuring(Effect.sync(() => {
        grpc.forceShutdown()
        connections.closeAll()
      })),
      within("the gRPC server", limits.graceMs + 3000)
    )
  )
  // One look more than an answer takes, since a look may come right before a question.
  const mostQuiet = Math.ceil((limits.keepAliveMs + limits.keepAliveAnswerMs) / limits.keepAliveMs) + 1
  yield* Effect.forkScoped(
    Effect.forever(Effect.andThen(Effect.sleep(limits.keepAliveMs), Effect.sync(() => connections.look(mostQuiet))))
  )
  const port = yield* listening(server, options.listen)
  yield* follow(tls, (material) => server.setSecureContext(secureContext(material)))
  yield* Effect.annotateLogs(Effect.logInfo("gRPC is served"), { listen: options.listen, port })
  return {
    port,
    load: Effect.map(FiberSet.size(running), (calls) => ({ connections: connections.size, calls }))
  }
})
