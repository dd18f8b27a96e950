/** What follows `--` on the command line: a command to run, or the program's arguments. */
import { Context } from "effect"
import { serverFlagNames } from "./jobs/ServerFlags.ts"

/** The parser would put them behind the other arguments, where they could not be told from files any more. */
export const Operands = Context.Reference<ReadonlyArray<string>>("stoker/cli/Operands", { defaultValue: () => [] })

const withOperands: ReadonlySet<string> = new Set(["run", "submit"])

interface Parted {
  readonly args: ReadonlyArray<string>
  readonly operands: ReadonlyArray<string>
}

/** Those of `stoker jobs start NAME …` are the function's; only which server is meant is the parser's matter. */
const partStart = (args: ReadonlyArray<string>, start: number): Parted => {
  const server: Array<string> = []
  const operands: Array<string> = []
  const words = args.slice(start + 1)
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? ""
    if (word === "--") {
      operands.push(...words.slice(at))
      break
    }
    const [name = ""] = word.split("=")
    if (!name.startsWith("--") || !serverFlagNames.includes(name.slice(2))) {
      operands.push(word)
      continue
    }
    const value = words[at + 1]
    server.push(word)
    if (word === name && value !== undefined) {
      server.push(value)
      at += 1
    }
  }
  return { args: [...args.slice(0, start), ...server, "start"], operands }
}

/** Where a word of `stoker jobs` stands, behind flags of the server. */
const jobsCommandAt = (args: ReadonlyArray<string>): number => {
  let at = 1
  while (
    args[at]?.startsWith("--") === true && serverFlagNames.includes((args[at] ?? "").slice(2).split("=")[0] ?? "")
  ) {
    at += args[at]?.includes("=") === true ? 1 : 2
  }
  return at
}

/** Parts the arguments of the commands that give `--` a meaning; those of others are left whole. */
export const splitOperands = (args: ReadonlyArray<string>): Parted => {
  if (args[0] === "jobs") {
    const at = jobsCommandAt(args)
    if (args[at] === "start") return partStart(args, at)
    if (args[at] === "complete" && args[at + 1] === "--") {
      return { args: args.slice(0, at + 1), operands: args.slice(at + 2) }
    }
  }
  const end = args.indexOf("--")
  return end === -1 || !withOperands.has(args[0] ?? "")
    ? { args, operands: [] }
    : { args: args.slice(0, end), operands: args.slice(end + 1) }
}
