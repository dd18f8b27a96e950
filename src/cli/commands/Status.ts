/** `stoker status` */
import { Effect } from "effect"
import { Command } from "effect/cli"
import * as Flags from "../Flags.ts"

export const status = Command.make(
  "status",
  { id: Flags.jobName, state: Flags.state, journal: Flags.journal, json: Flags.json },
  Effect.fn(function*(flags) {
    const { showStatus } = yield* Effect.promise(() => import("../ReadCommands.ts"))
    yield* showStatus(flags)
  })
).pipe(
  Command.withDescription("How a job stands, or how it ended: times, usage, output sizes"),
  Command.withExamples([{ command: "stoker status job-3fa85f6457", description: "By the id that submit printed" }])
)
