/**
 * Serves the operator's questions over HTTP: all of them on a unix socket, those that act on nothing over TCP too.
 * `node:http` is loaded by the first question: it costs 40 ms and 7 MiB, which a worker nobody asks need not pay.
 */
import { Cause, Effect, type Fiber, FiberSet, Layer, Option, Result, Schema, type Scope } from "effect"
import { chmodSync } from "node:fs"
import { unlink } from "node:fs/promises"
import type { IncomingMessage, ServerResponse } from "node:http"
import { createServer, type Server, type Socket } from "node:net"
import { Health, JobsNow, JobStopped, Refused, Reloaded, StopJob, WorkerStatus } from "../../schemas/Operation.ts"
import { describe } from "../../schemas/Outcome.ts"
import { codeOf, textOf } from "../host/Errno.ts"
import { Host, HostError } from "../host/Host.ts"
import { socketAddress } from "../host/SocketAddress.ts"
import { within } from "../Release.ts"
import { publicRoutes, type Route, routes, socketName } from "./AdminSocket.ts"
import { Operator } from "./Operator.ts"

interface Answer {
  readonly code: number
  readonly type: "application/json" | "text/plain; version=0.0.4; charset=utf-8"
  readonly body: string
}

const MOST_BODY_BYTES = 64 * 1024
const MOST_CONNECTIONS = 64
/** A request that takes longer to come in is cut off. */
const REQUEST_LIMIT = "10 seconds"
/** How long answers that are being made at the end have to get out. */
const LAST_ANSWERS = "1 second"

const json = <S extends Schema.Codec<unknown, unknown>>(schema: S, value: S["Type"], code = 200): Answer => ({
  code,
  type: "application/json",
  body: `${JSON.stringify(Schema.encodeSync(schema)(value))}\n`
})

const refused = (code: number, reason: string, remedy: string) => json(Refused, { reason, remedy }, code)

const health = (value: Health): Answer => json(Health, value, value.ok ? 200 : 503)

/** None: it was too long, or its sender went away. */
const bodyOf = (request: IncomingMessage) =>
  Effect.callback<Option.Option<string>>((resume) => {
    const chunks: Array<Buffer> = []
    let length = 0
    request.on("data", (chunk: Buffer) => {
      length += chunk.length
      if (length <= MOST_BODY_BYTES) chunks.push(chunk)
    })
    request.once(
      "end",
      () =>
        resume(Effect.succeed(length > MOST_BODY_BYTES ? Option.none() : Option.some(Buffer.concat(chunks).toString())))
    )
    request.once("error", () => resume(Effect.succeed(Option.none())))
  })

const decodeStop = Schema.decodeUnknownResult(Schema.fromJsonString(StopJob))

const stopJob = Effect.fnUntraced(function*(operator: Operator["Service"], body: Option.Option<string>) {
  const asked = decodeStop(Option.getOrElse(body, () => ""))
  if (Result.isFailure(asked)) {
    return refused(400, asked.failure.message, "Send {\"key\": {…}, \"reason\": \"…\", \"graceMs\": 2000}.")
  }
  const { key, ...how } = asked.success
  return yield* operator.stop(key, how).pipe(
    Effect.map(({ settlement, state }) =>
      json(JobStopped, { state, ...(settlement === undefined ? {} : { outcome: describe(settlement.outcome) }) })
    ),
    Effect.catchTags({
      JobNotFound: ({ message }) => Effect.succeed(refused(404, message, "`stoker list` shows the jobs there are.")),
      WorkerAway: ({ reason, remedy }) => Effect.succeed(refused(503, reason, remedy)),
      JournalError: ({ reason, remedy }) => Effect.succeed(refused(503, reason, remedy))
    })
  )
})

/** A total table: a new route does not compile until it is answered here. */
const handlers = (
  operator: Operator["Service"]
): Readonly<Record<Route, (body: Option.Option<string>) => Effect.Effect<Answer>>> => ({
  [routes.live]: () => Effect.map(operator.live, health),
  [routes.ready]: () => Effect.map(operator.ready, health),
  [routes.metrics]: () =>
    Effect.map(
      operator.metrics,
      (body): Answer => ({ code: 200, type: "text/plain; version=0.0.4; charset=utf-8", body })
    ),
  [routes.status]: () => Effect.map(operator.status, (status) => json(WorkerStatus, status)),
  [routes.jobs]: () => Effect.map(operator.jobs, (jobs) => json(JobsNow, jobs)),
  [routes.drain]: () =>
    Effect.andThen(operator.drain, Effect.map(operator.status, (status) => json(WorkerStatus, status, 202))),
  [routes.reload]: () =>
    operator.reload.pipe(
      Effect.map((reloaded) => json(Reloaded, reloaded)),
      Effect.catch(({ reason, remedy }) => Effect.succeed(refused(422, reason, remedy)))
    ),
  [routes.stop]: (body) => stopJob(operator, body)
})

/** Where it listens: a socket's path, or a host and port. */
type Place = { readonly path: string } | { readonly host: string; readonly port: number }

