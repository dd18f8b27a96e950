/** The daemon's and the command line's entry: runs the command and ends the process with its code. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Exit, Runtime } from "effect"
import { setFlagsFromString } from "node:v8"
import { main } from "./cli/Cli.ts"
import { exitCode } from "./cli/ExitCode.ts"

// Garbage may double what lives, not more. By itself V8 lets it grow with the machine's memory: a worker with 23 MiB of its
// own held 320 after 10,000 jobs and still grew, and so holds 270 and stays there, for 2 % more CPU.
setFlagsFromString("--heap-growing-percent=100")

/** What was written last goes out before the process does. */
const leave = (code: number) => process.stdout.write("", () => process.stderr.write("", () => process.exit(code)))

// Signals are the commands' own: without one that takes them they end the process, as usual.
const runMain = Runtime.makeRunMain(({ fiber }) => {
  fiber.addObserver((exit) => leave(Exit.isSuccess(exit) ? Number(exit.value) : exitCode.trouble))
})

main.pipe(Effect.provide(NodeServices.layer), runMain({ disableErrorReporting: true }))
