/** Requests, settlements and messages for the journal's tests. */
import { Effect, Schema } from "effect"
import { createHash } from "node:crypto"
import type { Journal, Request } from "../../src/layers/journal/Journal.ts"
import { InstanceId, JobKey } from "../../src/schemas/Ids.ts"
import { Job, keyOf } from "../../src/schemas/Job.ts"
import type { Message } from "../../src/schemas/Message.ts"
import type { Outcome } from "../../src/schemas/Outcome.ts"
import type { Settlement } from "../../src/schemas/Settlement.ts"

const decodeJob = Schema.decodeUnknownSync(Job)
const decodeKey = Schema.decodeUnknownSync(JobKey)
const decodeInstance = Schema.decodeUnknownSync(InstanceId)

export const instance = (name: string): InstanceId => decodeInstance(name)
export const key = (id: string, intake = "embedded", owner = "local"): JobKey => decodeKey({ intake, owner, id })

export const jobOf = (job: unknown): Job => decodeJob(job)

/** `body` stands for the request's bytes: another one is another request. */
export const request = (id: string, body = "first", where: Partial<JobKey> = {}): Request => ({
  job: decodeJob({
    id,
    owner: "local",
    intake: "embedded",
    function: "command",
    args: { argv: ["echo", body], "ünïcode": "\u0000\ud800 ok", nested: [1, null, { deep: true }] },
    limits: { wallMs: 1000, outputPolicy: "kill" },
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ...where
  }),
  hash: createHash("sha256").update(body).digest("hex"),
  reply: { queue: "answers", correlation: [1, "two"] }
})

export const settlement = (
  attempt: number,
  outcome: Outcome = { _tag: "Exited", phase: "run", code: 0 }
): Settlement => ({
  outcome,
  usage: { queuedMicros: 5, phases: [{ phase: "run", wallMicros: 1200, cpuMicros: 300 }] },
  output: [{ stream: "stdout", producedBytes: 10, droppedBytes: 0, crc32: 0xcbf43926 }],
  attempt,
  startedAtMs: 1,
  endedAtMs: 2
})

export const message = (id: string): Message => ({
  id,
  emitter: "amqp",
  content: { exchange: "", routingKey: `job_status_${id}`, body: "done\u0000\n" }
})

/** What is due, without its terms. */
export const queued = (journal: Journal["Service"], limit = 10) =>
  Effect.map(journal.queued(limit), ({ jobs }) => jobs.map(({ request }) => request))

export const keyOfRequest = ({ job }: Request): JobKey => keyOf(job)
