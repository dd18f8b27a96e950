/**
 * The REST of the MSTC cloud worker: `GET /mstc/worker` says hello, `POST /mstc/worker/execute` runs a request and answers when
 * it has ended, with the text that is told over the broker. As the old one it knows no callers: whoever reaches it may run what
 * its class lets jobs run. What ran well is 200; what did not is 500 with a `Warning`, and what is no request is 400.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer, Result } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { randomUUID } from "node:crypto"
import { createServer } from "node:http"
import { decode } from "../../schemas/dialects/Mstc.ts"
import * as MstcResult from "../../schemas/dialects/MstcResult.ts"
import type { ClassName } from "../../schemas/Ids.ts"
import { keyOf } from "../../schemas/Job.ts"
import * as JobNews from "../api/JobNews.ts"
import { Control } from "../control/Control.ts"
import { mstcOutput } from "../emitter/MstcOutput.ts"
import { textOf } from "../host/Errno.ts"
import { HostError } from "../host/Host.ts"
import { requestHash } from "../intake/RequestHash.ts"
import { Log } from "../log/Log.ts"

const MOST_BODY_BYTES = 1024 * 1024
const MOST_CONNECTIONS = 256

export interface MstcRestOptions {
  /** HOST:PORT; port 0 for any that is free. */
  readonly listen: string
  readonly class: ClassName
}

const failed = (text: string, status: number) =>
  HttpServerResponse.text(text, {
    status,
    headers: { warning: `199 stoker "${text.replaceAll(/[^\x20-\x21\x23-\x5b\x5d-\x7e]/g, " ").slice(0, 200)}"` }
  })

const execute = Effect.fn("MstcRest.execute")(function*(sandboxClass: ClassName, news: JobNews.JobNews) {
  const control = yield* Control
  const log = yield* Log
  const request = yield* HttpServerRequest.HttpServerRequest
  const body = new Uint8Array(yield* request.arrayBuffer)
  if (body.length > MOST_BODY_BYTES) return failed(`the body has more than ${MOST_BODY_BYTES} bytes`, 413)
  const decoded = decode({ body, id: randomUUID() }, { class: sandboxClass })
  if (Result.isFailure(decoded)) return failed(MstcResult.invalid(decoded.failure, body).result, 400)
  const { job, reply } = decoded.success
  const key = keyOf(job)
  // Whoever hangs up has started it all the same, as ever.
  yield* control.submit({ job, hash: requestHash(job), reply })
  while (true) {
    const heard = yield* news.subscribe(key)
    const { settlement } = yield* control.status(key)
    if (settlement === undefined) {
      yield* heard
      continue
    }
    const { outcome, output } = settlement
    const text = reply.form === "urls" ? yield* mstcOutput(log, key, output) : ""
    const told = MstcResult.ended({ form: reply.form, name: reply.name, id: job.id }, outcome, text)
    return told.status === "complete" ? HttpServerResponse.text(told.result) : failed(told.result, 500)
  }
})

const routes = (sandboxClass: ClassName, news: JobNews.JobNews) =>
  Layer.mergeAll(
    HttpRouter.add(
      "GET",
      "/mstc/worker",
      Effect.succeed(HttpServerResponse.text("Hello from Stoker, in place of the MSTC cloud worker"))
    ),
    HttpRouter.add(
      "POST",
      "/mstc/worker/execute",
      execute(sandboxClass, news).pipe(
        Effect.catch((error) => Effect.succeed(failed(error.message, 503)))
      )
    )
  )

const placeOf = (listen: string) => {
  const colon = listen.lastIndexOf(":")
  return { host: listen.slice(0, colon).replaceAll(/[[\]]/g, ""), port: Number(listen.slice(colon + 1)) }
}

/** Serves it until the scope closes. Gives where. */
export const serve = Effect.fnUntraced(function*({ class: sandboxClass, listen }: MstcRestOptions) {
  const news = yield* JobNews.make(() => undefined)
  const app = yield* HttpRouter.toHttpEffect(routes(sandboxClass, news))
  const http = yield* NodeHttpServer.make(() => {
    const server = createServer({ headersTimeout: 10_000, requestTimeout: 60_000, connectionsCheckingInterval: 1000 })
    server.maxConnections = MOST_CONNECTIONS
    return server
  }, { ...placeOf(listen), gracefulShutdownTimeout: "1 second" }).pipe(
    Effect.mapError(({ cause }) =>
      new HostError({
        operation: `listen on ${listen}`,
        reason: textOf(cause),
        remedy: "Choose another address with mstc.listen.",
        cause
      })
    )
  )
  yield* HttpServer.serveEffect(app).pipe(Effect.provideService(HttpServer.HttpServer, http))
  yield* Effect.annotateLogs(Effect.logInfo("the MSTC worker's REST is served, to whoever reaches it"), {
    address: HttpServer.formatAddress(http.address)
  })
  return http.address
}, Effect.provide(NodeHttpServer.layerHttpServices))

/** The same as a layer, over a worker. */
export const layer = (options: MstcRestOptions) => Layer.effectDiscard(serve(options))
