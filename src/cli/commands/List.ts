/** `stoker list` */
import { Effect, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import * as Flags from "../Flags.ts"

export const list = Command.make(
  "list",
  {
    state: Flags.state,
    journal: Flags.journal,
    json: Flags.json,
    only: Flag.Literals("only", ["queued", "running", "ended"]).pipe(
      Flag.withDescription("Only jobs that stand so"),
      Flag.optional
    ),
    limit: Flag.Int("limit").pipe(
      Flag.withSchema(
        Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100_000 }, { expected: "1 to 100000" }))
      ),
      Flag.withDescription("The newest N (default 20)"),
      Flag.withMetavar("N"),
      Flag.withDefault(20)
    )
  },
  Effect.fn(function*(flags) {
    const { showList } = yield* Effect.promise(() => import("../ReadCommands.ts"))
    yield* showList(flags)
  })
).pipe(Command.withDescription("The jobs of a state directory, or of a shared journal, the newest first"))
