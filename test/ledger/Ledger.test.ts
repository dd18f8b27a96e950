import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"
import * as fs from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { layerTest } from "../../src/layers/host/HostTest.ts"
import { Ledger } from "../../src/layers/ledger/Ledger.ts"
import * as LedgerFiles from "../../src/layers/ledger/LedgerFiles.ts"
import { layerMemory } from "../../src/layers/ledger/LedgerMemory.ts"
import { InstanceId } from "../../src/schemas/Ids.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "stoker-ledger-"))),
  (path) => Effect.sync(() => fs.rmSync(path, { recursive: true, force: true }))
)

const layerFiles = (state: string, instance: string, others: Map<InstanceId, boolean> = new Map()) =>
  Layer.fresh(LedgerFiles.layer).pipe(
    Layer.provide(layerTest({ state, instance, others })),
    Layer.provide(SecureRandom.layerWebCrypto)
  )

/** Lets the time pass until the fiber has ended; files are real, so it passes in small steps. */
const passing = (fiber: Fiber.Fiber<unknown, unknown>) =>
  Effect.gen(function*() {
    while (fiber.pollUnsafe() === undefined) {
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      yield* TestClock.adjust("50 millis")
    }
  })

const suite = (where: string, layer: Layer.Layer<Ledger, unknown>) => {
  const promise = (title: string, effect: Effect.Effect<unknown, unknown, Ledger | Scope.Scope>) =>
    it.effect(title, () => effect.pipe(Effect.provide(layer)))

  describe(`Ledger in ${where}`, () => {
    promise(
      "has a row before anything is made, and strikes it once it is proven gone",
      Effect.gen(function*() {
        const ledger = yield* Ledger
        const scope = yield* Scope.make()
        const asked: Array<string> = []
        const row = yield* ledger.hold("oci", (row) => Effect.sync(() => asked.push(row.id) > 0)).pipe(
          Scope.provide(scope)
        )
        assert.match(row.id, /^[a-z0-9]{20}$/)
        assert.strictEqual(row.instance, "w1")
        assert.deepStrictEqual(yield* ledger.rows(), [row])
        assert.deepStrictEqual(yield* ledger.rows(row.instance), [row])
        assert.deepStrictEqual(yield* ledger.rows(InstanceId.make("w2")), [])
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(asked, [row.id])
        assert.deepStrictEqual(yield* ledger.rows(), [])
      })
    )

    promise(
      "leaves the row when nothing is proven: not gone, a failed proof, one that died",
      Effect.gen(function*() {
        const ledger = yield* Ledger
        const proofs = [Effect.succeed(false), Effect.fail("no answer"), Effect.die("broken")]
        const held = Effect.forEach(proofs, (proof) => Effect.scoped(ledger.hold("process", () => proof)))
        const leaving = yield* Effect.forkChild(held, { startImmediately: true })
        yield* passing(leaving)
        const rows = yield* ledger.rows()
        assert.strictEqual(rows.length, 3)
        for (const row of rows) yield* ledger.strike(row)
        for (const row of rows) yield* ledger.strike(row)
        assert.deepStrictEqual(yield* ledger.rows(), [])
      })
    )

    promise(
      "asks again when it is not gone yet",
      Effect.gen(function*() {
        const ledger = yield* Ledger
        let asked = 0
        const proof = Effect.sync(() => ++asked === 3)
        const leaving = yield* Effect.forkChild(Effect.scoped(ledger.hold("process", () => proof)), {
          startImmediately: true
        })
        yield* passing(leaving)
        assert.strictEqual(asked, 3)
        assert.deepStrictEqual(yield* ledger.rows(), [])
      })
    )

    promise(
      "does not wait for a proof that never comes",
      Effect.gen(function*() {
        const ledger = yield* Ledger
        const scope = yield* Scope.make()
        yield* ledger.hold("qemu", () => Effect.uninterruptible(Effect.never)).pipe(Scope.provide(scope))
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        yield* TestClock.adjust("5 seconds")
        yield* Fiber.join(closing)
        assert.strictEqual((yield* ledger.rows()).length, 1)
      })
    )
  })
}

suite("memory", layerMemory.pipe(Layer.provide(layerTest({ instance: "w1" }))))
suite("files", Layer.unwrap(Effect.map(folder, (state) => layerFiles(state, "w1"))))

describe("Ledger in files", () => {
  const open = (state: string, instance: string, others?: Map<InstanceId, boolean>) =>
    Effect.flatMap(Layer.build(layerFiles(state, instance, others)), (context) => Effect.provide(Ledger, context))

  const gone = () => Effect.succeed(true)

  it.live("is shared by the workers of a host, and outlives them", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const one = yield* open(state, "w1")
      const two = yield* open(state, "w2")
      const scope = yield* Scope.make()
      const hold = (ledger: Ledger["Service"]) =>
        Effect.forEach(
          Array.from({ length: 50 }),
          () => ledger.hold("oci", gone).pipe(Scope.provide(scope)),
          { concurrency: 10 }
        )
      const reading = yield* Effect.forkChild(Effect.forEach(Array.from({ length: 20 }), () => two.rows()))
      const [ones, twos] = yield* Effect.all([hold(one), hold(two)], { concurrency: 2 })
      yield* Fiber.join(reading)
      const ids = (rows: ReadonlyArray<{ readonly id: string }>) => rows.map((row) => row.id).toSorted()
      assert.deepStrictEqual(ids(yield* one.rows(InstanceId.make("w2"))), ids(twos))
      assert.deepStrictEqual(ids(yield* (yield* open(state, "w3")).rows()), ids([...ones, ...twos]))
      const files = fs.readdirSync(join(state, "ledger"))
      assert.deepStrictEqual(files.toSorted(), ids([...ones, ...twos]))
      assert.match(fs.readlinkSync(join(state, "ledger", files[0] ?? "")), /^w[12] oci \d+$/)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(fs.readdirSync(join(state, "ledger")), [])
    }))

  it.live("never skips a row that it cannot read: it names the file and what to do", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const ledger = yield* open(state, "w1")
      const row = yield* ledger.hold("oci", () => Effect.succeed(true))
      const path = join(state, "ledger", row.id)
      for (const bad of ["w1", "w1 Other! 1", "w1 oci soon", "w1 oci 1 2", "/elsewhere"]) {
        fs.rmSync(path)
        fs.symlinkSync(bad, path)
        const error = yield* Effect.flip(ledger.rows())
        assert.strictEqual(error._tag, "LedgerError")
        assert.include(error.message, path)
        assert.include(error.message, "then remove this")
      }
      fs.rmSync(path)
      fs.writeFileSync(path, "{}")
      assert.include((yield* Effect.flip(ledger.rows())).message, `${path}: it is no link`)
    }))

  it.live("says which directory it cannot use", () =>
    Effect.gen(function*() {
      const state = yield* folder
      fs.writeFileSync(join(state, "ledger"), "")
      const error = yield* Effect.flip(Effect.scoped(open(state, "w1")))
      assert.include(error.message, join(state, "ledger"))
    }))
})
