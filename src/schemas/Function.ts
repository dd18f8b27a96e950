/** A named, typed definition of what can be run. CLI, doors and documentation are derived from it. */
import { Effect, Schema } from "effect"
import { FunctionName } from "./Ids.ts"
import type { Limits } from "./Limits.ts"
import { ofInvocation, type Program } from "./Program.ts"
import type { NetworkPolicy } from "./SandboxClass.ts"

/** A function was asked for something it does not do. */
export class InvalidArguments extends Schema.TaggedError<InvalidArguments>()("InvalidArguments", {
  function: Schema.String,
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.function}: ${this.reason}. ${this.remedy}`
  }
}

/** The limits a function's phases are built with: `compile` is the class's ceiling, `run` what the job resolved to. */
export interface PhaseLimits {
  readonly compile: Limits
  readonly run: Limits
}

/** What the sandbox's function host is told of one call, beside its arguments. */
export interface Invocation {
  readonly id: string
  readonly owner: string
  /** 1 for the first try. */
  readonly attempt: number
  /** A line for whoever follows: `[NAME] line` on stdout. */
  readonly say: (line: string) => Effect.Effect<void>
}

/**
 * Runs inside the sandbox, in a Node process that waited for it. What it gives back is printed as `[RESULT] …`: a string
 * as it is, anything else as JSON, nothing if it is undefined. A failure or a defect ends the job with code 1, told on
 * stderr. No service of the worker is there; the class's network is.
 */
export type Handler<Args> = (args: Args, invocation: Invocation) => Effect.Effect<unknown, unknown>

/** What a job needs of the sandbox class it runs in, beyond what every class has. */
export interface FunctionNeeds {
  /** A class whose network is not `none`. */
  readonly network?: boolean
}

/** What the registry holds: the arguments' type is bound inside, its Schema shown for help and documentation. */
export interface Definition {
  readonly name: FunctionName
  /** What people call it, e.g. `Fibonacci`. */
  readonly title: string
  /** One sentence for help texts, which goes on after the name. */
  readonly description: string
  readonly args: Schema.Top
  /**
   * Fields of `args` that the command line takes by their place, in that order, each with the word of the usage line:
   * `{ number: "position" }`. All others are flags.
   */
  readonly positional: Readonly<Record<string, string>>
  readonly needs: FunctionNeeds
  /** Present: it runs in a function host, by its name. */
  readonly handler?: Handler<never>
  /** Checks plain JSON arguments, as a door does before it takes a job. */
  readonly check: (args: unknown) => Effect.Effect<void, InvalidArguments>
  /** Checks plain JSON arguments against `args` and makes the program. */
  readonly program: (args: unknown, limits: PhaseLimits) => Effect.Effect<Program, InvalidArguments>
}

/** Why a function cannot run in a class with that network; undefined if it can. */
export const unmetNeed = ({ name, needs }: Definition, network: NetworkPolicy): string | undefined =>
  needs.network === true && network === "none" ? `${name} needs a network, and the class has none` : undefined

interface Described<Args, Encoded> {
  readonly name: string
  /** What people call it. Absent: its name. */
  readonly title?: string
  /** One sentence for help texts, which goes on after the name. */
  readonly description: string
  readonly args: Schema.Codec<Args, Encoded>
  /** As `Definition` has it. Absent: none. */
  readonly positional?: { readonly [K in keyof Encoded]?: string }
  readonly needs?: FunctionNeeds
  /** What no Schema of one field says: an `InvalidArguments` refuses the job before it is taken. */
  readonly check?: (args: Args) => Effect.Effect<void, InvalidArguments>
}
/**
 * Names a function and binds what it does to its arguments' type: a `program`, or a `handler`. A name that is none
 * (`FunctionName`) throws where the function is defined. Both see arguments that `args` has decoded; what is still wrong
 * with them is an `InvalidArguments`, and its job ends as `Rejected`.
 */
export const make = <Args, Encoded>(
  options:
    & Described<Args, Encoded>
    & (
      | {
        readonly program: (args: Args, limits: PhaseLimits) => Effect.Effect<Program, InvalidArguments>
        readonly handler?: never
      }
      | { readonly handler: Handler<Args>; readonly program?: never }
    )
): Definition => {
  const name = FunctionName.make(options.name)
  const { check, description, handler, program } = options
  // An argument nobody knows is a slip of the pen: dropped in silence it would be looked for in vain.
  const decodeArgs = Schema.decodeUnknownEffect(options.args, { errors: "all", onExcessProperty: "error" })
  const decode = (args: unknown) =>
    decodeArgs(args).pipe(
      Effect.mapError((error) =>
        new InvalidArguments({
          function: name,
          reason: error.message.replaceAll(/\s*\n\s*/g, " "),
          remedy: `${name} ${description}`
        })
      ),
      Effect.tap((decoded) => check === undefined ? Effect.void : check(decoded))
    )
  return {
    name,
    title: options.title ?? name,
    description,
    args: options.args,
    positional: Object.fromEntries(
      Object.entries<string | undefined>(options.positional ?? {}).flatMap(([field, word]) =>
        word === undefined ? [] : [[field, word]]
      )
    ),
    needs: options.needs ?? {},
    ...(handler === undefined ? {} : { handler }),
    check: (args) => Effect.asVoid(decode(args)),
    program: (args, limits) =>
      program === undefined
        // The host decodes them again, from the same JSON.
        ? Effect.as(decode(args), ofInvocation({ function: name, args }, limits.run))
        : Effect.flatMap(decode(args), (decoded) => program(decoded, limits))
  }
}
