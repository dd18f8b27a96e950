/** The promises of Log, for every implementation. */
import { assert, describe, it } from "@effect/vitest"
import type { Layer } from "effect"
import { Effect, Exit, Fiber, Scope } from "effect"
import { Log } from "../../src/layers/log/Log.ts"
import type { LogStream } from "../../src/layers/log/Log.ts"
import { bytes, followAll, key, Model, numbers, text } from "./Model.ts"

const streams: ReadonlyArray<LogStream> = ["stdout", "stderr", "all"]

const now = (stream: LogStream, offset = 0) => ({ stream, offset, maxBytes: 1_000_000, waitMs: 0 })
const later = (stream: LogStream, offset: number) => ({ stream, offset, maxBytes: 1_000_000, waitMs: 600_000 })

export const suite = (where: string, layer: Layer.Layer<Log, unknown>) => {
  const promise = (title: string, effect: Effect.Effect<unknown, unknown, Log | Scope.Scope>) =>
    it.effect(title, () => effect.pipe(Effect.provide(layer)))

  describe(`Log in ${where}`, () => {
    promise(
      "gives back the bytes of each stream, and of both in order of arrival",
      Effect.gen(function*() {
        const log = yield* Log
        const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: 1000 })
        yield* writer.append("stdout", bytes("one "))
        yield* writer.append("stderr", bytes("two "))
        yield* writer.append("stdout", bytes("three"))
        const summaries = yield* writer.end
        const all = yield* log.read(key("a"), now("all"))
        assert.strictEqual(text(all.entries), "one two three")
        assert.deepStrictEqual(all.entries.map((entry) => entry.stream), ["stdout", "stderr", "stdout"])
        assert.deepStrictEqual(all.end, { summaries, complete: true })
        assert.strictEqual(text((yield* log.read(key("a"), now("stdout"))).entries), "one three")
        assert.strictEqual(text((yield* log.read(key("a"), now("stderr", 1))).entries), "wo ")
        assert.strictEqual(Buffer.from(yield* log.text(key("a"), "stdout", 5)).toString(), "one t")
        assert.strictEqual(writer.produced("stdout"), 9)
      })
    )

    promise(
      "keeps binary output and lines without an end as they are",
      Effect.gen(function*() {
        const log = yield* Log
        const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: 1 << 20 })
        const binary = Uint8Array.from({ length: 300_000 }, (_, index) => index & 255)
        yield* writer.append("stdout", binary)
        yield* writer.end
        assert.deepStrictEqual(Buffer.from(yield* log.text(key("a"), "stdout", 1 << 20)), Buffer.from(binary))
      })
    )

    promise(
      "wakes a waiting reader with what comes, and with the end",
      Effect.gen(function*() {
        const log = yield* Log
        const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: 4 })
        const first = yield* Effect.forkChild(log.read(key("a"), later("stdout", 0)), { startImmediately: true })
        yield* writer.append("stdout", bytes("ab"))
        assert.strictEqual(text((yield* Fiber.join(first)).entries), "ab")
        const second = yield* Effect.forkChild(log.read(key("a"), later("all", 2)), { startImmediately: true })
        yield* writer.append("stdout", bytes("cdefg"))
        const overflow = yield* Fiber.join(second)
        assert.strictEqual(text(overflow.entries), "fg")
        assert.deepInclude(overflow.entries[0], { _tag: "Gap", stream: "stdout", from: 2, to: 5 })
        const third = yield* Effect.forkChild(log.read(key("a"), later("stderr", 0)), { startImmediately: true })
        yield* writer.end
        assert.isTrue((yield* Fiber.join(third)).end?.complete)
      })
    )

    promise(
      "wakes a thousand readers of one log",
      Effect.gen(function*() {
        const log = yield* Log
        const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: 100 })
        const readers = yield* Effect.forEach(
          Array.from({ length: 1000 }),
          () => Effect.forkChild(log.read(key("a"), later("stdout", 0)), { startImmediately: true })
        )
        yield* writer.append("stdout", bytes("news"))
        for (const reader of readers) assert.strictEqual(text((yield* Fiber.join(reader)).entries), "news")
      })
    )

    promise(
      "gives at least one byte when there is one, and the rest of a gap from inside it",
      Effect.gen(function*() {
        const log = yield* Log
        const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: 4 })
        yield* writer.append("stdout", bytes("0123456789"))
        yield* writer.end
        const one = yield* log.read(key("a"), { ...now("stdout"), maxBytes: 0 })
        assert.strictEqual(text(one.entries), "0")
        const inside = yield* log.read(key("a"), now("stdout", 5))
        assert.deepStrictEqual(inside.entries[0], { _tag: "Gap", stream: "stdout", from: 5, to: 8 })
        assert.strictEqual(text(inside.entries), "89")
        const beyond = yield* log.read(key("a"), now("stdout", 50))
        assert.deepStrictEqual([beyond.entries, beyond.next, beyond.end?.complete], [[], 50, true])
      })
    )

    promise(
      "has an end for a job that wrote nothing, and for one whose actor went without ending it",
      Effect.gen(function*() {
        const log = yield* Log
        const silent = yield* log.open(key("silent"), { attempt: 1, keepBytes: 10 })
        assert.deepStrictEqual((yield* log.read(key("silent"), now("all"))).entries, [])
        yield* silent.end
        yield* silent.end
        assert.isTrue((yield* log.read(key("silent"), now("all"))).end?.complete)

        const scope = yield* Scope.make()
        const left = yield* log.open(key("left"), { attempt: 1, keepBytes: 4 }).pipe(Scope.provide(scope))
        yield* left.append("stdout", bytes("0123456789"))
        const reader = yield* Effect.forkChild(log.read(key("left"), later("stdout", 10)), { startImmediately: true })
        yield* Scope.close(scope, Exit.void)
        assert.isFalse((yield* Fiber.join(reader)).end?.complete)
        const whole = yield* log.read(key("left"), now("stdout"))
        assert.strictEqual(text(whole.entries), "0189")
        assert.isFalse(whole.end?.complete)
      })
    )

    promise(
      "refuses bytes after the end",
      Effect.gen(function*() {
        const log = yield* Log
        const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: 4 })
        yield* writer.end
        const error = yield* Effect.flip(writer.append("stdout", bytes("late")))
        assert.strictEqual(error._tag, "LogError")
      })
    )

    promise(
      "replaces a former attempt's output: its readers get their end, its writer is refused",
      Effect.gen(function*() {
        const log = yield* Log
        const first = yield* log.open(key("a"), { attempt: 1, keepBytes: 100 })
        yield* first.append("stdout", bytes("first"))
        assert.strictEqual(text((yield* log.read(key("a"), later("stdout", 0))).entries), "first")
        const reader = yield* Effect.forkChild(log.read(key("a"), later("stdout", 5)), { startImmediately: true })
        const second = yield* log.open(key("a"), { attempt: 2, keepBytes: 100 })
        assert.isFalse((yield* Fiber.join(reader)).end?.complete)
        assert.strictEqual((yield* Effect.flip(first.append("stdout", bytes("x"))))._tag, "LogError")
        yield* second.append("stdout", bytes("second attempt"))
        yield* second.end
        assert.strictEqual(text((yield* log.read(key("a"), now("stdout"))).entries), "second attempt")
      })
    )

    promise(
      "knows no log that was never opened, or was removed",
      Effect.gen(function*() {
        const log = yield* Log
        assert.strictEqual((yield* Effect.flip(log.read(key("no"), now("all"))))._tag, "LogNotFound")
        assert.strictEqual((yield* Effect.flip(log.text(key("no"), "stdout", 1)))._tag, "LogNotFound")
        const scope = yield* Scope.make()
        const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: 4 }).pipe(Scope.provide(scope))
        yield* writer.append("stdout", bytes("x"))
        assert.strictEqual((yield* Effect.flip(log.remove(key("a"))))._tag, "LogError")
        yield* writer.end
        yield* Scope.close(scope, Exit.void)
        yield* log.remove(key("a"))
        assert.strictEqual((yield* Effect.flip(log.read(key("a"), now("all"))))._tag, "LogNotFound")
        yield* log.remove(key("a"))
      })
    )

    for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
      promise(
        `never gives a wrong byte, nor a gap's byte later, whatever is written and read (seed ${seed})`,
        Effect.gen(function*() {
          const log = yield* Log
          const random = numbers(seed)
          const model = new Model(1 + random(20_000))
          const scope = yield* Scope.make()
          const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: model.keepBytes }).pipe(
            Scope.provide(scope)
          )
          const followers = yield* Effect.forEach(
            streams,
            (stream) =>
              Effect.forkChild(followAll(model, key("a"), stream, () => 1 + random(3000)), { startImmediately: true })
          )
          const rounds = random(400)
          for (let round = 0; round < rounds; round++) {
            const size = [random(4), random(300), random(5000)][random(3)] ?? 0
            const chunk = Uint8Array.from({ length: size }, () => random(256))
            const stream = random(3) === 0 ? "stderr" : "stdout"
            model.append(stream, chunk)
            yield* writer.append(stream, chunk)
            if (random(4) === 0) yield* Effect.yieldNow
          }
          const summaries = yield* writer.end
          for (const stream of ["stdout", "stderr"] as const) {
            assert.deepStrictEqual(summaries.find((summary) => summary.stream === stream), {
              stream,
              producedBytes: model.length(stream),
              droppedBytes: model.length(stream) - model.kept(stream).length,
              crc32: model.crc(stream)
            })
          }
          const live = yield* Effect.forEach(followers, (follower) => Fiber.join(follower))
          for (const got of live) assert.deepStrictEqual(got.end, { summaries, complete: true })
          for (const phase of ["open", "closed"]) {
            for (const stream of streams) {
              const got = yield* followAll(model, key("a"), stream, () => 1 + random(3000))
              for (const name of ["stdout", "stderr"] as const) {
                if (stream !== "all" && stream !== name) continue
                assert.strictEqual(got.bytes[name], model.kept(name).length, phase)
                assert.strictEqual(got.gaps[name], model.length(name) - model.kept(name).length, phase)
              }
            }
            for (const name of ["stdout", "stderr"] as const) {
              const kept = yield* log.text(key("a"), name, 1_000_000)
              assert.strictEqual(model.kept(name).compare(kept), 0)
            }
            yield* Scope.close(scope, Exit.void)
          }
        })
      )
    }
  })
}
