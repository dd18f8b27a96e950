/**
 * The clients of the old worker, independent of our transport: raw amqplib, every declare as they wrote it
 * (codebench-dev/api at 4ba5bc2 for the exchange form, codebench-dev/worker at ca509ce for the README's).
 */
import { type Channel, type ChannelModel, connect, type ConsumeMessage, type GetMessage } from "amqplib"

/** The fields of a status with the types that a strict decoder, like the old Go structs, demands. */
const fields = {
  id: "string",
  status: "string",
  message: "string",
  error: "string",
  stderr: "string",
  stdout: "string",
  exec_duration: "number",
  mem_usage: "number"
} as const

export interface OldStatus {
  readonly id: string
  readonly status: string
  readonly message: string
  readonly error: string
  readonly stderr: string
  readonly stdout: string
  readonly exec_duration: number
  readonly mem_usage: number
}

/** Throws at anything the old structs could not take. */
export const strictStatus = (content: Buffer): OldStatus => {
  const parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content)) as Record<string, unknown>
  for (const [name, type] of Object.entries(fields)) {
    if (typeof parsed[name] !== type) throw new Error(`${name} is no ${type}: ${content.toString()}`)
    if (type === "number" && !Number.isSafeInteger(parsed[name])) throw new Error(`${name} is no integer`)
  }
  if (Object.keys(parsed).length !== Object.keys(fields).length) throw new Error("there are more fields")
  return parsed as unknown as OldStatus
}

/** One client with one channel. Statuses are what it has consumed so far. */
export class OldClient {
  readonly statuses: Array<OldStatus> = []
  readonly messages: Array<ConsumeMessage> = []
  private readonly connection: ChannelModel
  private readonly channel: Channel

  private constructor(connection: ChannelModel, channel: Channel) {
    this.connection = connection
    this.channel = channel
  }

  static async connect(url: string): Promise<OldClient> {
    const connection = await connect(url, { noDelay: true })
    connection.on("error", () => undefined)
    const channel = await connection.createChannel()
    channel.on("error", () => undefined)
    return new OldClient(connection, channel)
  }

  /** Also when the test has cut it already. */
  async close(): Promise<void> {
    await this.connection.close().catch(() => undefined)
  }

  /** As the old worker and the API server declare the way in; a client that comes first needs the queue too. */
  async declareJobs(): Promise<void> {
    await this.channel.assertExchange("jobs_ex", "direct", { durable: true })
    await this.channel.assertQueue("jobs_q", { durable: true })
    await this.channel.bindQueue("jobs_q", "jobs_ex", "jobs_rk")
  }

  /** As the API server: a durable queue, bound to an exchange it expects the worker to have declared. */
  async bindStatuses(): Promise<void> {
    await this.channel.assertQueue("jobs_status_q", { durable: true })
    await this.channel.bindQueue("jobs_status_q", "jobs_status_ex", "jobs_status_rk")
  }

  async followStatuses(): Promise<void> {
    await this.bindStatuses()
    await this.follow("jobs_status_q")
  }

  /** As the old worker. */
  async declareStatusExchange(): Promise<void> {
    await this.channel.assertExchange("jobs_status_ex", "direct", { durable: false })
  }

  /** As the README's worker. */
  async declareReadmeJobs(): Promise<void> {
    await this.channel.assertQueue("jobs", { durable: true })
  }

  /** As the README's worker: nothing but a name. */
  async declareJobStatus(id: string): Promise<void> {
    await this.channel.assertQueue(`job_status_${id}`, { durable: false })
  }

  /** Without declaring, as the README's `rabbitmqadmin get` does. */
  async follow(queue: string): Promise<void> {
    await this.channel.consume(queue, (message) => {
      if (message === null) return
      this.messages.push(message)
      this.statuses.push(strictStatus(message.content))
    }, { noAck: true })
  }

  /** As the API server's AmqpConnection.publish: JSON, no properties of its own. */
  submit(job: object): void {
    this.channel.publish("jobs_ex", "jobs_rk", Buffer.from(JSON.stringify(job)))
  }

  /** As the README's request. */
  submitReadme(job: object | Buffer): void {
    this.channel.publish("", "jobs", Buffer.isBuffer(job) ? job : Buffer.from(`${JSON.stringify(job)}\r\n`))
  }

  /** One message, acked, or undefined. */
  async get(queue: string): Promise<GetMessage | undefined> {
    const message = await this.channel.get(queue, { noAck: true })
    return message === false ? undefined : message
  }
}
