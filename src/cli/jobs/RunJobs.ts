/** `stoker jobs status`, `stop`, `list`, `functions` and `delete`. */
import { Effect, Option, Schema } from "effect"
import { type ClientFailure, StokerClient } from "../../client/StokerClient.ts"
import type { JobState } from "../../schemas/Job.ts"
import { FunctionView, JobView } from "../../schemas/JobView.ts"
import { titleOf } from "../../schemas/Transcript.ts"
import { print, say, write } from "../Output.ts"
import { table } from "../Style.ts"
import { asking, titles } from "./Ask.ts"
import { details, durationText, localTime, oneLine, statusWord } from "./JobWords.ts"
import type { Node } from "./JsonSchema.ts"
import type { ServerChoice } from "./ServerFlags.ts"

const encodeView = Schema.encodeSync(JobView)
const encodeFunction = Schema.encodeSync(FunctionView)

const refOf = ({ id, owner }: { readonly id: string; readonly owner: Option.Option<string> }) => ({
  id,
  ...(Option.isSome(owner) ? { owner: owner.value } : {})
})

const isNode = (value: unknown): value is Node => typeof value === "object" && value !== null && !Array.isArray(value)

/** One job, as JSON or with what goes before it. */
const showing = Effect.fnUntraced(function*(
  doing: string,
  json: boolean,
  ask: Effect.Effect<JobView, ClientFailure>
) {
  if (json) return yield* print(JSON.stringify(encodeView(yield* ask)))
  yield* write("stdout", `${doing}...`)
  const [job, functions] = yield* Effect.all([ask, titles], { concurrency: 2 }).pipe(
    Effect.tapError(() => Effect.ignore(print(" FAILED!")))
  )
  const schema = functions.find(({ name }) => name === job.function)?.args
  const lines = details(job, titleOf(functions, job.function), isNode(schema) ? schema : undefined)
  yield* print([" DONE!", "", ...lines].join("\n"))
})

export interface JobFlags {
  readonly id: string
  readonly owner: Option.Option<string>
  readonly json: boolean
}

export const showStatus = (choice: ServerChoice, flags: JobFlags) =>
  asking(
    choice,
    Effect.gen(function*() {
      const client = yield* StokerClient
      yield* showing(`Getting info for job ${oneLine(flags.id)}`, flags.json, client.status(refOf(flags)))
    })
  )

export const stopJob = (
  choice: ServerChoice,
  flags: JobFlags & { readonly grace: Option.Option<number>; readonly reason: Option.Option<string> }
) =>
  asking(
    choice,
    Effect.gen(function*() {
      const client = yield* StokerClient
      const request = {
        ...refOf(flags),
        ...(Option.isSome(flags.grace) ? { graceMs: flags.grace.value } : {}),
        ...(Option.isSome(flags.reason) ? { reason: flags.reason.value } : {})
      }
      yield* showing(`Stopping job ${oneLine(flags.id)}`, flags.json, client.stop(request))
    })
  )

export interface ListFlags {
  readonly state: Option.Option<JobState>
  readonly function: Option.Option<string>
  readonly owner: Option.Option<string>
  readonly limit: number
  readonly json: boolean
}

/** A server gives no more at once. */
const MOST_PER_PAGE = 1000

const given = <K extends string, A>(name: K, value: Option.Option<A>): { readonly [P in K]?: A } =>
  Option.isSome(value) ? { [name]: value.value } as { readonly [P in K]: A } : {}

const row = (job: JobView): ReadonlyArray<string> => {
  const { endedAtMs, function: name, id, owner, receivedAtMs, startedAtMs } = job
  return [
    id,
    name,
    owner,
    localTime(receivedAtMs),
    startedAtMs === undefined || endedAtMs === undefined ? "" : durationText(endedAtMs - startedAtMs),
    oneLine(statusWord(job)).slice(0, 60)
  ]
}

export const listJobs = (choice: ServerChoice, flags: ListFlags) =>
  asking(
    choice,
    Effect.gen(function*() {
      const client = yield* StokerClient
      const filters = {
        ...given("state", flags.state),
        ...given("function", flags.function),
        ...given("owner", flags.owner)
      }
      const jobs: Array<JobView> = []
      let cursor: string | undefined
      do {
        const page = yield* client.list({
          ...filters,
          limit: Math.min(MOST_PER_PAGE, flags.limit - jobs.length),
          ...(cursor === undefined ? {} : { cursor })
        })
        for (const job of page.jobs) {
          if (flags.json) yield* print(JSON.stringify(encodeView(job)))
        }
        jobs.push(...page.jobs)
        cursor = page.next
      } while (cursor !== undefined && jobs.length < flags.limit)
      if (flags.json) return
      if (jobs.length === 0) return yield* say("stoker: there are no such jobs")
      yield* print(table([["ID", "FUNCTION", "OWNER", "RECEIVED", "DURATION", "STATUS"], ...jobs.map(row)]))
    })
  )

export const showFunctions = (choice: ServerChoice, flags: { readonly json: boolean }) =>
  asking(
    choice,
    Effect.gen(function*() {
      const functions = (yield* (yield* StokerClient).functions).toSorted((a, b) => a.name < b.name ? -1 : 1)
      if (flags.json) {
        for (const one of functions) yield* print(JSON.stringify(encodeFunction(one)))
        return
      }
      yield* print(
        table([
          ["NAME", "TITLE", "WHAT IT DOES"],
          ...functions.map(({ description, name, title }) => [name, oneLine(title), oneLine(`${name} ${description}`)])
        ])
      )
    })
  )

/** All of them, also when one cannot be: its error is told at the end. */
export const deleteJobs = (
  choice: ServerChoice,
  flags: { readonly ids: ReadonlyArray<string>; readonly owner: Option.Option<string>; readonly json: boolean }
) =>
  asking(
    choice,
    Effect.gen(function*() {
      const client = yield* StokerClient
      let failed: ClientFailure | undefined
      for (const id of flags.ids) {
        const failure = yield* client.remove(refOf({ id, owner: flags.owner })).pipe(
          Effect.as(undefined),
          Effect.catch((error: ClientFailure) => Effect.succeed(error))
        )
        if (failure === undefined) {
          yield* print(flags.json ? JSON.stringify({ id, deleted: true }) : `Deleted job ${id}`)
        } else if (failed === undefined) failed = failure
        else yield* say(`stoker: ${failure.message}`)
      }
      if (failed !== undefined) return yield* failed
    })
  )
