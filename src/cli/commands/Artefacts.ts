/** `stoker artefacts` */
import { Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Flags from "../Flags.ts"

export const artefacts = Command.make(
  "artefacts",
  {
    id: Flags.jobName,
    path: Argument.String("path").pipe(
      Argument.withDescription("One of them, as the job named it; without: all are listed"),
      Argument.optional
    ),
    out: Flag.String("out").pipe(
      Flag.withAlias("o"),
      Flag.withDescription("Where it goes (default: stdout); with --all a directory (default: this one)"),
      Flag.withMetavar("FILE|DIR|-"),
      Flag.optional
    ),
    all: Flags.onOff("all", "Write all of them, below a directory"),
    overwrite: Flags.overwrite,
    state: Flags.state,
    journal: Flags.journal,
    json: Flags.json
  },
  Effect.fn(function*(flags) {
    const { showArtefacts } = yield* Effect.promise(() => import("../ReadArtefacts.ts"))
    yield* showArtefacts(flags)
  })
).pipe(
  Command.withDescription("The files a job left (--artefact of run and submit): listed, one on stdout, or all written"),
  Command.withShortDescription("The files a job left"),
  Command.withExamples([
    { command: "stoker artefacts job-3fa85f6457", description: "What there is" },
    { command: "stoker artefacts job-3fa85f6457 report.pdf -o report.pdf", description: "One of them" },
    { command: "stoker artefacts job-3fa85f6457 --all -o results", description: "All, below a directory" }
  ])
)
