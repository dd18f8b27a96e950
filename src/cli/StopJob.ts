/** `stoker stop`: ends a job of this state directory, whoever runs it, or nobody. */
import { Clock, Effect, Layer, type Option } from "effect"
import { routes } from "../layers/control/AdminSocket.ts"
import { Host } from "../layers/host/Host.ts"
import { type JobRecord, Journal } from "../layers/journal/Journal.ts"
import * as JournalSqlite from "../layers/journal/JournalSqlite.ts"
import { keyOf } from "../schemas/Job.ts"
import { JobStopped } from "../schemas/Operation.ts"
import { describe, Outcome } from "../schemas/Outcome.ts"
import { noUsage } from "../schemas/Usage.ts"
import { standardConfig } from "../schemas/WorkerConfig.ts"
import { layerHost } from "../wiring.ts"
import { usageFailure } from "./CliFailure.ts"
import type { JobName } from "./Flags.ts"
import { type LiveWorker, liveWorkers } from "./LiveWorkers.ts"
import * as Loggers from "./Loggers.ts"
import { print } from "./Output.ts"
import * as Records from "./Records.ts"
import * as Signals from "./Signals.ts"
import { existingState } from "./StateDirectory.ts"

interface How {
  readonly reason: string
  readonly graceMs: number
}

/** Beyond the grace: settling, and its telling. */
const ANSWER_LIMIT_MS = 30_000

const TRIES = 10

const askWorker = Effect.fnUntraced(function*(worker: LiveWorker, record: JobRecord, how: How) {
  const body = JSON.stringify({ key: keyOf(record.request.job), ...how })
  const { outcome, state } = yield* worker.ask(routes.stop, JobStopped, {
    body,
    limitMs: how.graceMs + ANSWER_LIMIT_MS
  })
  return outcome ?? state
})

/** No worker lives that could: claimed and settled here. Nobody is to be told of a job of the embedded queue. */
const endHere = Effect.fnUntraced(function*(record: JobRecord, reason: string) {
  const journal = yield* Journal
  const { instance } = yield* Host
  const { leaseMs, maxAttempts } = standardConfig
  const answer = yield* journal.claim(record.request, {
    instance,
    leaseMs,
    maxAttempts,
    tries: record.tries ?? 1,
    early: true
  })
  if (answer._tag === "Settled") return describe(answer.settlement.outcome)
  if (answer._tag === "Held" || answer._tag === "Later") return undefined
  const settlement = {
    outcome: Outcome.cases.Stopped.make({ reason }),
    usage: noUsage,
    output: [],
    attempt: answer.claim.attempt,
    endedAtMs: yield* Clock.currentTimeMillis
  }
  yield* journal.settle(answer.claim, settlement, [])
  return describe(settlement.outcome)
})

/** How it ended; undefined if somebody else took it meanwhile. */
const stopIt = Effect.fnUntraced(function*(record: JobRecord, how: How) {
  const { id } = record.request.job
  const workers = yield* liveWorkers
  if (record.state === "running") {
    const holder = workers.find(({ instance }) => instance === record.instance)
    if (holder !== undefined) return yield* askWorker(holder, record, how)
    return yield* usageFailure(
      `job ${id} is run by ${record.instance ?? "a worker that is gone"}, which does not live in this state directory`,
      "If it died, its job is taken up again by the next worker; stop it then."
    )
  }
  const [first] = workers
  if (first !== undefined) return yield* askWorker(first, record, how)
  if (record.request.reply === null) return yield* endHere(record, how.reason)
  return yield* usageFailure(
    `job ${id} waits for a worker, and its sender for a status, which only a worker can tell`,
    "Start a worker first: stoker worker"
  )
})

export const stopJob = Effect.fn("StopJob.stopJob")(
  function*({ grace, id, json, reason, state }: {
    readonly id: JobName
    readonly state: Option.Option<string>
    readonly reason: string
    /** Milliseconds. */
    readonly grace: number
    readonly json: boolean
  }) {
    const directory = yield* existingState(state)
    const attempt = Effect.gen(function*() {
      const record = yield* Records.find(id)
      if (record.state !== "ended") return yield* stopIt(record, { reason, graceMs: grace })
      return `had ended before: ${record.settlement === undefined ? "" : describe(record.settlement.outcome)}`
    })
    const ended = yield* Effect.gen(function*() {
      // Between the look and the act a worker may have taken it, and is asked next.
      for (let tries = 0; tries < TRIES; tries++) {
        const outcome = yield* attempt
        if (outcome !== undefined) return outcome
        yield* Effect.sleep("200 millis")
      }
      return yield* usageFailure(`job ${id.id} went from worker to worker and was not stopped`, "Try it again.")
    }).pipe(
      Effect.provide(JournalSqlite.layerHost().pipe(Layer.provideMerge(layerHost(directory)))),
      Signals.interruptible
    )
    yield* print(json ? JSON.stringify({ id: id.id, ended }) : `${id.id} ${ended}`)
  },
  Effect.provide(Loggers.layer({ format: "auto", usual: "Error" }))
)
