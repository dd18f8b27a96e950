import { assert, describe, it } from "@effect/vitest"
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js"
import { Arbitrary, Effect, Schema } from "effect"
import { StartJob, StopJob } from "../../src/schemas/api/StartJob.ts"
import { numbers } from "../log/Model.ts"
import { Hand } from "./FakeApi.ts"
import * as Memory from "./Memory.ts"

interface Operation {
  readonly operationId: string
  readonly parameters: ReadonlyArray<{ readonly name: string; readonly in: string }>
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: object }>> }
  readonly responses: Readonly<
    Record<string, { readonly content?: Readonly<Record<string, { readonly schema: object }>> }>
  >
}

interface Document {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly schemas: Readonly<Record<string, object>> }
}

/** Validates answers as the document has them. */
const checker = (document: Document) => {
  const ajv = new Ajv2020({ strict: false, allErrors: true })
  ajv.addFormat("binary", true)
  ajv.addSchema({ $id: "openapi", components: document.components })
  const known = new Map<object, ValidateFunction>()
  return (schema: object) => {
    const before = known.get(schema)
    if (before !== undefined) return before
    const local = JSON.parse(JSON.stringify(schema).replaceAll("\"#/", "\"openapi#/")) as object
    const made = ajv.compile(local)
    known.set(schema, made)
    return made
  }
}

const operationsOf = ({ paths }: Document) =>
  Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation }))
  )

/** Something else of the same JSON: a field dropped, renamed or given another kind of value. */
const spoiled = (value: unknown, pick: (below: number) => number): unknown => {
  const others: ReadonlyArray<unknown> = [null, "", "x", -1, 1.5, true, [], {}, [[]], "\u0000", "9".repeat(50)]
  if (typeof value !== "object" || value === null || Array.isArray(value) || pick(4) === 0) {
    return others[pick(others.length)]
  }
  const entries: Array<[string, unknown]> = Object.entries(value)
  const at = pick(entries.length + 1)
  const entry = entries[at]
  if (entry === undefined) return { ...value, extra: 1 }
  entries[at] = [entry[0], spoiled(entry[1], pick)]
  return Object.fromEntries(entries)
}

const ids = ["one", "two", "ended", "none", "-bad", "a b", "%zz", "%2e%2e%2f", "x".repeat(200), "ä"]
const words = [
  "",
  "0",
  "1",
  "5",
  "-1",
  "1e9",
  "x",
  "true",
  "false",
  "ended",
  "running",
  "all",
  "stdout",
  "bob",
  "alice",
  "é"
]
const ranges = [
  "bytes=0-",
  "bytes=2-4",
  "bytes=-3",
  "bytes=99999-",
  "bytes=5-1",
  "x",
  "bytes=0-0,2-3",
  "bytes=-0",
  "bytes=-"
]
const callers = ["alice", "bob", "admin", "none", "nobody"]

