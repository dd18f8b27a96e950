/** Who sends work: jobs through every door, repeats, conflicts, questions to stop, and what is no job at all. */
import { Effect } from "effect"
import type { AmqpMessage } from "../../src/layers/amqp/Amqp.ts"
import { requestHash } from "../../src/layers/intake/RequestHash.ts"
import { controlExchange, queueOf } from "../../src/layers/intake/StokerTopology.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import { header } from "../../src/schemas/dialects/StokerJob.ts"
import { FunctionName, IntakeName, JobId, type JobKey, keyText, Owner } from "../../src/schemas/Ids.ts"
import type { Job } from "../../src/schemas/Job.ts"
import { priorities, standardTerms } from "../../src/schemas/Terms.ts"
import { commandOf, leftFile, type Plan } from "./Sandboxes.ts"
import type { SimulatedWorker } from "./Worker.ts"
import type { World } from "./World.ts"

/** One message or submission, and what may come of it. */
export interface Sent {
  readonly messageId: string
  /** Undefined: it is no job, and can only be kept. */
  readonly key: JobKey | undefined
  /** Tells it from another request under the same key. */
  readonly command: string
  readonly isEmbedded: boolean
  /** Milliseconds since 1970. */
  readonly notBeforeMs: number
  /** Tries its sender asked for. */
  readonly tries: number
  readonly send: () => void
}

const utf8 = new TextEncoder()

