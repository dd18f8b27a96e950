/** What a worker holds while its queue grows and its jobs go by: resident memory, and how late its event loop is. */
import { connect } from "amqplib"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { BrokerProcess } from "../test/support/BrokerProcess.ts"
import { projectEnv } from "../test/support/Run.ts"
import { metricsOf, sumOf } from "./admin.ts"
import { percentile, publish, round } from "./report.ts"

const QUEUED = Number(process.argv[2] ?? 100_000)
const MANY = Number(process.argv[3] ?? 10_000)
const FEW = MANY / 10

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

const broker = await BrokerProcess.start()
const url = `amqp://guest:guest@127.0.0.1:${broker.port}/`
const state = Jobs.stateDirectory()
const child = spawn(join(import.meta.dirname, "..", "dist", "stoker"), ["worker", "--state", state], {
  env: { ...projectEnv, AMQP_URL: url },
  stdio: ["ignore", "ignore", "pipe"]
})
let said = ""
child.stderr.on("data", (bytes: Buffer) => said = (said + bytes.toString()).slice(-100_000))
while (!said.includes("consuming")) await pause(10)

/** Resident memory of the worker alone, MiB, the median of ten looks in two seconds. */
const resident = async () => {
  const looks: Array<number> = []
  for (let n = 0; n < 10; n++) {
    looks.push(Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1]) / 1024)
    await pause(200)
  }
  return percentile(looks, 0.5)
}

/** The worker's own measure of the last fifteen seconds, milliseconds. */
const loopDelay = async () =>
  1000 * sumOf(await metricsOf(state), "stoker_event_loop_delay_seconds", "statistic=\"p99\"")

const connection = await connect(url, { noDelay: true })
const channel = await connection.createConfirmChannel()
const { queue } = await channel.assertQueue("", { exclusive: true })
await channel.bindQueue(queue, "jobs_status_ex", "jobs_status_rk")
const seen = { ended: 0, failed: 0 }
await channel.consume(queue, (message) => {
  if (message === null) return
  const { status } = JSON.parse(message.content.toString()) as { status: string }
  if (status === "failed") seen.failed += 1
  if (status === "done" || status === "failed") seen.ended += 1
}, { noAck: true })
let sent = 0
const send = async (count: number, command: string) => {
  for (let n = 0; n < count; n++) {
    const body = JSON.stringify({ id: `memory-${process.pid}-${sent++}`, type: "command", command })
    channel.publish("jobs_ex", "jobs_rk", Buffer.from(body), { persistent: true })
    if (n % 1000 === 999) await channel.waitForConfirms()
  }
  await channel.waitForConfirms()
}
const until = async (count: number) => {
  for (let { ended } = seen; ended < count; { ended } = seen) await pause(50)
}

await send(200, "true")
await until(200)
await pause(2000)
const before = await resident()
await send(QUEUED, "sleep 1")
const during = await resident()
await channel.purgeQueue("jobs_q")
await pause(5000)
const base = seen.ended

const delays: Array<number> = []
const watching = setInterval(() => void loopDelay().then((delay) => delays.push(delay)), 15_000)
await send(FEW, "true")
await until(base + FEW)
const afterFew = await resident()
await send(MANY - FEW, "true")
await until(base + MANY)
const afterMany = await resident()
clearInterval(watching)
await connection.close()
const gone = once(child, "exit")
child.kill("SIGTERM")
await gone
await broker.kill()
Jobs.remove(state)

const held = publish({
  name: "memory",
  figures: {
    "messages queued": QUEUED,
    "RSS before, MiB": round(before),
    "RSS with all of them queued, MiB": round(during),
    [`RSS after ${FEW} jobs, MiB`]: round(afterFew),
    [`RSS after ${MANY} jobs, MiB`]: round(afterMany),
    "event-loop delay p99 in 15 s, ms, worst": round(Math.max(...delays)),
    "jobs not successful": seen.failed
  },
  claims: [
    { claim: "RSS growth with a long queue", measured: during - before, bound: 20, unit: "MiB" },
    { claim: "RSS after ten times the jobs", measured: 100 * (afterMany / afterFew - 1), bound: 10, unit: "%" },
    { claim: "event-loop delay p99 under load", measured: Math.max(...delays), bound: 20, unit: "ms" },
    { claim: "jobs not successful", measured: seen.failed, bound: 0, unit: "" }
  ]
})
process.exit(held ? 0 : 1)
