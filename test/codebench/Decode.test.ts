import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { languageNames } from "../../src/functions/Languages.ts"
import { requestHash } from "../../src/layers/intake/RequestHash.ts"
import { type CodeBenchMessage, decode } from "../../src/schemas/dialects/CodeBench.ts"

const bytes = (value: unknown) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value))
const message = (value: unknown, more: Partial<CodeBenchMessage> = {}) => decode({ body: bytes(value), ...more })

const jobOf = (value: unknown, more: Partial<CodeBenchMessage> = {}) => {
  const result = message(value, more)
  if (Result.isFailure(result)) assert.fail(result.failure.message)
  return result.success
}

const refusalOf = (result: ReturnType<typeof decode>) => {
  if (Result.isSuccess(result)) assert.fail("it was accepted")
  return result.failure
}

describe("CodeBench jobs", () => {
  it("the API server's form is a code job of nobody in particular", () => {
    assert.deepStrictEqual(jobOf({ id: "b7a1", code: "print(1)", language: "python" }), {
      id: "b7a1",
      owner: "codebench",
      intake: "codebench",
      function: "code",
      args: { language: "python", source: "print(1)" },
      limits: {}
    } as never)
  })

  it("the README's message, as it stands there, is a C job", () => {
    const sent =
      "{\"id\":\"666\", \"type\": \"code\", \"code\":\"#include <stdio.h>\\r\\nint main() {\\r\\n   \\/\\/ printf() displays"
      + " the string inside quotation\\r\\n   printf(\\\"Hello, World!\\\");\\r\\n   return 0;\\r\\n}\"}\r\n"
    const job = jobOf(sent)
    assert.strictEqual(job.id, "666")
    assert.strictEqual(job.function, "code")
    assert.deepStrictEqual(job.args, {
      language: "c",
      source: "#include <stdio.h>\r\nint main() {\r\n   // printf() displays the string inside quotation\r\n"
        + "   printf(\"Hello, World!\");\r\n   return 0;\r\n}"
    })
  })

  it("the README's command is a command job", () => {
    const job = jobOf({ id: "1", type: "command", command: "ls -la /tmp" })
    assert.strictEqual(job.function, "command")
    assert.deepStrictEqual(job.args, { command: "ls -la /tmp" })
  })

  it("type code may name its language", () =>
    assert.deepInclude(jobOf({ id: "1", type: "code", language: "go", code: "x" }), {
      args: { language: "go", source: "x" }
    }))

  it("a variant is passed on, but for the TODO of the old worker", () => {
    const args = (variant: unknown) => jobOf({ id: "1", language: "c", code: "x", variant }).args
    assert.deepStrictEqual(args("clang"), { language: "c", source: "x", variant: "clang" })
    for (const none of ["TODO", "", null]) assert.deepStrictEqual(args(none), { language: "c", source: "x" })
  })

  it("fields a Go client left empty are absent, unknown ones ignored", () => {
    const job = jobOf({ id: "1", type: "command", command: "ls", code: "", language: "", stdin: 7 })
    assert.strictEqual(job.function, "command")
    assert.deepStrictEqual(job.args, { command: "ls" })
    assert.strictEqual(jobOf(`{"id":"1","type":"command","command":"ls","__proto__":{"id":"2"}}`).id, "1")
  })

  it("every language of the wire is one that code knows", () => {
    for (const language of ["python", "c", "cpp", "go"]) {
      assert.deepInclude(jobOf({ id: "1", language, code: "x" }).args as object, { language })
      assert.include(languageNames, language)
    }
  })

  it("the owner is the broker's user where it can be one", () => {
    const job = { id: "1", language: "c", code: "x" }
    assert.strictEqual(jobOf(job, { userId: "alice" }).owner, "alice")
    assert.strictEqual(jobOf(job, { userId: "../alice" }).owner, "codebench")
  })

  it("a trace goes with the job, unless it is too long to be one", () => {
    const job = { id: "1", language: "c", code: "x" }
    assert.strictEqual(jobOf(job, { traceparent: "00-a-b-01" }).traceparent, "00-a-b-01")
    assert.notProperty(jobOf(job, { traceparent: "0".repeat(129) }), "traceparent")
  })

  it("bytes that are not UTF-8 become U+FFFD, as before", () => {
    const body = Buffer.concat([bytes(`{"id":"1","language":"c","code":"`), Buffer.from([0xe9]), bytes(`"}`)])
    assert.deepInclude(Result.getOrThrow(decode({ body })).args as object, { source: "\uFFFD" })
  })

  it("the deepest and the widest JSON is just a wrong message", () => {
    assert.strictEqual(refusalOf(message("[".repeat(2_000_000))).reason, "it is not JSON")
    assert.strictEqual(
      refusalOf(message(`${"[".repeat(100_000)}${"]".repeat(100_000)}`)).reason,
      "it is not a JSON object"
    )
  })
})

