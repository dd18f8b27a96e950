/** `seanhagen.pb.Service`, as workernator's later clients know it: commands. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { Effect, Stream } from "effect"
import { commandOf, errorText, statusNumber } from "../../schemas/dialects/Workernator.ts"
import type { JobView } from "../../schemas/JobView.ts"
import type { FollowEvent, JobApi } from "../api/JobApi.ts"
import { type JobSchema, Service } from "./gen/seanhagen/pb/workernator_pb.js"
import { present, timeIf } from "./Numbers.ts"
import { begin, commandRequest } from "./OldJobs.ts"
import { Declined, offer } from "./Service.ts"

/** As the old server sent it, and its clients may have room for. Bytes. */
const PIECE = 1024
/** google.rpc.Code: there are bytes that cannot be had. */
const DATA_LOSS = 15

const jobMessage = (job: JobView): MessageInitShape<typeof JobSchema> => {
  const { args, command } = commandOf(job)
  return {
    id: job.id,
    status: statusNumber(job),
    command,
    args: [...args],
    errorMsg: errorText(job.outcome),
    ...present({ startedAt: timeIf(job.startedAtMs), endedAt: timeIf(job.endedAtMs) })
  }
}

const pieces = ({ bytes }: { readonly bytes: Uint8Array }) =>
  Array.from({ length: Math.ceil(bytes.length / PIECE) }, (_, index) => ({
    data: bytes.subarray(index * PIECE, (index + 1) * PIECE) as Uint8Array<ArrayBuffer>
  }))

/** What a follower has not been given: bare bytes have no place to say it, so the stream ends with it. */
class Missing {
  #bytes = 0
  #isComplete = true

  see(event: FollowEvent): void {
    if (event._tag === "Gap") this.#bytes += event.to - event.from
    if (event._tag === "Ended" && event.end !== undefined) this.#isComplete = event.end.complete
  }

  get refusal(): Declined | undefined {
    if (this.#bytes > 0) {
      return new Declined({ code: DATA_LOSS, reason: `${this.#bytes} bytes of the output were not kept` })
    }
    return this.#isComplete
      ? undefined
      : new Declined({ code: DATA_LOSS, reason: "the end of the output may be missing" })
  }
}

/** The service over the control plane. Ids are those of the control plane, which have the form its clients check for. */
export const workernatorPb = (api: JobApi["Service"]) =>
  offer(Service, {
    start: Effect.fnUntraced(function*({ arguments: args, command }, { caller }) {
      return jobMessage(yield* begin(api, caller, yield* commandRequest(command, args)))
    }),
    // KILL at once, as ever.
    stop: ({ id }, { caller }) => Effect.map(api.stop(caller, { id, graceMs: 0 }), jobMessage),
    status: ({ id }, { caller }) => Effect.map(api.status(caller, { id }), jobMessage),
    output: Effect.fnUntraced(function*({ id }, { caller }) {
      const events = yield* api.follow(caller, { id })
      const missing = new Missing()
      const data = Stream.flattenIterable(Stream.map(events, (event) => {
        missing.see(event)
        return event._tag === "Bytes" ? pieces(event) : []
      }))
      const last = Effect.suspend(() => missing.refusal === undefined ? Effect.void : Effect.fail(missing.refusal))
      return Stream.concat(data, Stream.drain(Stream.fromEffect(last)))
    })
  })
