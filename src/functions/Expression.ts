/**
 * Arithmetic as people write it, made into steps for a machine with a stack. Neither reading nor running recurses, and
 * each takes time and memory in proportion to the text, so no nesting and no length of a chain can do harm.
 *
 * From what binds most to what binds least:
 *
 *     ( )          brackets
 *     ^            powers, from the right: 2^3^2 is 2^9
 *     - +          signs: -2^2 is -4, 2^-3 is 2^(-3)
 *     * / %        from the left; % has the sign of its left side. So has a product without a sign: 1/2x is (1/2)*x
 *     + -          from the left
 *
 * A product needs no sign where a name or an opening bracket follows: `2x`, `2 x`, `x y`, `2(x+1)`, `(a)(b)`. A number
 * never does: `2 3` and `(a)2` are mistakes more often than products. Names are `[A-Za-z_][A-Za-z0-9_]*`, as long as they
 * can be: `xy` is one name, `x2` too. Numbers are decimal, with an exponent if digits follow the e: `2e3` is 2000, `2e`
 * is 2*e.
 */
import { Result } from "effect"

/** Why a text is no expression, or has no value. */
export interface Trouble {
  readonly reason: string
  readonly remedy: string
}

type Binary = "+" | "-" | "*" | "/" | "%" | "^"

/** What the machine does next. Names are by their number in `names`. */
type Step =
  | { readonly _tag: "Number"; readonly value: number }
  | { readonly _tag: "Name"; readonly index: number }
  | { readonly _tag: "Negate" }
  | { readonly _tag: "Binary"; readonly operator: Binary }

/** An expression that has been read. */
export interface Expression {
  readonly steps: ReadonlyArray<Step>
  /** Its variables, each once, in the order they come in. */
  readonly names: ReadonlyArray<string>
}

const binding: Readonly<Record<Binary | "sign", number>> = { "+": 1, "-": 1, "*": 2, "/": 2, "%": 2, sign: 3, "^": 4 }

/** What waits for its right side. A plus sign changes nothing and does not wait. */
type Waiting =
  | { readonly _tag: "Binary"; readonly operator: Binary }
  | { readonly _tag: "Sign" }
  | { readonly _tag: "Open"; readonly at: number }

