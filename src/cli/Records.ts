/** Reads jobs from a journal, beside the workers that write it or after them. */
import { DateTime, Effect, Option, type Redacted } from "effect"
import { join } from "node:path"
import { type JobRecord, Journal } from "../layers/journal/Journal.ts"
import * as JournalSqlite from "../layers/journal/JournalSqlite.ts"
import { keyText } from "../schemas/Ids.ts"
import { keyOf } from "../schemas/Job.ts"
import type { JobNow } from "../schemas/Operation.ts"
import { describe } from "../schemas/Outcome.ts"
import { layerPostgres } from "../wiring.ts"
import { usageFailure } from "./CliFailure.ts"
import type { JobName } from "./Flags.ts"
import { mainPhase, phaseDetails } from "./Report.ts"
import { table } from "./Style.ts"
import { formatBytes, formatMicros } from "./Units.ts"

/** The shared journal if one is named, else that of a state directory. */
export const layerJournal = (journal: Option.Option<Redacted.Redacted<string>>, directory: string) =>
  Option.isSome(journal)
    ? layerPostgres({ postgres: journal.value, connections: 1 })
    : JournalSqlite.layer({ filename: join(directory, "journal.sqlite") })

export const nameOf = ({ request: { job } }: JobRecord) => keyText(keyOf(job))

/** The one job of that name. */
export const find = Effect.fnUntraced(function*(name: JobName) {
  const journal = yield* Journal
  const records = Option.isSome(name.key)
    ? [yield* journal.get(name.key.value)].flatMap((record) => record ?? [])
    : yield* journal.list({ id: name.id, limit: 10 })
  const [only, another] = records
  if (only === undefined) {
    return yield* usageFailure(
      `there is no job ${name.id} in this journal`,
      "`stoker list` shows the jobs there are."
    )
  }
  if (another !== undefined) {
    return yield* usageFailure(
      `several jobs have the id ${name.id}: ${records.map(nameOf).join(", ")}`,
      "Name the one you mean by its door and owner too, as it stands here."
    )
  }
  return only
})

const time = (ms: number | undefined) => ms === undefined ? "" : DateTime.formatIso(DateTime.makeUnsafe(ms))

const outcomeOf = ({ settlement, state }: JobRecord) => settlement === undefined ? state : describe(settlement.outcome)

/** A record without what was sent: code and input are nobody's business who asks how it went. */
export const toJson = (record: JobRecord, now?: JobNow) => {
  const { attempt, instance, receivedAtMs, request: { job }, settlement, state, terms, tries } = record
  return {
    id: job.id,
    key: nameOf(record),
    function: job.function,
    state,
    attempt,
    ...(instance === undefined ? {} : { instance }),
    receivedAtMs,
    ...(now === undefined ? {} : { now }),
    ...(terms === undefined ? {} : { terms }),
    ...(tries === undefined ? {} : { tries }),
    ...(settlement === undefined ? {} : { settlement })
  }
}

/** The terms that matter for how it stands: those that are not the usual ones, and a time only while it is to come. */
const termsOf = ({ state, terms, tries = 1 }: JobRecord): ReadonlyArray<readonly [string, string]> => {
  if (terms === undefined) return []
  const { expiresAtMs, notBeforeMs, priority, retry } = terms
  return [
    ...(priority === "normal" ? [] : [["priority", priority] as const]),
    ...(state === "queued" && notBeforeMs !== undefined ? [["begins at", time(notBeforeMs)] as const] : []),
    ...(state === "queued" && expiresAtMs !== undefined ? [["expires at", time(expiresAtMs)] as const] : []),
    ...(tries === 1 ? [] : [["try", `${tries} of ${retry.maxAttempts}`] as const])
  ]
}

