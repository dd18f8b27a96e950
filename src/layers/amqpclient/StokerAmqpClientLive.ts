/** The client over `Amqp`: one exclusive reply queue, answers and events told apart by their correlation ids. */
import { type Cause, Clock, Duration, Effect, Layer, Option, Queue, type Scope, Stream } from "effect"
import {
  decodeAnswer,
  encodeQuestion,
  type StokerAnswer,
  type StokerJobView,
  type StokerQuestion
} from "../../schemas/dialects/StokerControl.ts"
import { decode as decodeEvent, type StokerEvent } from "../../schemas/dialects/StokerEvent.ts"
import { header, intake } from "../../schemas/dialects/StokerJob.ts"
import { type InstanceId, type JobKey, keyText, Owner } from "../../schemas/Ids.ts"
import { Amqp, type AmqpDelivery, type Topology } from "../amqp/Amqp.ts"
import { ArtefactNotFound } from "../artefacts/Artefacts.ts"
import { JobNotFound } from "../control/Control.ts"
import { controlExchange, controlQueue, controlTopology, jobsTopology, queueOf } from "../intake/StokerTopology.ts"
import { type LogEntry, LogNotFound, type LogSlice } from "../log/Log.ts"
import { type JobAsked, type JobToSend, StokerAmqpClient, StokerClientError } from "./StokerAmqpClient.ts"

export interface StokerAmqpClientOptions {
  /** Names the reply queue: unique among clients, e.g. random. */
  readonly name: string
  /** Our broker user, if the broker shall vouch for us. */
  readonly userId?: string
  /** How long the broker may be away. Default 10 s. */
  readonly brokerLimit?: Duration.Input
  /** How long a worker may take to say that it has the job; then there is none. Default 2 s. */
  readonly answerLimit?: Duration.Input
  /** Default `stoker.jobs`. */
  readonly queue?: string
}

type Answer<Tag extends StokerAnswer["answer"]> = StokerAnswer & { readonly answer: Tag }

/** Events and answers that may wait for their reader; more push out the oldest. */
const lag = 1024
/** Jobs whose workers are remembered. */
const remembered = 10_000
/** Over the grace: to end the job's processes, and to write down the outcome. */
const stopMargin = Duration.seconds(30)

/** Of an artefact at once. */
const mostBytes = 4 * 1024 * 1024

const utf8 = new TextEncoder()
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

/** Of the span we are in, sampled; undefined outside of one. */
const currentTrace = Effect.currentParentSpan.pipe(
  Effect.map(({ spanId, traceId }): string | undefined => {
    const trace = `00-${traceId}-${spanId}-01`
    return /^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/.test(trace) ? trace : undefined
  }),
  Effect.orElseSucceed(() => undefined)
)

