/** `stoker submit` through RabbitMQ, as CodeBench clients do it: what that dialect cannot say is refused, not dropped. */
import { Effect, Option, type Redacted, Schema, Stream } from "effect"
import { SecureRandom } from "effect/crypto"
import { Amqp, type Topology } from "../layers/amqp/Amqp.ts"
import * as AmqpLib from "../layers/amqp/AmqpLib.ts"
import { defaultTargets, exchangeTopology, queueSpec } from "../layers/emitter/CodeBenchMessages.ts"
import { randomName } from "../layers/host/RandomName.ts"
import { exchangeQueue, readmeQueue } from "../layers/intake/CodeBench.ts"
import { intake } from "../schemas/dialects/CodeBench.ts"
import { CodeBenchStatus } from "../schemas/dialects/CodeBenchStatus.ts"
import { CliFailure, ExitWith, exitWith, usageFailure } from "./CliFailure.ts"
import { givenContainer } from "./ContainerSource.ts"
import { exitCode } from "./ExitCode.ts"
import { givenTerms, type TermsFlags } from "./Flags.ts"
import { type JobOptions, requestOf } from "./JobSource.ts"
import { type OutputClosed, print, say, write } from "./Output.ts"
import * as Signals from "./Signals.ts"
import { formatBytes, formatMicros } from "./Units.ts"

export interface CodeBenchOptions extends JobOptions {
  readonly url: Redacted.Redacted<string>
  readonly terms: TermsFlags
  readonly json: boolean
  readonly wait: boolean
  readonly tellId: (id: string) => Effect.Effect<void, OutputClosed>
}

/** Broker and worker are away that long, at most, before we say so. */
const PATIENCE = "15 seconds"

const unsayable = (flag: string) =>
  usageFailure(
    `CodeBench messages cannot say ${flag}`,
    "Leave it out; or unset AMQP_URL to use the embedded queue of the state directory, which can."
  )

