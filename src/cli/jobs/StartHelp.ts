/** What `stoker jobs`, `jobs start` and `jobs start NAME` say of themselves, in the shape of the RFD's transcripts. */
import type { FunctionView } from "../../schemas/JobView.ts"
import { type Call, fieldText, metavar } from "./Fields.ts"
import { serverFlags } from "./ServerFlags.ts"
import { type FlagLine, flagLines, startFlags } from "./StartOptions.ts"
import { jsonArgs, restField } from "./StartWords.ts"

const columns = (lines: ReadonlyArray<readonly [left: string, right: string]>, least = 0): string => {
  const width = Math.max(least, ...lines.map(([left]) => left.length))
  return lines.map(([left, right]) => `  ${left.padEnd(width)}   ${right}`.trimEnd()).join("\n")
}

const flagColumns = (lines: ReadonlyArray<FlagLine>) => columns(lines.map(({ flag, text }) => [flag, text] as const))

const helpFlag = (name: string): FlagLine => ({ flag: "-h, --help", text: `help for ${name}` })

/** `calculates ... sequence.` is `Calculates ... sequence` in a list. */
const sentence = (description: string) =>
  description.slice(0, 1).toUpperCase() + description.slice(1).replace(/\.$/, "")

const commands = [
  ["start", "Start a job in the server"],
  ["status", "Get the status of a job"],
  ["stop", "Stop a running job"],
  ["tail", "View the output of a job"],
  ["list", "List jobs, newest first"],
  ["functions", "List what can be started"],
  ["delete", "Forget jobs that have ended"]
] as const

/** `stoker jobs` */
export const jobsText: string = `This sub-command provides the ability to manage jobs, including
starting, stopping, getting the status, and viewing the output.

Usage:
  stoker jobs [command]

Available Commands:
${commands.map(([name, text]) => `  ${name.padEnd(11)} ${text}`).join("\n")}

Flags:
  -h, --help   help for jobs

Use "stoker jobs [command] --help" for more information about a command.`

/** `stoker jobs --help` */
export const jobsHelp: string = `${jobsText}

Flags of every command:
${flagColumns(flagLines(serverFlags))}`

/** `stoker jobs start` */
export const listText = (functions: ReadonlyArray<FunctionView>): string => {
  const sorted = functions.toSorted((a, b) => a.name < b.name ? -1 : 1)
  const width = Math.max(11, ...sorted.map(({ name }) => name.length))
  const named = sorted.map(({ description, name }) => `  ${name.padEnd(width)} ${sentence(description)}`)
  return `Start a job in the server: one of its functions, with arguments.

Usage:
  stoker jobs start [command]

Available Commands:
${named.join("\n")}

Flags:
  -h, --help   help for start

Use "stoker jobs start [command] --help" for more information about a command.`
}

/** `stoker jobs start fib position [flags]` */
const usageLine = (call: Call): string => {
  const places = call.places.map(({ kind, required, word, name }) => {
    const text = `${word ?? name}${kind === "list" ? "..." : ""}`
    return required ? text : `[${text}]`
  })
  const rest = restField(call)
  return [
    "stoker jobs start",
    call.view.name,
    ...places,
    "[flags]",
    ...(rest === undefined ? [] : [`[-- ${rest.flag}...]`])
  ]
    .join(" ")
}

const ownFlags = (call: Call): ReadonlyArray<FlagLine> =>
  call.flags.map((field) => {
    const value = metavar(field, call.root)
    const text = fieldText(field, call.root)
    return {
      flag: `    --${field.flag}${value === "" ? "" : ` ${value}`}`,
      text: field.required ? `${text} (required)` : text
    }
  })

const jsonFlag: FlagLine = {
  flag: `    --${jsonArgs} json`,
  text: "all arguments as a JSON object, or @FILE with it, or @- for this command's input"
}

/** Usage and the function's own flags: what somebody sees who mistyped. */
export const usageText = (call: Call): string =>
  `Usage:
  ${usageLine(call)}

Flags:
${flagColumns([...ownFlags(call), helpFlag(call.view.name)])}
`

/** `stoker jobs start NAME --help` */
export const helpText = (call: Call): string => {
  const { description, name, needsNetwork, title } = call.view
  const places = call.places.map((field) => [field.word ?? field.name, fieldText(field, call.root)] as const)
  return [
    `${title === name ? "" : `${title}: `}${name} ${description}`,
    ...(needsNetwork ? ["It needs a sandbox class with a network (--class)."] : []),
    "",
    "Usage:",
    `  ${usageLine(call)}`,
    ...(places.length === 0 ? [] : ["", "Arguments:", columns(places)]),
    "",
    "Flags:",
    flagColumns([...ownFlags(call), jsonFlag, helpFlag(name)]),
    "",
    "Flags of every job:",
    flagColumns(flagLines(startFlags)),
    "",
    "Flags of every command:",
    flagColumns(flagLines(serverFlags))
  ].join("\n")
}
