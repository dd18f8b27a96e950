/** Tells the clients of the CodeBench worker, in their own words, how their jobs fare. */
import { Cache, Duration, Effect, Exit, Option, Schema, type Scope } from "effect"
import { CodeBenchReply } from "../../schemas/dialects/CodeBench.ts"
import { ended, outputText, progress } from "../../schemas/dialects/CodeBenchStatus.ts"
import { JobEvent, type StreamSummary } from "../../schemas/JobEvent.ts"
import { type Message, messageId } from "../../schemas/Message.ts"
import type { StreamName } from "../../schemas/Outcome.ts"
import { Amqp, type AmqpMessage } from "../amqp/Amqp.ts"
import { Log } from "../log/Log.ts"
import * as AmqpSend from "./AmqpSend.ts"
import {
  contentOf,
  defaultTargets,
  emitterName,
  exchangeTopology,
  queueSpec,
  type StatusContent,
  statusMessage,
  type StatusTargets
} from "./CodeBenchMessages.ts"
import type { Emitter, Telling } from "./Emitter.ts"
import { statusOutput } from "./StatusOutput.ts"

export interface CodeBenchEmitterOptions {
  readonly targets?: StatusTargets
  /** Most bytes of stdout, and of stderr, in one status. Default 1 MiB: as JSON both stay below 16 MiB at worst. */
  readonly outputBytes?: number
}

/** What it counts. */
export const counters = AmqpSend.countersOf(emitterName)

const decodeReply = Schema.decodeUnknownOption(CodeBenchReply)
const utf8 = new TextEncoder()

const amqpMessage = (message: Message, content: StatusContent): AmqpMessage => ({
  exchange: content.exchange,
  routingKey: content.routingKey,
  body: utf8.encode(content.body),
  // Not application/json: as the old worker sent it.
  properties: { contentType: "text/plain", messageId: AmqpSend.shortId(message.id) }
})

/** Jobs whose status queue is known to be there. A forgotten one costs a declare. */
const knownQueues = 10_000

/** The emitter. Begins to declare the status exchange at once, so that clients find it before the first job. */
export const make = Effect.fnUntraced(function*(
  options: CodeBenchEmitterOptions = {}
): Effect.fn.Return<Emitter, never, Amqp | Log | Scope.Scope> {
  const amqp = yield* Amqp
  const log = yield* Log
  const targets = options.targets ?? defaultTargets
  const outputBytes = options.outputBytes ?? 1024 * 1024

  // "" is the exchange, which lasts. A queue the broker removes when nobody reads it must be made again before that.
  const queueLife = Duration.millis((targets.queueProperties.expires ?? 3_600_000) / 2)
  const ready = yield* Cache.makeWith(
    (queue: string) =>
      (queue === "" ? amqp.ensure(exchangeTopology(targets)) : amqp.declareOrUse(queueSpec(targets, queue))).pipe(
        Effect.retry(AmqpSend.patience)
      ),
    {
      capacity: knownQueues,
      timeToLive: (exit, queue) => Exit.isFailure(exit) ? 0 : queue === "" ? Duration.infinity : queueLife
    }
  )
  const prepare = (content: StatusContent) =>
    Cache.get(ready, content.queue ?? "").pipe(
      Effect.catch((error) => Effect.logWarning(`statuses may get lost: ${error.message}`))
    )
  yield* Effect.forkScoped(prepare({ exchange: targets.exchange, routingKey: targets.routingKey, body: "" }))

  const textOf = Effect.fnUntraced(
    function*({ event: { key } }: Telling, summary: StreamSummary | undefined, from: number) {
      return summary === undefined ? "" : outputText(yield* statusOutput(log, key, summary, from, outputBytes))
    }
  )

  const statusOf = (telling: Telling) =>
    JobEvent.match(telling.event, {
      Received: () => Effect.succeed(progress(telling.job.id, "received")),
      Running: () => Effect.succeed(progress(telling.job.id, "running")),
      PhaseStarted: () => Effect.undefined,
      PhaseEnded: () => Effect.undefined,
      Ended: Effect.fnUntraced(function*({ outcome, output, usage }) {
        // Of a program that ran, its own output alone, as ever; of one that did not compile, the compiler's.
        const [compile, ran] = usage.phases
        const before = ran === undefined ? undefined : compile
        const from = { stdout: before?.stdoutBytes ?? 0, stderr: before?.stderrBytes ?? 0 }
        const text = (name: StreamName) => textOf(telling, output.find(({ stream }) => stream === name), from[name])
        const stdout = yield* text("stdout")
        const stderr = yield* text("stderr")
        return ended(telling.job.id, outcome, usage, { stdout, stderr })
      })
    })

  const render = Effect.fnUntraced(function*(telling: Telling) {
    const reply = Option.getOrUndefined(decodeReply(telling.reply))
    const status = reply === undefined ? undefined : yield* statusOf(telling)
    if (reply === undefined || status === undefined) return []
    return [statusMessage(targets, reply.form, status, messageId(telling.event, 0))]
  })

  yield* AmqpSend.begin(counters)
  const put = AmqpSend.make({ amqp, counters })
  const send = (message: Message) => {
    const content = Option.getOrUndefined(contentOf(message))
    if (content === undefined) {
      const why = "its content is not one of ours; was it written by another version?"
      return Effect.succeed(AmqpSend.givenUp(counters, message, why))
    }
    return put({
      message,
      outgoing: amqpMessage(message, content),
      prepare: prepare(content),
      forget: Effect.asVoid(Cache.invalidate(ready, content.queue ?? ""))
    })
  }

  return { name: emitterName, render, send }
})
