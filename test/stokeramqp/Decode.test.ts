import { assert, describe, it } from "@effect/vitest"
import { Option, Result } from "effect"
import { decode as decodeEvent, encode, outputOf, routingKeyOf } from "../../src/schemas/dialects/StokerEvent.ts"
import { decode, type DecodeOptions, type StokerMessage } from "../../src/schemas/dialects/StokerJob.ts"
import { JobId, Owner } from "../../src/schemas/Ids.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { backoffOf, standardRetry } from "../../src/schemas/Terms.ts"

const nowMs = 1_800_000_000_000
const options: DecodeOptions = {
  trust: { defaultOwner: Owner.make("stoker"), spokesmen: ["worker"], requireUser: false },
  retry: standardRetry,
  maximumBytes: 1000,
  nowMs
}
const body = { id: "j1", function: "say", args: { word: "x" } }

const decoded = (value: unknown, message: Partial<StokerMessage> = {}, more: Partial<DecodeOptions> = {}) =>
  decode(
    { body: new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value)), ...message },
    { ...options, ...more }
  )

const accepted = (...args: Parameters<typeof decoded>) => {
  const result = decoded(...args)
  return Result.isSuccess(result) ? result.success : assert.fail(result.failure.message)
}
const refused = (...args: Parameters<typeof decoded>) => {
  const result = decoded(...args)
  return Result.isFailure(result) ? result.failure : assert.fail("it was accepted")
}
const headers = (given: Readonly<Record<string, unknown>>) => ({ headers: given })

