/** The bundled command: how long until help, how long until it consumes, and what an idle worker holds. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { BrokerProcess } from "../test/support/BrokerProcess.ts"
import { projectEnv } from "../test/support/Run.ts"
import { percentile, publish, round, spread } from "./report.ts"

const stoker = join(import.meta.dirname, "..", "dist", "stoker")
const ROUNDS = 15

const help = async () => {
  const began = performance.now()
  await once(spawn(stoker, ["--help"], { env: projectEnv, stdio: "ignore" }), "exit")
  return performance.now() - began
}

/** Resident memory of a process without its children, MiB. */
const resident = (pid: number) =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024

const worker = async (url: string) => {
  const state = Jobs.stateDirectory()
  const began = performance.now()
  const child = spawn(stoker, ["worker", "--state", state], {
    env: { ...projectEnv, AMQP_URL: url },
    stdio: ["ignore", "ignore", "pipe"]
  })
  let said = ""
  child.stderr.on("data", (bytes: Buffer) => said += bytes.toString())
  while (!said.includes("consuming")) await new Promise((resolve) => setTimeout(resolve, 1))
  const consuming = performance.now() - began
  await new Promise((resolve) => setTimeout(resolve, 5000))
  const rss = resident(child.pid ?? 0)
  const gone = once(child, "exit")
  child.kill("SIGTERM")
  await gone
  Jobs.remove(state)
  return { consuming, rss }
}

const helps: Array<number> = []
for (let n = 0; n < ROUNDS; n++) helps.push(await help())
const broker = await BrokerProcess.start()
const workers: Array<{ readonly consuming: number; readonly rss: number }> = []
for (let n = 0; n < 3; n++) workers.push(await worker(`amqp://guest:guest@127.0.0.1:${broker.port}/`))
await broker.kill()
const most = (values: ReadonlyArray<number>) => Math.max(...values)
const held = publish({
  name: "start",
  figures: {
    ...spread("stoker --help, ms", helps),
    "worker, spawn to consuming, ms (worst of 3)": round(most(workers.map(({ consuming }) => consuming))),
    "idle worker after 5 s, RSS in MiB (worst of 3)": round(most(workers.map(({ rss }) => rss)))
  },
  claims: [
    { claim: "stoker --help, p50", measured: percentile(helps, 0.5), bound: 250, unit: "ms" },
    {
      claim: "consuming after start",
      measured: most(workers.map(({ consuming }) => consuming)),
      bound: 1500,
      unit: "ms"
    },
    { claim: "idle RSS of the bundled worker", measured: most(workers.map(({ rss }) => rss)), bound: 120, unit: "MiB" }
  ]
})
process.exit(held ? 0 : 1)