export const make = (world: World, workers: () => ReadonlyArray<SimulatedWorker>) => {
  const { broker, dice, outside, time } = world
  const all: Array<Sent> = []
  const accepted = new Set<Sent>()
  let names = 0
  let messages = 0
  const journal = Effect.runSync(Effect.provide(Journal, JournalMemory.layer({ store: world.store })))

  /** Until the broker has it; a client with confirms knows. */
  const publish = (sent: () => Sent, message: AmqpMessage) => {
    if (!broker.isUp() || broker.isBlocked()) return void time.after(outside, 500, () => publish(sent, message))
    if (broker.publish(message) !== "routed") world.violate(`no queue for ${message.routingKey}`)
    accepted.add(sent())
  }

  const planFor = (key: JobKey): Plan => ({
    key: keyText(key),
    millis: dice.chance(0.1) ? dice.between(3000, 9000) : dice.between(5, 2000),
    end: dice.pick(["exit-0", "exit-0", "exit-0", "exit-0", "exit-1", "signal-11", "never"]),
    bytes: dice.chance(0.3) ? dice.between(1, 3000) : 0
  })

  const made = (sent: Sent) => {
    all.push(sent)
    return sent
  }

  const newId = () => JobId.make(`j${++names}`)
  /** Every third job asks for a file that each run leaves, and for one that none does. */
  const filesOf = (id: JobId) => Number(id.slice(1)) % 3 === 0 ? { artefacts: [leftFile, "absent"] } : {}
  const newMessageId = () => `m${++messages}`

  const stokerJob = (id = newId()): Sent => {
    const user = dice.pick([undefined, "alice", "bob"])
    const key: JobKey = { intake: IntakeName.make("stoker"), owner: Owner.make(user ?? "stoker"), id }
    const messageId = newMessageId()
    const command = commandOf(planFor(key))
    const delay = dice.chance(0.2) ? (dice.chance(0.1) ? dice.between(60_000, 7_200_000) : dice.between(100, 8000)) : 0
    const ttl = dice.chance(0.1) ? dice.between(500, 20_000) : undefined
    const retries = dice.chance(0.4)
    const tries = retries ? dice.between(1, 4) : 3
    const sentAtMs = Math.floor(time.now())
    const message: AmqpMessage = {
      exchange: "",
      routingKey: queueOf(dice.pick(priorities)),
      body: utf8.encode(JSON.stringify({
        id,
        function: "command",
        args: { argv: ["/bin/job", command], ...filesOf(id) },
        limits: { wallMs: dice.between(500, 4000), ...(dice.chance(0.1) ? { diskBytes: 65_536 } : {}) }
      })),
      properties: {
        messageId,
        ...(user === undefined ? {} : { userId: user }),
        ...(dice.chance(0.5) ? { replyTo: "client.replies", correlationId: messageId } : {}),
        headers: {
          [header.sentAt]: sentAtMs,
          ...(delay === 0 ? {} : { [header.delay]: delay }),
          ...(ttl === undefined ? {} : { [header.ttl]: ttl }),
          ...(retries
            ? {
              [header.maxAttempts]: tries,
              [header.retryBackoff]: dice.between(50, 3000),
              [header.retryOn]: dice.pick(["never", "SandboxFailed,Lost", "Exited", "TimedOut,Signalled,SandboxFailed"])
            }
            : {})
        }
      }
    }
    const sent = made({
      messageId,
      key,
      command,
      isEmbedded: false,
      notBeforeMs: sentAtMs + delay,
      tries,
      send: () => publish(() => sent, message)
    })
    return sent
  }

  const codeBenchJob = (id = newId()): Sent => {
    const key: JobKey = { intake: IntakeName.make("codebench"), owner: Owner.make("codebench"), id }
    const messageId = newMessageId()
    const command = commandOf(planFor(key))
    const message: AmqpMessage = {
      ...dice.pick([{ exchange: "jobs_ex", routingKey: "jobs_rk" }, { exchange: "", routingKey: "jobs" }]),
      body: utf8.encode(JSON.stringify({ id, type: "command", command })),
      properties: { messageId }
    }
    const sent = made({
      messageId,
      key,
      command,
      isEmbedded: false,
      notBeforeMs: 0,
      tries: 1,
      send: () => publish(() => sent, message)
    })
    return sent
  }

  const embeddedJob = (id = newId()): Sent => {
    const key: JobKey = { intake: IntakeName.make("embedded"), owner: Owner.make("local"), id }
    const command = commandOf(planFor(key))
    const job: Job = {
      ...key,
      function: FunctionName.make("command"),
      args: { argv: ["/bin/job", command], ...filesOf(id) },
      limits: { wallMs: dice.between(500, 4000) }
    }
    const request = { job, hash: requestHash(job), reply: null }
    const sent = made({
      messageId: newMessageId(),
      key,
      command,
      isEmbedded: true,
      notBeforeMs: 0,
      tries: standardTerms.retry.maxAttempts,
      send: () => {
        // Through a worker that is up, else as another process does.
        const control = workers().find(({ control, mortal }) => mortal.isAlive && control !== undefined)
        const [party, submitting] = control?.control === undefined || dice.chance(0.5)
          ? [outside, journal.submit(request)] as const
          : [control.mortal, control.control.submit(request)] as const
        Effect.runForkWith(time.context(party))(submitting.pipe(
          Effect.map(() => void accepted.add(sent)),
          Effect.ignore
        ))
      }
    })
    return sent
  }

  /** Messages nobody can make a job of. */
  const garbage = (): Sent => {
    const messageId = newMessageId()
    const routingKey = dice.pick(["jobs", "jobs_q", "stoker.jobs", "stoker.jobs.low"])
    const text = dice.pick(["", "{", "[]", "{\"id\":\"../x\"}", "{\"id\":\"g1\",\"function\":7}", "{\"id\":\"g2\"}"])
    const message = { exchange: "", routingKey, body: utf8.encode(text), properties: { messageId } }
    const sent = made({
      messageId,
      key: undefined,
      command: text,
      isEmbedded: false,
      notBeforeMs: 0,
      tries: 1,
      send: () => publish(() => sent, message)
    })
    return sent
  }

  const stop = () => {
    const sent = all.length === 0 ? undefined : all[dice.below(all.length)]
    if (sent?.key === undefined) return
    const { id, intake, owner } = sent.key
    const graceMs = dice.pick([0, 100, 3000])
    world.say(outside, `somebody stops ${keyText(sent.key)}`)
    if (!broker.isUp()) return
    broker.publish({
      exchange: controlExchange,
      routingKey: "",
      body: utf8.encode(JSON.stringify({ ask: "stop", id, intake, owner, reason: "enough", graceMs })),
      properties: { replyTo: "client.answers", correlationId: "c" }
    })
  }

  /** The same again, or another one under its id. */
  const again = () => {
    const sent = all.length === 0 ? undefined : all[dice.below(all.length)]
    if (sent?.key === undefined) return
    if (dice.chance(0.7)) return sent.send()
    const other = { stoker: stokerJob, codebench: codeBenchJob, embedded: embeddedJob }[sent.key.intake as string]
    other?.(sent.key.id).send()
  }

  return {
    all,
    accepted,
    /** Something of what clients do. */
    act: () => {
      const what = dice.below(100)
      if (what < 35) stokerJob().send()
      else if (what < 60) codeBenchJob().send()
      else if (what < 75) embeddedJob().send()
      else if (what < 87) again()
      else if (what < 95) stop()
      else garbage().send()
    }
  }
}

export type Clients = ReturnType<typeof make>