describe("Stoker's job messages", () => {
  it("are jobs field by field, with the way back", () => {
    const { job, ...rest } = accepted(
      { ...body, class: "oci", limits: { wallMs: 500 }, labels: { team: "blue" } },
      { replyTo: "mine", correlationId: "c", headers: { traceparent: "00-a-b-01" } }
    )
    assert.deepStrictEqual(job as unknown, {
      ...body,
      class: "oci",
      limits: { wallMs: 500 },
      owner: "stoker",
      intake: "stoker",
      traceparent: "00-a-b-01"
    })
    assert.deepStrictEqual(rest, {
      reply: { dialect: "stoker", replyTo: "mine", correlationId: "c", labels: { team: "blue" } },
      attempt: 1,
      returns: 0,
      retry: standardRetry,
      isBare: false
    })
  })

  it("have their id from the body, the idempotency key or the message id, in that order", () => {
    const { id: _id, ...nameless } = body
    const key = { "x-stoker-idempotency-key": "key" }
    assert.strictEqual(accepted(body, { messageId: "m" }).job.id, "j1")
    assert.strictEqual(accepted(nameless, { messageId: "m", headers: key }).job.id, "key")
    assert.strictEqual(accepted(nameless, { messageId: "m" }).job.id, "m")
    assert.strictEqual(refused(nameless).reason, "it has no id")
    assert.strictEqual(refused(body, headers(key)).reason, "its id and its idempotency key differ")
    for (const id of ["../x", "", 7, "a".repeat(129), "a/b"]) {
      const { id: known, reason } = refused({ ...nameless, id })
      assert.match(reason, /its id is not usable/)
      assert.isUndefined(known)
    }
  })

  it("may be bare arguments, for the function that their routing key or a header names", () => {
    const event = { messageId: "m1" }
    for (const functionKey of ["function.say", "function.say.high", "function.say.normal", "function.say.low"]) {
      const { isBare, job } = accepted({ word: "x" }, { ...event, functionKey })
      assert.isTrue(isBare)
      assert.deepStrictEqual<unknown>(job, {
        id: "m1",
        owner: "stoker",
        intake: "stoker",
        function: "say",
        args: { word: "x" },
        limits: {}
      })
    }
    const named = { "x-stoker-function": "say" }
    assert.deepStrictEqual<unknown>(accepted(["x"], { ...event, headers: named }).job.args, ["x"])
    // Fields of the whole form are arguments here like others.
    assert.deepStrictEqual<unknown>(accepted(body, { ...event, headers: named }).job.args, body)
    assert.deepStrictEqual<unknown>(accepted("", { ...event, headers: named }).job.args, {})
    assert.strictEqual(accepted("5", { headers: { ...named, "x-stoker-idempotency-key": "k" } }).job.id, "k")
  })

  it("say in headers what else the whole form has in its body, where they are bare", () => {
    const { job, reply } = accepted({ word: "x" }, {
      messageId: "m1",
      replyTo: "mine",
      functionKey: "function.say",
      headers: {
        "x-stoker-class": "small",
        "x-stoker-limits": { wallMs: 500 },
        "x-stoker-labels": "{\"team\":\"blue\"}",
        "x-stoker-function": "other"
      }
    })
    assert.deepInclude<unknown>(job, { function: "say", class: "small", limits: { wallMs: 500 } })
    assert.deepStrictEqual<unknown>(reply, { dialect: "stoker", replyTo: "mine", labels: { team: "blue" } })
    // The whole form has them in its body and nowhere else.
    assert.isUndefined(accepted(body, headers({ "x-stoker-class": "small" })).job.class)
  })

  it("are refused where they are bare and wrong, with their id", () => {
    const cases: ReadonlyArray<readonly [unknown, Partial<StokerMessage>, RegExp]> = [
      [{}, { functionKey: "function" }, /its routing key "function" names no function/],
      [{}, { functionKey: "function.a.b.c" }, /names no function/],
      [{}, { functionKey: "function.say.urgent" }, /names no function/],
      [{}, { functionKey: "function..high" }, /names no function/],
      [{}, { functionKey: "order.created" }, /names no function/],
      [{}, { functionKey: "function.SAY" }, /a function/],
      [{}, { headers: { "x-stoker-function": 7 } }, /function/],
      ["nonsense", { functionKey: "function.say" }, /not JSON/],
      [{}, { functionKey: "function.say", headers: { "x-stoker-limits": "{" } }, /the header x-stoker-limits is wrong/],
      [{}, { functionKey: "function.say", headers: { "x-stoker-limits": { wallMs: 0 } } }, /limits/],
      [{}, { functionKey: "function.say", headers: { "x-stoker-labels": "[]" } }, /labels/],
      [{}, { functionKey: "function.say", headers: { "x-stoker-class": "No" } }, /class/]
    ]
    for (const [given, message, words] of cases) {
      const { id, reason } = refused(given, { messageId: "m1", ...message })
      assert.match(reason, words)
      assert.strictEqual(id === undefined ? id : String(id), "m1")
    }
    assert.strictEqual(refused({}, { functionKey: "function.say" }).reason, "it has no id")
  })

  it("belong to the user the broker vouches for; only workers and operators speak for others", () => {
    const owner = (message: Partial<StokerMessage>, more: Partial<DecodeOptions> = {}) =>
      accepted(body, message, more).job.owner as string
    const claim = headers({ "x-stoker-owner": "bob" })
    assert.strictEqual(owner({}), "stoker")
    assert.strictEqual(owner(claim), "stoker")
    assert.strictEqual(owner({ userId: "alice", ...claim }), "alice")
    assert.strictEqual(owner({ userId: "worker", ...claim }), "bob")
    assert.strictEqual(owner({ userId: "worker" }), "worker")
    assert.match(refused(body, { userId: "a b" }).reason, /cannot be an owner/)
    assert.match(refused(body, {}, { trust: { ...options.trust, requireUser: true } }).reason, /who sent it/)
  })

  it("say when, in either form, and until when", () => {
    const times = (message: Partial<StokerMessage>) => {
      const { expiresAtMs, notBeforeMs } = accepted(body, message)
      return { notBeforeMs, expiresAtMs }
    }
    const none = { notBeforeMs: undefined, expiresAtMs: undefined }
    assert.deepStrictEqual(times({}), none)
    assert.deepStrictEqual(times(headers({ "x-stoker-delay": 500 })), { ...none, notBeforeMs: nowMs + 500 })
    const sent = { "x-stoker-sent-at": nowMs - 100 }
    assert.strictEqual(times(headers({ ...sent, "x-stoker-delay": "500" })).notBeforeMs, nowMs + 400)
    assert.strictEqual(times(headers({ ...sent, "x-stoker-ttl": 50 })).expiresAtMs, nowMs - 50)
    assert.strictEqual(times({ timestamp: 1_800_000_000, ...headers({ "x-stoker-ttl": 50 }) }).expiresAtMs, nowMs + 50)
    // A delayed job's time to live begins with the end of its delay.
    assert.strictEqual(
      times(headers({ ...sent, "x-stoker-not-before": nowMs + 1000, "x-stoker-ttl": 50 })).expiresAtMs,
      nowMs + 1050
    )
    assert.match(refused(body, headers({ "x-stoker-ttl": 50 })).reason, /when it was sent/)
    assert.match(refused(body, headers({ "x-stoker-not-before": nowMs * 2 })).reason, /more than a year/)
    for (const wrong of [-1, 1.5, "soon", {}, "1e3", Number.NaN]) {
      assert.match(refused(body, headers({ "x-stoker-delay": wrong })).reason, /the header x-stoker-delay is wrong/)
    }
  })

  it("say how often they are tried, which outcomes, and how soon", () => {
    const retry = (given: Readonly<Record<string, unknown>>) => accepted(body, headers(given)).retry
    assert.deepStrictEqual(retry({ "x-stoker-max-attempts": 5, "x-stoker-retry-backoff": 10 }), {
      ...standardRetry,
      maxAttempts: 5,
      backoffMs: 10
    })
    assert.deepStrictEqual(retry({ "x-stoker-retry-on": "never" }).on, [])
    assert.deepStrictEqual(retry({ "x-stoker-retry-on": "TimedOut, Exited" }).on, ["TimedOut", "Exited"])
    assert.match(refused(body, headers({ "x-stoker-retry-on": "Sometimes" })).reason, /names no outcome/)
    assert.deepStrictEqual([1, 2, 3, 100].map((n) => backoffOf(standardRetry, n)), [1000, 2000, 4000, 3_600_000])
  })

  it("are refused with a reason and a remedy when they are something else, with the id where it can be read", () => {
    const cases: ReadonlyArray<readonly [unknown, RegExp, boolean]> = [
      ["nonsense", /not JSON/, false],
      ["[]", /not a JSON object/, false],
      [{ ...body, limts: {} }, /limts/, true],
      [{ ...body, limits: { wallMs: 1, wal: 2 } }, /limits.*wal/, true],
      [{ ...body, function: "NO" }, /function/, true],
      [{ id: "j1", function: "say" }, /args/, true],
      [{ ...body, labels: { a: 1 } }, /labels/, true],
      [{ ...body, args: "x".repeat(2000) }, /more than 1000/, false]
    ]
    for (const [value, reason, known] of cases) {
      const failure = refused(value)
      assert.match(failure.reason, reason)
      assert.isAbove(failure.remedy.length, 5)
      assert.strictEqual(failure.id, known ? JobId.make("j1") : undefined)
    }
    assert.match(refused(body, { replyTo: "stoker.jobs" }).reason, /reply-to/)
    assert.strictEqual(accepted(body, { replyTo: "stoker.client.x" }).reply.replyTo, "stoker.client.x")
    const bytes = new Uint8Array([0x7b, 0xff, 0x7d])
    assert.isTrue(Result.isFailure(decode({ body: bytes }, options)))
  })
})