const space = /\s+/y
const numeral = /(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?/y
const word = /[A-Za-z_][A-Za-z0-9_]*/y
const operators: ReadonlySet<string> = new Set(Object.keys(binding).filter((key) => key !== "sign"))
const isBinary = (text: string): text is Binary => operators.has(text)

/** The match of a sticky pattern there. */
const matchAt = (pattern: RegExp, text: string, at: number): string | undefined => {
  pattern.lastIndex = at
  return pattern.exec(text)?.[0]
}

/** Reads an expression. Characters are counted from 1, in what is said about it. */
export const parse = (text: string): Result.Result<Expression, Trouble> => {
  const steps: Array<Step> = []
  const indices = new Map<string, number>()
  const waiting: Array<Waiting> = []
  let at = 0
  /** Whether a value has just ended, so that an operator may come. */
  let hasLeft = false

  const fail = (what: string, remedy: string) =>
    Result.fail<Trouble>({ reason: `${what} at character ${at + 1}`, remedy })

  const emit = (done: Waiting) => {
    if (done._tag === "Binary") steps.push(done)
    if (done._tag === "Sign") steps.push({ _tag: "Negate" })
  }

  const infix = (operator: Binary) => {
    // Powers begin with the last one, so an equal one goes on waiting.
    const least = operator === "^" ? binding["^"] + 1 : binding[operator]
    for (;;) {
      const top = waiting.at(-1)
      if (top === undefined || top._tag === "Open") break
      if (binding[top._tag === "Sign" ? "sign" : top.operator] < least) break
      waiting.pop()
      emit(top)
    }
    waiting.push({ _tag: "Binary", operator })
    hasLeft = false
  }

  while (at < text.length) {
    const blank = matchAt(space, text, at)
    if (blank !== undefined) {
      at += blank.length
      continue
    }
    const character = text.charAt(at)
    const number = matchAt(numeral, text, at)
    const name = number === undefined ? matchAt(word, text, at) : undefined
    if (number !== undefined) {
      if (hasLeft) return fail("a number follows a value", "Write the operator between them, such as *.")
      const value = Number(number)
      if (!Number.isFinite(value)) return fail("the number is too large", "Numbers go up to 1.797e308.")
      steps.push({ _tag: "Number", value })
      hasLeft = true
      at += number.length
    } else if (name !== undefined) {
      if (hasLeft) infix("*")
      const index = indices.get(name) ?? indices.size
      indices.set(name, index)
      steps.push({ _tag: "Name", index })
      hasLeft = true
      at += name.length
    } else if (character === "(") {
      if (hasLeft) infix("*")
      waiting.push({ _tag: "Open", at })
      at += 1
    } else if (character === ")") {
      if (!hasLeft) {
        return fail("a bracket closes where a value is missing", "Write a number, a variable or (…) before it.")
      }
      for (;;) {
        const top = waiting.pop()
        if (top === undefined) return fail("a bracket closes that none opened", "Leave it out, or open one.")
        if (top._tag === "Open") break
        emit(top)
      }
      at += 1
    } else if (isBinary(character)) {
      if (hasLeft) infix(character)
      else if (character === "-") waiting.push({ _tag: "Sign" })
      else if (character !== "+") {
        return fail(`${character} has nothing on its left`, "Write a number, a variable or (…) before it.")
      }
      at += 1
    } else {
      const found = String.fromCodePoint(text.codePointAt(at) ?? 0)
      return fail(
        `${JSON.stringify(found)} means nothing`,
        "Use numbers, variables, ( ) and the operators + - * / % ^."
      )
    }
  }
  if (!hasLeft) {
    return Result.fail({
      reason: steps.length === 0 && waiting.length === 0 ? "the expression is empty" : "the expression ends too early",
      remedy: "Write a number, a variable or (…) at its end."
    })
  }
  while (waiting.length > 0) {
    const top = waiting.pop()
    if (top?._tag === "Open") {
      at = top.at
      return fail("a bracket is never closed", "Close it, or leave it out.")
    }
    if (top !== undefined) emit(top)
  }
  return Result.succeed({ steps, names: [...indices.keys()] })
}

const tooLarge: Trouble = {
  reason: "a value became too large",
  remedy: "Numbers go up to 1.797e308; bring the expression into another form."
}

const divided: Trouble = { reason: "it divides by zero", remedy: "Give the variables other values." }

const apply = (operator: Binary, left: number, right: number): Result.Result<number, Trouble> => {
  const value = operate(operator, left, right)
  if (Number.isFinite(value)) return Result.succeed(value)
  if ((operator === "/" || operator === "%") && right === 0) return Result.fail(divided)
  if (operator === "^" && left === 0) {
    return Result.fail({ ...divided, reason: "it divides by zero: 0 to a negative power" })
  }
  // Both sides are finite, so nothing else has no value at all.
  return Result.fail(
    Number.isNaN(value)
      ? {
        reason: `${left} to the power of ${right} is no real number`,
        remedy: "Take whole powers of negative numbers only."
      }
      : tooLarge
  )
}

const operate = (operator: Binary, left: number, right: number): number => {
  switch (operator) {
    case "+":
      return left + right
    case "-":
      return left - right
    case "*":
      return left * right
    case "/":
      return left / right
    case "%":
      return left % right
    case "^":
      return left ** right
  }
}

/**
 * Its value with these values of its `names`, in their order: finite, as they have to be. Double precision, one rounding
 * for each operation.
 */
export const evaluate = ({ steps }: Expression, values: ReadonlyArray<number>): Result.Result<number, Trouble> => {
  const stack: Array<number> = []
  const pop = () => stack.pop() ?? Number.NaN
  for (const step of steps) {
    switch (step._tag) {
      case "Number":
        stack.push(step.value)
        break
      case "Name":
        stack.push(values[step.index] ?? Number.NaN)
        break
      case "Negate":
        stack.push(-pop())
        break
      case "Binary": {
        const right = pop()
        const applied = apply(step.operator, pop(), right)
        if (Result.isFailure(applied)) return applied
        stack.push(applied.success)
      }
    }
  }
  return Result.succeed(pop())
}
