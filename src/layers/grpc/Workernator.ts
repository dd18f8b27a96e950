/** `seanhagen.workernator.Service`, as the RFD has it: typed jobs, and `Tail`. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { Clock, Effect, Stream } from "effect"
import { argumentsOf, functionOf, statusNumber, typeNumbers } from "../../schemas/dialects/Workernator.ts"
import type { JobView } from "../../schemas/JobView.ts"
import { endLines, startLine, titleOf } from "../../schemas/Transcript.ts"
import { type FollowEvent, InvalidRequest, type JobApi } from "../api/JobApi.ts"
import { type JobSchema, Service, type TailJobResponseSchema } from "./gen/seanhagen/workernator/workernator_pb.js"
import { present, timeIf } from "./Numbers.ts"
import { offer } from "./Service.ts"
import { TextLines } from "./TextLines.ts"

const jobMessage = (job: JobView): MessageInitShape<typeof JobSchema> => {
  const data = argumentsOf(job.function, job.args)
  const init: MessageInitShape<typeof JobSchema> = {
    id: job.id,
    status: statusNumber(job),
    ...present({ startedAt: timeIf(job.startedAtMs), endedAt: timeIf(job.endedAtMs) })
  }
  if (data === undefined) return init
  return {
    ...init,
    type: typeNumbers[data.case],
    args: { data: data.case === "noop" ? { case: "noop", value: {} } : data }
  }
}

type Line = MessageInitShape<typeof TailJobResponseSchema>

/** Lines are text on this wire: what is no UTF-8 comes as U+FFFD. */
const decoder = new TextDecoder()

/** The lines of one tail. `[JOB]` lines stand where the job's life has them. */
class Tail {
  readonly #lines = new TextLines()
  readonly #title: string
  #isBegun = false

  constructor(title: string) {
    this.#title = title
  }

  of(event: FollowEvent, nowMs: number): ReadonlyArray<Line> {
    const at = (ms: number) => (line: string): Line => ({ line, ...present({ timestamp: timeIf(ms) }) })
    const own = this.#lines.of(event).map((bytes) => at(nowMs)(decoder.decode(bytes)))
    if (event._tag === "Begun") return [...own, ...this.#start(event.attempt).map(at(nowMs))]
    if (event._tag !== "Ended") return own
    const { endedAtMs, outcome, startedAtMs } = event.job
    return [
      // One that wrote nothing, or whose output is not kept any more.
      ...startedAtMs === undefined || this.#isBegun ? [] : this.#start(1).map(at(startedAtMs)),
      ...own,
      ...endLines(outcome).map(at(endedAtMs ?? nowMs))
    ]
  }

  #start(attempt: number): ReadonlyArray<string> {
    this.#isBegun = true
    return [startLine(this.#title, attempt)]
  }
}

/** The service over the control plane. */
export const workernator = (api: JobApi["Service"], titles: Parameters<typeof titleOf>[0]) =>
  offer(Service, {
    start: Effect.fnUntraced(function*({ args, jobType }, { caller }) {
      const called = yield* Effect.mapError(
        Effect.fromResult(functionOf(jobType, args?.data ?? { case: undefined })),
        (mismatch) => new InvalidRequest(mismatch)
      )
      return jobMessage(yield* api.start(caller, called))
    }),
    // KILL at once, as ever.
    stop: ({ id }, { caller }) => Effect.map(api.stop(caller, { id, graceMs: 0 }), jobMessage),
    status: ({ id }, { caller }) => Effect.map(api.status(caller, { id }), jobMessage),
    tail: Effect.fnUntraced(function*({ id }, { caller }) {
      const events = yield* api.follow(caller, { id })
      // Who may see the output need not be allowed to see the status.
      const title = yield* api.status(caller, { id }).pipe(
        Effect.map((job) => titleOf(titles, job.function)),
        Effect.orElseSucceed(() => id)
      )
      const clock = yield* Clock.Clock
      return Stream.mapAccum(events, () => new Tail(title), (tail, event) => [
        tail,
        tail.of(event, clock.currentTimeMillisUnsafe())
      ])
    })
  })
