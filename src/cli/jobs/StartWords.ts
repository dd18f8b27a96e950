/**
 * The words of `stoker jobs start NAME ...`: which of them are the function's arguments and which are options of every
 * job. The functions are the server's, so no parser that is made beforehand knows them.
 */
import { Result } from "effect"
import { type Call, entrySchema, type Field, itemSchema } from "./Fields.ts"
import { check, type Node, type Problem, typesOf } from "./JsonSchema.ts"

/** How many words an option of every job takes: none, the next one, or one that may follow `=`. */
export type Takes = "none" | "value" | "optional"

/** Options of every job by their names, with dashes. */
export type Options = Readonly<Record<string, Takes>>

/** What stands before the function's name and after it. */
export interface Split {
  /** Options of every job, as they were written. */
  readonly options: ReadonlyArray<string>
  readonly help: boolean
  readonly name: string | undefined
  readonly rest: ReadonlyArray<string>
}

/** A word that is text although it begins with a dash: a number, or what no flag looks like. */
const isOperand = (word: string) => !word.startsWith("-") || word === "-" || !/^-(?:-|[A-Za-z]$)/.test(word)

const isHelp = (word: string) => word === "--help" || word === "-h"

/** Never a function's: who gives them means the server, or all of the arguments. */
export const jsonArgs = "json-args"

interface Taken {
  readonly name: string
  /** Absent: the flag stood alone. */
  readonly value: string | undefined
  /** Where to go on. */
  readonly next: number
}

/** The flag at a place, with its value. */
const takeFlag = (words: ReadonlyArray<string>, at: number, takes: Takes): Result.Result<Taken, string> => {
  const word = words[at] ?? ""
  const equals = word.indexOf("=")
  if (equals > 0) {
    const name = word.slice(0, equals)
    return takes === "none"
      ? Result.fail(`${name} takes no value`)
      : Result.succeed({ name, value: word.slice(equals + 1), next: at + 1 })
  }
  if (takes !== "value") return Result.succeed({ name: word, value: undefined, next: at + 1 })
  const value = words[at + 1]
  return value === undefined || (value.startsWith("--") && value !== "--") || value === "--"
    ? Result.fail(`flag needs an argument: ${word} (a value that begins with two dashes is written ${word}=VALUE)`)
    : Result.succeed({ name: word, value, next: at + 2 })
}

/** Splits the words at the function's name. */
export const splitStart = (words: ReadonlyArray<string>, options: Options): Result.Result<Split, string> =>
  Result.gen(function*() {
    const before: Array<string> = []
    let help = false
    let at = 0
    for (let word = words[at]; word !== undefined; word = words[at]) {
      if (isHelp(word)) {
        help = true
        at += 1
        continue
      }
      if (word === "--") {
        at += 1
        break
      }
      if (isOperand(word)) break
      const takes = options[word.split("=")[0] ?? ""]
      if (takes === undefined) return yield* Result.fail(`unknown flag: ${word}`)
      const { next } = yield* takeFlag(words, at, takes)
      before.push(...words.slice(at, next))
      at = next
    }
    return { options: before, help, name: words[at], rest: words.slice(at + 1) }
  })

/** The words after the function's name, told apart. */
export interface Given {
  /** By their place. */
  readonly operands: ReadonlyArray<string>
  /** What followed `--`. */
  readonly after: ReadonlyArray<string>
  readonly fields: ReadonlyMap<Field, ReadonlyArray<string>>
  readonly json: string | undefined
  readonly options: ReadonlyArray<string>
  readonly help: boolean
}

