import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { evalFunction } from "../../src/functions/Eval.ts"
import { evaluate, parse } from "../../src/functions/Expression.ts"
import { pick, type Random, randomOf } from "../support/Random.ts"
import { call, failure, refused } from "./Calls.ts"

const valueOf = (expression: string, args?: Readonly<Record<string, number>>) =>
  Effect.map(call(evalFunction, args === undefined ? { expression } : { expression, args }), ({ result }) => result)

/** A tree, and what it is worth by walking it: knows nothing of precedence. */
type Tree =
  | { readonly _tag: "Number"; readonly text: string }
  | { readonly _tag: "Name"; readonly name: string }
  | { readonly _tag: "Sign"; readonly sign: "-" | "+"; readonly of: Tree }
  | { readonly _tag: "Binary"; readonly operator: string; readonly left: Tree; readonly right: Tree }

const variables: Readonly<Record<string, number>> = { x: 3, y: -0.25, rate_2: 7.5, _z: 0 }

const numbers = ["0", "1", "2", "3", "10", "2.5", ".5", "4.", "1e3", "1.5E-2", "2e+1", "123456789"]

const grow = (random: Random, depth: number): Tree => {
  const kind = depth === 0 ? random(2) : random(8)
  if (kind === 0) return { _tag: "Number", text: pick(random, numbers) ?? "0" }
  if (kind === 1) return { _tag: "Name", name: pick(random, Object.keys(variables)) ?? "x" }
  if (kind === 2) return { _tag: "Sign", sign: random(3) === 0 ? "+" : "-", of: grow(random, depth - 1) }
  const operator = pick(random, ["+", "-", "*", "*", "/", "%", "^"]) ?? "+"
  return { _tag: "Binary", operator, left: grow(random, depth - 1), right: grow(random, depth - 1) }
}

/** Undefined as soon as anything in it has no finite value. */
const worth = (tree: Tree): number | undefined => {
  if (tree._tag === "Number") return Number(tree.text)
  if (tree._tag === "Name") return variables[tree.name]
  if (tree._tag === "Sign") {
    const value = worth(tree.of)
    return value === undefined || tree.sign === "+" ? value : -value
  }
  const [left, right] = [worth(tree.left), worth(tree.right)]
  if (left === undefined || right === undefined) return undefined
  const operations: Readonly<Record<string, number>> = {
    "+": left + right,
    "-": left - right,
    "*": left * right,
    "/": left / right,
    "%": left % right,
    "^": left ** right
  }
  const value = operations[tree.operator]
  return value !== undefined && Number.isFinite(value) ? value : undefined
}

/** How tight it binds: a text without brackets may stand where at least so much is asked for. */
const tightness = (tree: Tree): number => {
  if (tree._tag === "Number" || tree._tag === "Name") return 5
  if (tree._tag === "Sign") return 3
  return { "+": 1, "-": 1, "*": 2, "/": 2, "%": 2, "^": 4 }[tree.operator] ?? 0
}

