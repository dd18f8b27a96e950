/** The daemon's and the command line's entry: runs the command and ends the process with its code. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Exit, Runtime } from "effect"
import { main } from "./cli/Cli.ts"
import { exitCode } from "./cli/ExitCode.ts"

/** What was written last goes out before the process does. */
const leave = (code: number) => process.stdout.write("", () => process.stderr.write("", () => process.exit(code)))

// Signals are the commands' own: without one that takes them they end the process, as usual.
const runMain = Runtime.makeRunMain(({ fiber }) => {
  fiber.addObserver((exit) => leave(Exit.isSuccess(exit) ? Number(exit.value) : exitCode.trouble))
})

main.pipe(Effect.provide(NodeServices.layer), runMain({ disableErrorReporting: true }))
