/** Which bundles of functions stay in the state directory, and which go. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, utimesSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as BundleStore from "../../src/layers/functions/BundleStore.ts"

const NOW = 1_700_000_000_000
const HOUR = 3_600_000

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "bundles-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const put = (root: string, name: string, ageMs: number) => {
  mkdirSync(join(root, name, "inside"), { recursive: true })
  utimesSync(join(root, name), (NOW - ageMs) / 1000, (NOW - ageMs) / 1000)
}

describe("bundles of functions", () => {
  it.effect("go when nobody used them for a week, or half-made for an hour", () =>
    Effect.scoped(Effect.gen(function*() {
      yield* TestClock.setTime(NOW)
      const root = yield* folder
      put(root, "own", 30 * 24 * HOUR)
      put(root, "recent", 6 * 24 * HOUR)
      put(root, "old", 8 * 24 * HOUR)
      put(root, "made.abc", 2 * HOUR)
      put(root, "being-made.abc", HOUR / 2)
      yield* BundleStore.use(join(root, "own"))
      assert.deepStrictEqual(readdirSync(root).toSorted(), ["being-made.abc", "own", "recent"])
    })))

  it.effect("are kept as long as a worker uses them", () =>
    Effect.scoped(Effect.gen(function*() {
      yield* TestClock.setTime(NOW)
      const root = yield* folder
      put(root, "own", 0)
      const place = join(root, "own")
      yield* BundleStore.use(place)
      assert.strictEqual(statSync(place).mtimeMs, NOW)
      yield* TestClock.adjust(HOUR)
      // The date is written by a thread.
      yield* Effect.promise(async () => {
        for (let round = 0; statSync(place).mtimeMs === NOW && round < 500; round++) {
          await new Promise((resolve) => setTimeout(resolve, 10))
        }
      })
      assert.strictEqual(statSync(place).mtimeMs, NOW + HOUR)
    })))
})
