/** The client over HTTP, made of the API's own description: TLS 1.3 with a client certificate, or a bearer token. */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Effect, Layer, Predicate, Schema, Stream } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import type { FollowEvent, FollowRequest, JobRef, ReadRequest } from "../layers/api/JobApi.ts"
import type { LogEntry } from "../layers/log/Log.ts"
import type { FollowSse } from "../schemas/api/FollowLine.ts"
import { StokerHttpApi } from "../schemas/api/HttpApi.ts"
import { problemPrefix } from "../schemas/api/Problem.ts"
import type { JobView } from "../schemas/JobView.ts"
import { resuming } from "./Resume.ts"
import { ClientError, type ClientFailure, ConnectionError, kindNamed, StokerClient } from "./StokerClient.ts"
import type { Target } from "./Target.ts"
import { troubleOf, usable } from "./Trouble.ts"

/** The server waits no longer at once. */
const MOST_WAIT_SECONDS = 60

/** What a problem document has that is told. */
const isProblem = (
  value: unknown
): value is { readonly type: string; readonly detail: string; readonly remedy: string } =>
  Predicate.hasProperty(value, "type") && typeof value.type === "string" && value.type.startsWith(problemPrefix) &&
  Predicate.hasProperty(value, "detail") && typeof value.detail === "string" &&
  Predicate.hasProperty(value, "remedy") && typeof value.remedy === "string"

/** Names of problems that only HTTP has, as the kinds that all doors have. */
const kindOf: Readonly<Record<string, string>> = {
  "too-many-requests": "overloaded",
  "out-of-range": "invalid-request",
  "too-large": "invalid-request",
  "not-json": "invalid-request",
  "unknown-path": "internal"
}

const toldBy = (
  { detail, remedy, type }: { readonly type: string; readonly detail: string; readonly remedy: string }
) => {
  const name = type.slice(problemPrefix.length)
  return new ClientError({ kind: kindNamed(kindOf[name] ?? name).name, reason: detail, remedy })
}

const protocol = (target: Target, cause: unknown) =>
  new ConnectionError({
    problem: "protocol",
    server: target.address.text,
    reason: "the answer is not understood",
    remedy: "Check the address, and that client and worker are of about the same version.",
    cause
  })

/** The error below the errors of HTTP's client: Node's, which has a code. */
const rootOf = (error: unknown): unknown => {
  let found = error
  for (let depth = 0; depth < 8; depth++) {
    if (Predicate.hasProperty(found, "reason") && Predicate.isObject(found.reason)) found = found.reason
    else if (Predicate.hasProperty(found, "cause") && found.cause !== undefined) found = found.cause
    else break
  }
  return found
}

const failureOf = (target: Target, error: unknown, wasThere = false): Effect.Effect<ClientFailure> => {
  if (error instanceof ClientError || error instanceof ConnectionError) return Effect.succeed(error)
  if (isProblem(error)) return Effect.succeed(toldBy(error))
  const root = rootOf(error)
  if (Schema.isSchemaError(root)) return Effect.succeed(protocol(target, error))
  const isBroken = Predicate.hasProperty(root, "code") ||
    (Predicate.hasProperty(error, "reason") && Predicate.isTagged(error.reason, "TransportError"))
  if (Predicate.isTagged(error, "HttpClientError") && !isBroken) return Effect.succeed(protocol(target, error))
  return wasThere
    ? Effect.succeed(
      new ConnectionError({
        problem: "lost",
        server: target.address.text,
        reason: `the connection was lost (${root instanceof Error ? root.message : String(root)})`,
        remedy: "Try again.",
        cause: error
      })
    )
    : troubleOf(target, root)
}

const owned = ({ owner }: { readonly owner?: string }) => owner === undefined ? {} : { owner }

const bytesOf = ({ base64, text }: { readonly base64?: string; readonly text?: string }): Uint8Array =>
  base64 === undefined ? new TextEncoder().encode(text ?? "") : Buffer.from(base64, "base64")

/** An event as all doors have it; a problem ends the stream. */
const eventOf = (event: FollowSse): Effect.Effect<FollowEvent, ClientError> => {
  switch (event.event) {
    case "begun":
      return Effect.succeed({ _tag: "Begun", ...event.data })
    case "output": {
      const { offset, stream } = event.data
      return Effect.succeed({ _tag: "Bytes", stream, offset, bytes: bytesOf(event.data) })
    }
    case "gap":
      return Effect.succeed({ _tag: "Gap", ...event.data })
    case "end": {
      const { complete = true, job, output } = event.data
      return Effect.succeed({
        _tag: "Ended",
        job,
        ...(output === undefined ? {} : { end: { summaries: output, complete } })
      })
    }
    case "paused":
      return Effect.succeed({ _tag: "Paused", ...event.data })
    case "problem":
      return Effect.fail(toldBy(event.data))
  }
}

/** The query and headers of a request to follow. A place in a certain writing is a `Last-Event-ID`. */
const followTo = ({ from = { offset: 0 }, run, stream, wait, ...ref }: FollowRequest) => ({
  params: { id: ref.id },
  query: {
    ...owned(ref),
    ...(stream === undefined ? {} : { stream }),
    ...(wait === false ? { wait: "false" as const } : {}),
    ...("lastLines" in from ? { lastLines: from.lastLines } : {}),
    ...("newOnly" in from ? { newOnly: "true" as const } : {}),
    ...("offset" in from && run === undefined ? { offset: from.offset } : {})
  },
  headers: run !== undefined && "offset" in from
    ? { "last-event-id": `${from.offset}@${encodeURIComponent(run)}` }
    : {}
})

