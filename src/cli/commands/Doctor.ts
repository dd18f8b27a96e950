/** `stoker doctor` */
import { Effect } from "effect"
import { Command } from "effect/cli"
import * as Flags from "../Flags.ts"

export const doctor = Command.make(
  "doctor",
  { state: Flags.state, amqp: Flags.amqp, json: Flags.json },
  Effect.fn(function*(flags) {
    const { runDoctor } = yield* Effect.promise(() => import("../RunDoctor.ts"))
    yield* runDoctor(flags)
  })
).pipe(
  Command.withDescription(
    "What this host has and lacks for each driver, with the fix for each gap, and a sandbox made for proof. " +
      "Ends with 1 when the default driver, oci, cannot work."
  ),
  Command.withShortDescription("What this host lacks, and how to mend it")
)
