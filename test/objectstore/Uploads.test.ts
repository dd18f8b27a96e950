/** What is written down of uploads that are under way, for whoever comes after their worker. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as HostTest from "../../src/layers/host/HostTest.ts"
import { Uploads } from "../../src/layers/objectstore/Uploads.ts"
import * as UploadsFiles from "../../src/layers/objectstore/UploadsFiles.ts"
import { InstanceId } from "../../src/schemas/Ids.ts"

const state = mkdtempSync(join(tmpdir(), "stoker-uploads-"))
afterAll(() => rmSync(state, { recursive: true, force: true }))

const upload = { endpoint: "http://store", bucket: "b", key: "a/ü", uploadId: "x/../y" }

/** As that worker sees it, while those others live or not. */
const as = <A>(instance: string, others: Map<InstanceId, boolean>, effect: Effect.Effect<A>) =>
  effect.pipe(
    Effect.provide(UploadsFiles.layer.pipe(Layer.provide(HostTest.layerTest({ instance, state, others }))))
  )
const left = Effect.flatMap(Uploads, (uploads) => uploads.left)
const note = Effect.flatMap(Uploads, (uploads) => uploads.note(upload))

describe("uploads that are written down", () => {
  it.effect("are a dead worker's alone: not one's own, not those of somebody who lives; one cut short by a kill goes", () =>
    Effect.gen(function*() {
      const [first, second] = [InstanceId.make("first"), InstanceId.make("second")]
      assert.deepStrictEqual(yield* as("first", new Map(), left), [])
      const strike = yield* as("first", new Map(), note)
      yield* Effect.asVoid(as("first", new Map(), note))
      writeFileSync(join(state, "uploads", "first", "torn"), "{\"endpoint\":")
      assert.deepStrictEqual(yield* as("first", new Map(), left), [])
      const others = new Map([[first, true]])
      assert.deepStrictEqual(yield* as("second", others, left), [])
      yield* strike
      others.set(first, false)
      const [found, ...more] = yield* as("second", others, left)
      assert.deepStrictEqual(found?.upload, upload)
      assert.lengthOf(more, 0)
      yield* found?.strike ?? Effect.void
      assert.deepStrictEqual(yield* as("second", others, left), [])
      assert.deepStrictEqual(readdirSync(join(state, "uploads")), [], "what was cut short stays for ever")

      yield* yield* as("second", others, note)
      assert.deepStrictEqual(yield* as("third", new Map([[second, false]]), left), [])
      assert.isFalse(existsSync(join(state, "uploads", "second")), "an empty place stays")
    }))

  it.effect("go on where nothing can be written", () =>
    Effect.gen(function*() {
      writeFileSync(join(state, "file"), "")
      const at = <A>(effect: Effect.Effect<A>) =>
        effect.pipe(
          Effect.provide(UploadsFiles.layer.pipe(Layer.provide(HostTest.layerTest({ state: join(state, "file") }))))
        )
      yield* yield* at(note)
      assert.deepStrictEqual(yield* at(left), [])
    }))
})
