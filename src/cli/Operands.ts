/** What follows `--` on the command line: a command to run, or the program's arguments. */
import { Context } from "effect"

/** The parser would put them behind the other arguments, where they could not be told from files any more. */
export const Operands = Context.Reference<ReadonlyArray<string>>("stoker/cli/Operands", { defaultValue: () => [] })

const withOperands: ReadonlySet<string> = new Set(["run", "submit"])

/** Parts the arguments of the commands that give `--` a meaning; those of others are left whole. */
export const splitOperands = (
  args: ReadonlyArray<string>
): { readonly args: ReadonlyArray<string>; readonly operands: ReadonlyArray<string> } => {
  const end = args.indexOf("--")
  return end === -1 || !withOperands.has(args[0] ?? "")
    ? { args, operands: [] }
    : { args: args.slice(0, end), operands: args.slice(end + 1) }
}
