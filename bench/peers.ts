/**
 * Queue to start, and do-nothing jobs a second, beside what others use: BullMQ on Redis and Graphile Worker on
 * PostgreSQL, in the same run on the same machine. All of them sync to the disk what they accepted. Stoker also claims,
 * keeps a log and settles each job in its journal; the others hand it to a function.
 */
import { execFile, spawn } from "node:child_process"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { freePort } from "../test/support/Ports.ts"
import { PostgresServer } from "../test/support/PostgresServer.ts"
import { projectEnv } from "../test/support/Run.ts"
import { percentile, publish, round, spread } from "./report.ts"

const run = promisify(execFile)
const folder = join(import.meta.dirname, "peers")

interface Measured {
  readonly latency: ReadonlyArray<number>
  readonly rate: number
}

const measured = async (script: string, argument: string): Promise<Measured> => {
  const { stdout } = await run("node", [join(folder, script), argument], { env: projectEnv, maxBuffer: 2 ** 26 })
  return JSON.parse(stdout)
}

const listens = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, "127.0.0.1")
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false)).once("connect", () => socket.end())
  })

const withRedis = async <A>(use: (port: number) => Promise<A>): Promise<A> => {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), "stoker-redis-"))
  const options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
  const redis = spawn("redis-server", ["--port", String(port), "--dir", directory, ...options], { stdio: "ignore" })
  try {
    while (!(await listens(port))) await new Promise((resolve) => setTimeout(resolve, 20))
    return await use(port)
  } finally {
    redis.kill("SIGTERM")
    rmSync(directory, { recursive: true, force: true })
  }
}

if (!existsSync(join(folder, "node_modules"))) {
  await run("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder, env: projectEnv })
}
const state = Jobs.stateDirectory()
const stoker = await measured("stoker.ts", state)
Jobs.remove(state)
const bullmq = await withRedis((port) => measured("bullmq.mjs", String(port)))
const postgres = await PostgresServer.start()
const graphile = await measured("graphile.mjs", postgres.url())
await postgres.dispose()

const figures = (name: string, { latency, rate }: Measured) => ({
  ...spread(`${name}, queue to start, ms`, latency),
  [`${name}, do-nothing jobs/s`]: round(rate)
})
const best = Math.min(percentile(bullmq.latency, 0.5), percentile(graphile.latency, 0.5))
const held = publish({
  name: "peers",
  figures: {
    ...figures("stoker, embedded queue", stoker),
    ...figures("bullmq, redis with appendfsync always", bullmq),
    ...figures("graphile-worker, postgresql", graphile),
    "stoker to the better of both, queue to start, p50, ×": round(percentile(stoker.latency, 0.5) / best)
  },
  claims: []
})
process.exit(held ? 0 : 1)
