/** `stoker.v1.JobService`: all that the control plane can do. */
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf"
import { Effect, Stream } from "effect"
import type { JobView } from "../../schemas/JobView.ts"
import { type FollowEvent, type FollowFrom, type FollowRequest, InvalidRequest, type JobApi } from "../api/JobApi.ts"
import { artefactPieces } from "../artefacts/Artefacts.ts"
import { type Encoded, followOutput, once } from "./Encoded.ts"
import {
  type FollowRequest as FollowMessage,
  type FollowResponseSchema,
  JobService,
  StatusResponseSchema
} from "./gen/stoker/v1/stoker_pb.js"
import {
  artefactMessage,
  endMessage,
  functionMessage,
  jobMessage,
  outputMessages,
  stateOf,
  streamOf
} from "./JobMessages.ts"
import { narrow, present, textIf, wide } from "./Numbers.ts"
import { offer } from "./Service.ts"
import { startRequest, waitOf } from "./StartMessages.ts"

/** A slice has its place in one message. Bytes. */
const MOST_READ = 1024 * 1024

/** Whose job. */
const refOf = ({ id, owner }: { readonly id: string; readonly owner: string }) => owner === "" ? { id } : { id, owner }

const offsetOf = (offset: bigint): Effect.Effect<number, InvalidRequest> =>
  offset <= BigInt(Number.MAX_SAFE_INTEGER)
    ? Effect.succeed(narrow(offset))
    : Effect.fail(new InvalidRequest({ reason: `no output has an offset ${offset}`, remedy: "Begin with 0." }))

/** Whoever looks again and again gets the same view, until something happens to the job. */
const statusResponse = once((job: JobView) =>
  toBinary(StatusResponseSchema, create(StatusResponseSchema, { job: jobMessage(job) }))
)

const fromOf = ({ from }: FollowMessage): Effect.Effect<FollowFrom | undefined, InvalidRequest> => {
  switch (from.case) {
    case "offset":
      return Effect.map(offsetOf(from.value), (offset) => ({ offset }))
    case "lastLines":
      return Effect.succeed({ lastLines: from.value })
    case "newOnly":
      return Effect.succeed(from.value ? { newOnly: true } : undefined)
    case undefined:
      return Effect.succeed(undefined)
  }
}

type FollowInit = MessageInitShape<typeof FollowResponseSchema>

/** What a follower is sent. */
const followMessages = (event: FollowEvent): ReadonlyArray<FollowInit | Encoded> => {
  switch (event._tag) {
    case "Bytes":
    case "Gap":
      return followOutput(event)
    case "Begun":
      return [{
        event: { case: "begun", value: { run: event.run, attempt: event.attempt, offset: wide(event.offset) } }
      }]
    case "Ended": {
      const value = { job: jobMessage(event.job), ...present({ end: event.end && endMessage(event.end) }) }
      return [{ event: { case: "ended", value } }]
    }
    case "Paused":
      return [{ event: { case: "paused", value: { job: jobMessage(event.job), next: wide(event.next) } } }]
  }
}

/** The service over the control plane. */
export const stokerV1 = (api: JobApi["Service"]) =>
  offer(JobService, {
    start: Effect.fnUntraced(function*(message, { caller, header }) {
      return { job: jobMessage(yield* api.start(caller, yield* startRequest(message, header("traceparent")))) }
    }),
    stop: Effect.fnUntraced(function*({ graceSeconds, reason, ...message }, { caller }) {
      if (graceSeconds !== undefined && !(graceSeconds >= 0 && graceSeconds <= 3600)) {
        return yield* new InvalidRequest({
          reason: `${graceSeconds} is no grace`,
          remedy: "Give seconds from 0 to 3600, or leave them out."
        })
      }
      const how = present({
        graceMs: graceSeconds === undefined ? undefined : Math.ceil(graceSeconds * 1000),
        reason: textIf(reason)
      })
      return { job: jobMessage(yield* api.stop(caller, { ...refOf(message), ...how })) }
    }),
    status: (message, { caller }) => Effect.map(api.status(caller, refOf(message)), statusResponse),
    list: ({ cursor, function: name, limit, owner, state }, { caller }) =>
      Effect.map(
        api.list(
          caller,
          present({
            state: stateOf(state),
            function: textIf(name),
            owner: textIf(owner),
            limit: limit === 0 ? undefined : limit,
            cursor: textIf(cursor)
          })
        ),
        ({ jobs, next }) => ({ jobs: jobs.map(jobMessage), next: next ?? "" })
      ),
    read: Effect.fnUntraced(function*({ maxBytes, offset, run, stream, waitSeconds, ...message }, { caller }) {
      const slice = yield* api.read(caller, {
        ...refOf(message),
        stream: streamOf(stream),
        offset: yield* offsetOf(offset),
        maxBytes: maxBytes === 0 ? MOST_READ : Math.min(maxBytes, MOST_READ),
        ...present({ run: textIf(run), waitMs: yield* waitOf(waitSeconds, 30) })
      })
      return {
        entries: slice.entries.flatMap(outputMessages),
        next: wide(slice.next),
        run: slice.run,
        ...present({ end: slice.end && endMessage(slice.end) })
      }
    }),
    follow: Effect.fnUntraced(function*(message, { caller }) {
      const request: FollowRequest = {
        ...refOf(message),
        stream: streamOf(message.stream),
        wait: !message.noWait,
        ...present({ from: yield* fromOf(message), run: textIf(message.run) })
      }
      const events = yield* api.follow(caller, request)
      return Stream.mapArray(events, (some) => {
        const [first, ...rest] = some.flatMap(followMessages)
        // An event is one message at least.
        return first === undefined ? [{}] : [first, ...rest]
      })
    }),
    functions: (_, { caller }) =>
      Effect.map(api.functions(caller), (views) => ({ functions: views.map(functionMessage) })),
    delete: (message, { caller }) => Effect.as(api.remove(caller, refOf(message)), {}),
    artefact: Effect.fnUntraced(function*({ offset, path, ...message }, { caller }) {
      const begin = yield* offsetOf(offset)
      const job = refOf(message)
      // Looked at before the stream is given, so that what is not there is told as such.
      const first = yield* api.artefact(caller, job, path, { offset: begin, maxBytes: 1024 * 1024 })
      const next = begin + first.bytes.length
      const rest = first.bytes.length === 0 || next >= first.artefact.bytes
        ? Stream.empty
        : artefactPieces((range) =>
          Effect.map(api.artefact(caller, job, path, { ...range, offset: range.offset + next }), (slice) => ({
            ...slice,
            artefact: { ...slice.artefact, bytes: slice.artefact.bytes - next }
          }))
        )
      const pieces = Stream.concat(Stream.make(first.bytes), rest)
      return Stream.mapAccum(pieces, () => begin, (at, bytes) => {
        const data = bytes as Uint8Array<ArrayBuffer>
        const message = { offset: wide(at), data }
        return [at + bytes.length, [at === begin ? { ...message, artefact: artefactMessage(first.artefact) } : message]]
      })
    })
  })
