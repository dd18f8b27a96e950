/** Requests of the MSTC worker's clients, of both generations, and what is told of those that are none. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { decode } from "../../src/schemas/dialects/Mstc.ts"
import { ended, invalid } from "../../src/schemas/dialects/MstcResult.ts"
import { ClassName } from "../../src/schemas/Ids.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"

const bytes = (value: unknown) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value))
const options = { class: ClassName.make("cluster") }
const read = (value: unknown, more: object = {}) => decode({ body: bytes(value), id: "one", ...more }, options)
const jobOf = (value: unknown, more: object = {}) => {
  const result = read(value, more)
  if (Result.isFailure(result)) assert.fail(result.failure.message)
  return result.success
}
const refusalOf = (value: unknown) => {
  const result = read(value)
  if (Result.isSuccess(result)) assert.fail("it was accepted")
  return result.failure
}

describe("MSTC requests", () => {
  it("the README's, with its addresses", () => {
    const { job, reply } = jobOf({
      image: "mstc/python-test:latest",
      timeOut: 5,
      jobName: "test-job",
      inputBucketUrl: "http://hostname:9000/bucket",
      outputBucketUrl: "http://hostname:9000/out-bucket"
    }, { replyTo: "amq.gen-1", correlationId: "c" })
    assert.deepStrictEqual({ ...job }, {
      id: "one",
      owner: "mstc",
      intake: "mstc",
      function: "container",
      class: "cluster",
      limits: { wallMs: 300_000 },
      args: {
        image: "mstc/python-test:latest",
        name: "test-job",
        store: true,
        env: {
          MSTC_JOB: "true",
          INPUT_BUCKET_URL: "http://hostname:9000/bucket",
          OUTPUT_BUCKET_URL: "http://hostname:9000/out-bucket"
        }
      }
    })
    assert.deepStrictEqual(reply, {
      dialect: "mstc",
      form: "urls",
      name: "test-job",
      replyTo: "amq.gen-1",
      correlationId: "c"
    })
  })

  it("the later one, with names of buckets; the output is the input's, the time 15 minutes", () => {
    const { job, reply } = jobOf({ image: "a", jobName: "b", inputBucket: "in-put", timeOut: 0, more: 1, prefix: null })
    assert.deepStrictEqual(job.limits, { wallMs: 900_000 })
    assert.deepStrictEqual(job.args, {
      image: "a",
      name: "b",
      env: { MSTC_JOB: "true", INPUT_BUCKET: "in-put", OUTPUT_BUCKET: "in-put" },
      buckets: { input: "in-put", output: "in-put" }
    })
    assert.deepStrictEqual(reply, { dialect: "mstc", form: "buckets", name: "b" })
    const prefixed = jobOf({ image: "a", jobName: "b", inputBucket: "in-put", outputBucket: "out", prefix: "run1" })
    assert.deepInclude(prefixed.job.args as object, { buckets: { input: "in-put", output: "out", prefix: "run1" } })
  })

  for (
    const [name, sent, reason] of [
      ["not JSON", "hello", "not JSON"],
      ["null", "null", "Expected object"],
      ["no image", { jobName: "a", inputBucket: "abc" }, "image"],
      ["no name", { image: "a", inputBucket: "abc" }, "jobName"],
      ["a name that Kubernetes does not take", { image: "a", jobName: "A_b", inputBucket: "abc" }, "jobName"],
      ["no bucket", { image: "a", jobName: "b" }, "neither inputBucket nor inputBucketUrl"],
      ["both", { image: "a", jobName: "b", inputBucket: "abc", inputBucketUrl: "http://a/b" }, "both"],
      ["an address that is none", { image: "a", jobName: "b", inputBucketUrl: "bucket" }, "an address"],
      ["a time before now", { image: "a", jobName: "b", inputBucket: "abc", timeOut: -1 }, "minutes"],
      ["a time without end", { image: "a", jobName: "b", inputBucket: "abc", timeOut: 1e9 }, "minutes"]
    ] as const
  ) {
    it(`${name}: refused with the reason`, () => {
      const refusal = refusalOf(sent)
      assert.include(refusal.reason, reason)
      assert.isBelow(refusal.message.length, 600)
    })
  }

  it("too large is not parsed", () => {
    const result = decode({ body: bytes(`"${"x".repeat(200)}"`), id: "a" }, { ...options, maximumBytes: 100 })
    assert.match(Result.isFailure(result) ? result.failure.reason : "", /^it has 202 bytes, more than 100$/)
  })
})

describe("what MSTC clients are told", () => {
  const job = { name: "test-job", id: "7" }
  const exited = (code: number) => Outcome.cases.Exited.make({ phase: "run", code })

  it("complete only where it is", () => {
    assert.deepStrictEqual(ended({ ...job, form: "buckets" }, exited(0), ""), {
      result: "Job test-job-7 complete.",
      status: "complete",
      job: "test-job-7",
      outcome: "Exited",
      exitCode: 0
    })
    assert.deepInclude(ended({ ...job, form: "urls" }, exited(0), "SUCCESS\n"), { result: "SUCCESS\n" })
  })

  it("what went wrong, with the output for those who asked for it", () => {
    const late = Outcome.cases.TimedOut.make({ phase: "run", limit: "wall", limitMs: 900_000 })
    const told = ended({ ...job, form: "buckets" }, late, "")
    assert.deepInclude(told, { status: "failed", outcome: "TimedOut" })
    assert.include(told.result, "Job test-job-7 run exceeded its wall time limit")
    assert.match(
      ended({ ...job, form: "urls" }, exited(3), "bad\n").result,
      /^bad\n\nJob test-job-7 exited with status 3$/
    )
  })

  it("the request back, as much of it as somebody reads", () => {
    const told = invalid(refusalOf({ jobName: "a" }), bytes("x".repeat(5000)))
    assert.strictEqual(told.status, "invalid")
    assert.isBelow(told.result.length, 3000)
    assert.match(told.result, /^Invalid request .*image/s)
  })
})
