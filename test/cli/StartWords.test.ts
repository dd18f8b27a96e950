/** Arguments as words: what is written is what is meant, and what is refused here is what the schema refuses. */
import { assert, describe, it } from "@effect/vitest"
import { Ajv2020 } from "ajv/dist/2020.js"
import { Effect, Result, Schema } from "effect"
import { type Call, callOf, type Field } from "../../src/cli/jobs/Fields.ts"
import { check, describe as inWords } from "../../src/cli/jobs/JsonSchema.ts"
import { helpText } from "../../src/cli/jobs/StartHelp.ts"
import { startOptions } from "../../src/cli/jobs/StartOptions.ts"
import { assemble, readWords, splitStart } from "../../src/cli/jobs/StartWords.ts"
import { builtIns } from "../../src/functions/BuiltIn.ts"
import { functionViewOf } from "../../src/layers/api/Views.ts"
import { make } from "../../src/schemas/Function.ts"
import { pick, type Random, randomOf } from "../support/Random.ts"

/** A function with a field of every kind. */
const everything = callOf(functionViewOf(make({
  name: "everything",
  description: "takes everything.",
  args: Schema.Struct({
    first: Schema.Int.check(Schema.isBetween({ minimum: -50, maximum: 50 })),
    second: Schema.optionalKey(Schema.String),
    ratio: Schema.optionalKey(Schema.Finite),
    mustBe: Schema.Boolean,
    mode: Schema.optionalKey(Schema.Literals(["fast", "slow", "-x"])),
    nothing: Schema.optionalKey(Schema.NullOr(Schema.Int)),
    env: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
    values: Schema.optionalKey(Schema.Record(Schema.String, Schema.Finite)),
    list: Schema.optionalKey(Schema.Array(Schema.String)),
    numbers: Schema.optionalKey(Schema.Array(Schema.Int)),
    id: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(20))),
    nested: Schema.optionalKey(
      Schema.Struct({ a: Schema.Int, deep: Schema.Array(Schema.Struct({ b: Schema.String })) })
    )
  }),
  positional: { first: "first", second: "second" },
  program: () => Effect.die("never run")
})))

const alphabet = [
  "a",
  "B",
  "7",
  "-",
  "--",
  "=",
  " ",
  "\n",
  "@",
  "é",
  "𝄞",
  "\"",
  "'",
  "$",
  "\\",
  "{",
  "true",
  "null",
  "."
]

const textOf = (random: Random) => Array.from({ length: random(6) }, () => pick(random, alphabet) ?? "").join("")
const nameOf = (random: Random) => `n${textOf(random).replaceAll("=", "")}`
const numberOf = (random: Random) =>
  [random(100) - 50, random(1000) / 8, -(1 + random(1000)) / 16, 1e21, 1e-9][random(5)] ?? 0

const some = <A>(random: Random, make: () => A): ReadonlyArray<A> => Array.from({ length: random(4) }, make)

type Args = Readonly<Record<string, unknown>>

/** Arguments that the schema takes, some of them left out. */
const anyArgs = (random: Random): Args => {
  const maybe = (name: string, make: () => unknown): Args => random(2) === 0 ? {} : { [name]: make() }
  const entries = (make: () => unknown) => Object.fromEntries(some(random, () => [nameOf(random), make()]))
  return {
    first: random(101) - 50,
    mustBe: random(2) === 0,
    ...maybe("second", () => textOf(random)),
    ...maybe("ratio", () => numberOf(random)),
    ...maybe("mode", () => pick(random, ["fast", "slow", "-x"])),
    ...maybe("nothing", () => random(2) === 0 ? null : random(100)),
    ...maybe("env", () => ({ n: "", ...entries(() => textOf(random)) })),
    ...maybe("values", () => ({ n: 1, ...entries(() => numberOf(random)) })),
    ...maybe("list", () => ["x", ...some(random, () => textOf(random))]),
    ...maybe("numbers", () => [3, ...some(random, () => random(100) - 50)]),
    ...maybe("id", () => textOf(random)),
    ...maybe("nested", () => ({ a: random(9), deep: some(random, () => ({ b: textOf(random) })) }))
  }
}