/** Tells the words apart. The function's own flags come before options of the same name. */
export const readWords = (
  call: Call,
  words: ReadonlyArray<string>,
  options: Options
): Result.Result<Given, string> =>
  Result.gen(function*() {
    const operands: Array<string> = [], after: Array<string> = [], rest: Array<string> = []
    const fields = new Map<Field, Array<string>>()
    let json: string | undefined
    let help = false
    let at = 0
    const add = (field: Field, value: string) => fields.set(field, [...fields.get(field) ?? [], value])
    for (let word = words[at]; word !== undefined; word = words[at]) {
      if (word === "--") {
        after.push(...words.slice(at + 1))
        break
      }
      if (isHelp(word)) {
        help = true
        at += 1
        continue
      }
      if (isOperand(word)) {
        operands.push(word)
        at += 1
        continue
      }
      const name = word.split("=")[0] ?? ""
      if (name === `--${jsonArgs}`) {
        if (json !== undefined) return yield* Result.fail(`${name} is given twice`)
        const taken = yield* takeFlag(words, at, "value")
        json = taken.value ?? ""
        at = taken.next
        continue
      }
      const field = call.flags.find(({ flag, name: own }) => name === `--${flag}` || name === `--${own}`)
      const negated = call.flags.find(({ flag, kind }) => kind === "switch" && name === `--no-${flag}`)
      if (field !== undefined) {
        const taken = yield* takeFlag(words, at, field.kind === "switch" ? "optional" : "value")
        add(field, taken.value ?? "true")
        at = taken.next
        continue
      }
      if (negated !== undefined) {
        add(negated, "false")
        at += 1
        continue
      }
      const takes = options[name]
      if (takes === undefined) {
        return yield* Result.fail(
          name.startsWith("--")
            ? `unknown flag: ${name}`
            : `unknown shorthand flag: ${name} (an argument that begins with a dash stands behind --)`
        )
      }
      const { next } = yield* takeFlag(words, at, takes)
      rest.push(...words.slice(at, next))
      at = next
    }
    return { operands, after, fields, json, options: rest, help }
  })

/** Lists of words for a program, by the names they usually have. */
const programWords = ["argv", "args"]

/** Where the words behind `--` go if the function takes no more by their place than stand before it. */
export const restField = ({ flags, places }: Call, before = places.length): Field | undefined =>
  before < places.length || places.at(-1)?.kind === "list"
    ? undefined
    : flags.find(({ kind, name }) => kind === "list" && programWords.includes(name))

const INTEGER = /^[+-]?\d+$/
const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i

/** One word as JSON: what the types allow, the narrowest first. Text that fits no type stays text, for the check to refuse. */
const scalar = (text: string, types: ReadonlySet<string>): unknown => {
  if ((types.has("integer") && INTEGER.test(text)) || (types.has("number") && NUMBER.test(text))) return Number(text)
  if (types.has("boolean") && (text === "true" || text === "false")) return text === "true"
  if (types.has("null") && text === "null") return null
  return text
}

