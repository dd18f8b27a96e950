/** `stoker config` */
import { Effect } from "effect"
import { Argument, Command } from "effect/cli"
import * as Flags from "../Flags.ts"

const check = Command.make(
  "check",
  {
    file: Argument.String("file").pipe(
      Argument.withDescription("The configuration file (default: STOKER_CONFIG)"),
      Argument.optional
    ),
    connect: Flags.onOff("connect", "Ask the broker too")
  },
  Effect.fn(function*(flags) {
    const { checkConfig } = yield* Effect.promise(() => import("../RunConfig.ts"))
    yield* checkConfig(flags)
  })
).pipe(
  Command.withDescription(
    "Everything that is wrong with a configuration file, and with this host for it: state directory, drivers, a " +
      "sandbox made for proof. Starts no worker. Ends with 1 when something is wrong."
  ),
  Command.withShortDescription("What is wrong with a configuration file"),
  Command.withExamples([{ command: "stoker config check /etc/stoker/stoker.json", description: "Before a reload" }])
)

const show = Command.make(
  "show",
  { config: Flags.config, state: Flags.state, amqp: Flags.amqp },
  Effect.fn(function*(flags) {
    const { showConfig } = yield* Effect.promise(() => import("../RunConfig.ts"))
    yield* showConfig(flags)
  })
).pipe(
  Command.withDescription(
    "What a worker would run with, every default said: environment over the file over the defaults. No passwords."
  ),
  Command.withShortDescription("What a worker would run with")
)

const example = Command.make(
  "example",
  {},
  Effect.fn(function*() {
    const { showExample } = yield* Effect.promise(() => import("../RunConfig.ts"))
    yield* showExample
  })
).pipe(
  Command.withDescription("A configuration file with every field, its meaning and its default"),
  Command.withExamples([
    { command: "stoker config example > /etc/stoker/stoker.json", description: "To begin with" }
  ])
)

export const config = Command.make("config").pipe(
  Command.withDescription(
    "A worker's configuration file: JSON in which // comments may stand, named by `stoker worker --config FILE` or " +
      "STOKER_CONFIG. Without one the defaults hold; no file is read that nobody names."
  ),
  Command.withShortDescription("Look after a worker's configuration file"),
  Command.withSubcommands([check, show, example])
)
