/** What every compile cache promises, whatever it is kept in. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option } from "effect"
import { TestClock } from "effect/testing"
import { CompileCache, off } from "../../src/layers/cache/CompileCache.ts"
import * as CompileCacheMemory from "../../src/layers/cache/CompileCacheMemory.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import * as Cache from "./Cache.ts"

const KIB = 1024
const MAXIMUM = 64 * KIB

const temporary = Layer.unwrap(Effect.map(
  Effect.acquireRelease(Effect.sync(Jobs.stateDirectory), (state) => Effect.sync(() => Jobs.remove(state))),
  (state) => Cache.files({ state, maximumBytes: MAXIMUM })
))

for (const [name, layer] of [["memory", CompileCacheMemory.layerMemory(MAXIMUM)], ["files", temporary]] as const) {
  describe(`a compile cache in ${name}`, () => {
    /** With time between its steps, as recency needs. */
    const each = (title: string, body: Effect.Effect<void>) =>
      it.effect(title, () => body.pipe(Effect.provide(layer), Effect.andThen(Effect.void)))
    const used = <A>(step: Effect.Effect<A>) => Effect.andThen(TestClock.adjust("1 second"), step)

    each(
      "gives back what was put, byte for byte",
      Effect.gen(function*() {
        assert.isFalse(yield* Cache.has(1))
        const what = Cache.compiled(5000)
        yield* Cache.put(1, what)
        const found = Option.getOrThrow(yield* Cache.get(1))
        assert.deepStrictEqual(
          found.files.map(({ content, executable, path }) => [path, executable, Buffer.from(content).toString("hex")]),
          what.files.map(({ content, executable, path }) => [path, executable, Buffer.from(content).toString("hex")])
        )
        assert.deepStrictEqual(
          found.output.map(({ bytes, stream }) => [stream, Buffer.from(bytes).toString("hex")]),
          what.output.map(({ bytes, stream }) => [stream, Buffer.from(bytes).toString("hex")])
        )
        assert.isFalse(yield* Cache.has(2))
      })
    )

    each(
      "keeps what was put last under a key",
      Effect.gen(function*() {
        yield* Cache.put(1, Cache.compiled(100, 1))
        yield* Cache.put(1, Cache.compiled(200, 2))
        const [file] = Option.getOrThrow(yield* Cache.get(1)).files
        assert.strictEqual(file?.content.length, 200)
        assert.strictEqual(file?.content[0], 2)
      })
    )

    each(
      "lets go of what was used least recently, and of no more than it must",
      Effect.gen(function*() {
        // Four blocks each with what is around them; a little of the room may be set aside.
        for (const n of [0, 1, 2]) yield* used(Cache.put(n, Cache.compiled(15_000)))
        yield* used(Cache.has(0))
        yield* used(Cache.put(3, Cache.compiled(15_000)))
        yield* used(Cache.put(4, Cache.compiled(15_000)))
        const left = yield* Cache.held(5)
        assert.includeMembers([...left], [0, 3, 4])
        assert.notInclude(left, 1)
        assert.isAtLeast(left.length, 3)
      })
    )

    each(
      "keeps nothing that would take more than its share, and loses nothing for it",
      Effect.gen(function*() {
        const { mostBytes } = yield* CompileCache
        assert.strictEqual(mostBytes, MAXIMUM / 4)
        yield* Cache.put(1, Cache.compiled(1000))
        yield* Cache.put(2, Cache.compiled(mostBytes + 1))
        assert.deepStrictEqual(yield* Cache.held(3), [1])
      })
    )

    each(
      "is the same for many who use it at once",
      Effect.gen(function*() {
        const numbers = Array.from({ length: 40 }, (_, n) => n)
        yield* Effect.forEach(numbers, (n) => Cache.put(n % 4, Cache.compiled(1000, n % 4)), {
          concurrency: "unbounded",
          discard: true
        })
        const found = yield* Effect.forEach([0, 1, 2, 3], Cache.get)
        assert.deepStrictEqual(found.map((one) => Option.getOrThrow(one).files[0]?.content[0]), [0, 1, 2, 3])
      })
    )
  })
}

describe("no compile cache", () => {
  it.effect("is what a worker has that was given none, and keeps nothing", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* CompileCache, off)
      assert.strictEqual(off.mostBytes, 0)
      yield* Cache.put(1, Cache.compiled(10))
      assert.isFalse(yield* Cache.has(1))
    }))
})
