/** `stoker doctor`: one screen, and an exit code for scripts. */
import { Effect, type Option, type Redacted } from "effect"
import type { Check } from "../layers/sandbox/Sandbox.ts"
import { exitWith } from "./CliFailure.ts"
import { exitCode } from "./ExitCode.ts"
import { examine, type Section } from "./HostChecks.ts"
import * as Loggers from "./Loggers.ts"
import { print, wantsColour } from "./Output.ts"
import * as Signals from "./Signals.ts"
import { stateDirectory } from "./StateDirectory.ts"
import { type Style, style } from "./Style.ts"

const mark = (status: Check["status"], { green, red, yellow }: Style): string =>
  ({ ok: green("✔"), warning: yellow("!"), missing: red("✘") })[status]

const lines = ({ checks, title }: Section, look: Style): ReadonlyArray<string> => {
  const width = Math.max(...checks.map(({ name }) => name.length))
  const indent = " ".repeat(width + 6)
  return [
    look.bold(title),
    ...checks.flatMap(({ detail, name, remedy, status }) => [
      `  ${mark(status, look)} ${name.padEnd(width)}  ${detail}`,
      ...(remedy === undefined ? [] : [look.dim(`${indent}→ ${remedy}`)])
    ])
  ]
}

export const runDoctor = Effect.fn("RunDoctor.runDoctor")(
  function*(options: {
    readonly state: Option.Option<string>
    readonly amqp: Option.Option<Redacted.Redacted<string>>
    readonly json: boolean
  }) {
    const directory = yield* stateDirectory(options.state)
    const sections = yield* Signals.interruptible(examine({ stateDirectory: directory, amqp: options.amqp }))
    const works = sections.every(({ checks, needed }) => !needed || checks.every(({ status }) => status !== "missing"))
    const look = style(wantsColour("stdout"))
    yield* print(
      options.json
        ? JSON.stringify({ works, sections })
        : [
          ...sections.flatMap((section) => [...lines(section, look), ""]),
          works
            ? look.green("Sandboxes of driver oci work here.")
            : look.red("Sandboxes of driver oci do not work here yet.")
        ].join("\n")
    )
    yield* exitWith(works ? 0 : exitCode.usage)
  },
  Effect.provide(Loggers.layer({ format: "auto", usual: "Fatal" }))
)
