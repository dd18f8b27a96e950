/**
 * Whole workers under a virtual clock, with everything around them going wrong, from a seed. Whatever happens, what the
 * README promises holds. `SEEDS=10000 npm test -- test/simulation` runs more, `FIRST_SEED=501` others, `SEED=7` one
 * again and prints its story.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Day from "./Day.ts"

const one = process.env["SEED"]
const first = Number(process.env["FIRST_SEED"] ?? 1)
const seeds = one === undefined
  ? Array.from({ length: Number(process.env["SEEDS"] ?? 200) }, (_, n) => first + n)
  : [Number(one)]

/** Three busy times of a day. */
const usual: Day.DayOptions = { shifts: 3, shiftMs: 20_000 }

const live = (seed: number, options: Day.DayOptions) => {
  const world = Day.run(seed, options)
  const broken = world.broken()
  if (broken !== undefined || one !== undefined) process.stdout.write(`${world.trace().join("\n")}\n`)
  assert.isUndefined(broken, `SEED=${seed}`)
  return world
}

describe("whatever happens to workers", () => {
  it(`every promise is kept (${seeds.length} seeds)`, () => {
    for (const seed of seeds) live(seed, usual)
  }, Math.max(120_000, seeds.length * 2000))

  it("also on a long day with many shifts", () => {
    live(1, { shifts: 12, shiftMs: 120_000 })
  }, 120_000)

  it("a seed always tells the same story", () => {
    for (const seed of [1, 2, 3]) {
      assert.strictEqual(Day.run(seed, usual).trace().join("\n"), Day.run(seed, usual).trace().join("\n"))
    }
  }, 120_000)
})
