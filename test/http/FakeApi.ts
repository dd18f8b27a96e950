/** A control plane in memory: jobs that the test itself writes to and ends. Its logs are the real ones in memory. */
import { Context, Deferred, Effect, Layer, Option, Schema, Scope, Stream } from "effect"
import { createHash } from "node:crypto"
import {
  type FollowEvent,
  type FollowRequest,
  Forbidden,
  IdTaken,
  INTAKE,
  InvalidRequest,
  JobApi,
  type JobRef,
  NotEnded,
  type StartRequest,
  Unavailable,
  UnknownJob
} from "../../src/layers/api/JobApi.ts"
import type { ArtefactSlice } from "../../src/layers/artefacts/Artefacts.ts"
import { ArtefactNotFound } from "../../src/layers/artefacts/Artefacts.ts"
import { Overloaded } from "../../src/layers/control/Overloaded.ts"
import { Log, type LogEnd, type LogStream, type LogWriter } from "../../src/layers/log/Log.ts"
import { layerMemory } from "../../src/layers/log/LogMemory.ts"
import type { Caller } from "../../src/schemas/Access.ts"
import { InvalidArguments } from "../../src/schemas/Function.ts"
import { FunctionName, JobId, type JobKey, Owner } from "../../src/schemas/Ids.ts"
import type { FunctionView, JobView } from "../../src/schemas/JobView.ts"
import type { Outcome } from "../../src/schemas/Outcome.ts"

interface FakeJob {
  view: JobView
  readonly request: string
  readonly key: JobKey
  readonly writer: LogWriter
  readonly ended: Deferred.Deferred<void>
  readonly files: Map<string, Uint8Array>
}

/** What a test does that a worker would. */
export class Hand extends Context.Service<Hand, {
  readonly write: (id: string, stream: "stdout" | "stderr", bytes: Uint8Array) => Effect.Effect<void>
  readonly leave: (id: string, path: string, bytes: Uint8Array) => Effect.Effect<void>
  readonly end: (id: string, outcome?: Outcome) => Effect.Effect<void>
  /** What was asked last by that method. */
  readonly asked: Map<string, unknown>
  /** Follow streams that are open now. */
  readonly following: () => number
  /** How far any reader has come. Bytes. */
  readonly furthest: () => number
}>()("test/http/Hand") {}

export const functions: ReadonlyArray<FunctionView> = [{
  name: FunctionName.make("fib"),
  title: "Fibonacci",
  description: "gives the n-th number",
  args: {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    type: "object",
    properties: { position: { type: "integer" } }
  },
  positional: [{ field: "position", word: "position" }],
  needsNetwork: false
}]

const isJobId = Schema.is(JobId)

/** Bytes of each stream that are kept. */
export const KEPT = 64 * 1024 * 1024

