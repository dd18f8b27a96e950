/** Jobs a second that do nothing, through RabbitMQ with all statuses: Stoker against bare amqplib and bare SQLite. */
import { connect } from "amqplib"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { BrokerProcess } from "../test/support/BrokerProcess.ts"
import { projectEnv } from "../test/support/Run.ts"
import { publish, round } from "./report.ts"

const JOBS = Number(process.argv[2] ?? 10_000)
/** Not counted: until V8 has compiled what is hot. */
const WARM_UP = Math.floor(JOBS / 5)

/** Publishes all of them, then starts the worker; statuses a second tell how fast they went. */
const measure = async (name: string, program: string, args: ReadonlyArray<string>, url: string) => {
  const connection = await connect(url, { noDelay: true })
  const channel = await connection.createConfirmChannel()
  await channel.assertExchange("jobs_ex", "direct", { durable: true })
  await channel.assertQueue("jobs_q", { durable: true })
  await channel.bindQueue("jobs_q", "jobs_ex", "jobs_rk")
  await channel.assertExchange("jobs_status_ex", "direct", { durable: false })
  const { queue } = await channel.assertQueue("", { exclusive: true })
  await channel.bindQueue(queue, "jobs_status_ex", "jobs_status_rk")
  for (let n = 0; n < JOBS; n++) {
    const body = JSON.stringify({ id: `${name}-${n}`, type: "command", command: "true" })
    channel.publish("jobs_ex", "jobs_rk", Buffer.from(body), { persistent: true })
  }
  await channel.waitForConfirms()
  let ended = 0
  let statuses = 0
  let failed = 0
  let began = 0
  const all = new Promise<void>((resolve) =>
    void channel.consume(queue, (message) => {
      if (message === null) return
      statuses += 1
      const { status } = JSON.parse(message.content.toString()) as { status: string }
      if (status === "failed") failed += 1
      if (status !== "done" && status !== "failed") return
      ended += 1
      if (ended === WARM_UP) began = performance.now()
      if (ended === JOBS) resolve()
    }, { noAck: true })
  )
  const child = spawn(program, [...args], {
    env: { ...projectEnv, AMQP_URL: url },
    stdio: ["ignore", "ignore", "inherit"]
  })
  await all
  const rate = (JOBS - WARM_UP) / ((performance.now() - began) / 1000)
  const gone = once(child, "exit")
  child.kill("SIGTERM")
  await gone
  await connection.close()
  return { rate, failed, statuses }
}

const broker = await BrokerProcess.start()
const url = `amqp://guest:guest@127.0.0.1:${broker.port}/`
const run = async (name: string, ...args: ReadonlyArray<string>) => {
  const state = Jobs.stateDirectory()
  const [file = "", ...rest] = args
  const measured = await measure(name, "node", [join(import.meta.dirname, file), state, ...rest], url)
  Jobs.remove(state)
  return measured
}
const floor = await run("floor", "rawWorker.ts", "none")
const stoker = await run("stoker", "noopWorker.ts")
await broker.kill()

const held = publish({
  name: "noop",
  figures: {
    jobs: JOBS,
    "statuses seen, each": stoker.statuses,
    "floor: amqplib + SQLite, jobs/s": round(floor.rate),
    "stoker, jobs/s": round(stoker.rate),
    "share of the floor, %": round((100 * stoker.rate) / floor.rate)
  },
  claims: [
    { claim: "floor to do-nothing jobs a second", measured: floor.rate / stoker.rate, bound: 1 / 0.7, unit: "×" },
    { claim: "jobs not successful", measured: stoker.failed + floor.failed, bound: 0, unit: "" },
    { claim: "statuses missing", measured: 3 * JOBS - stoker.statuses, bound: 0, unit: "" }
  ]
})
process.exit(held ? 0 : 1)
