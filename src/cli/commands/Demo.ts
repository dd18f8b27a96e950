/** `stoker demo` */
import { Effect } from "effect"
import { Command } from "effect/cli"
import * as Flags from "../Flags.ts"

export const demo = Command.make(
  "demo",
  { state: Flags.state },
  Effect.fn(function*(flags) {
    const { runDemo } = yield* Effect.promise(() => import("../RunDemo.ts"))
    yield* runDemo(flags)
  })
).pipe(
  Command.withDescription(
    "A C program, a Python program and a command through a worker's embedded queue, each in a sandbox of its own."
  ),
  Command.withShortDescription("Three jobs, to see what it does")
)