const make = (keepBytes: number) =>
  Effect.gen(function*() {
    const log = yield* Log
    const scope = yield* Effect.scope
    const jobs = new Map<string, FakeJob>()
    const asked = new Map<string, unknown>()
    let serial = 0
    let following = 0
    let furthest = 0

    const find = (caller: Caller, ref: JobRef): Effect.Effect<FakeJob, UnknownJob | InvalidRequest> => {
      if (!isJobId(ref.id)) {
        return Effect.fail(new InvalidRequest({ reason: "the id is malformed", remedy: "Send another one." }))
      }
      const owner = ref.owner ?? caller.name
      const job = caller.name === "admin" && ref.owner === undefined
        ? [...jobs.values()].find(({ view }) => view.id === ref.id)
        : caller.name === "admin" || owner === caller.name
        ? jobs.get(`${owner}/${ref.id}`)
        : undefined
      return job === undefined ? Effect.fail(new UnknownJob({ id: ref.id })) : Effect.succeed(job)
    }
    const byId = (id: string) =>
      Effect.suspend(() => {
        const job = [...jobs.values()].find(({ view }) => view.id === id)
        return job === undefined ? Effect.die(`no job ${id}`) : Effect.succeed(job)
      })

    const end = Effect.fnUntraced(function*(job: FakeJob, outcome: Outcome) {
      if (job.view.state === "ended") return job.view
      const output = yield* Effect.orDie(job.writer.end)
      const artefacts = Array.from(job.files, ([path, bytes]) => ({
        path,
        bytes: bytes.length,
        sha256: createHash("sha256").update(bytes).digest("hex")
      }))
      job.view = {
        ...job.view,
        state: "ended",
        endedAtMs: 2,
        outcome,
        output,
        ...(artefacts.length === 0 ? {} : { artefacts })
      }
      yield* Deferred.succeed(job.ended, undefined)
      return job.view
    })

    const start = Effect.fnUntraced(function*(caller: Caller, request: StartRequest) {
      asked.set("start", request)
      if (caller.name === "none") return yield* new Forbidden({ caller: caller.name, method: "start" })
      switch (request.function) {
        case "fib":
          break
        case "defect":
          return yield* Effect.die(new Error("a defect on purpose"))
        case "full":
          return yield* new Overloaded({ limit: "slots", maximum: 1 })
        case "away":
          return yield* new Unavailable({ reason: "the journal is away", remedy: "Wait." })
        default:
          return yield* new InvalidRequest({ reason: "there is no such function", remedy: "See /v1/functions." })
      }
      const args = request.args as { readonly position?: unknown }
      if (args.position !== undefined && typeof args.position !== "number") {
        return yield* new InvalidArguments({ function: "fib", reason: "position is a number", remedy: "Send one." })
      }
      if (request.id !== undefined && !isJobId(request.id)) {
        return yield* new InvalidRequest({ reason: "the id is malformed", remedy: "Send another one." })
      }
      const id = request.id ?? `job-${++serial}`
      const owner = Owner.make(request.owner ?? caller.name)
      if (owner !== caller.name && caller.name !== "admin") {
        return yield* new Forbidden({ caller: caller.name, method: "start" })
      }
      const text = JSON.stringify([request.function, request.args])
      const known = jobs.get(`${owner}/${id}`)
      if (known !== undefined) {
        return known.request === text ? known.view : yield* new IdTaken({ id })
      }
      const key: JobKey = { intake: INTAKE, owner, id: JobId.make(id) }
      const writer = yield* Effect.orDie(log.open(key, { attempt: 1, keepBytes })).pipe(
        Scope.provide(scope)
      )
      const view: JobView = {
        ...key,
        function: FunctionName.make(request.function),
        args: args as Schema.Json,
        state: "running",
        attempt: 1,
        receivedAtMs: 1,
        startedAtMs: 1
      }
      const ended = yield* Deferred.make<void>()
      jobs.set(`${owner}/${id}`, { view, request: text, key, writer, ended, files: new Map() })
      return view
    })

    const read = (job: FakeJob, stream: LogStream, offset: number, maxBytes: number, run?: string, waitMs = 0) =>
      log.read(job.key, { stream, offset, maxBytes, waitMs, ...(run === undefined ? {} : { run }) }).pipe(
        Effect.mapError(() => new Unavailable({ reason: "the log is gone", remedy: "Wait." })),
        Effect.tap(({ next }) => Effect.sync(() => furthest = Math.max(furthest, next)))
      )

    const beginning = Effect.fnUntraced(function*(job: FakeJob, { from, run, stream = "all" }: FollowRequest) {
      if (from !== undefined && "offset" in from) return from.offset
      if (from === undefined) return 0
      const pieces: Array<Uint8Array> = []
      let offset = 0
      while (true) {
        const slice = yield* read(job, stream, offset, 1 << 20, run)
        pieces.push(...slice.entries.flatMap((entry) => entry._tag === "Bytes" ? [entry.bytes] : []))
        if (slice.next === offset) break
        offset = slice.next
      }
      if ("newOnly" in from) return offset
      const lines = Buffer.concat(pieces).toString("latin1").split(/(?<=\n)/)
      return offset - lines.slice(lines.length - from.lastLines).join("").length
    })

    const follow = Effect.fnUntraced(function*(caller: Caller, request: FollowRequest) {
      asked.set("follow", request)
      const job = yield* find(caller, request)
      const stream = request.stream ?? "all"
      const wait = request.wait ?? true
      const first = yield* beginning(job, request)
      const { run } = yield* read(job, stream, first, 1, request.run)
      const last = (log: LogEnd | undefined, next: number): FollowEvent =>
        job.view.state === "ended"
          ? { _tag: "Ended", job: job.view, ...(log === undefined ? {} : { end: log }) }
          : { _tag: "Paused", job: job.view, next }
      const rest = Stream.paginate(first, (offset) =>
        read(job, stream, offset, 64 * 1024, request.run, wait ? 1000 : 0).pipe(
          Effect.flatMap(Effect.fnUntraced(function*(slice) {
            const isLast = slice.end !== undefined || !wait && slice.next === offset
            if (slice.end !== undefined && wait) {
              yield* Deferred.await(job.ended)
            }
            return [
              isLast ? [...slice.entries, last(slice.end, slice.next)] : slice.entries,
              isLast ? Option.none<number>() : Option.some(slice.next)
            ] as const
          }))
        ))
      const begun: FollowEvent = { _tag: "Begun", run, attempt: 1, offset: first }
      return Stream.concat(Stream.succeed(begun), rest).pipe(
        Stream.onStart(Effect.sync(() =>
          following++
        )),
        Stream.ensuring(Effect.sync(() => following--))
      )
    })

    const api = JobApi.of({
      start,
      stop: Effect.fnUntraced(function*(caller, request) {
        asked.set("stop", request)
        const job = yield* find(caller, request)
        return yield* end(job, { _tag: "Stopped", reason: request.reason ?? "asked" })
      }),
      status: (caller, ref) => Effect.map(find(caller, ref), ({ view }) => view),
      list: (caller, request) =>
        Effect.sync(() => {
          asked.set("list", request)
          const all = [...jobs.values()].map(({ view }) => view).filter((view) =>
            (caller.name === "admin" || view.owner === caller.name)
            && (request.state === undefined || view.state === request.state)
            && (request.function === undefined || view.function === request.function)
          ).toReversed()
          const from = Number(request.cursor ?? 0) || 0
          const limit = request.limit ?? 100
          return {
            jobs: all.slice(from, from + limit),
            ...(from + limit < all.length ? { next: String(from + limit) } : {})
          }
        }),
      read: (caller, request) =>
        Effect.flatMap(find(caller, request), (job) =>
          read(job, request.stream ?? "all", request.offset, request.maxBytes, request.run, request.waitMs ?? 0)),
      follow,
      artefact: (caller, ref, path, range) =>
        Effect.flatMap(find(caller, ref), (job): Effect.Effect<ArtefactSlice, ArtefactNotFound> => {
          const artefact = job.view.artefacts?.find((one) =>
            one.path === path
          )
          const content = job.files.get(path)
          return artefact === undefined || content === undefined
            ? Effect.fail(new ArtefactNotFound({ key: job.key, path }))
            : Effect.succeed({
              artefact,
              offset: range.offset,
              bytes: content.subarray(range.offset, range.offset + range.maxBytes)
            })
        }),
      functions: () => Effect.succeed(functions),
      remove: (caller, ref) =>
        Effect.flatMap(find(caller, ref), (job) =>
          job.view.state === "ended"
            ? Effect.sync(() => void jobs.delete(`${job.key.owner}/${job.key.id}`))
            : Effect.fail(new NotEnded({ id: ref.id })))
    })
    const hand = Hand.of({
      write: (id, stream, bytes) =>
        Effect.flatMap(byId(id), ({ writer }) => Effect.orDie(writer.append(stream, bytes))),
      leave: (id, path, bytes) => Effect.map(byId(id), ({ files }) => void files.set(path, bytes)),
      end: (id, outcome = { _tag: "Exited", phase: "run", code: 0 }) =>
        Effect.flatMap(byId(id), (job) => Effect.asVoid(end(job, outcome))),
      asked,
      following: () => following,
      furthest: () => furthest
    })
    return Context.make(JobApi, api).pipe(Context.add(Hand, hand))
  })

/** The API, and the hand that plays the worker. */
export const layer = (keepBytes = KEPT): Layer.Layer<JobApi | Hand> =>
  Layer.effectContext(make(keepBytes)).pipe(Layer.provide(layerMemory))
