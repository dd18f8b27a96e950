/**
 * Answers questions about jobs that come over the broker: to all workers through one fanout exchange, or to this one
 * through its own queue. A worker that does not know the job is silent, so that whoever has it is heard.
 */
import { Effect, FiberSet, Option, type Scope, Semaphore, Stream } from "effect"
import {
  decodeQuestion,
  encodeAnswer,
  type StokerAnswer,
  type StokerJobView,
  type StokerQuestion
} from "../../schemas/dialects/StokerControl.ts"
import { intake, isReplyQueue, ownerOf, type Trust } from "../../schemas/dialects/StokerJob.ts"
import { type InstanceId, type JobKey, Owner } from "../../schemas/Ids.ts"
import { Amqp, type AmqpDelivery, type Topology } from "../amqp/Amqp.ts"
import type { ArtefactError, ArtefactNotFound } from "../artefacts/Artefacts.ts"
import { Control, type JobNotFound, type WorkerAway } from "../control/Control.ts"
import type { JobRecord, JournalError } from "../journal/Journal.ts"
import type { LogEntry, LogError, LogNotFound } from "../log/Log.ts"
import { controlExchange, controlQueue, controlTopology } from "./StokerTopology.ts"

export interface StokerControlOptions {
  readonly instance: InstanceId
  /** As the intake has them. */
  readonly user: string
  readonly spokesmen?: ReadonlyArray<string>
  readonly defaultOwner?: Owner
  readonly requireUser?: boolean
}

/** Questions in work at once; more wait at the broker, and go when their asker has gone. */
const atOnce = 256
/** Reads that may wait for news at once. One more is answered at once with what there is. */
const mostWaiting = 128
/** Milliseconds. */
const longestWait = 10_000
/** Questions that may wait for this worker at the broker; older ones are dropped, their askers ask again. */
const mostPending = 10_000

const topologyOf = (queue: string): Topology => ({
  ...controlTopology,
  queues: [{ name: queue, durable: false, exclusive: true, maxLength: mostPending }],
  bindings: [{ exchange: controlExchange, queue, routingKey: "" }]
})

const viewOf = (
  { attempt, instance, receivedAtMs, request: { job }, settlement, startedAtMs, state }: JobRecord
): StokerJobView => ({
  id: job.id,
  owner: job.owner,
  intake: job.intake,
  function: job.function,
  state,
  attempt,
  receivedAtMs,
  ...(job.class === undefined ? {} : { class: job.class }),
  ...(startedAtMs === undefined ? {} : { startedAtMs }),
  ...(instance === undefined ? {} : { instance }),
  ...(settlement === undefined ? {} : { settlement })
})

const entryOf = (entry: LogEntry) =>
  entry._tag === "Bytes"
    ? { stream: entry.stream, offset: entry.offset, base64: entry.bytes }
    : { stream: entry.stream, gapFrom: entry.from, gapTo: entry.to }

const utf8 = new TextEncoder()

