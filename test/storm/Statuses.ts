/** Hears every status of both dialects, with raw AMQP, and judges them. */
import { type Channel, type ChannelModel, connect } from "amqplib"
import { Option } from "effect"
import { bytesOf, decode, type StokerEvent } from "../../src/schemas/dialects/StokerEvent.ts"
import { describe } from "../../src/schemas/Outcome.ts"
import { strictStatus } from "../codebench/OldClient.ts"
import { type Ending, isOurs, type StormJob, TWICE } from "./StormJobs.ts"

const endingOf = (event: Extract<StokerEvent, { event: "ended" }>): Ending => {
  const { attempt, outcome, output, usage } = event
  const stdout = output.find(({ stream }) => stream === "stdout")
  return {
    identity: JSON.stringify({ attempt, outcome, usage, output }),
    outcome: outcome._tag === "Exited" && outcome.code !== 0 ? `exited ${outcome.code}` : describe(outcome),
    stdout: stdout === undefined ? "" : Buffer.from(bytesOf(stdout)).toString()
  }
}

const summary = (endings: ReadonlyArray<Ending>): string =>
  endings.map(({ identity, outcome }) => `${outcome} ${identity.slice(0, 400)}`).join(" | ")

/** The asking side of a storm. */
export class Statuses {
  /** By job: its words in the order in which they came, repeats of one message left out. */
  readonly words = new Map<string, Array<string>>()
  readonly endings = new Map<string, Array<Ending>>()
  private readonly heard = new Set<unknown>()
  private readonly connection: ChannelModel
  private readonly channel: Channel

  private constructor(connection: ChannelModel, channel: Channel) {
    this.connection = connection
    this.channel = channel
  }

  /** All queues are there when this returns: nothing is told to nobody. */
  static async connect(url: string): Promise<Statuses> {
    const connection = await connect(url, { noDelay: true })
    const channel = await connection.createChannel()
    const statuses = new Statuses(connection, channel)
    await statuses.declare()
    return statuses
  }

  send({ body, dialect }: StormJob): void {
    const content = Buffer.from(JSON.stringify(body))
    if (dialect === "codebench") this.channel.publish("jobs_ex", "jobs_rk", content, { persistent: true })
    else this.channel.sendToQueue("stoker.jobs", content, { persistent: true })
  }

  async close(): Promise<void> {
    await this.connection.close()
  }

  /** What is wrong with what was told of these jobs; nothing if all is well. */
  faults(jobs: ReadonlyArray<StormJob>): ReadonlyArray<string> {
    return jobs.flatMap((job) => {
      const endings = this.endings.get(job.id) ?? []
      if (endings.length === 0) return [`${job.id} was told no outcome: ${this.words.get(job.id)?.join(", ")}`]
      const wrong = endings.filter((ending) =>
        !isOurs(ending.outcome) && !ending.stdout.includes(TWICE) && !job.isExpected(ending)
      )
      return [
        ...wrong.length === 0 ? [] : [`${job.id} ended otherwise than it should: ${summary(wrong)}`],
        ...this.disorder(job.id)
      ]
    })
  }

  /** Jobs that ran twice at once, or have more than one outcome. */
  rivals(jobs: ReadonlyArray<StormJob>): ReadonlyArray<string> {
    return jobs.flatMap(({ id }) => {
      const endings = this.endings.get(id) ?? []
      const identities = new Set(endings.map(({ identity }) => identity))
      return [
        ...identities.size <= 1 ? [] : [`${id} was told ${identities.size} outcomes: ${summary(endings)}`],
        ...endings.some(({ stdout }) => stdout.includes(TWICE)) ? [`${id} ran twice at once`] : []
      ]
    })
  }

  /** How many ended as their programs would have it, and how many by our kills. */
  tally(jobs: ReadonlyArray<StormJob>): { readonly own: number; readonly ours: number } {
    const first = jobs.flatMap(({ id }) => this.endings.get(id)?.[0] ?? [])
    const ours = first.filter(({ outcome }) => isOurs(outcome)).length
    return { own: first.length - ours, ours }
  }

  /** Each begins with received; nobody is running before; an end that is told again follows a received of its own. */
  private disorder(id: string): ReadonlyArray<string> {
    const words = this.words.get(id) ?? []
    const wrong = words.some((word, n) =>
      word === "running" ? words[n - 1] !== "received" && words[n - 1] !== "running" : false
    )
    return words[0] === "received" && !wrong ? [] : [`${id} was told in disorder: ${words.join(", ")}`]
  }

  /** What was not confirmed is sent again after a cut, under the same id: of such words the first counts. */
  private hear(messageId: unknown, id: string, word: string, ending: Ending | undefined): void {
    if (!this.heard.has(messageId)) this.words.set(id, [...this.words.get(id) ?? [], word])
    this.heard.add(messageId)
    if (ending !== undefined) this.endings.set(id, [...this.endings.get(id) ?? [], ending])
  }

  private async declare(): Promise<void> {
    const { channel } = this
    await channel.assertExchange("jobs_ex", "direct", { durable: true })
    await channel.assertQueue("jobs_q", { durable: true })
    await channel.bindQueue("jobs_q", "jobs_ex", "jobs_rk")
    await channel.assertExchange("jobs_status_ex", "direct", { durable: false })
    await channel.assertQueue("storm.codebench", { durable: true })
    await channel.bindQueue("storm.codebench", "jobs_status_ex", "jobs_status_rk")
    await channel.consume("storm.codebench", (message) => {
      if (message === null) return
      const { error, exec_duration, id, mem_usage, message: text, status, stderr, stdout } = strictStatus(
        message.content
      )
      const isEnd = status === "done" || status === "failed"
      const outcome = status === "done" ? "succeeded" : error.replace(/^exit status /, "exited ")
      const identity = JSON.stringify({ status, text, error, exec_duration, mem_usage, stderr, stdout })
      this.hear(message.properties.messageId, id, status, isEnd ? { identity, outcome, stdout } : undefined)
    }, { noAck: true })
    await channel.assertExchange("stoker.events", "topic", { durable: true })
    await channel.assertQueue("storm.stoker", { durable: true })
    await channel.bindQueue("storm.stoker", "stoker.events", "#")
    await channel.consume("storm.stoker", (message) => {
      const event = message === null ? Option.none() : decode(message.content.toString())
      if (Option.isNone(event) || event.value.id === undefined) return
      const { value } = event
      if (value.event === "phase-started" || value.event === "phase-ended") return
      this.hear(
        message?.properties.messageId,
        value.id ?? "",
        value.event,
        value.event === "ended" ? endingOf(value) : undefined
      )
    }, { noAck: true })
  }
}
