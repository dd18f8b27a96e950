/** The tree of commands, and how they end. */
import { Effect, Stdio } from "effect"
import { CliConfig, CliOutput, Command, GlobalFlag } from "effect/cli"
import manifest from "../../package.json" with { type: "json" }
import { explain } from "./CliFailure.ts"
import { artefacts } from "./commands/Artefacts.ts"
import { certs } from "./commands/Certs.ts"
import { config } from "./commands/Config.ts"
import { context } from "./commands/Context.ts"
import { dead } from "./commands/Dead.ts"
import { demo } from "./commands/Demo.ts"
import { doctor } from "./commands/Doctor.ts"
import { image } from "./commands/Image.ts"
import { jobs } from "./commands/Jobs.ts"
import { list } from "./commands/List.ts"
import { logs } from "./commands/Logs.ts"
import { drain, reload, stop, workers } from "./commands/Operate.ts"
import { run } from "./commands/Run.ts"
import { status } from "./commands/Status.ts"
import { submit } from "./commands/Submit.ts"
import { top } from "./commands/Top.ts"
import { worker } from "./commands/Worker.ts"
import { completions } from "./Completion.ts"
import { exitCode, exitCodeHelp } from "./ExitCode.ts"
import { Operands, splitOperands } from "./Operands.ts"
import { print, say, wantsColour } from "./Output.ts"

const stoker = Command.make("stoker").pipe(
  Command.withDescription(
    `Runs jobs, each alone in a sandbox. \`stoker COMMAND --help\` tells more.\n\n${exitCodeHelp}`
  ),
  Command.withSubcommands([
    run,
    submit,
    status,
    logs,
    artefacts,
    list,
    stop,
    top,
    worker,
    jobs,
    context,
    workers,
    drain,
    reload,
    config,
    certs,
    dead,
    image,
    doctor,
    demo
  ])
)

const formatter = CliOutput.defaultFormatter({ colors: wantsColour("stdout") })

/** In the shape it has without `--help`. */
const helpOfJobs = Effect.promise(() => import("./jobs/StartHelp.ts")).pipe(
  Effect.flatMap(({ jobsHelp }) => Effect.ignore(print(jobsHelp)))
)

/** One line, without the name of the part of us that found it. */
const plain = (message: string) =>
  message.trim().replaceAll(/\s*\n\s*/g, " ").replace("Expected: Schema validation failed: Expected ", "Expected: ")

/** Help on stdout for who asked for it; for who mistyped, what is wrong, on stderr. */
const presenter: CliOutput.Presenter = {
  present: (event) => {
    switch (event._tag) {
      case "Help":
        if (event.helpDoc.commandPath?.join(" ") === "stoker jobs") return helpOfJobs
        return Effect.ignore(print(formatter.formatHelpDoc(event.helpDoc)))
      case "Version":
        return Effect.ignore(print(formatter.formatVersion(event.name, event.version)))
      case "InvalidInvocation":
        return say(
          [
            ...event.errors.map((error) => `stoker: ${plain(error.message)}`),
            `  \`${event.commandPath.join(" ")} --help\` tells what there is.`
          ].join("\n")
        )
    }
  }
}

/** Commands that end with a program's code: their own trouble must be told from it. */
const ownCodes: ReadonlySet<string> = new Set(["run", "submit"])

/** Runs the command line; gives its exit code, with everything said. */
export const main = Effect.gen(function*() {
  const { args, operands } = splitOperands(yield* (yield* Stdio.Stdio).args)
  const trouble = ownCodes.has(args[0] ?? "") ? exitCode.trouble : exitCode.usage
  return yield* Command.runWith(stoker, { version: manifest.version })(args).pipe(
    Effect.provideService(Operands, operands),
    Effect.as(0),
    Effect.catchCause((cause) =>
      Effect.flatMap(
        explain(cause, trouble),
        ({ code, lines }) => Effect.as(lines.length === 0 ? Effect.void : say(lines.join("\n")), code)
      )
    )
  )
}).pipe(
  Effect.provideService(CliOutput.Presenter, presenter),
  Effect.provideService(
    CliConfig.CliConfig,
    CliConfig.make({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, completions, GlobalFlag.LogLevel] })
  )
)