/** With no more brackets than the documented precedence needs, and some that are superfluous. */
const print = (random: Random, tree: Tree): string => {
  const gap = () => pick(random, ["", "", " ", "\t", "\n "]) ?? ""
  const inside = (child: Tree, least: number) => {
    const text = print(random, child)
    return tightness(child) < least || random(6) === 0 ? `(${gap()}${text}${gap()})` : text
  }
  if (tree._tag === "Number") return tree.text
  if (tree._tag === "Name") return tree.name
  if (tree._tag === "Sign") return `${tree.sign}${gap()}${inside(tree.of, 3)}`
  const { left, operator, right } = tree
  const own = tightness(tree)
  if (operator === "^") return `${inside(left, 5)}${gap()}^${gap()}${inside(right, 3)}`
  // A right side that begins with a sign may stand bare: no other reading of it is possible.
  const [before, after] = [inside(left, own), inside(right, own + 1)]
  const isPlain = operator === "*" && /^[A-Za-z_(]/.test(after) && random(2) === 0
  // Names and exponents would run into each other.
  if (isPlain) return `${before}${after.startsWith("(") ? gap() : " "}${after}`
  return `${before}${gap()}${operator}${gap()}${after}`
}

describe("eval", () => {
  for (
    const [expression, args, value] of [
      ["2.3 * 0.2", {}, 2.3 * 0.2],
      ["2x * 3y", { x: 2, y: 5 }, 60],
      ["2(x+1)", { x: 3 }, 8],
      ["(a)(b)", { a: 3, b: 4 }, 12],
      ["2 x", { x: 3 }, 6],
      ["x y", { x: 3, y: 2 }, 6],
      ["x(2)", { x: 3 }, 6],
      ["x2", { x2: 9 }, 9],
      ["2e", { e: 3 }, 6],
      ["2e3x", { x: 2 }, 4000],
      ["1e3", {}, 1000],
      [".5 + 1.", {}, 1.5],
      ["-2^2", {}, -4],
      ["(-2)^2", {}, 4],
      ["2^3^2", {}, 512],
      ["2^-1", {}, 0.5],
      ["2^-2^2", {}, 0.0625],
      ["2^-1 * 4", {}, 2],
      ["2x^2", { x: 3 }, 18],
      ["1/2x", { x: 4 }, 2],
      ["8/2(2+2)", {}, 16],
      ["7 % 4 * 2", {}, 6],
      ["-7 % 4", {}, -3],
      ["2 - 3 - 4", {}, -5],
      ["2--3", {}, 5],
      ["2 - + - 3", {}, 5],
      ["16 / 4 / 2", {}, 2],
      ["constructor + toString", { constructor: 1, toString: 2 }, 3]
    ] as const
  ) {
    it.effect(`${expression} is ${value}`, () =>
      Effect.map(valueOf(expression, args), (found) => assert.strictEqual(found, value)))
  }

  it.effect("says what it evaluates in one line", () =>
    Effect.gen(function*() {
      const { said } = yield* call(evalFunction, { expression: "2x\n * y", args: { x: 2, y: 3 } })
      assert.deepStrictEqual(said, ["Evaluating '2x * y' with x = 2, y = 3"])
    }))

  it("five thousand trees: what is read is what was written", () => {
    const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 1e9))
    const random = randomOf(seed)
    let finite = 0
    for (let n = 0; n < 5000; n++) {
      const tree = grow(random, 1 + random(6))
      const text = print(random, tree)
      const parsed = Result.getOrThrowWith(
        parse(text),
        (trouble) => new Error(`seed ${seed}: ${text}: ${trouble.reason}`)
      )
      const found = evaluate(parsed, parsed.names.map((name) => variables[name] ?? Number.NaN))
      const expected = worth(tree)
      const words = `seed ${seed}: ${text}`
      if (expected === undefined) {
        assert.isTrue(Result.isFailure(found), words)
      } else {
        finite += 1
        assert.strictEqual(Result.getOrElse(found, () => Number.NaN), expected, words)
      }
    }
    assert.isAbove(finite, 1000)
  })

  it.effect.prop(
    "any text at all is read or refused, and its value is finite",
    { pieces: Schema.Array(Schema.Literals([..."()+-*/%^.eEx0129 _\n", "1e", "$", "é", "😀", "(("])) },
    ({ pieces }) =>
      Effect.sync(() => {
        const parsed = parse(pieces.join(""))
        if (Result.isFailure(parsed)) return assert.match(parsed.failure.reason, /at character \d+$|empty$|early$/)
        const value = evaluate(parsed.success, parsed.success.names.map(() => 2))
        assert.isTrue(Result.isFailure(value) || Number.isFinite(value.success), pieces.join(""))
      })
  )

  const million = 1_000_000
  for (
    const [name, text, value] of [
      ["a million brackets in each other", `${"(".repeat(million)}1${")".repeat(million)}`, 1],
      ["a million brackets that nobody closes", "(".repeat(million), "too early"],
      ["a million brackets that nobody opened", `1${")".repeat(million)}`, "none opened"],
      ["a million minus signs", `${"-".repeat(million)}1`, 1],
      ["a million plus signs", `${"+".repeat(million)}1`, 1],
      ["a long sum", `0${"+1".repeat(million)}`, million],
      ["a long chain of powers", `1${"^1".repeat(million)}`, 1],
      ["a long product without signs", `1${"(1)".repeat(million)}`, 1],
      ["powers of signs", `1${"^-1".repeat(million)}`, 1],
      ["a long number", "1".repeat(million), "too large"],
      ["a long name", "x".repeat(million), 2],
      ["many names", Array.from({ length: million / 8 }, (_, n) => `x${n}`).join("+"), million / 4],
      ["a million spaces", `${" ".repeat(million)}1`, 1]
    ] as const
  ) {
    it(`${name} end soon`, () => {
      const before = performance.now()
      const parsed = parse(text)
      const found = Result.flatMap(parsed, (read) => evaluate(read, read.names.map(() => 2)))
      if (typeof value === "number") assert.strictEqual(Result.getOrThrow(found), value)
      else assert.include(Result.getOrThrow(Result.flip(found)).reason, value)
      // A tenth of a second where the machine is idle; quadratic time would be a quarter of an hour.
      assert.isBelow(performance.now() - before, 10_000)
    })
  }

  for (
    const [name, args, words] of [
      ["a missing variable, by its name", { expression: "2x" }, "there is no value for the variable x."],
      ["several missing ones", { expression: "2x*y+x", args: { y: 1 } }, "no value for the variable x."],
      ["names of every object", { expression: "constructor" }, "the variable constructor"],
      ["a prototype", { expression: "__proto__" }, "the variable __proto__"],
      ["many missing ones shortly", {
        expression: Array.from({ length: 50 }, (_, n) => `v${n}`).join("+")
      }, "v8, v9, …"],
      ["an unused one", { expression: "2x", args: { x: 1, y: 2 } }, "the expression has no variable y"],
      ["a mistyped one", { expression: "2x", args: { X: 1 } }, "variable x, and the expression has no variable X"],
      ["nothing", { expression: "" }, "the expression is empty"],
      ["blanks", { expression: " \n" }, "the expression is empty"],
      ["an end too early", { expression: "1 +" }, "ends too early"],
      ["an operator without a left side", { expression: "2 + * 3" }, "* has nothing on its left at character 5"],
      ["empty brackets", { expression: "2()" }, "a bracket closes where a value is missing at character 3"],
      ["an open bracket", { expression: "2 + (3" }, "a bracket is never closed at character 5"],
      ["a closed bracket", { expression: "2)" }, "a bracket closes that none opened at character 2"],
      ["two numbers", { expression: "2 3" }, "a number follows a value at character 3"],
      ["a version", { expression: "1.2.3" }, "a number follows a value at character 4"],
      ["a program", { expression: "process.exit(1)" }, "\".\" means nothing at character 8"],
      ["what is no arithmetic", { expression: "a = 1" }, "\"=\" means nothing at character 3"],
      ["half a character's neighbour", { expression: "1 + 😀" }, "\"😀\" means nothing at character 5"],
      ["a number that is none", { expression: "1e999" }, "the number is too large at character 1"],
      ["1 MB of brackets", { expression: "(".repeat(1_000_000) }, "at most 65536 characters"],
      ["a value that is no number", { expression: "x", args: { x: "1" } }, "number"],
      ["a value that is not finite", { expression: "x", args: { x: Number.NaN } }, "finite"],
      ["an argument nobody knows", { expression: "1", arguments: {} }, "arguments"],
      ["no expression", { args: {} }, "expression"]
    ] as const
  ) {
    it.effect(`refuses ${name}, saying why`, () =>
      Effect.map(refused(evalFunction, args), (text) => {
        assert.include(text, words)
        assert.isBelow(text.length, 1000)
      }))
  }

  for (
    const [expression, words] of [
      ["1/0", "it divides by zero"],
      ["1 % (2-2)", "it divides by zero"],
      ["0/0", "it divides by zero"],
      ["0^-1", "0 to a negative power"],
      ["(-8)^(1/3)", "-8 to the power of 0.3333333333333333 is no real number"],
      ["1e308*10", "a value became too large"],
      ["10^309", "a value became too large"],
      ["1/(1e308*10)", "a value became too large"],
      ["1e308+1e308-1e308", "a value became too large"]
    ] as const
  ) {
    it.effect(`${expression} fails at run time, saying why`, () =>
      Effect.map(failure(evalFunction, { expression }), (text) => {
        assert.include(text, words)
        assert.include(text, "the expression has no value")
      }))
  }
})
