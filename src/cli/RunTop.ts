/** `stoker top`: what running jobs use, as their workers measure it. */
import { Effect, type Option } from "effect"
import { monotonicNanos } from "../layers/Now.ts"
import { keyText } from "../schemas/Ids.ts"
import type { JobNow } from "../schemas/Operation.ts"
import { layerHost } from "../wiring.ts"
import { jobsNow } from "./LiveWorkers.ts"
import * as Loggers from "./Loggers.ts"
import { print, terminal, write } from "./Output.ts"
import * as Signals from "./Signals.ts"
import { existingState } from "./StateDirectory.ts"
import { table } from "./Style.ts"
import { formatBytes, formatMicros } from "./Units.ts"

/** Cursor to the upper left, and the screen cleared from there (ECMA-48). */
const CLEAR = "\u001b[H\u001b[J"

/** CPU time of a job when it was looked at. */
interface Look {
  readonly cpuMicros: number
  readonly atNanos: bigint
}

const percent = (part: number | undefined) => part === undefined ? "-" : `${Math.round(part * 100)}%`
const size = (bytes: number | undefined) => bytes === undefined ? "-" : formatBytes(bytes)

/** Cores used since the last look; at the first one since the job got its sandbox. */
const cores = ({ now: { cpuMicros }, runningMs }: JobNow, last: Look | undefined, atNanos: bigint): string => {
  if (cpuMicros === undefined) return "-"
  const [used, micros] = last === undefined
    ? [cpuMicros, runningMs * 1000]
    : [cpuMicros - last.cpuMicros, Number(atNanos - last.atNanos) / 1000]
  return micros <= 0 ? "-" : (Math.max(0, used) / micros).toFixed(2)
}

const heading = [
  "JOB",
  "PHASE",
  "UP",
  "CORES",
  "MEMORY",
  "ANON",
  "FILES",
  "PIDS",
  "READ",
  "WRITTEN",
  "CPU/MEM/IO WAIT",
  "CGROUP"
]

const line = (job: JobNow, last: Look | undefined, atNanos: bigint): ReadonlyArray<string> => {
  const { ioReadBytes, ioWriteBytes, memoryAnonBytes, memoryBytes, memoryFileBytes, pids, pressure } = job.now
  return [
    keyText(job.key),
    job.phase ?? "-",
    formatMicros(job.runningMs * 1000),
    cores(job, last, atNanos),
    size(memoryBytes),
    size(memoryAnonBytes),
    size(memoryFileBytes),
    pids === undefined ? "-" : String(pids),
    size(ioReadBytes),
    size(ioWriteBytes),
    pressure === undefined ? "-" : [pressure.cpu, pressure.memory, pressure.io].map(percent).join(" "),
    job.place
  ]
}

export const showTop = Effect.fn("RunTop.showTop")(
  function*({ every, json, once, state }: {
    readonly state: Option.Option<string>
    /** Milliseconds. */
    readonly every: number
    readonly once: boolean
    readonly json: boolean
  }) {
    const directory = yield* existingState(state)
    const again = !once && !json && terminal("stdout").isTerminal
    const looks = new Map<string, Look>()
    yield* Effect.gen(function*() {
      while (true) {
        const jobs = yield* jobsNow
        const atNanos = yield* monotonicNanos
        if (json) return yield* print(JSON.stringify(jobs))
        const lines = jobs.map((job) => line(job, looks.get(keyText(job.key)), atNanos))
        const text = jobs.length === 0 ? "no job is running with this state directory" : table([heading, ...lines])
        if (!again) return yield* print(text)
        yield* write("stdout", `${CLEAR}${text}\n`)
        looks.clear()
        for (const { key, now: { cpuMicros } } of jobs) {
          if (cpuMicros !== undefined) looks.set(keyText(key), { cpuMicros, atNanos })
        }
        yield* Effect.sleep(every)
      }
    }).pipe(Effect.provide(layerHost(directory)), Signals.interruptible)
  },
  Effect.provide(Loggers.layer({ format: "auto", usual: "Error" }))
)