const listening = (server: Server, place: Place) =>
  Effect.callback<void, Error>((resume) => {
    const failed = (error: Error) => resume(Effect.fail(error))
    server.once("error", failed)
    server.listen(place, () => {
      server.off("error", failed)
      server.on("error", () => undefined)
      resume(Effect.void)
    })
  })

const write = (response: ServerResponse, { body, code, type }: Answer) =>
  Effect.sync(() => {
    response.writeHead(code, { "content-type": type, "content-length": Buffer.byteLength(body), connection: "close" })
    response.end(body)
  })

/** Serves these routes there until the scope closes. */
const serve = Effect.fnUntraced(function*(
  place: Place,
  allowed: ReadonlyArray<Route>
): Effect.fn.Return<Server, Error, Operator | Scope.Scope> {
  const answers = handlers(yield* Operator)
  const fork = yield* FiberSet.makeRuntime<never, void>()
  const known = new Map<string, Route>(allowed.map((route) => [route, route]))

  const answer = (request: IncomingMessage): Effect.Effect<Answer> => {
    const path = (request.url ?? "").split("?")[0] ?? ""
    const route = known.get(`${request.method === "HEAD" ? "GET" : request.method} ${path}`)
    if (route !== undefined) return Effect.flatMap(bodyOf(request), answers[route])
    const isKnown = allowed.some((route) => route.endsWith(` ${path}`))
    return Effect.succeed(
      refused(isKnown ? 405 : 404, `there is no ${request.method} ${path} here`, allowed.join(", "))
    )
  }
  /** Open connections, each with what cuts it off while its request comes in. */
  const sockets = new Map<Socket, Fiber.Fiber<void>>()
  const onRequest = (request: IncomingMessage, response: ServerResponse) => {
    request.once("end", () => sockets.get(request.socket)?.interruptUnsafe())
    fork(
      answer(request).pipe(
        Effect.catchCause((cause) =>
          Effect.as(
            Effect.logError("a question to the worker could not be answered", cause),
            refused(500, String(Cause.squash(cause)), "This is a defect of Stoker; please report it.")
          )
        ),
        Effect.flatMap((given) => write(response, given))
      )
    )
  }
  // Never listens itself: connections are handed to it.
  const http = yield* Effect.cached(
    Effect.map(Effect.promise(() => import("node:http")), (module) => module.createServer(onRequest))
  )
  const server = createServer((socket) => {
    sockets.set(socket, fork(Effect.andThen(Effect.sleep(REQUEST_LIMIT), Effect.sync(() => void socket.destroy()))))
    socket.on("error", () => undefined)
    socket.once("close", () => {
      sockets.get(socket)?.interruptUnsafe()
      sockets.delete(socket)
    })
    fork(Effect.map(http, (parser) => void parser.emit("connection", socket)))
  })
  server.maxConnections = MOST_CONNECTIONS
  // Who stops the last job of a worker that drains is still answered.
  const closed = Effect.callback<void>((resume) => {
    server.close(() => resume(Effect.void))
  })
  yield* Effect.addFinalizer(() =>
    closed.pipe(
      Effect.timeoutOption(LAST_ANSWERS),
      Effect.andThen(Effect.sync(() => sockets.forEach((_, socket) => socket.destroy()))),
      within("the admin server", "3 seconds")
    )
  )
  yield* listening(server, place)
  return server
})

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
      return "Choose another address with --http or http.listen."
  }
}

const couldNotListen = (where: string, remedy: (code: string | undefined) => string) => (cause: Error) =>
  new HostError({ operation: `listen on ${where}`, reason: textOf(cause), remedy: remedy(codeOf(cause)), cause })

/** Everything an operator may ask, on a unix socket that only the worker's user can open. */
export const layerSocket = Layer.effectDiscard(Effect.gen(function*() {
  const { instance, paths } = yield* Host
  const folder = paths.instance(instance)
  const failed = couldNotListen(`${folder}/${socketName}`, () => "Is the state directory on a file system for sockets?")
  const path = yield* socketAddress(folder, socketName).pipe(
    Effect.mapError(({ cause }) => failed(new Error(textOf(cause))))
  )
  yield* Effect.addFinalizer(() => Effect.ignore(Effect.tryPromise(() => unlink(path))))
  yield* serve({ path }, Object.values(routes)).pipe(Effect.mapError(failed))
  // Nobody else gets as far as here before: the instance's directory is closed to others.
  yield* Effect.sync(() => chmodSync(path, 0o600))
}))

/** Probes and metrics over TCP, at "HOST:PORT". */
export const layerTcp = (listen: string) =>
  Layer.effectDiscard(Effect.suspend(() => {
    const colon = listen.lastIndexOf(":")
    const host = listen.slice(0, colon).replaceAll(/[[\]]/g, "")
    return serve({ host, port: Number(listen.slice(colon + 1)) }, publicRoutes).pipe(
      Effect.mapError(couldNotListen(listen, bindRemedy)),
      Effect.tap((server) => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        return Effect.annotateLogs(Effect.logInfo("probes and metrics are served"), { host, port })
      })
    )
  }))
