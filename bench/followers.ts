/**
 * Followers of a running job's output: a thousand of one job, one of a flood, and how long a byte takes from the
 * sandbox to a follower. Nobody publishes such figures, so the floors are the job without followers and the memory's own.
 */
import { Effect, Fiber, Layer, Logger } from "effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Control } from "../src/layers/control/Control.ts"
import { Direct } from "../src/layers/intake/Direct.ts"
import { requestHash } from "../src/layers/intake/RequestHash.ts"
import type { LogEntry } from "../src/layers/log/Log.ts"
import { FunctionName, IntakeName, JobId, Owner } from "../src/schemas/Ids.ts"
import { type Job, keyOf } from "../src/schemas/Job.ts"
import type { LimitsRequest } from "../src/schemas/Limits.ts"
import { isSuccess } from "../src/schemas/Outcome.ts"
import { standardPool } from "../src/schemas/PoolConfig.ts"
import { standardClass, standardConfig } from "../src/schemas/WorkerConfig.ts"
import { layerWorker } from "../src/wiring.ts"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { percentile, publish, round, spread } from "./report.ts"

const FOLLOWERS = Number(process.argv[2] ?? 1000)
const SECONDS = 10
const MIB = 1024 * 1024
const FLOOD_MIB = 512

/** 64 KiB that repeat, so that a follower can compare any slice with what it must be. */
const block = Buffer.from(Array.from({ length: 65_536 }, (_, n) => (n * 7 + (n >> 8)) & 0xff))
const twice = Buffer.concat([block, block])

const isRight = (offset: number, bytes: Uint8Array) => {
  for (let at = 0; at < bytes.length; at += 65_536) {
    const from = (offset + at) % 65_536
    const part = bytes.subarray(at, at + 65_536)
    if (Buffer.compare(twice.subarray(from, from + part.length), part) !== 0) return false
  }
  return true
}

const makeBlock = "bytes((n * 7 + (n >> 8)) & 255 for n in range(65536))"

/** Every 62.5 ms one block: 1 MiB a second. Says on stderr how long it took by its own clock. */
const steady = `
import os, sys, time
block = ${makeBlock}
began = time.monotonic()
for n in range(${SECONDS * 16}):
  os.write(1, block)
  time.sleep(max(0, began + (n + 1) / 16 - time.monotonic()))
sys.stderr.write(str(time.monotonic() - began))
`

const flood = `
import os
block = ${makeBlock} * 4
for n in range(${FLOOD_MIB * 4}):
  view = memoryview(block)
  while view:
    view = view[os.write(1, view):]
`

/** A line with the kernel's monotonic clock, which the host shares, every 5 ms. */
const ticking = `
import os, time
for n in range(1000):
  os.write(1, b"%d\\n" % time.monotonic_ns())
  time.sleep(0.005)
`

const limits: LimitsRequest = { wallMs: 60_000, cpuMs: 60_000, outputBytes: 16 * MIB }

const jobOf = (id: string, program: string): Job => ({
  id: JobId.make(id),
  owner: Owner.make("bench"),
  intake: IntakeName.make("direct"),
  function: FunctionName.make("command"),
  args: { argv: ["/usr/bin/python3", "-c", program] },
  limits
})

/** Reads the job's stdout to its end. The log may not be there yet. */
const follow = Effect.fnUntraced(
  function*(job: Job, seen: (entry: LogEntry) => void, options: { maxBytes: number; stream?: "stdout" | "stderr" }) {
    const { read } = yield* Control
    const key = keyOf(job)
    let offset = 0
    while (true) {
      const slice = yield* read(key, { stream: "stdout", offset, waitMs: 10_000, ...options }).pipe(
        Effect.catchTag("LogNotFound", () => Effect.as(Effect.sleep("5 millis"), undefined))
      )
      if (slice === undefined) continue
      for (const entry of slice.entries) seen(entry)
      offset = slice.next
      if (slice.end !== undefined) return offset
    }
  }
)

const start = Effect.fnUntraced(function*(job: Job) {
  const parted = yield* (yield* Direct).submit({ job, hash: requestHash(job), reply: null })
  // Beside the readers: a job that never writes must not leave them waiting.
  const ended = Effect.gen(function*() {
    yield* parted
    const { settlement } = yield* (yield* Control).status(keyOf(job))
    if (settlement === undefined || !isSuccess(settlement.outcome)) {
      return yield* Effect.die(`not a success: ${JSON.stringify(settlement?.outcome)}`)
    }
  })
  return <A, E, R>(reading: Effect.Effect<A, E, R>) =>
    Effect.map(Effect.all([reading, ended], { concurrency: "unbounded" }), ([read]) => read)
})

/** What the job says of its own duration, in seconds. */
const ownDuration = (job: Job) =>
  Effect.gen(function*() {
    let text = ""
    yield* follow(job, (entry) => text += entry._tag === "Bytes" ? Buffer.from(entry.bytes).toString() : "", {
      maxBytes: 4096,
      stream: "stderr"
    })
    return Number(text)
  })