const make = Effect.fnUntraced(function*(options: StokerAmqpClientOptions) {
  const amqp = yield* Amqp
  const replyTo = `stoker.client.${options.name}`
  const answerLimit = Duration.fromInputUnsafe(options.answerLimit ?? "2 seconds")
  const brokerLimit = Duration.fromInputUnsafe(options.brokerLimit ?? "10 seconds")
  const identity = options.userId === undefined ? {} : { userId: options.userId }
  const listeners = new Map<string, Queue.Queue<AmqpDelivery, Cause.Done>>()
  const workers = new Map<string, string>()
  let asked = 0

  const replies: Topology = { queues: [{ name: replyTo, durable: false, exclusive: true }] }

  yield* amqp.consume(replyTo, { prefetch: 256, topology: replies }).pipe(
    Stream.runForEach((delivery) => {
      const listener = listeners.get(delivery.properties.correlationId ?? "")
      if (listener !== undefined) Queue.offerUnsafe(listener, delivery)
      return delivery.ack
    }),
    Effect.tapCause((cause) => Effect.logError("no more answers can be heard", cause)),
    Effect.forkScoped
  )

  const inTime = (operation: string) =>
    Effect.timeoutOrElse({
      duration: brokerLimit,
      orElse: () =>
        Effect.fail(
          new StokerClientError({
            operation,
            reason: "BrokerAway",
            detail: `RabbitMQ did not answer within ${Duration.format(brokerLimit)}`,
            remedy: "Check AMQP_URL, and that the broker is up"
          })
        )
    })

  const declared = new Set<string>()
  /** The transport remembers it over reconnections, so once is enough until a message finds no queue. */
  const declare = Effect.fnUntraced(function*(name: string, topology: Topology, operation: string) {
    if (declared.has(name)) return
    yield* amqp.ensure(topology).pipe(inTime(operation))
    declared.add(name)
  })

  /** What comes under a correlation id of its own, while the scope is open. */
  const listen = Effect.acquireRelease(
    Effect.map(Queue.sliding<AmqpDelivery, Cause.Done>(lag), (queue) => {
      const correlationId = String(++asked)
      listeners.set(correlationId, queue)
      return { correlationId, queue }
    }),
    ({ correlationId }) => Effect.sync(() => listeners.delete(correlationId))
  )

  const send = Effect.fnUntraced(function*(job: JobToSend, correlationId: string | undefined) {
    const operation = `sending job ${job.id}`
    const { class: className, delayMs, id, labels, limits, maxAttempts, retryBackoffMs, retryOn, ttlMs } = job
    const queue = queueOf(job.priority ?? "normal", options.queue)
    const body = {
      id,
      function: job.function,
      args: job.args,
      ...(className === undefined ? {} : { class: className }),
      ...(limits === undefined ? {} : { limits }),
      ...(labels === undefined ? {} : { labels })
    }
    const traceparent = job.traceparent ?? (yield* currentTrace)
    const headers = {
      [header.sentAt]: yield* Clock.currentTimeMillis,
      ...(delayMs === undefined ? {} : { [header.delay]: delayMs }),
      ...(ttlMs === undefined ? {} : { [header.ttl]: ttlMs }),
      ...(maxAttempts === undefined ? {} : { [header.maxAttempts]: maxAttempts }),
      ...(retryBackoffMs === undefined ? {} : { [header.retryBackoff]: retryBackoffMs }),
      ...(retryOn === undefined ? {} : { [header.retryOn]: retryOn.length === 0 ? "never" : retryOn.join(",") }),
      ...(traceparent === undefined ? {} : { traceparent })
    }
    yield* declare(queue, jobsTopology(queue), operation)
    const { routed } = yield* amqp.publish({
      exchange: "",
      routingKey: queue,
      body: utf8.encode(JSON.stringify(body)),
      properties: {
        ...identity,
        contentType: "application/json",
        messageId: id,
        headers,
        ...(correlationId === undefined ? {} : { replyTo, correlationId })
      }
    }).pipe(inTime(operation))
    if (routed) return
    declared.delete(queue)
    return yield* new StokerClientError({
      operation,
      reason: "Trouble",
      detail: `the queue ${queue} was deleted just now`,
      remedy: "Send it again"
    })
  })

  /** A question to one worker's queue, or to all; gives what they answer, in order, for as long as it is pulled. */
  const question = Effect.fnUntraced(function*(question: StokerQuestion, worker: string | undefined) {
    const operation = `asking for ${question.ask}`
    const { correlationId, queue } = yield* listen
    yield* declare(replyTo, { ...controlTopology, ...replies }, operation)
    const { routed } = yield* amqp.publish({
      exchange: worker === undefined ? controlExchange : "",
      routingKey: worker ?? "",
      body: utf8.encode(yield* Effect.orDie(encodeQuestion(question))),
      persistent: false,
      properties: {
        ...identity,
        contentType: "application/json",
        replyTo,
        correlationId,
        // Nobody shall act on it after we have gone.
        expiration: String(Duration.toMillis(answerLimit) + 1000)
      }
    }).pipe(inTime(operation))
    const answers = Stream.fromQueue(queue).pipe(
      Stream.mapEffect((delivery) => Effect.option(decodeAnswer(text(delivery.body)))),
      Stream.filter(Option.isSome),
      Stream.map(({ value }) => value)
    )
    return { routed, answers }
  })

  /** The first answer with that tag; `stopping` gives it more time. Trouble of one worker counts if no other answers. */
  const answered = Effect.fnUntraced(function*<Tag extends "artefact" | "job" | "output">(
    asking: StokerQuestion,
    tag: Tag,
    worker: string | undefined,
    limits: { readonly first: Duration.Duration; readonly later: Duration.Duration }
  ): Effect.fn.Return<
    Option.Option<Answer<Tag>>,
    StokerClientError | Effect.Error<ReturnType<typeof question>>,
    Scope.Scope
  > {
    const { answers, routed } = yield* question(asking, worker)
    if (!routed && worker !== undefined) return Option.none()
    if (!routed) {
      return yield* new StokerClientError({
        operation: `asking for ${asking.ask}`,
        reason: "NoWorker",
        detail: "no worker listens",
        remedy: "Start one with `stoker worker`"
      })
    }
    const pull = yield* Stream.toPull(answers)
    let trouble: Answer<"trouble"> | undefined
    let limit = limits.first
    while (true) {
      const next = yield* Effect.timeoutOption(Effect.option(pull), limit)
      if (Option.isNone(next) || Option.isNone(next.value)) break
      for (const answer of next.value.value) {
        if (isAnswer(answer, tag)) return Option.some(answer)
        if (answer.answer === "stopping") limit = limits.later
        if (answer.answer === "trouble") trouble = answer
      }
    }
    if (trouble === undefined) return Option.none()
    const { reason: detail, remedy } = trouble
    return yield* new StokerClientError({ operation: `asking for ${asking.ask}`, reason: "Trouble", detail, remedy })
  })

  const keyOf = ({ id, intake: door, owner }: JobAsked): JobKey => ({
    intake: door ?? intake,
    owner: owner ?? Owner.make(options.userId ?? intake),
    id
  })

  const named = ({ id, intake: door, owner }: JobAsked) => ({
    id,
    ...(owner === undefined ? {} : { owner }),
    ...(door === undefined ? {} : { intake: door })
  })

  /** Asks that worker, else the one that answered last time, and if it is silent or gone, all of them. */
  const ask = Effect.fnUntraced(
    function*<Tag extends "artefact" | "job" | "output">(
      key: JobKey,
      first: InstanceId | undefined,
      asking: StokerQuestion,
      tag: Tag,
      limits: { readonly first: Duration.Duration; readonly later: Duration.Duration }
    ) {
      const name = keyText(key)
      const worker = first === undefined ? workers.get(name) : controlQueue(first)
      const direct = worker === undefined
        ? Option.none<Answer<Tag>>()
        : yield* Effect.scoped(answered(asking, tag, worker, limits))
      const found = Option.isSome(direct) ? direct : yield* Effect.scoped(answered(asking, tag, undefined, limits))
      workers.delete(name)
      if (Option.isSome(found)) {
        if (workers.size >= remembered) workers.delete(workers.keys().next().value ?? "")
        workers.set(name, found.value.from)
      }
      return found
    }
  )

  const aboutJob = Effect.fnUntraced(function*(job: JobAsked, asking: StokerQuestion, later: Duration.Duration) {
    const key = keyOf(job)
    const found = yield* ask(key, job.worker, asking, "job", { first: answerLimit, later })
    return Option.isSome(found) ? found.value.job : yield* new JobNotFound({ key })
  })

  return StokerAmqpClient.of({
    submit: Effect.fn("StokerAmqpClient.submit")((job) => send(job, undefined)),
    follow: Effect.fn("StokerAmqpClient.follow")(function*(job) {
      const { correlationId, queue } = yield* listen
      yield* declare(replyTo, { ...controlTopology, ...replies }, "declaring the reply queue")
      yield* send(job, correlationId)
      return Stream.fromQueue(queue).pipe(
        Stream.map(({ body }): Option.Option<StokerEvent> => decodeEvent(text(body))),
        Stream.filter(Option.isSome),
        Stream.map(({ value }) => value),
        Stream.takeUntil(({ event }) => event === "ended")
      )
    }),
    status: Effect.fn("StokerAmqpClient.status")((job) => aboutJob(job, { ask: "status", ...named(job) }, answerLimit)),
    stop: Effect.fn("StokerAmqpClient.stop")((job, { graceMs, reason }) =>
      aboutJob(
        job,
        { ask: "stop", ...named(job), graceMs, reason },
        Duration.sum(Duration.millis(graceMs), stopMargin)
      )
    ),
    list: Effect.fn("StokerAmqpClient.list")(function*({ within, ...filter }) {
      const { answers, routed } = yield* question({ ask: "list", ...filter }, undefined)
      if (!routed) return []
      const heard: Array<StokerJobView> = []
      yield* answers.pipe(
        Stream.runForEach((answer) => Effect.sync(() => answer.answer === "jobs" && heard.push(...answer.jobs))),
        Effect.timeoutOption(within ?? answerLimit)
      )
      // Workers with one journal say the same.
      const byKey = new Map(heard.map((view) => [keyText(view), view]))
      return [...byKey.values()].toSorted((a, b) => b.receivedAtMs - a.receivedAtMs).slice(0, filter.limit)
    }, Effect.scoped),
    hears: Effect.fn("StokerAmqpClient.hears")(function*(worker) {
      const { answers, routed } = yield* question({ ask: "list", limit: 1 }, controlQueue(worker))
      if (!routed) return false
      return Option.isSome(yield* Effect.timeoutOption(Stream.runHead(answers), answerLimit))
    }, Effect.scoped),
    read: Effect.fn("StokerAmqpClient.read")(function*(job, { waitMs, ...options }) {
      const key = keyOf(job)
      const first = Duration.sum(answerLimit, Duration.millis(waitMs))
      const asking: StokerQuestion = { ask: "read", ...named(job), ...options, waitMs }
      const found = yield* ask(key, job.worker, asking, "output", { first, later: first })
      return Option.isSome(found) ? sliceOf(found.value) : yield* new LogNotFound({ key })
    }),
    artefact: Effect.fn("StokerAmqpClient.artefact")(function*(job, path, { maxBytes, offset }) {
      const key = keyOf(job)
      const range = { offset, maxBytes: Math.min(maxBytes, mostBytes) }
      const asking: StokerQuestion = { ask: "artefact", ...named(job), path, ...range }
      const found = yield* ask(key, job.worker, asking, "artefact", { first: answerLimit, later: answerLimit })
      if (Option.isNone(found)) return yield* new ArtefactNotFound({ key, path })
      const { artefact, base64 } = found.value
      return { artefact, offset: found.value.offset, bytes: base64 }
    })
  })
})

const isAnswer = <Tag extends StokerAnswer["answer"]>(answer: StokerAnswer, tag: Tag): answer is Answer<Tag> =>
  answer.answer === tag

const sliceOf = ({ available, end, entries, next, run }: Answer<"output">): LogSlice => ({
  entries: entries.map((entry): LogEntry =>
    "base64" in entry
      ? { _tag: "Bytes", stream: entry.stream, offset: entry.offset, bytes: entry.base64 }
      : { _tag: "Gap", stream: entry.stream, from: entry.gapFrom, to: entry.gapTo }
  ),
  next,
  available: Math.max(available ?? next, next),
  run,
  ...(end === undefined ? {} : { end })
})

export const layer = (options: StokerAmqpClientOptions): Layer.Layer<StokerAmqpClient, never, Amqp> =>
  Layer.effect(StokerAmqpClient, make(options))
