/** A minute of `npm run bundles`, and with BUNDLE_SECONDS as long as somebody wants. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { runFor } from "./bundles/Bundles.ts"

const seconds = Number(process.env["BUNDLE_SECONDS"] ?? 15)
const seed = Number(process.env["BUNDLE_SEED"] ?? Math.floor(Math.random() * 2 ** 31))

describe("random bundles of limits, programs and cancellations", () => {
  it.live(`end as they must and leave nothing (seed ${seed})`, () =>
    Effect.gen(function*() {
      const report = yield* runFor({ driver: "oci", seed, seconds, say: (line) => process.stderr.write(`${line}\n`) })
      process.stderr.write(`${JSON.stringify({ ...report, wrong: report.wrong.length })}\n`)
      assert.deepStrictEqual(report.wrong, [])
      assert.isAbove(report.ran, seconds / 10)
      const nothing = { processes: 0, cgroups: 0, mounts: 0, ledger: [], crun: 0, instances: 0 }
      assert.deepStrictEqual(report.held, nothing)
    }), (seconds + 300) * 1000)
})