const parsed = (text: string, what: string): Result.Result<unknown, string> => {
  try {
    return Result.succeed(JSON.parse(text) as unknown)
  } catch (error) {
    return Result.fail(`${what} is no JSON: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** How a field is called where it was given. */
const called = ({ flag, word }: Field) => word ?? `--${flag}`

const entriesOf = (
  field: Field,
  texts: ReadonlyArray<string>,
  root: Node
): Result.Result<Readonly<Record<string, unknown>>, string> =>
  Result.gen(function*() {
    const types = typesOf(entrySchema(field.schema, root) ?? {}, root)
    const entries = new Map<string, unknown>()
    for (const text of texts) {
      const at = text.indexOf("=")
      if (at < 1) return yield* Result.fail(`${called(field)} takes NAME=VALUE, not ${JSON.stringify(text)}`)
      const name = text.slice(0, at)
      if (entries.has(name)) return yield* Result.fail(`${called(field)} has ${name} twice`)
      entries.set(name, scalar(text.slice(at + 1), types))
    }
    return Object.fromEntries(entries)
  })

const valueOf = (field: Field, texts: ReadonlyArray<string>, root: Node): Result.Result<unknown, string> => {
  const [text = "", another] = texts
  switch (field.kind) {
    case "map":
      return entriesOf(field, texts, root)
    case "list": {
      const types = typesOf(itemSchema(field.schema, root), root)
      return Result.succeed(texts.map((each) => scalar(each, types)))
    }
    case "json":
      return another === undefined
        ? parsed(text, called(field))
        : Result.fail(`${called(field)} is given twice`)
    case "switch":
    case "text":
      return another === undefined
        ? Result.succeed(scalar(text, typesOf(field.schema, root)))
        : Result.fail(`${called(field)} is given twice`)
  }
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** As cobra says it, on which people's scripts and habits rest. */
const countText = (least: number, most: number, received: number) =>
  least === most
    ? `accepts ${least} arg(s), received ${received}`
    : most === Infinity
    ? `requires at least ${least} arg(s), only received ${received}`
    : `accepts between ${least} and ${most} arg(s), received ${received}`

/** Words of a problem: which argument, what it should be, what it is. */
const told = (call: Call, args: Readonly<Record<string, unknown>>) => ({ expected, path }: Problem): string => {
  const [name = "", ...inside] = path
  const field = [...call.places, ...call.flags].find((one) => one.name === name)
  const place = `${field === undefined ? name : called(field)}${inside.map((part) => `.${part}`).join("")}`
  let value: unknown = args
  for (const part of path) {
    value = isObject(value) || Array.isArray(value)
      ? Object.entries(value).find(([key]) => key === part)?.[1]
      : undefined
  }
  if (value === undefined) return `${place} is missing: ${expected}`
  const text = JSON.stringify(value)
  return `${place === "" ? "the arguments" : place} must be ${expected}, not ${
    text.length > 80 ? `${text.slice(0, 79)}…` : text
  }`
}

/** The function's arguments as JSON, checked; or what is wrong with them, in one line. */
export const assemble = (call: Call, given: Given): Result.Result<Readonly<Record<string, unknown>>, string> =>
  Result.gen(function*() {
    const { flags, places, root } = call
    const base = given.json === undefined ? {} : yield* parsed(given.json, `--${jsonArgs}`)
    if (!isObject(base)) return yield* Result.fail(`--${jsonArgs} is no JSON object`)
    const entries = new Map<string, unknown>(Object.entries(base))
    const texts = new Map(given.fields)

    const rest = given.after.length > 0 ? restField(call, given.operands.length) : undefined
    const operands = [...given.operands, ...(rest === undefined ? given.after : [])]
    if (rest !== undefined) texts.set(rest, [...texts.get(rest) ?? [], ...given.after])

    // The last place takes all that is left, if it is a list; x=2 goes to the only map there is.
    const last = places.at(-1)
    const most = last?.kind === "list" ? Infinity : places.length
    const [map, ...otherMaps] = flags.filter(({ kind }) => kind === "map")
    const extra = map === undefined || otherMaps.length > 0 ? [] : operands.slice(most)
    if (map !== undefined && extra.length > 0 && extra.every((text) => /^[A-Za-z_][\w.-]*=/.test(text))) {
      texts.set(map, [...texts.get(map) ?? [], ...extra])
      operands.length = most
    }
    const least = places.filter(({ name, required }) => required && !entries.has(name)).length
    if (operands.length < least || operands.length > most) {
      return yield* Result.fail(countText(least, most, operands.length))
    }
    operands.forEach((operand, at) => {
      const field = places[Math.min(at, places.length - 1)]
      if (field !== undefined) texts.set(field, [...texts.get(field) ?? [], operand])
    })

    for (const [field, values] of texts) {
      const value = yield* valueOf(field, values, root)
      const former = entries.get(field.name)
      entries.set(
        field.name,
        field.kind === "map" && isObject(former) && isObject(value) ? { ...former, ...value } : value
      )
    }
    const missing = flags.filter(({ name, required }) => required && !entries.has(name))
    if (missing.length > 0) {
      return yield* Result.fail(`required flag(s) ${missing.map(({ flag }) => `"${flag}"`).join(", ")} not set`)
    }
    const args: Readonly<Record<string, unknown>> = Object.fromEntries(entries)
    const problems = check(args, root, root)
    if (problems.length > 0) return yield* Result.fail([...new Set(problems.map(told(call, args)))].join("; "))
    return args
  })

/** The words a field's schema has to choose from, for completion. */
export const choicesOf = (node: Node): ReadonlyArray<string> => {
  const values = node["enum"]
  return Array.isArray(values) ? values.filter((value) => typeof value === "string") : []
}
