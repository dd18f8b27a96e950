import { assert, describe, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import { configForWorker, type WorkerFlags } from "../../src/cli/WorkerConfigs.ts"
import type { DaemonConfig } from "../../src/schemas/DaemonConfig.ts"
import { ClassName } from "../../src/schemas/Ids.ts"

const none: WorkerFlags = {
  drivers: [],
  defaultClass: Option.none(),
  slots: Option.none(),
  warm: Option.none(),
  drain: Option.none(),
  ownLongJobs: false
}

const file: DaemonConfig = {
  slots: 3,
  drain: 5000,
  ownLongJobs: true,
  classes: [
    { name: ClassName.make("small"), driver: "oci", pool: { refillPause: 7 } },
    { name: ClassName.make("trusted"), driver: "process" }
  ],
  defaultClass: ClassName.make("trusted")
}

describe("a worker's configuration", () => {
  it.effect("is the file's where no flag says otherwise", () =>
    Effect.gen(function*() {
      const { classes, defaultClass, drainMs, ownLongJobs, slots } = yield* configForWorker(none, file)
      assert.deepStrictEqual({ defaultClass, drainMs, ownLongJobs, slots }, {
        defaultClass: ClassName.make("trusted"),
        drainMs: 5000,
        ownLongJobs: true,
        slots: 3
      })
      assert.deepStrictEqual(classes.map(({ name, pool }) => `${name} ${pool?.minimum}`), ["small 3", "trusted 3"])
    }))

  it.effect("is the flags' where they say something, and leaves the rest to the file", () =>
    Effect.gen(function*() {
      const flags = { ...none, slots: Option.some(5), warm: Option.some(1), drain: Option.some(9) }
      const { classes, drainMs, slots } = yield* configForWorker({ ...flags, defaultClass: Option.some("small") }, file)
      assert.deepStrictEqual({ drainMs, slots }, { drainMs: 9, slots: 5 })
      const [small] = classes
      assert.deepInclude(small.pool, { minimum: 1, maximum: 3, refillPauseMs: 7 })
      const { classes: cold } = yield* configForWorker({ ...none, warm: Option.some(0) }, file)
      assert.isUndefined(cold[0].pool)
    }))

  it.effect("has the drivers' classes in place of the file's when drivers are named", () =>
    Effect.gen(function*() {
      const { classes, defaultClass } = yield* configForWorker({ ...none, drivers: ["process", "oci"] }, file)
      assert.deepStrictEqual(classes.map(({ name }) => String(name)), ["process", "oci"])
      assert.strictEqual(defaultClass, "process")
    }))

  it.effect("needs a default class that there is", () =>
    Effect.gen(function*() {
      const refused = yield* Effect.flip(configForWorker({ ...none, defaultClass: Option.some("huge") }, file))
      assert.match(refused.message, /--class huge[^]*small, trusted/)
    }))
})
