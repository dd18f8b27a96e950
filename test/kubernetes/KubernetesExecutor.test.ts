import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { runs } from "./Runs.ts"
import { containerOf } from "./World.ts"

describe("a container job in a cluster", () => {
  it.live("runs once, and its output comes byte for byte", () =>
    Effect.gen(function*() {
      const { run, world } = yield* runs
      const ran = yield* run(containerOf("echo one; echo two >&2; printf three; exit 7"))
      assert.deepStrictEqual(ran.outcome, Outcome.cases.Exited.make({ phase: "run", code: 7 }))
      assert.deepStrictEqual(ran.stdout.split("\n").toSorted(), ["one", "three", "two"].toSorted())
      assert.match(ran.place ?? "", /^jobs\/job\/test-[0-9a-f]{12}-1$/)
      assert.strictEqual(world.kubelet.starts.get(ran.job), 1)
    }).pipe(Effect.scoped))
})