const one = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`

/** For `/bin/sh -c`, which is how that dialect's commands are run. */
const shellLine = (argv: ReadonlyArray<string>) =>
  argv.map((word) => /^[\w@%+=:,./-]+$/.test(word) ? word : one(word)).join(" ")

const CodeArgs = Schema.Struct({
  language: Schema.String,
  files: Schema.Array(Schema.Struct({ content: Schema.optionalKey(Schema.String) }))
})
const decodeCode = Schema.decodeUnknownOption(CodeArgs)

/** Message and address: code to the exchange of 8b87916, a command to the README's queue. */
const messageOf = Effect.fnUntraced(function*(options: CodeBenchOptions) {
  const { files, operands, variant } = options
  const isCode = files.length > 0
  const given = [
    ...givenContainer(options.container),
    ...(Option.isSome(options.stdin) ? ["--stdin"] : []),
    ...(options.env.length > 0 ? ["--env"] : []),
    ...(options.noCache ? ["--no-cache"] : []),
    ...(options.artefact.length > 0 ? ["--artefact"] : []),
    ...(Option.isSome(options.class) ? ["--class"] : []),
    ...(Object.keys(options.limits).length > 0 ? ["limits"] : []),
    ...givenTerms(options.terms),
    ...(files.length > 1 ? ["several files"] : []),
    ...(isCode && operands.length > 0 ? ["arguments for the program"] : [])
  ]
  if (given.length > 0) return yield* unsayable(given.join(", "))
  const { job } = yield* requestOf(options, { intake, prefix: "job", command: "submit" })
  const { id } = job
  if (!isCode) return { id, body: { id, type: "command", command: shellLine(operands) }, queue: readmeQueue(1) }
  const code = Option.getOrUndefined(decodeCode(job.args))
  const text = code?.files[0]?.content
  if (code === undefined || text === undefined) return yield* unsayable("a source that is not UTF-8")
  const body = {
    id,
    language: code.language,
    code: text,
    ...(Option.isSome(variant) ? { variant: variant.value } : {})
  }
  return { id, body, queue: exchangeQueue(1) }
})

const decodeStatus = Schema.decodeUnknownOption(Schema.fromJsonString(CodeBenchStatus))

/** Where the statuses of this job can be heard. */
const statusQueue = Effect.fnUntraced(function*(id: string, form: "exchange" | "queue") {
  if (form === "queue") return { name: `${defaultTargets.queuePrefix}${id}`, topology: undefined }
  // One exchange for all jobs: a queue of our own beside those of other clients.
  const name = `stoker-submit-${yield* randomName(yield* SecureRandom.SecureRandom, 10)}`
  const { exchange, routingKey } = defaultTargets
  const topology: Topology = {
    ...exchangeTopology(defaultTargets),
    queues: [{ name, durable: false, exclusive: true }],
    bindings: [{ exchange, queue: name, routingKey }]
  }
  return { name, topology }
})

const away = (what: string) =>
  Effect.timeoutOrElse({
    duration: PATIENCE,
    orElse: () =>
      Effect.fail(
        new CliFailure({
          reason: `${what}: RabbitMQ did not answer within ${PATIENCE}`,
          remedy: "Check AMQP_URL, and that the broker is up: stoker doctor",
          code: exitCode.trouble
        })
      )
  })

const show = Effect.fnUntraced(function*(status: CodeBenchStatus, json: boolean) {
  const succeeded = status.status === "done"
  if (json) {
    yield* print(JSON.stringify(status))
  } else {
    yield* write("stdout", status.stdout)
    yield* write("stderr", status.stderr)
    const words = succeeded ? "succeeded" : `${status.message}: ${status.error}`
    yield* say(
      `stoker: ${words} · wall ${formatMicros(status.exec_duration)} · peak memory ${
        formatBytes(status.mem_usage * 1024)
      }`
    )
  }
  const exited = /^exit status (\d+)$/.exec(status.error)
  return succeeded ? 0 : exited === null ? exitCode.usage : Number(exited[1])
})

/** Publishes, and with `wait` listens until the job is done or failed. The dialect tells an exit status, not more. */
export const submitCodeBench = Effect.fn("SubmitCodeBench.submitCodeBench")(
  function*(options: CodeBenchOptions) {
    const { body, id, queue } = yield* messageOf(options)
    const instance = `submit-${yield* randomName(yield* SecureRandom.SecureRandom, 6)}`
    const signals = yield* Signals.take

    const talk = Effect.gen(function*() {
      const amqp = yield* Amqp
      const { binding, form } = queue
      yield* amqp.ensure({
        exchanges: binding === undefined ? [] : [{ name: binding.exchange, type: "direct", durable: true }],
        queues: [{ name: queue.queue, durable: true }],
        bindings: binding === undefined ? [] : [{ ...binding, queue: queue.queue }]
      }).pipe(away("declaring the queue"))
      const listening = yield* statusQueue(id, form)
      if (listening.topology !== undefined && options.wait) {
        yield* amqp.ensure(listening.topology).pipe(away("declaring the status queue"))
      } else if (options.wait) {
        yield* amqp.declareOrUse(queueSpec(defaultTargets, listening.name)).pipe(away("declaring the status queue"))
      }
      yield* amqp.publish({
        exchange: binding?.exchange ?? "",
        routingKey: binding?.routingKey ?? queue.queue,
        body: new TextEncoder().encode(JSON.stringify(body)),
        properties: { contentType: "application/json", messageId: id }
      }).pipe(away("publishing"))
      yield* options.tellId(id)
      if (!options.wait) return 0
      const last = yield* amqp.consume(listening.name, { prefetch: 16 }).pipe(
        Stream.mapEffect((delivery) =>
          Effect.as(delivery.ack, Option.getOrUndefined(decodeStatus(new TextDecoder().decode(delivery.body))))
        ),
        Stream.filter((status) => status !== undefined && status.id === id),
        Stream.tap((status) => options.json ? Effect.void : say(`stoker: ${status?.status}`)),
        Stream.filter((status) => status?.status === "done" || status?.status === "failed"),
        Stream.runHead
      )
      return Option.isSome(last) && last.value !== undefined ? yield* show(last.value, options.json) : exitCode.trouble
    }).pipe(Effect.provide(AmqpLib.layer({ url: options.url, instance })))

    const leave = signals.first.pipe(
      Effect.andThen(say("stoker: not waiting any more; the job goes on")),
      Effect.andThen(Effect.fail(new ExitWith({ code: exitCode.stopped })))
    )
    yield* exitWith(yield* Effect.raceFirst(talk, leave))
  },
  Effect.scoped
)
