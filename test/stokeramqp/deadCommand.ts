/** `stoker dead` as a program of its own, for tests: `node deadCommand.ts list --json`. */
import { NodeServices } from "@effect/platform-node"
import { Effect } from "effect"
import { Command } from "effect/cli"
import { explain } from "../../src/cli/CliFailure.ts"
import { dead } from "../../src/cli/commands/Dead.ts"

const program = Command.runWith(dead, { version: "test" })(process.argv.slice(2)).pipe(
  Effect.as(0),
  Effect.catchCause((cause) =>
    Effect.map(explain(cause, 1), ({ code, lines }) => {
      process.stderr.write(`${lines.join("\n")}\n`)
      return code
    })
  ),
  Effect.provide(NodeServices.layer)
)

process.exitCode = await Effect.runPromise(program)