/** What a running job uses, as its worker says. */
const nowLines = ({ now, phase, place }: JobNow): ReadonlyArray<readonly [string, string]> => {
  const { cpuMicros, memoryAnonBytes, memoryBytes, memoryFileBytes, pids } = now
  const parts = [
    ...(phase === undefined ? [] : [`in its ${phase} phase`]),
    ...(cpuMicros === undefined ? [] : [`cpu ${formatMicros(cpuMicros)}`]),
    ...(memoryBytes === undefined ? [] : [`memory ${formatBytes(memoryBytes)}`]),
    ...(memoryAnonBytes === undefined ? [] : [`its own ${formatBytes(memoryAnonBytes)}`]),
    ...(memoryFileBytes === undefined ? [] : [`files ${formatBytes(memoryFileBytes)}`]),
    ...(pids === undefined ? [] : [`processes ${pids}`])
  ]
  return [["now", parts.join(", ")], ["cgroup", place]]
}

/** All there is to know of one job, a line for each fact; `now` is what its worker says of it while it runs. */
export const details = (record: JobRecord, now?: JobNow): string => {
  const { attempt, instance, receivedAtMs, request: { job }, settlement } = record
  const phases = (settlement?.usage.phases ?? []).flatMap((phase) =>
    phaseDetails(phase).map((text, index) => [index === 0 ? phase.phase : "", text] as const)
  )
  const { claimMicros, provisionMicros, queuedMicros } = settlement?.usage ?? {}
  const waited = [
    ...(queuedMicros === undefined ? [] : [`for a slot ${formatMicros(queuedMicros)}`]),
    ...(claimMicros === undefined ? [] : [`for its claim ${formatMicros(claimMicros)}`]),
    ...(provisionMicros === undefined ? [] : [`for its sandbox ${formatMicros(provisionMicros)}`])
  ]
  const output = (settlement?.output ?? []).map(({ droppedBytes, producedBytes, stream }) => [
    stream,
    `${formatBytes(producedBytes)}${droppedBytes === 0 ? "" : `, ${formatBytes(droppedBytes)} of it not kept`}`
  ])
  const files = [
    ...(settlement?.artefacts ?? []).map(({ bytes, path }) => ["artefact", `${path}, ${formatBytes(bytes)}`]),
    ...(settlement?.artefactsStored ?? []).map(({ bucket, bytes, key, path }) => [
      "artefact",
      `${path}, ${formatBytes(bytes)}, in bucket ${bucket} as ${key}`
    ]),
    ...(settlement?.artefactsMissing ?? []).map(({ path, reason }) => ["no artefact", `${path}: ${reason}`])
  ]
  return table([
    ["job", nameOf(record)],
    ["state", outcomeOf(record)],
    ["function", job.function],
    ["attempt", String(attempt)],
    ...termsOf(record),
    ...(instance === undefined ? [] : [["worker", instance]]),
    ["received", time(receivedAtMs)],
    ...(settlement?.startedAtMs === undefined ? [] : [["started", time(settlement.startedAtMs)]]),
    ...(settlement === undefined ? [] : [["ended", time(settlement.endedAtMs)]]),
    ...(waited.length === 0 ? [] : [["waited", waited.join(", ")]]),
    ...(now === undefined ? [] : nowLines(now)),
    ...phases,
    ...output,
    ...files
  ])
}

/** `status` has the whole of it. */
const shortened = (text: string) => text.length > 60 ? `${text.slice(0, 59)}…` : text

/** One line for each job. */
export const overview = (records: ReadonlyArray<JobRecord>): string =>
  table([
    ["JOB", "STATE", "FUNCTION", "RECEIVED", "WALL", "OUTCOME"],
    ...records.map((record) => {
      const { receivedAtMs, request: { job }, settlement, state } = record
      const phase = settlement === undefined ? undefined : mainPhase(settlement.usage)
      return [
        nameOf(record),
        state,
        job.function,
        time(receivedAtMs),
        phase === undefined ? "" : formatMicros(phase.wallMicros),
        settlement === undefined
          ? termsOf(record).map(([name, value]) => `${name} ${value}`).join(", ")
          : shortened(describe(settlement.outcome))
      ]
    })
  ])
