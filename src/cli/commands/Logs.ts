/** `stoker logs` */
import { Effect } from "effect"
import { Command, Flag } from "effect/cli"
import * as Flags from "../Flags.ts"

export const logs = Command.make(
  "logs",
  {
    id: Flags.jobName,
    state: Flags.state,
    journal: Flags.journal,
    follow: Flags.onOff("follow", "Go on until the job has ended").pipe(Flag.withAlias("f")),
    stream: Flag.Literals("stream", ["all", "stdout", "stderr"]).pipe(
      Flag.withDescription("One of the streams, on stdout; all goes where it came from"),
      Flag.withDefault("all")
    )
  },
  Effect.fn(function*(flags) {
    const { showLogs } = yield* Effect.promise(() => import("../ReadCommands.ts"))
    yield* showLogs(flags)
  })
).pipe(
  Command.withDescription("The output of a job, byte for byte"),
  Command.withExamples([{ command: "stoker logs -f job-3fa85f6457", description: "As it comes" }])
)
