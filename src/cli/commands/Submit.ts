/** `stoker submit` */
import { Effect, Option } from "effect"
import { Command } from "effect/cli"
import { exitCodeHelp } from "../ExitCode.ts"
import * as Flags from "../Flags.ts"
import { Operands } from "../Operands.ts"

export const submit = Command.make(
  "submit",
  {
    ...Flags.job,
    container: Flags.container,
    out: Flags.out,
    overwrite: Flags.overwrite,
    terms: Flags.terms,
    amqp: Flags.amqp,
    state: Flags.state,
    journal: Flags.journal,
    json: Flags.json,
    wait: Flags.onOff("wait", "Follow the job, show its output, and end with its exit code")
  },
  Effect.fn(function*(flags) {
    const { submitJob } = yield* Effect.promise(() => import("../SubmitJob.ts"))
    const limits = Flags.limitsOf(flags.limits, Option.isSome(flags.container.image))
    yield* submitJob({ ...flags, limits, operands: yield* Operands })
  })
).pipe(
  Command.withDescription(
    "Leave a job for a worker and print its id: with AMQP_URL as a CodeBench client does, else in the embedded queue " +
      `of the state directory or of a shared journal, for a \`stoker worker\` with the same one.\n\n${exitCodeHelp}`
  ),
  Command.withShortDescription("Leave a job for a worker"),
  Command.withExamples([
    { command: "stoker submit hello.c", description: "Print the id and be gone" },
    { command: "stoker submit --wait -- uname -a", description: "Wait for the end" },
    {
      command: "stoker submit --class cluster --image debian:12 -- echo hello",
      description: "A container, for a class that takes images"
    },
    {
      command: "stoker submit --priority high --delay 10m report.py",
      description: "First among those due in 10 minutes"
    }
  ])
)
