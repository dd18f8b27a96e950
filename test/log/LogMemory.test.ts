import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Log } from "../../src/layers/log/Log.ts"
import { layerMemory } from "../../src/layers/log/LogMemory.ts"
import { suite } from "./LogSuite.ts"
import { key } from "./Model.ts"

suite("memory", layerMemory)

describe("Log in memory", () => {
  it.effect("answers a waiting reader empty-handed when its time is over", () =>
    Effect.gen(function*() {
      const log = yield* Log
      yield* log.open(key("a"), { attempt: 1, keepBytes: 4 })
      const options = { stream: "all", offset: 0, maxBytes: 10, waitMs: 30_000 } as const
      const reader = yield* Effect.forkChild(log.read(key("a"), options), { startImmediately: true })
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(reader.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual({ ...(yield* Fiber.join(reader)), run: "" }, {
        entries: [],
        next: 0,
        available: 0,
        run: ""
      })
    }).pipe(Effect.provide(layerMemory)))

  it.effect("prunes idle logs of forgotten jobs and nothing else", () =>
    Effect.gen(function*() {
      const log = yield* Log
      const write = Effect.fnUntraced(function*(id: string) {
        const writer = yield* log.open(key(id), { attempt: 1, keepBytes: 4 })
        yield* writer.end
      }, Effect.scoped)
      yield* write("gone")
      yield* write("kept")
      yield* TestClock.adjust("1 minute")
      yield* write("recent")
      const forgotten = (keys: ReadonlyArray<string>) => Effect.succeed(keys.filter((name) => !name.endsWith("/kept")))
      assert.strictEqual(yield* log.prune(30_000, forgotten), 1)
      const read = (id: string) => log.read(key(id), { stream: "all", offset: 0, maxBytes: 1, waitMs: 0 })
      assert.strictEqual((yield* Effect.flip(read("gone")))._tag, "LogNotFound")
      yield* read("kept")
      yield* read("recent")
    }).pipe(Effect.provide(layerMemory)))
})
