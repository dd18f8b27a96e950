/**
 * Jobs a second from the embedded queue, each in an oci sandbox of its own with the pool's refill included, against a
 * shell loop that only starts bare crun containers, two at a time.
 */
import { Effect, Schedule } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { requestHash } from "../src/layers/intake/RequestHash.ts"
import { Journal } from "../src/layers/journal/Journal.ts"
import * as JournalSqlite from "../src/layers/journal/JournalSqlite.ts"
import { FunctionName, IntakeName, JobId, Owner } from "../src/schemas/Ids.ts"
import type { Job } from "../src/schemas/Job.ts"
import { isSuccess } from "../src/schemas/Outcome.ts"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { projectEnv } from "../test/support/Run.ts"
import { metricsOf, sumOf } from "./admin.ts"
import { bareCommand } from "./bare.ts"
import { publish, round } from "./report.ts"

const JOBS = Number(process.argv[2] ?? 2000)
const BARE = Number(process.argv[3] ?? 600)
const SLOTS = process.argv[4] ?? "3"

/** Not counted: until V8 has compiled what is hot and the pool has its size. */
const WARM_UP = Math.floor(JOBS / 5)

/** At 70 % of the measured rate. */
const PACED_SECONDS = 15

const shell = async (script: string) => {
  const began = performance.now()
  const child = spawn("/bin/sh", ["-c", script], { stdio: ["ignore", "ignore", "inherit"] })
  const [code] = await once(child, "exit")
  if (code !== 0) throw new Error(`the shell loop ended with ${code}`)
  return (performance.now() - began) / 1000
}

/** Containers a second. */
const floor = Effect.gen(function*() {
  const command = yield* bareCommand(["/bin/true"])
  const loop = (prefix: string, count: number) =>
    `seq ${count} | xargs -P 2 -I{} ${command(`${prefix}{}`).map((part) => `'${part}'`).join(" ")}`
  yield* Effect.promise(() => shell(loop("warm", 50)))
  const seconds = yield* Effect.promise(() => shell(loop("bare", BARE)))
  return BARE / seconds
}).pipe(Effect.scoped)

const jobOf = (n: number): Job => ({
  id: JobId.make(`bench-${n}`),
  owner: Owner.make("bench"),
  intake: IntakeName.make("embedded"),
  function: FunctionName.make("command"),
  args: { argv: ["/bin/true"] },
  limits: {}
})

/** All of them at once into the queue, and then what was written down about each. */
const stoker = Effect.gen(function*() {
  const journal = yield* Journal
  yield* Effect.forEach(
    Array.from({ length: JOBS }, (_, n) => jobOf(n)),
    (job) => journal.submit({ job, hash: requestHash(job), reply: null }),
    { concurrency: "unbounded", discard: true }
  )
  // Asked seldom and for little: whoever watches takes from the same two cores.
  const open = Effect.forEach(["queued", "running"] as const, (state) => journal.list({ state, limit: 1 }))
  yield* Effect.repeat(open, {
    until: (lists) => lists.flat().length === 0,
    schedule: Schedule.spaced("500 millis")
  })
  const records = yield* journal.list({ state: "ended", limit: JOBS })
  const ends = records.flatMap(({ settlement }) => settlement === undefined ? [] : [settlement.endedAtMs])
  const failed = records.filter(({ settlement }) => settlement === undefined || !isSuccess(settlement.outcome))
  const [first = 0] = ends.toSorted((a, b) => a - b).slice(WARM_UP)
  return { rate: (JOBS - WARM_UP) / ((Math.max(...ends) - first) / 1000), failed: failed.length }
})

/** Evenly spaced, at a share of what the worker can do: how many found a sandbox ready. */
const paced = Effect.fnUntraced(function*(state: string, perSecond: number) {
  const journal = yield* Journal
  const took = (text: string) => ({
    hits: sumOf(text, "stoker_pool_takes_total", "result=\"hit\""),
    misses: sumOf(text, "stoker_pool_takes_total", "result=\"miss\"")
  })
  const before = took(yield* Effect.promise(() => metricsOf(state)))
  const count = Math.round(perSecond * PACED_SECONDS)
  const began = performance.now()
  for (let n = 0; n < count; n++) {
    const job = jobOf(JOBS + n)
    yield* journal.submit({ job, hash: requestHash(job), reply: null })
    yield* Effect.sleep(Math.max(0, began + (1000 * (n + 1)) / perSecond - performance.now()))
  }
  yield* Effect.sleep("1 second")
  const after = took(yield* Effect.promise(() => metricsOf(state)))
  const hits = after.hits - before.hits
  return (100 * hits) / (hits + after.misses - before.misses)
})

const bareState = Jobs.stateDirectory()
const bare = await Effect.runPromise(floor.pipe(Effect.provide(Jobs.layer("oci", bareState))))
Jobs.remove(bareState)

const state = Jobs.stateDirectory()
const child = spawn(
  join(import.meta.dirname, "..", "dist", "stoker"),
  ["worker", "--state", state, "--slots", SLOTS, ...(process.argv.slice(5))],
  { env: projectEnv, stdio: ["ignore", "ignore", "pipe"] }
)
let said = ""
child.stderr.on("data", (bytes: Buffer) => said = (said + bytes.toString()).slice(-4000))
await new Promise((resolve) => setTimeout(resolve, 2000))
const { failed, hits, rate } = await Effect.runPromise(
  stoker.pipe(
    Effect.flatMap((full) => Effect.map(paced(state, 0.7 * full.rate), (hits) => ({ ...full, hits }))),
    Effect.provide(JournalSqlite.layer({ filename: join(state, "journal.sqlite") }))
  )
).catch((error: unknown) => {
  throw new Error(said, { cause: error })
})
const gone = once(child, "exit")
child.kill("SIGTERM")
await gone
Jobs.remove(state)

const held = publish({
  name: "throughput",
  figures: {
    jobs: JOBS,
    slots: Number(SLOTS),
    failed,
    "shell loop, bare crun two at a time, containers/s": round(bare),
    "stoker, embedded queue, jobs/s": round(rate),
    "share of the shell loop, %": round((100 * rate) / bare),
    "pool hits at 70 % load, %": round(hits)
  },
  claims: [
    {
      claim: "shell loop of bare crun to jobs from the embedded queue",
      measured: bare / rate,
      bound: 1 / 0.65,
      unit: "×"
    },
    { claim: "pool misses at 70 % load", measured: 100 - hits, bound: 1, unit: "%" },
    { claim: "jobs not successful", measured: failed, bound: 0, unit: "" }
  ]
})
process.exit(held ? 0 : 1)