const wordOf = (value: unknown) => typeof value === "string" ? value : JSON.stringify(value)

/** How somebody would write a field's value, in one of the ways there are. */
const flagWords = (random: Random, field: Field, value: unknown): ReadonlyArray<ReadonlyArray<string>> => {
  const pair = (text: string) =>
    random(2) === 0 && !text.startsWith("--") ? [`--${field.flag}`, text] : [`--${field.flag}=${text}`]
  switch (field.kind) {
    case "switch":
      return [
        value === true ? [`--${field.flag}`] : random(2) === 0 ? [`--no-${field.flag}`] : [`--${field.flag}=false`]
      ]
    case "map":
      return Object.entries(value as Args).map(([name, each]) => pair(`${name}=${wordOf(each)}`))
    case "list":
      return (value as ReadonlyArray<unknown>).map((each) => pair(wordOf(each)))
    case "json":
      return [pair(JSON.stringify(value))]
    case "text":
      return [pair(wordOf(value))]
  }
}

/** All of them, flags anywhere between the places. */
const wordsOf = (random: Random, call: Call, args: Args): ReadonlyArray<string> => {
  const places = call.places.filter(({ name }) => Object.hasOwn(args, name)).map(({ name }) => wordOf(args[name]))
  const flags = call.flags.flatMap((field) =>
    Object.hasOwn(args, field.name) ? flagWords(random, field, args[field.name]) : []
  )
  // Words that look like flags stand behind --, and so do those after them.
  const risky = places.findIndex((word) => /^-(?:-|[A-Za-z]$)/.test(word))
  const before = risky < 0 ? places : places.slice(0, risky)
  const groups: Array<ReadonlyArray<string>> = [...flags]
  let at = 0
  for (const word of before) {
    at += random(groups.length - at + 1)
    groups.splice(at, 0, [word])
    at += 1
  }
  return [...groups.flat(), ...(risky < 0 ? [] : ["--", ...places.slice(risky)])]
}

const read = (call: Call, words: ReadonlyArray<string>) =>
  Result.flatMap(readWords(call, words, startOptions), (given) => assemble(call, given))

describe("arguments as words", () => {
  it("come back as they were, in whatever order and form they are written", () => {
    for (let seed = 1; seed <= 3000; seed++) {
      const random = randomOf(seed)
      const args = anyArgs(random)
      const words = wordsOf(random, everything, args)
      const result = read(everything, words)
      assert.deepStrictEqual(
        Result.isSuccess(result) ? { ...result.success } : result.failure,
        args,
        `seed ${seed}: ${JSON.stringify(words)}`
      )
    }
  })

  it("come back from JSON too, and a flag is stronger than it", () => {
    const args = { first: 1, mustBe: true, env: { A: "1", B: "2" } }
    assert.deepStrictEqual(read(everything, ["--json-args", JSON.stringify(args)]), Result.succeed(args))
    assert.deepStrictEqual(
      read(everything, ["--json-args", JSON.stringify(args), "7", "--env", "B=3"]),
      Result.succeed({ ...args, first: 7, env: { A: "1", B: "3" } })
    )
  })

  it("have nothing of the object they are kept in", () => {
    const result = read(everything, ["1", "--must-be", "--env", "__proto__=x", "--env", "constructor=y"])
    assert.isTrue(Result.isSuccess(result))
    if (Result.isSuccess(result)) {
      assert.deepStrictEqual(Object.keys(result.success["env"] as object), ["__proto__", "constructor"])
    }
    assert.match(Result.isFailure(read(everything, ["1"])) ? "missing" : "", /missing/)
  })

  it("of the same name as an option of every job are the function's behind its name, the option's before it", () => {
    const split = splitStart(
      ["--id", "of-job", "everything", "1", "--must-be", "--id", "of-args", "--wall", "3s"],
      startOptions
    )
    assert.isTrue(Result.isSuccess(split))
    if (Result.isFailure(split)) return
    assert.deepStrictEqual([split.success.options, split.success.name], [["--id", "of-job"], "everything"])
    const given = readWords(everything, split.success.rest, startOptions)
    assert.deepStrictEqual(Result.map(given, ({ options }) => options), Result.succeed(["--wall", "3s"]))
    assert.deepStrictEqual(
      read(everything, split.success.rest),
      Result.succeed({ first: 1, mustBe: true, id: "of-args" })
    )
  })

  it("never throw, whatever the words are", () => {
    const pieces = [
      ...alphabet,
      "--env",
      "--nested",
      "--list=",
      "--json-args",
      "--must-be",
      "-1",
      "--",
      "everything",
      "-h",
      "x=1"
    ]
    for (let seed = 1; seed <= 3000; seed++) {
      const random = randomOf(seed)
      const words = Array.from({ length: random(8) }, () => pick(random, pieces) ?? "")
      assert.isBoolean(Result.isSuccess(read(everything, words)))
    }
  })
})

