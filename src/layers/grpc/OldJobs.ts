/** What the services for old clients have in common: a job that is started and awaited. */
import { Effect } from "effect"
import type { Caller } from "../../schemas/Access.ts"
import { InvalidRequest, type JobApi, type StartRequest } from "../api/JobApi.ts"

/** Old servers answered when the process had begun; a full worker may let it wait longer, then the job's state says so. */
const BEGUN_WITHIN_MS = 30_000

/** Starts a job and waits for its begin. What could not begin is an error, as it was: its caller gets no id. */
export const begin = Effect.fnUntraced(function*(
  api: JobApi["Service"],
  caller: Caller,
  request: Omit<StartRequest, "waitMs">
) {
  const job = yield* api.start(caller, { ...request, waitMs: BEGUN_WITHIN_MS })
  const { outcome } = job
  if (outcome?._tag !== "Rejected") return job
  return yield* new InvalidRequest({ reason: outcome.reason, remedy: outcome.remedy })
})

/** A command with its arguments, as `command` takes them. */
export const commandRequest = (
  command: string,
  args: ReadonlyArray<string>
): Effect.Effect<{ readonly function: "command"; readonly args: unknown }, InvalidRequest> =>
  command === ""
    ? Effect.fail(new InvalidRequest({ reason: "there is no command", remedy: "Name the program to run." }))
    : Effect.succeed({ function: "command", args: { argv: [command, ...args] } })