describe("Stoker's events", () => {
  const summary = { stream: "stdout" as const, producedBytes: 8, droppedBytes: 0, crc32: 1 }
  it("carry output as text where it is text, else base64, with what is missing in its place", () => {
    const bytes = (text: string) => new TextEncoder().encode(text)
    assert.deepInclude(outputOf(summary, [bytes("äb"), 3, bytes("c"), 0]), {
      encoding: "utf-8",
      content: "äbc",
      leftOut: [{ at: 3, bytes: 3 }]
    })
    assert.deepInclude(outputOf(summary, [bytes("ä").subarray(0, 1)]), { encoding: "base64", content: "ww==" })
    assert.deepInclude(outputOf(summary, []), { encoding: "utf-8", content: "", leftOut: [] })
  })

  it("are read back as they were written, and nothing else is", () => {
    const event = {
      event: "ended",
      id: JobId.make("j1"),
      owner: Owner.make("o"),
      attempt: 1,
      seq: 4,
      atMs: 5,
      outcome: Outcome.cases.Exited.make({ phase: "run", code: 0 }),
      usage: { phases: [] },
      output: [outputOf(summary, [])]
    } as const
    assert.deepStrictEqual(decodeEvent(encode(event)), Option.some(event))
    assert.isTrue(Option.isNone(decodeEvent("{}")))
  })

  it("have routing keys of three words within AMQP's 255 bytes, whatever owner and id are", () => {
    const key = { owner: Owner.make(`a.b@c${"x".repeat(123)}`), id: JobId.make(`1.2_3-4${"y".repeat(121)}`) }
    const routingKey = routingKeyOf(key, "phase-started")
    assert.isAtMost(routingKey.length, 255)
    assert.lengthOf(routingKey.split("."), 3)
    assert.match(routingKey, /^a_b@cx+\.1_2_3-4y+\.phase-started$/)
  })
})