setFlagsFromString("--expose-gc")
const collect: unknown = runInNewContext("gc")

/** KiB: resident, which has garbage in it that V8 has not troubled to collect, and what is held after a collection. */
const resident = () => process.memoryUsage.rss() / 1024
const held = () => {
  if (typeof collect === "function") collect()
  const { external, heapUsed } = process.memoryUsage()
  return (heapUsed + external) / 1024
}

const crowd = Effect.fnUntraced(function*(count: number) {
  const job = jobOf(`crowd-${count}`, steady)
  const before = { held: held(), resident: resident() }
  const ended = yield* start(job)
  let wrong = 0
  let total = 0
  const peak = { ...before }
  const one = Effect.gen(function*() {
    const end = yield* follow(job, (entry) => {
      if (entry._tag === "Gap" || !isRight(entry.offset, entry.bytes)) wrong += 1
      else total += entry.bytes.length
    }, { maxBytes: MIB })
    if (end !== SECONDS * MIB) wrong += 1
  })
  const look = Effect.sync(() => {
    peak.resident = Math.max(peak.resident, resident())
    peak.held = Math.max(peak.held, held())
  })
  const watch = yield* Effect.forkChild(Effect.forever(Effect.andThen(Effect.sleep("2 seconds"), look)))
  yield* ended(Effect.all(Array.from({ length: count }, () => one), { concurrency: "unbounded", discard: true }))
  yield* Fiber.interrupt(watch)
  return {
    wrong,
    total,
    seconds: yield* ownDuration(job),
    heldEach: (peak.held - before.held) / count,
    residentEach: (peak.resident - before.resident) / count
  }
})

const single = Effect.gen(function*() {
  const rates: Array<number> = []
  for (let n = 0; n < 3; n++) {
    const job = jobOf(`flood-${n}`, flood)
    const ended = yield* start(job)
    let bytes = 0
    let first = 0
    yield* ended(follow(job, (entry) => {
      if (first === 0) first = performance.now()
      bytes += entry._tag === "Bytes" ? entry.bytes.length : 0
    }, { maxBytes: 4 * MIB }))
    rates.push(bytes / 1e6 / ((performance.now() - first) / 1000))
  }
  return rates
})

const latency = Effect.gen(function*() {
  const job = jobOf("ticking", ticking)
  const ended = yield* start(job)
  const took: Array<number> = []
  let rest = ""
  yield* ended(follow(job, (entry) => {
    if (entry._tag !== "Bytes") return
    const now = process.hrtime.bigint()
    const lines = (rest + Buffer.from(entry.bytes).toString()).split("\n")
    rest = lines.pop() ?? ""
    for (const line of lines) took.push(Number(now - BigInt(line)) / 1e6)
  }, { maxBytes: MIB }))
  return took.slice(50)
})

const program = Effect.gen(function*() {
  yield* Effect.sleep("1 second")
  const ticks = yield* latency
  const alone = yield* crowd(1)
  const many = yield* crowd(FOLLOWERS)
  const rates = yield* single
  return publish({
    name: "followers",
    figures: {
      followers: FOLLOWERS,
      "job at 1 MiB/s with one follower, s": round(alone.seconds),
      "the same with all followers, s": round(many.seconds),
      "bytes read by all, MiB": round(many.total / MIB),
      "readers with a wrong or missing byte": alone.wrong + many.wrong,
      "memory held for each follower, KiB": round(many.heldEach),
      "resident memory for each follower with V8's garbage, KiB": round(many.residentEach),
      "one follower of a flood, MB/s (median of 3)": round(percentile(rates, 0.5)),
      "one follower of a flood, MB/s (worst)": round(Math.min(...rates)),
      ...spread("write in the sandbox to follower, ms", ticks)
    },
    claims: [
      { claim: "followers whose bytes were not identical", measured: alone.wrong + many.wrong, bound: 0, unit: "" },
      {
        claim: `job slowed by ${FOLLOWERS} followers`,
        measured: 100 * (many.seconds / alone.seconds - 1),
        bound: 10,
        unit: "%"
      },
      { claim: "memory held for each follower", measured: many.heldEach, bound: 64, unit: "KiB" },
      { claim: "seconds one follower takes for 200 MB", measured: 200 / percentile(rates, 0.5), bound: 1, unit: "s" },
      { claim: "write in the sandbox to follower, p99", measured: percentile(ticks, 0.99), bound: 10, unit: "ms" }
    ]
  })
})

const state = Jobs.stateDirectory()
const sandboxClass = {
  ...standardClass("oci", "oci"),
  pool: { ...standardPool, minimum: 2, maximum: 4, refillPauseMs: 5 }
}
const worker = layerWorker({
  stateDirectory: state,
  config: { ...standardConfig, classes: [sandboxClass] },
  embedded: false,
  direct: "direct"
})
const isHeld = await Effect.runPromise(
  program.pipe(Effect.timeout("3 minutes"), Effect.provide(Layer.provideMerge(worker, Logger.layer([]))))
)
Jobs.remove(state)
process.exit(isHeld ? 0 : 1)
