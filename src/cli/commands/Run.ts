/** `stoker run` */
import { Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { exitCodeHelp } from "../ExitCode.ts"
import * as Flags from "../Flags.ts"
import { Operands } from "../Operands.ts"

export const run = Command.make(
  "run",
  {
    ...Flags.job,
    container: Flags.image,
    out: Flags.out,
    overwrite: Flags.overwrite,
    driver: Flags.driver,
    state: Flags.state,
    json: Flags.json,
    events: Flags.onOff("events", "Print every event and piece of output as a line of JSON"),
    quiet: Flags.onOff("quiet", "Nothing but the program's output").pipe(Flag.withAlias("q"))
  },
  Effect.fn(function*(flags) {
    const { runJob } = yield* Effect.promise(() => import("../RunJob.ts"))
    yield* runJob({ ...flags, limits: Flags.limitsOf(flags.limits), operands: yield* Operands })
  })
).pipe(
  Command.withDescription(
    `Run source files, a container's image, or a command behind --, in a sandbox, and pass its output on.\n\n${exitCodeHelp}`
  ),
  Command.withShortDescription("Run a program in a sandbox, and pass its output on"),
  Command.withExamples([
    { command: "stoker run hello.c", description: "Compile and run" },
    {
      command: "stoker run main.py helper.py -- first second",
      description: "Several files, arguments for the program"
    },
    { command: "stoker run --memory 64M --wall 2s hello.c", description: "With limits of its own" },
    { command: "stoker run -- ls -l /", description: "A command" },
    { command: "stoker run --image debian:12 -- cat /etc/os-release", description: "A container" },
    { command: "stoker run --artefact plot.png --out results plot.py", description: "And bring a file back" },
    { command: "stoker run --stdin - sort.py < names.txt", description: "With standard input" }
  ])
)
