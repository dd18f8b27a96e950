/** `stoker top` */
import { Effect } from "effect"
import { Command, Flag } from "effect/cli"
import * as Flags from "../Flags.ts"

export const top = Command.make(
  "top",
  {
    state: Flags.state,
    every: Flag.String("every").pipe(
      Flag.withDescription("How often it looks (default 2s)"),
      Flag.withMetavar("TIME"),
      Flag.withDefault("2s"),
      Flags.asDuration("every")
    ),
    once: Flags.onOff("once", "Look once, and end"),
    json: Flags.json
  },
  Effect.fn(function*(flags) {
    const { showTop } = yield* Effect.promise(() => import("../RunTop.ts"))
    yield* showTop(flags)
  })
).pipe(
  Command.withDescription(
    "What the running jobs of this state directory's workers use: cores, memory, processes, I/O, pressure, and the " +
      "cgroup they are in. Looks again and again on a terminal, once elsewhere."
  ),
  Command.withShortDescription("What running jobs use"),
  Command.withExamples([{ command: "stoker top --once --json", description: "For scripts" }])
)
