import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger, References } from "effect"
import { TestClock } from "effect/testing"
import * as AuditTrail from "../../src/layers/api/AuditTrail.ts"
import type { Caller } from "../../src/schemas/Access.ts"
import { Owner } from "../../src/schemas/Ids.ts"

const alice: Caller = { name: Owner.make("alice"), via: "certificate", from: "10.0.0.1:5" }

describe("the trail of decisions", () => {
  // What is remembered of a look must not be what a caller sent: ids that are none can be megabytes each.
  it.effect("counts looks for ids that are none together, whatever they were", () => {
    const lines: Array<Record<string, unknown>> = []
    const logger = Logger.make(({ fiber }) => {
      lines.push({ ...fiber.getRef(References.CurrentLogAnnotations) })
    })
    return Effect.gen(function*() {
      const trail = yield* AuditTrail.make
      const look = (job: string) =>
        trail.record({ caller: alice, method: "status", job, right: "own", allowed: true, outcome: "invalid-request" })
      for (const job of ["../a", "../b", "x".repeat(1_000_000)]) yield* look(job)
      assert.deepStrictEqual(lines.map(({ again, jobId }) => [jobId, again]), [["malformed", undefined]])
      yield* TestClock.adjust("11 seconds")
      assert.deepStrictEqual(lines.slice(1).map(({ again, jobId }) => [jobId, again]), [["malformed", 2]])
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([logger])))
  })
})
