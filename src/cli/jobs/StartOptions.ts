/** Options of every job that is started, whatever its function. */
import { Effect, Option, Result } from "effect"
import { CliError, Flag, Param } from "effect/cli"
import { parseDuration } from "../../schemas/Units.ts"
import * as Flags from "../Flags.ts"
import type { Options, Takes } from "./StartWords.ts"

const text = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withMetavar(metavar), Flag.optional)

/** How long `--wait` waits when it says nothing. */
const WAIT = "1m"

/** By the names of what they are for. */
export const startFlags = {
  id: text("id", "ID", "The job's id; the same id with the same request is the same job (default: a new one)"),
  owner: text("owner", "NAME", "For whom; only who may start for others (default: you)"),
  wait: Flag.String("wait").pipe(
    Flag.withOptionalValue(WAIT),
    Flag.mapEffect((value) =>
      Result.match(parseDuration(value), {
        onSuccess: (ms) => Effect.succeed(ms),
        onFailure: (expected) =>
          Effect.fail(new CliError.InvalidValue({ option: "wait", value, expected, kind: "flag" }))
      })
    ),
    Flag.withMetavar("TIME"),
    Flag.withDescription(`Come back when it runs, or has ended, or after this time (--wait=TIME; alone ${WAIT})`),
    Flag.optional
  ),
  follow: Flags.onOff("follow", "Show its output as it comes, until it has ended").pipe(Flag.withAlias("f")),
  exitCode: Flags.onOff("exit-code", "With --follow: end with the job's exit code"),
  webhook: text("webhook", "URL", "Where its outcome is posted to"),
  class: Flags.sandboxClass,
  limits: Flags.limits,
  terms: Flags.terms,
  json: Flags.json
}

interface FlagTree {
  readonly [name: string]: Param.AnyFlag | FlagTree
}

const isFlag = (value: Param.AnyFlag | FlagTree): value is Param.AnyFlag => Param.isParam(value)

type Single = Param.Single<"flag", unknown>

const isSingle = (value: object): value is Single => "_tag" in value && value._tag === "Single"

/** What a flag is made of, below its mappings: its name, and what it takes. */
const singleOf = (flag: object): ReadonlyArray<Single> =>
  isSingle(flag)
    ? [flag]
    : "param" in flag && typeof flag.param === "object" && flag.param !== null
    ? singleOf(flag.param)
    : []

/** The single flags of a tree of them. */
export const singlesOf = (tree: FlagTree): ReadonlyArray<Single> =>
  Object.values(tree).flatMap((value) => isFlag(value) ? singleOf(value) : singlesOf(value))

const takesOf = ({ optionalValue, primitiveType }: Single): Takes =>
  optionalValue !== undefined ? "optional" : primitiveType._tag === "Boolean" ? "none" : "value"

/** Their names, and which of them take a value. */
export const startOptions: Options = Object.fromEntries(
  singlesOf(startFlags).flatMap((flag) => [
    [`--${flag.name}`, takesOf(flag)],
    ...flag.aliases.map((alias) => [alias.length === 1 ? `-${alias}` : `--${alias}`, takesOf(flag)])
  ])
)

/** A line of the help text. */
export interface FlagLine {
  readonly flag: string
  readonly text: string
}

/** Flags as help texts list them. */
export const flagLines = (tree: FlagTree): ReadonlyArray<FlagLine> =>
  singlesOf(tree).map((flag) => {
    const short = flag.aliases.find((alias) => alias.length === 1)
    const value = takesOf(flag) === "none"
      ? ""
      : takesOf(flag) === "optional"
      ? `[=${flag.typeName ?? "VALUE"}]`
      : ` ${flag.typeName ?? "VALUE"}`
    return {
      flag: `${short === undefined ? "    " : `-${short}, `}--${flag.name}${value}`,
      text: Option.getOrElse(flag.description, () => "")
    }
  })
