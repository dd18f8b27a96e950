import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as JobApiMemory from "../api/JobApiMemory.ts"
import { pythonRun, withDoor } from "./Door.ts"

const unknown = (id: string) => ["NOT_FOUND", `there is no job ${id}. Check the id; \`list\` shows your jobs.`]

describe("stoker.v1 from Python", () => {
  it.live(
    "starts, follows, reads, stops, lists and deletes; each error has its code and remedy",
    () =>
      withDoor(({ port }) =>
        Effect.gen(function*() {
          const told = yield* pythonRun<Record<string, unknown>>("stoker_v1.py", port)
          assert.deepStrictEqual(told["started"], ["first", "alice", "command", "{\"argv\":[\"echo\",\"hello\"]}"])
          assert.deepStrictEqual(told["events"], ["begun", "output", "ended"])
          assert.strictEqual(told["output"], "hello\n")
          assert.deepStrictEqual(told["ended"], [3, "exited", 0, "succeeded"])
          assert.isTrue(told["times"])
          assert.isTrue(told["status"])
          assert.deepStrictEqual(told["last"], ["line 3\n", "line 4\n"])
          assert.strictEqual(told["stderr"], "line 1\nline 3\n")
          assert.deepStrictEqual(told["read"], [["line 1\n", "line 2\n"], "21", "run-1"])
          assert.deepStrictEqual(told["paused"], ["begun", "paused"])
          assert.deepStrictEqual(told["early"], ["FAILED_PRECONDITION", "job sleeper has not ended. Stop it first."])
          assert.deepStrictEqual(told["stopped"], ["stopped", "enough"])
          assert.isTrue(told["again"])
          assert.deepStrictEqual(told["page"], [["sleeper", "lines"], ["first"]])
          assert.strictEqual(told["bobs"], 0)
          assert.deepStrictEqual(told["functions"], [["noop", "Noop"], ["fib", "Fibonacci"], ["command", "command"]])
          assert.deepStrictEqual(told["artefact"], [[0, "what ", "left.txt"], [5, "it le", ""], [10, "ft", ""]])
          assert.deepStrictEqual(told["no artefact"], ["NOT_FOUND", "no artefact other is kept for api/alice/first"])
          assert.deepStrictEqual(told["call"], ["{\"number\":3}", "{\"number\":3}", "{\"number\":3}", "{}"])
          assert.strictEqual(told["admin"], "alice")
          assert.deepStrictEqual(told["deleted"], unknown("first"))

          const bad = told["bad"] as Record<string, readonly [string, string]>
          assert.deepStrictEqual(Object.fromEntries(Object.entries(bad).map(([name, [code]]) => [name, code])), {
            nothing: "INVALID_ARGUMENT",
            json: "INVALID_ARGUMENT",
            arguments: "INVALID_ARGUMENT",
            limits: "INVALID_ARGUMENT",
            policy: "INVALID_ARGUMENT",
            terms: "INVALID_ARGUMENT",
            wait: "INVALID_ARGUMENT",
            grace: "INVALID_ARGUMENT",
            offset: "INVALID_ARGUMENT",
            owner: "PERMISSION_DENIED",
            conflict: "ALREADY_EXISTS",
            defect: "INTERNAL",
            forbidden: "PERMISSION_DENIED"
          })
          assert.match(bad["limits"]?.[1] ?? "", /memoryBytes/)
          assert.match(bad["defect"]?.[1] ?? "", /^a defect of Stoker, [a-z0-9]{8} in the worker's log/)
          // The words of a defect are for the log alone.
          assert.notMatch(bad["defect"]?.[1] ?? "", /a bug/)
          assert.deepStrictEqual(told["details"], ["UNKNOWN_JOB", "stoker", "Check the id; `list` shows your jobs.", 5])

          // Somebody else's and nobody's are the same to a caller; what can be no id is told as that, whoever asks.
          const ids = told["ids"] as Record<string, ReadonlyArray<unknown>>
          for (const answers of Object.values(ids)) {
            assert.deepStrictEqual(answers, [
              ...["lines", "unknown"].map(unknown),
              ...["../../etc", ""].map((id) => ["INVALID_ARGUMENT", `${id} is no job id. Check it.`])
            ])
          }
          assert.strictEqual(Object.keys(ids).length, 6)
        })
      ),
    60_000
  )

  it.live(
    "takes the caller from the certificate alone, and all that a request may say",
    () =>
      withDoor(({ port }) =>
        Effect.gen(function*() {
          const told = yield* pythonRun<Record<string, unknown>>("stoker_v1_request.py", port)
          assert.strictEqual(told["spoofed"], "alice")
          const { started } = yield* JobApiMemory.Memory
          const [spoofed, full, code] = yield* started
          assert.strictEqual(spoofed?.caller.name, "alice")
          assert.strictEqual(spoofed?.caller.via, "certificate")
          assert.match(spoofed?.caller.from ?? "", /^127\.0\.0\.1:\d+$/)
          assert.deepStrictEqual(full?.request, {
            function: "command",
            args: {
              command: "cat",
              files: [{ path: "a", contentBase64: "AP8=", executable: true }],
              stdinBase64: "aW4=",
              env: { A: "b" },
              artefacts: ["out"]
            },
            id: "full",
            class: "oci-small",
            webhook: "https://example.com/",
            waitMs: 1,
            limits: { wallMs: 1000, memoryBytes: 8_388_608, cpus: 0.5, oomGroup: false, outputPolicy: "kill" },
            terms: {
              priority: "high",
              notBeforeMs: 1500,
              expiresAtMs: 9_000_000_000_000,
              retry: { on: ["Lost"], maxAttempts: 2, backoffMs: 10 }
            },
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
          })
          assert.deepStrictEqual(code?.request.args, { language: "python", source: "", cache: false, args: ["x"] })
        })
      ),
    60_000
  )
})