describe("the OpenAPI document", () => {
  it.live(
    "names everything that is answered: generated requests, good and bad, get what it says",
    () =>
      Effect.gen(function*() {
        const hand = yield* Hand
        const ask = yield* Memory.make({ maximumBodyBytes: 100_000 })
        const prepare = Effect.gen(function*() {
          for (const [id, as] of [["one", "alice"], ["ended", "alice"], ["two", "bob"]] as const) {
            const made = yield* ask("/v1/jobs", { method: "POST", as, body: JSON.stringify({ function: "fib", id }) })
            if (made.status !== 201) continue
            yield* hand.write(id, "stdout", Buffer.from("0123456789"))
            yield* hand.write(id, "stderr", Uint8Array.of(0xff, 1))
            if (id !== "ended") continue
            yield* hand.leave("ended", "file.txt", Buffer.from("content"))
            yield* hand.end("ended")
          }
        })
        yield* prepare
        const document = (yield* Effect.promise(async () =>
          (await Effect.runPromise(ask("/openapi.json"))).json()
        )) as Document
        assert.strictEqual(document.openapi, "3.1.0")
        const validator = checker(document)
        const operations = operationsOf(document)
        assert.lengthOf(operations, 10)
        assert.isTrue(operations.every(({ operation }) => !("security" in operation)))
        const pick = numbers(Number(process.env["SEED"] ?? 7))
        const oneOf = <A>(values: ReadonlyArray<A>): A => values[pick(values.length)] as A
        const starts = yield* Arbitrary.sampleEffect(Arbitrary.schema(StartJob), { count: 100, seed: 1 })
        const stops = yield* Arbitrary.sampleEffect(Arbitrary.schema(StopJob), { count: 30, seed: 2 })
        const startJson = Schema.encodeSync(StartJob)
        const seen = new Set<string>()

        for (let n = 0; n < 3000; n++) {
          const { method, operation, path } = oneOf(operations)
          const filled = path.replace("{id}", oneOf(ids)).replace(
            "{path}",
            oneOf(["file.txt", "none", "a/b", "a%2f..%2fb", "%00"])
          )
            .replace("{name}", oneOf(["fib", "none", "%"]))
          const query = operation.parameters.filter(({ in: where }) => where === "query" && pick(3) === 0)
            .map(({ name }) => `${name}=${encodeURIComponent(oneOf(words))}`)
          // What is followed has to end for this test.
          if (operation.operationId === "events") query.push("wait=false")
          const headers: Record<string, string> = {}
          if (pick(2) === 0) headers["range"] = oneOf(ranges)
          if (pick(4) === 0) headers["accept"] = oneOf(["application/x-ndjson", "text/event-stream", "*/*"])
          if (pick(8) === 0) headers["last-event-id"] = oneOf(["3@run", "end@x", "x", "@", "5@%"])
          const good = operation.operationId === "start"
            ? pick(2) === 0
              ? {
                function: oneOf(["fib", "fib", "fib", "full", "away", "none"]),
                args: { position: oneOf([1, "x"]) },
                id: oneOf(["same", "same", "one", `new-${n}`])
              }
              : startJson(oneOf(starts))
            : oneOf(stops)
          const body = pick(3) === 0 ? spoiled(good, pick) : good
          const text = pick(12) === 0 ? oneOf(["", "{", "nul", "\u0000", "x".repeat(200_000)]) : JSON.stringify(body)
          if (pick(15) === 0) headers["content-type"] = oneOf(["text/plain", "application/json; charset=utf-8", "x"])
          const response = yield* ask(`${filled}${query.length === 0 ? "" : `?${query.join("&")}`}`, {
            method,
            as: oneOf(callers),
            headers,
            ...(method === "POST" ? { body: text } : {})
          })
          const answered = yield* Effect.promise(() => response.text())
          const where = `${method} ${filled}?${query.join("&")} ${JSON.stringify(headers)} ${
            text.slice(0, 300)
          } -> ${response.status} ${answered.slice(0, 300)}`
          // A path of another form is none of this operation's.
          const problem = response.headers.get("content-type") === "application/problem+json"
            ? JSON.parse(answered) as { readonly type: string }
            : undefined
          if (
            problem?.type === "urn:stoker:problem:unknown-path" || problem?.type === "urn:stoker:problem:unknown-method"
          ) continue
          assert.notStrictEqual(response.status, 500, where)
          const said = operation.responses[response.status]
          assert.isDefined(said, where)
          seen.add(`${operation.operationId} ${response.status}`)
          if (response.status === 204) {
            yield* prepare
            continue
          }
          const type = String(response.headers.get("content-type")).split(";")[0] ?? ""
          const schema = said?.content?.[type]?.schema
          assert.isDefined(schema, `${type}: ${where}`)
          const value: unknown = type.endsWith("json") && !type.endsWith("ndjson") ? JSON.parse(answered) : answered
          const validate = validator(schema ?? {})
          assert.isTrue(validate(value), `${JSON.stringify(validate.errors)} ${where}`)
        }
        // The dice found the good and the bad of each of them.
        for (
          const one of [
            "start 200",
            "start 201",
            "start 400",
            "start 401",
            "start 403",
            "start 409",
            "start 413",
            "start 415",
            "start 422",
            "start 503",
            "list 200",
            "list 400",
            "status 200",
            "status 404",
            "stop 200",
            "stop 400",
            "delete 204",
            "delete 409",
            "output 200",
            "output 206",
            "output 416",
            "events 200",
            "events 400",
            "events 404",
            "artefact 200",
            "artefact 206",
            "artefact 404",
            "functions 200",
            "function 200"
          ]
        ) assert.isTrue(seen.has(one), one)
      }).pipe(Effect.scoped, Effect.provide(Memory.layer())),
    60_000
  )
})
