/** `command`: runs a program that the sandbox already has. */
import { Effect, Result, Schema } from "effect"
import { ExecString } from "../schemas/ExecString.ts"
import { InvalidArguments, make, type PhaseLimits } from "../schemas/Function.ts"
import { type Program } from "../schemas/Program.ts"
import { environment, inputFields, InputFile, optional, programFiles, type Refusal, standardInput } from "./Inputs.ts"

/** The arguments of `command`. Exactly one of `argv` and `command`. */
export const CommandArgs = Schema.Struct({
  argv: optional(Schema.NonEmptyArray(ExecString), "Program", "program and arguments, as they are"),
  command: optional(
    ExecString.check(Schema.isNonEmpty({ expected: "a command that is not empty" })),
    "Command",
    "one line for /bin/sh -c"
  ),
  files: optional(Schema.Array(InputFile), "Files", "files for the workspace"),
  ...inputFields
})
export type CommandArgs = typeof CommandArgs.Type

const argvOf = ({ argv, command }: CommandArgs): Result.Result<readonly [string, ...Array<string>], Refusal> => {
  if (argv !== undefined && command === undefined) return Result.succeed(argv)
  if (argv === undefined && command !== undefined) return Result.succeed(["/bin/sh", "-c", command])
  return Result.fail({
    reason: argv === undefined ? "there is no command" : "there are both argv and command",
    remedy: "Give either argv (a list) or command (a line for the shell)."
  })
}

const toProgram = (args: CommandArgs, limits: PhaseLimits): Result.Result<Program, InvalidArguments> =>
  Result.gen(function*() {
    const argv = yield* argvOf(args)
    const files = yield* programFiles(args.files ?? [])
    const stdin = yield* standardInput(args)
    const env = environment(args.env)
    return {
      files,
      phases: [{ name: "run", argv, env, stdin, limits: limits.run }],
      artefacts: args.artefacts ?? []
    } satisfies Program
  }).pipe(
    Result.mapError(({ reason, remedy }) => new InvalidArguments({ function: "command", reason, remedy }))
  )

/** Runs one command in the workspace. */
export const command = make({
  name: "command",
  description: "runs a command: a list of program and arguments, or one line for the shell.",
  args: CommandArgs,
  program: (args, limits) => Effect.fromResult(toProgram(args, limits))
})