/** Answers until the scope ends. */
export const make = Effect.fnUntraced(function*(
  options: StokerControlOptions
): Effect.fn.Return<void, never, Amqp | Control | Scope.Scope> {
  const amqp = yield* Amqp
  const control = yield* Control
  const queue = controlQueue(options.instance)
  const from = queue
  const trust: Trust = {
    defaultOwner: options.defaultOwner ?? Owner.make(intake),
    spokesmen: [options.user, ...options.spokesmen ?? []],
    requireUser: options.requireUser ?? false
  }
  const room = yield* Semaphore.make(atOnce)
  const answering = yield* FiberSet.make<void>()
  let waiting = 0

  /** Published and not waited for: who asks has a deadline, and asks again. */
  const reply = Effect.fnUntraced(function*({ properties }: AmqpDelivery, answer: StokerAnswer) {
    const { correlationId, replyTo } = properties
    if (replyTo === undefined || !isReplyQueue(replyTo)) return
    const body = utf8.encode(yield* Effect.orDie(encodeAnswer(answer)))
    yield* Effect.ignore(
      amqp.publish({
        exchange: "",
        routingKey: replyTo,
        body,
        persistent: false,
        properties: {
          contentType: "application/json",
          ...(correlationId === undefined ? {} : { correlationId })
        }
      }),
      { log: "Debug" }
    )
  })

  /** Ours to tell: one that another worker runs, that one answers for. */
  const isOurs = ({ instance, state }: JobRecord) => state !== "running" || instance === options.instance

  type Answered = Effect.Effect<
    Option.Option<StokerAnswer>,
    ArtefactError | ArtefactNotFound | JobNotFound | JournalError | LogError | LogNotFound | WorkerAway
  >

  const read = Effect.fnUntraced(
    function*(key: JobKey, { maxBytes, offset, run, stream, waitMs }: StokerQuestion & { readonly ask: "read" }) {
      const mayWait = waiting < mostWaiting
      if (mayWait) waiting += 1
      const wait = mayWait ? Math.min(waitMs, longestWait) : 0
      const slice = yield* control.read(key, {
        stream,
        offset,
        maxBytes,
        waitMs: wait,
        ...(run === undefined ? {} : { run })
      }).pipe(
        Effect.ensuring(Effect.sync(() => waiting -= mayWait ? 1 : 0))
      )
      const answer: StokerAnswer = {
        answer: "output",
        from,
        entries: slice.entries.map(entryOf),
        next: slice.next,
        available: slice.available,
        run: slice.run,
        ...(slice.end === undefined ? {} : { end: slice.end })
      }
      return Option.some(answer)
    }
  )

  const stop = Effect.fnUntraced(
    function*(key: JobKey, asked: AmqpDelivery, { graceMs, reason }: StokerQuestion & { readonly ask: "stop" }) {
      const known = yield* Effect.option(control.status(key))
      if (Option.isSome(known) && known.value.state === "running" && isOurs(known.value)) {
        yield* reply(asked, { answer: "stopping", from })
      }
      // Also what is in hand and not claimed yet, of which no record speaks.
      const record = yield* control.stop(key, { reason, graceMs })
      return isOurs(record) ? Option.some<StokerAnswer>({ answer: "job", from, job: viewOf(record) }) : Option.none()
    }
  )

  const answerTo = (question: StokerQuestion, asked: AmqpDelivery, asker: Owner, isVouchedFor: boolean): Answered => {
    const owner = question.owner ?? asker
    // Existence is not revealed: another's job is nobody's here.
    if (isVouchedFor && owner !== asker) return Effect.succeedNone
    if (question.ask === "list") {
      const { ask: _, owner: wanted, ...filter } = question
      const whose = isVouchedFor ? asker : wanted
      return Effect.map(
        control.list({ ...filter, ...(whose === undefined ? {} : { owner: whose }) }),
        (records) => Option.some<StokerAnswer>({ answer: "jobs", from, jobs: records.map(viewOf) })
      )
    }
    const key: JobKey = { intake: question.intake ?? intake, owner, id: question.id }
    switch (question.ask) {
      case "status":
        return Effect.map(
          control.status(key),
          (record) => Option.some<StokerAnswer>({ answer: "job", from, job: viewOf(record) })
        )
      case "stop":
        return stop(key, asked, question)
      case "read":
        return read(key, question)
      case "artefact":
        return Effect.map(
          control.artefact(key, question.path, question),
          ({ artefact, bytes, offset }) =>
            Option.some<StokerAnswer>({ answer: "artefact", from, artefact, offset, base64: bytes })
        )
    }
  }

  const trouble = (reason: string, remedy: string): StokerAnswer => ({ answer: "trouble", from, reason, remedy })

  const answer = Effect.fn("StokerControl.answer")(function*(asked: AmqpDelivery) {
    const { headers, userId } = asked.properties
    const asker = ownerOf({ body: asked.body, userId, headers }, trust)
    if (asker._tag === "Failure") return yield* reply(asked, trouble(asker.failure.reason, asker.failure.remedy))
    const isVouchedFor = userId !== undefined && !trust.spokesmen.includes(userId)
    const answered = yield* decodeQuestion(new TextDecoder().decode(asked.body)).pipe(
      Effect.flatMap((question) => answerTo(question, asked, asker.success, isVouchedFor)),
      Effect.catchTags({
        JobNotFound: () => Effect.succeedNone,
        LogNotFound: () => Effect.succeedNone,
        ArtefactNotFound: () => Effect.succeedNone,
        WorkerAway: () => Effect.succeedNone,
        JournalError: ({ reason, remedy }) => Effect.succeedSome(trouble(reason, remedy)),
        LogError: ({ reason, remedy }) => Effect.succeedSome(trouble(reason, remedy)),
        ArtefactError: ({ reason, remedy }) => Effect.succeedSome(trouble(reason, remedy)),
        SchemaError: (error) =>
          Effect.succeedSome(
            trouble(error.message.replaceAll(/\s+/g, " ").slice(0, 300), "Ask stop, status, list, read or artefact.")
          )
      })
    )
    if (Option.isSome(answered)) yield* reply(asked, answered.value)
  })

  yield* amqp.consume(queue, { prefetch: atOnce, topology: topologyOf(queue) }).pipe(
    Stream.runForEach((asked) =>
      Effect.andThen(
        Semaphore.take(room, 1),
        FiberSet.run(
          answering,
          // Acked first: a question is not worth asking again of a worker that died of it.
          Effect.andThen(asked.ack, answer(asked)).pipe(
            Effect.catchCause((cause) => Effect.logWarning("a question about a job could not be answered", cause)),
            Effect.ensuring(Semaphore.release(room, 1))
          )
        )
      )
    ),
    Effect.tapCause((cause) => Effect.logError("this worker answers no more questions over the broker", cause)),
    Effect.forkScoped
  )
})