/** The client, over connections that last as long as the layer's scope. Connects with the first question. */
export const layer = (target: Target): Layer.Layer<StokerClient, ConnectionError> => {
  const { address, credentials: { ca, cert, key, token } } = target
  const transport = NodeHttpClient.layerNodeHttpOptions({
    keepAlive: true,
    minVersion: "TLSv1.3",
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key })
  })
  const make = Effect.gen(function*() {
    yield* usable(target)
    const api = yield* HttpApiClient.make(StokerHttpApi, {
      baseUrl: `https://${address.host.includes(":") ? `[${address.host}]` : address.host}:${address.port}`,
      transformClient: (client) =>
        token === undefined ? client : HttpClient.mapRequest(client, HttpClientRequest.bearerToken(token))
    })

    const told = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, ClientFailure> =>
      effect.pipe(Effect.catch((error) => Effect.flatMap(failureOf(target, error), Effect.fail)))

    const status = (job: JobRef) => told(api.status({ params: { id: job.id }, query: owned(job) }))

    /** Until it is no longer queued, or the time is over. */
    const waited = (job: JobView, waitMs: number): Effect.Effect<JobView, ClientFailure> =>
      job.state !== "queued" || waitMs <= 0
        ? Effect.succeed(job)
        : Effect.flatMap(
          Effect.delay(status(job), Math.min(1000, waitMs)),
          (next) => waited(next, waitMs - 1000)
        )

    const events = (request: FollowRequest): Stream.Stream<FollowEvent, ClientFailure> =>
      Stream.unwrap(Effect.map(told(api.events(followTo(request))), (stream) =>
        stream.pipe(
          Stream.mapEffect(eventOf),
          Stream.catch((error) => Stream.fromEffect(Effect.flatMap(failureOf(target, error, true), Effect.fail)))
        )))

    /** What there is, as a follower is given it, up to so many bytes. */
    const read = Effect.fnUntraced(function*({ maxBytes, offset, run, waitMs = 0, ...request }: ReadRequest) {
      const entries: Array<LogEntry> = []
      let size = 0
      let found = run ?? ""
      let end: { readonly end?: Extract<FollowEvent, { readonly _tag: "Ended" }>["end"] } = {}
      const take = (wait: boolean) =>
        events({ ...request, from: { offset }, ...(run === undefined ? {} : { run }), wait }).pipe(
          Stream.runForEachWhile((event) =>
            Effect.sync(() => {
              switch (event._tag) {
                case "Begun":
                  // Another attempt's: the one that was asked for has ended.
                  if (run !== undefined && event.run !== run) {
                    end = { end: { summaries: [], complete: false } }
                    return false
                  }
                  found = event.run
                  return true
                case "Bytes": {
                  const bytes = event.bytes.subarray(0, maxBytes - size)
                  entries.push({ ...event, bytes })
                  size += bytes.length
                  return size < maxBytes && !wait
                }
                case "Gap":
                  entries.push(event)
                  return !wait
                case "Ended":
                  end = { end: event.end ?? { summaries: [], complete: false } }
                  return false
                case "Paused":
                  return false
              }
            })
          )
        )
      yield* take(false)
      if (entries.length === 0 && end.end === undefined && waitMs > 0) {
        yield* Effect.timeoutOption(take(true), waitMs)
      }
      const last = entries.at(-1)
      const next = last === undefined ? offset : last._tag === "Gap" ? last.to : last.offset + last.bytes.length
      return { entries, next, run: found, ...(end.end === undefined ? {} : { end: end.end }) }
    })

    return StokerClient.of({
      start: Effect.fnUntraced(function*({ args, terms = {}, traceparent, waitMs = 0, ...request }) {
        const seconds = Math.min(MOST_WAIT_SECONDS, Math.ceil(waitMs / 1000))
        const job = yield* told(api.start({
          query: seconds === 0 ? {} : { wait: seconds },
          headers: traceparent === undefined ? {} : { traceparent },
          // Arguments that are no JSON could not be sent: what is not in them is left out, as everywhere.
          payload: { ...request, ...terms, args: JSON.parse(JSON.stringify(args ?? {})) as Schema.Json }
        }))
        return yield* waited(job, waitMs - seconds * 1000)
      }),
      stop: ({ graceMs, id, reason, ...ref }) =>
        told(api.stop({
          params: { id },
          query: owned(ref),
          payload: {
            ...(graceMs === undefined ? {} : { graceMs }),
            ...(reason === undefined ? {} : { reason })
          }
        })),
      status,
      list: (request = {}) => told(api.list({ query: request })),
      read,
      follow: (request) => resuming(address.text, events, request),
      artefact: Effect.fnUntraced(function*(job, path, { maxBytes, offset }) {
        const artefact = (yield* status(job)).artefacts?.find((one) => one.path === path)
        if (artefact === undefined) {
          return yield* new ClientError({
            kind: "unknown-artefact",
            reason: `job ${job.id} left no file ${path}`,
            remedy: "Its status names those it left."
          })
        }
        if (offset >= artefact.bytes || maxBytes <= 0) return { artefact, offset, bytes: new Uint8Array() }
        const content = yield* told(api.artefact({
          params: { id: job.id, path },
          query: owned(job),
          headers: { range: `bytes=${offset}-${Math.min(artefact.bytes, offset + maxBytes) - 1}` }
        }))
        const pieces = yield* Stream.runCollect(content).pipe(
          Effect.catch((error) => Effect.flatMap(failureOf(target, error, true), Effect.fail))
        )
        return { artefact, offset, bytes: Buffer.concat(pieces) }
      }),
      functions: Effect.map(told(api.functions()), ({ functions }) => functions),
      remove: (job) => Effect.asVoid(told(api.delete({ params: { id: job.id }, query: owned(job) })))
    })
  })
  return Layer.effect(StokerClient, make).pipe(Layer.provide(transport))
}
