/**
 * A job through RabbitMQ, publish to `done`, one at a time: the bundled worker against bare amqplib, a bare container
 * that stood ready, and as many durable writes to a bare SQLite file.
 */
import { connect } from "amqplib"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { BrokerProcess } from "../test/support/BrokerProcess.ts"
import { projectEnv } from "../test/support/Run.ts"
import { percentile, publish, round, spread } from "./report.ts"

const JOBS = Number(process.argv[2] ?? 1000)

/** Jobs before the measured ones. */
const WARM_UP = 200

const root = join(import.meta.dirname, "..")

const start = async (program: string, args: ReadonlyArray<string>, url: string) => {
  const child = spawn(program, [...args], {
    env: { ...projectEnv, AMQP_URL: url },
    stdio: ["ignore", "ignore", "pipe"]
  })
  let said = ""
  child.stderr.on("data", (bytes: Buffer) => said += bytes.toString())
  while (!said.includes("consuming")) {
    if (child.exitCode !== null) throw new Error(said)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  return {
    stop: async () => {
      const gone = once(child, "exit")
      child.kill("SIGTERM")
      await gone
    }
  }
}

/** Milliseconds of each job, from its publish to its last status; `failed` is counted apart. */
const measure = async (url: string) => {
  const connection = await connect(url, { noDelay: true })
  const channel = await connection.createChannel()
  const { queue } = await channel.assertQueue("", { exclusive: true })
  await channel.bindQueue(queue, "jobs_status_ex", "jobs_status_rk")
  let arrived: (status: string) => void = () => {}
  await channel.consume(queue, (message) => {
    if (message === null) return
    const { status } = JSON.parse(message.content.toString()) as { status: string }
    if (status === "done" || status === "failed") arrived(status)
  }, { noAck: true })
  const took: Array<number> = []
  let failed = 0
  for (let n = 0; n < JOBS + WARM_UP; n++) {
    const began = performance.now()
    const ended = new Promise<string>((resolve) => arrived = resolve)
    channel.publish(
      "jobs_ex",
      "jobs_rk",
      Buffer.from(JSON.stringify({ id: `bench-${process.pid}-${n}`, type: "command", command: "true" })),
      { persistent: true }
    )
    if (await ended === "failed") failed += 1
    if (n >= WARM_UP) took.push(performance.now() - began)
  }
  await connection.close()
  return { took, failed }
}

const broker = await BrokerProcess.start()
const url = `amqp://guest:guest@127.0.0.1:${broker.port}/`
const state = Jobs.stateDirectory()
const rawState = Jobs.stateDirectory()
const raw = await start("node", [join(import.meta.dirname, "rawWorker.ts"), rawState, "gated"], url)
const floor = await measure(url)
await raw.stop()
Jobs.remove(rawState)
const worker = await start(join(root, "dist", "stoker"), ["worker", "--state", state, "--slots", "2"], url)
const stoker = await measure(url)
await worker.stop()
await broker.kill()
Jobs.remove(state)

const ratio = (p: number) => round(percentile(stoker.took, p) / percentile(floor.took, p))
const held = publish({
  name: "amqp",
  figures: {
    jobs: JOBS,
    failed: stoker.failed,
    ...spread("floor: amqplib + gated container + SQLite, publish to done, ms", floor.took),
    ...spread("stoker, publish to done, ms", stoker.took)
  },
  claims: [
    { claim: "publish to done, p50, to amqplib + gated container + SQLite", measured: ratio(0.5), bound: 2, unit: "×" },
    {
      claim: "publish to done, p99, to amqplib + gated container + SQLite",
      measured: ratio(0.99),
      bound: 2,
      unit: "×"
    },
    { claim: "publish to done, p50, absolute", measured: percentile(stoker.took, 0.5), bound: 8, unit: "ms" },
    { claim: "publish to done, p99, absolute", measured: percentile(stoker.took, 0.99), bound: 25, unit: "ms" },
    { claim: "jobs not successful", measured: stoker.failed + floor.failed, bound: 0, unit: "" }
  ]
})
process.exit(held ? 0 : 1)