describe("CodeBench messages that are no jobs", () => {
  const ok = { id: "7", language: "c", code: "x" }
  for (
    const [name, sent, reason, id] of [
      ["nothing", "", "it is not JSON", undefined],
      ["not JSON", "int main", "it is not JSON", undefined],
      ["null", "null", "it is not a JSON object", undefined],
      ["a list", "[]", "it is not a JSON object", undefined],
      ["no id", { ...ok, id: undefined }, "its id is not usable", undefined],
      ["an id that is a number", { ...ok, id: 7 }, "its id is not usable", undefined],
      ["an id that climbs", { ...ok, id: "../../etc/passwd" }, "without '..'", undefined],
      ["an id with .. inside", { ...ok, id: "a..b" }, "without '..'", undefined],
      ["an id that is too long", { ...ok, id: "a".repeat(129) }, "1 to 128 characters", undefined],
      ["an empty id", { ...ok, id: "" }, "1 to 128 characters", undefined],
      ["a language that is not known", { ...ok, language: "rust" }, `the language "rust" is not known`, "7"],
      ["a type that is not known", { ...ok, type: "shell" }, `the type "shell" is not known`, "7"],
      ["neither language nor type", { id: "7", code: "x" }, "neither a language nor a type", "7"],
      ["no code", { id: "7", language: "c" }, "there is no code", "7"],
      ["empty code", { ...ok, code: "" }, "there is no code", "7"],
      ["code that is no text", { ...ok, code: ["x"] }, `a field is wrong: Expected string | null at ["code"]`, "7"],
      ["code with NUL", { ...ok, code: "a\u0000" }, "the code has a NUL character", "7"],
      ["no command", { id: "7", type: "command", code: "x" }, "there is no command", "7"],
      ["a command with NUL", { id: "7", type: "command", command: "\u0000" }, "the command has a NUL character", "7"],
      ["a language as long as a book", { ...ok, language: "x".repeat(1e6) }, `x…" is not known`, "7"]
    ] as const
  ) {
    it(`${name}: refused with the reason, and the id where it is usable`, () => {
      const refusal = refusalOf(message(sent))
      assert.include(refusal.reason, reason)
      assert.isBelow(refusal.reason.length, 400)
      assert.isAbove(refusal.remedy.length, 10)
      assert.strictEqual(refusal.id, id as never)
    })
  }

  it("too large: not parsed, and the id read only where all clients put it", () => {
    const large = (text: string) => refusalOf(decode({ body: bytes(text) }, 100))
    const filling = "x".repeat(100)
    const first = large(`{ "id": "7", "code": "${filling}`)
    assert.strictEqual(first.id, "7" as never)
    assert.match(first.reason, /^it has \d+ bytes, more than 100$/)
    assert.isUndefined(large(`{"code":"${filling}","id":"7"}`).id)
    assert.isUndefined(large(`{"id":"../7","code":"${filling}"}`).id)
    assert.isUndefined(large(`{"code":{"id":"7"},"x":"${filling}"}`).id)
  })
})

describe("the hash of a request", () => {
  const hash = (sent: object, more = {}) => requestHash(jobOf(sent, more))
  const job = { id: "1", language: "c", code: "x" }

  it("is the same for the same request, however it is written", () => {
    assert.match(hash(job), /^[0-9a-f]{64}$/)
    assert.strictEqual(hash({ code: "x", language: "c", id: "1" }), hash(job))
    assert.strictEqual(hash({ id: "1", type: "code", code: "x" }), hash(job))
    assert.strictEqual(hash({ ...job, variant: "TODO", unknown: 1 }), hash(job))
    assert.strictEqual(hash({ ...job, id: "2" }, { userId: "alice", traceparent: "00-a-b-01" }), hash(job))
  })

  it("is another for another request", () => {
    const hashes = [
      job,
      { ...job, code: "y" },
      { ...job, language: "cpp" },
      { ...job, variant: "clang" },
      { id: "1", type: "command", command: "x" }
    ].map((sent) => hash(sent))
    assert.strictEqual(new Set(hashes).size, hashes.length)
  })
})
