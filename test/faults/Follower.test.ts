/** A follower so slow that it might as well be gone: it costs the job no time and the worker no memory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { layerTest } from "../../src/layers/host/HostTest.ts"
import { Log } from "../../src/layers/log/Log.ts"
import * as LogFiles from "../../src/layers/log/LogFiles.ts"
import { key } from "../log/Model.ts"

const MiB = 1024 * 1024
const PIECES = 128
const KEPT = 16 * MiB
/** Of 128 MiB: twice the tail, which is half of `KEPT`, what is on its way to the disk, and as much again for the runtime. */
const MOST_HELD = 32 * MiB

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "stoker-log-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const byteAt = (offset: number) => (offset * 7) % 251

const sample = Uint8Array.from({ length: MiB }, (_, at) => byteAt(at))

// What is not held any more is not counted.
setFlagsFromString("--expose-gc")
const collect: unknown = runInNewContext("gc")

const held = () => {
  if (typeof collect === "function") collect()
  return process.memoryUsage().arrayBuffers
}

describe("a follower that reads a byte a minute", () => {
  it.effect(
    "slows no writer, is given the right bytes, and holds no more than a window of them",
    () =>
      Effect.gen(function*() {
        const state = yield* folder
        const log = yield* Effect.provide(
          Log,
          yield* Layer.build(LogFiles.layer.pipe(Layer.provide(layerTest({ state }))))
        )
        const writer = yield* log.open(key("slow"), { attempt: 1, keepBytes: KEPT })
        const seen: Array<number> = []
        const following = yield* Effect.forkChild(
          Effect.gen(function*() {
            for (let offset = 0; seen.length < 5;) {
              const slice = yield* log.read(key("slow"), { stream: "stdout", offset, maxBytes: 1, waitMs: 3_600_000 })
              for (const entry of slice.entries) if (entry._tag === "Bytes") seen.push(...entry.bytes)
              offset = slice.next
              yield* Effect.sleep("1 minute")
            }
          }),
          { startImmediately: true }
        )
        const before = held()
        let most = 0
        for (let n = 0; n < PIECES; n++) {
          yield* writer.append("stdout", sample.slice())
          if (n % 8 === 7) most = Math.max(most, held() - before)
        }
        const [summary] = yield* writer.end
        // No time has passed for the follower: it has had its one byte at most, and the writer is through.
        assert.isAtMost(seen.length, 1)
        assert.strictEqual(summary?.producedBytes, PIECES * MiB)
        assert.strictEqual(summary?.droppedBytes, PIECES * MiB - KEPT)
        assert.isBelow(most, MOST_HELD)
        while (following.pollUnsafe() === undefined) {
          yield* TestClock.adjust("1 minute")
          yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        }
        yield* Fiber.join(following)
        assert.deepStrictEqual(seen, [0, 1, 2, 3, 4].map(byteAt))
      }).pipe(Effect.scoped),
    30_000
  )
})