describe("the check of arguments", () => {
  const calls = [everything, ...builtIns.map((one) => callOf(functionViewOf(one)))]
  const values = (random: Random, depth: number): unknown =>
    [
      () => null,
      () => random(2) === 0,
      () => random(200) - 100,
      () => random(100) / 8,
      () => textOf(random),
      () => pick(random, ["c", "python", "fast", "http://x.example/"]),
      () => depth > 2 ? [] : some(random, () => values(random, depth + 1)),
      () =>
        depth > 2
          ? {}
          : Object.fromEntries(some(random, () => [pick(random, ["a", "b", "path", "n"]), values(random, depth + 1)]))
    ][random(8)]?.()

  for (const { flags, places, root, view } of calls) {
    it(`says of arguments of ${view.name} what a whole JSON Schema checker says`, () => {
      // What base64 and a URI are, neither of the two looks at.
      const validate = new Ajv2020({ strict: false, validateFormats: false }).compile(root)
      const names = [...flags, ...places].map(({ name }) => name)
      let right = 0
      for (let seed = 1; seed <= 2000; seed++) {
        const random = randomOf(seed)
        const good = view.name === "everything" ? anyArgs(random) : {}
        const args: Args = {
          ...good,
          ...Object.fromEntries(
            some(random, () => [pick(random, [...names, ...names, "unknown"]) ?? "unknown", values(random, 0)])
          )
        }
        const isRight = check(args, root, root).length === 0
        assert.strictEqual(isRight, validate(args), `seed ${seed}: ${JSON.stringify(args)}`)
        if (isRight) right += 1
      }
      assert.isAbove(right, 0)
    })
  }
})

describe("a function without a title", () => {
  const greet = make({
    name: "greet",
    description: "greets somebody.",
    args: Schema.Struct({ who: Schema.NonEmptyString, times: Schema.Int }),
    program: () => Effect.die("never run")
  })

  it("is named once in its help, and its bounds are English", () => {
    assert.match(helpText(callOf(functionViewOf(greet))), /^greet greets somebody\.\n/)
    assert.strictEqual(inWords({ type: "string", minLength: 1 }, {}), "text of at least 1 character")
    assert.strictEqual(inWords({ type: "string", minLength: 1, maxLength: 9 }, {}), "text of 1 to 9 characters")
  })

  it.effect("refuses wrong arguments in one line, without the gaps of several", () =>
    Effect.gen(function*() {
      const { reason } = yield* Effect.flip(greet.check({ who: "" }))
      assert.include(reason, "times")
      assert.notMatch(reason, /\n|  /)
    }))

  it("gives an image's arguments to the function behind its image, as docker does", () => {
    const call = callOf(
      functionViewOf(builtIns.find(({ name }) => name === "container") ?? assert.fail("it is not there"))
    )
    const args = Result.flatMap(
      readWords(call, ["debian:12", "--env", "A=b", "--", "sh", "-c", "echo hello"], startOptions),
      (given) => assemble(call, given)
    )
    assert.deepStrictEqual(
      Result.getOrThrow(args),
      { image: "debian:12", env: { A: "b" }, args: ["sh", "-c", "echo hello"] }
    )
    assert.match(helpText(call), /container image \[flags\] \[-- args\.\.\.\]/)
  })
})
