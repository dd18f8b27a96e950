/** `eval`: the value of an arithmetic expression. Nothing in it is ever run as a program. */
import { Effect, Result, Schema } from "effect"
import { InvalidArguments, make } from "../schemas/Function.ts"
import { evaluate, type Expression, parse, type Trouble } from "./Expression.ts"

/** Characters of an expression. */
const mostCharacters = 65_536
const mostVariables = 1000

/** The arguments of `eval`; on the wire the RFD's: a text, and a map of names to numbers. */
export const EvalArgs = Schema.Struct({
  expression: Schema.String.check(
    Schema.isMaxLength(mostCharacters, { expected: `an expression of at most ${mostCharacters} characters` })
  ).annotate({
    title: "Expression",
    description: "numbers, variables, ( ), + - * / % ^; 2x is 2*x"
  }),
  args: Schema.optionalKey(
    Schema.Record(Schema.String, Schema.Finite).check(
      Schema.isMaxProperties(mostVariables, { expected: `at most ${mostVariables} variables` })
    ).annotate({
      title: "Variables",
      description: "the value of each variable of the expression, and of no other"
    })
  )
})
export type EvalArgs = typeof EvalArgs.Type

/** An expression that is well formed and has no value. */
export class EvaluationFailed extends Schema.TaggedError<EvaluationFailed>()("EvaluationFailed", {
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `the expression has no value: ${this.reason}. ${this.remedy}`
  }
}

const invalid = ({ reason, remedy }: Trouble) => new InvalidArguments({ function: "eval", reason, remedy })

const short = (text: string, most: number) => text.length > most ? `${text.slice(0, most)}…` : text

/** Names for a message: a few, and not the whole of a long one. */
const listed = (names: ReadonlyArray<string>) =>
  names.slice(0, 10).map((name) => short(name, 40)).join(", ") + (names.length > 10 ? ", …" : "")

const plural = (names: ReadonlyArray<string>) => names.length === 1 ? "" : "s"

/** Every variable has a value and every value a variable: a name that was mistyped is both, and is told as such. */
const read = ({ args = {}, expression }: EvalArgs): Result.Result<Expression, InvalidArguments> =>
  Result.gen(function*() {
    const parsed = yield* Result.mapError(parse(expression), invalid)
    const wanted = new Set(parsed.names)
    const missing = parsed.names.filter((name) => !Object.hasOwn(args, name))
    const unused = Object.keys(args).filter((name) => !wanted.has(name))
    if (missing.length + unused.length === 0) return parsed
    const reasons = [
      ...(missing.length === 0 ? [] : [`there is no value for the variable${plural(missing)} ${listed(missing)}`]),
      ...(unused.length === 0 ? [] : [`the expression has no variable${plural(unused)} ${listed(unused)}`])
    ]
    return yield* Result.fail(invalid({
      reason: reasons.join(", and "),
      remedy: "Give exactly the variables of the expression in args, each a number."
    }))
  })

/** Arithmetic in double precision. What has no finite value fails: a result is never NaN or Infinity. */
export const evalFunction = make({
  name: "eval",
  title: "Expression Evaluator",
  description: "evaluates a mathematical formula.",
  args: EvalArgs,
  positional: { expression: "expression" },
  check: (args) => Effect.asVoid(Effect.fromResult(read(args))),
  handler: Effect.fnUntraced(function*(args, { say }) {
    const { args: values = {} } = args
    const expression = yield* Effect.fromResult(read(args))
    const known = expression.names.slice(0, 10).map((name) => `${short(name, 40)} = ${values[name]}`)
    const where = expression.names.length > 10 ? [...known, "…"] : known
    // One line, whatever the expression is made of.
    const text = short(args.expression.replaceAll(/\s+/g, " ").trim(), 200)
    yield* say(`Evaluating '${text}'${where.length === 0 ? "" : ` with ${where.join(", ")}`}`)
    return yield* Effect.fromResult(
      Result.mapError(
        evaluate(expression, expression.names.map((name) => values[name] ?? Number.NaN)),
        (trouble) => new EvaluationFailed(trouble)
      )
    )
  })
})
