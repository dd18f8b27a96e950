/** A job in words, as the RFD's command line has them. */
import type { JobView } from "../../schemas/JobView.ts"
import { describe, isSuccess } from "../../schemas/Outcome.ts"
import { labelOf } from "./Fields.ts"
import { type Node, resolve, wholeOf } from "./JsonSchema.ts"

const two = (value: number) => String(value).padStart(2, "0")

/** `2022-07-07 16:34:03`, where we are. */
export const localTime = (ms: number): string => {
  const at = new Date(ms)
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ` +
    `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`
}

const counted = (value: number, unit: string) => `${value} ${unit}${value === 1 ? "" : "s"}`

/** `1 second`, `250 milliseconds`, `2 minutes 5 seconds`, `3 days 4 hours`: the two largest units. */
export const durationText = (ms: number): string => {
  if (ms < 1000) return counted(Math.max(0, Math.round(ms)), "millisecond")
  const seconds = Math.round(ms / 1000)
  const parts = [
    [Math.floor(seconds / 86_400), "day"],
    [Math.floor(seconds / 3600) % 24, "hour"],
    [Math.floor(seconds / 60) % 60, "minute"],
    [seconds % 60, "second"]
  ] as const
  const first = parts.findIndex(([value]) => value > 0)
  return parts.slice(first, first + 2).flatMap(([value, unit]) => value === 0 ? [] : [counted(value, unit)]).join(" ")
}

/** `Complete`, `Running`; of others what happened. */
export const statusWord = ({ outcome, state }: Pick<JobView, "outcome" | "state">): string => {
  if (outcome === undefined) return state === "running" ? "Running" : state === "queued" ? "Queued" : "Ended"
  if (isSuccess(outcome)) return "Complete"
  if (outcome._tag === "Stopped") return outcome.reason === "" ? "Stopped" : `Stopped (${outcome.reason})`
  return `Failed (${describe(outcome)})`
}

const isObject = (value: unknown): value is Node => typeof value === "object" && value !== null && !Array.isArray(value)

const MOST_CHARACTERS = 200

/** One line, without what would move a terminal's cursor. */
export const oneLine = (text: string): string => {
  const line = text.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (character) => JSON.stringify(character).slice(1, -1))
  return line.length > MOST_CHARACTERS ? `${line.slice(0, MOST_CHARACTERS - 1)}…` : line
}

const valueText = (value: unknown) => oneLine(typeof value === "string" ? value : JSON.stringify(value))

/** What people call an argument: its title, if the function has one for it. */
const titleOf = (name: string, schema: Node | undefined): string => {
  const properties = schema === undefined ? undefined : resolve(schema, schema)["properties"]
  const property = isObject(properties) ? properties[name] : undefined
  const title = isObject(property) && schema !== undefined ? wholeOf(property, schema)["title"] : undefined
  return typeof title === "string" ? title : labelOf(name)
}

/** The column the values stand in. */
const COLUMN = 12
const fact = (label: string, value: string) => `${`${label}:`.padEnd(COLUMN - 1)} ${value}`

/** All there is to say of a job; `schema` is its function's arguments', if that is known. */
export const details = (job: JobView, title: string, schema: Node | undefined): ReadonlyArray<string> => {
  const { args, attempt, endedAtMs, startedAtMs } = job
  const given = isObject(args) ? Object.entries(args) : []
  return [
    `Job ${job.id}: ${title}`,
    ...(given.length === 0 ? [] : [
      "Arguments:",
      ...given.map(([name, value]) => fact(`  ${titleOf(name, schema)}`, valueText(value)))
    ]),
    fact("Status", oneLine(statusWord(job))),
    ...(attempt > 1 ? [fact("Attempt", String(attempt))] : []),
    ...(startedAtMs === undefined ? [] : [fact("Started", localTime(startedAtMs))]),
    ...(endedAtMs === undefined ? [] : [fact("Finished", localTime(endedAtMs))]),
    ...(startedAtMs === undefined || endedAtMs === undefined
      ? []
      : [fact("Duration", durationText(endedAtMs - startedAtMs))]),
    ...(job.artefacts ?? []).map(({ bytes, path }) => fact("Artefact", `${oneLine(path)} (${bytes} bytes)`)),
    ...(job.artefactsStored ?? []).map(({ bucket, bytes, key, path }) =>
      fact("Artefact", `${oneLine(path)} (${bytes} bytes), in bucket ${bucket} as ${oneLine(key)}`)
    ),
    ...(job.artefactsMissing ?? []).map(({ path, reason }) =>
      fact("No artefact", `${oneLine(path)}: ${oneLine(reason)}`)
    )
  ]
}
