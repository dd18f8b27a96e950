/** The promises of Artefacts, for every implementation. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, type Layer, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { createHash } from "node:crypto"
import { artefactPieces, Artefacts } from "../../src/layers/artefacts/Artefacts.ts"
import { IntakeName, JobId, type JobKey, keyText, Owner } from "../../src/schemas/Ids.ts"

export const key = (id: string): JobKey => ({
  intake: IntakeName.make("embedded"),
  owner: Owner.make("local"),
  id: JobId.make(id)
})

export const bytes = (text: string) => new TextEncoder().encode(text)
export const text = (content: Uint8Array) => new TextDecoder().decode(content)
export const sha256 = (content: Uint8Array) => createHash("sha256").update(content).digest("hex")

/** One attempt that leaves these files. */
export const leave = (id: string, files: Readonly<Record<string, Uint8Array>>) =>
  Effect.scoped(Effect.gen(function*() {
    const writer = yield* (yield* Artefacts).open(key(id))
    const left = yield* Effect.forEach(Object.entries(files), ([path, content]) => writer.add(path, content))
    yield* writer.keep
    return left
  }))

const whole = { offset: 0, maxBytes: 1 << 30 }

/** Its bytes as text; the name of the error if there is one. */
export const read = (id: string, path: string, content: Uint8Array, range = whole) =>
  Effect.gen(function*() {
    const artefact = { path, bytes: content.length, sha256: sha256(content) }
    return text(yield* (yield* Artefacts).read(key(id), artefact, range))
  }).pipe(Effect.catch((error) => Effect.succeed(error._tag)))

const everyFolder = <E, R>(prune: Effect.Effect<number, E, R>) =>
  Effect.map(Effect.replicateEffect(prune, 256), (removed) => removed.reduce((a, b) => a + b, 0))

export const suite = (where: string, layer: Layer.Layer<Artefacts, unknown>) => {
  const promise = (title: string, effect: Effect.Effect<unknown, unknown, Artefacts | Scope.Scope>) =>
    it.effect(title, () => effect.pipe(Effect.provide(layer)))

  describe(`Artefacts in ${where}`, () => {
    promise(
      "gives back the bytes of each file, from any offset, binary and empty ones too",
      Effect.gen(function*() {
        const binary = Uint8Array.from({ length: 300_000 }, (_, index) => index & 255)
        const files = { "d/a": bytes("one"), empty: new Uint8Array(), binary, "with space\u{1f600}": bytes("x") }
        const left = yield* leave("a", files)
        assert.deepStrictEqual(
          left,
          Object.entries(files).map(([path, content]) => ({ path, bytes: content.length, sha256: sha256(content) }))
        )
        const artefacts = yield* Artefacts
        for (const artefact of left) {
          const content = yield* artefacts.read(key("a"), artefact, whole)
          assert.strictEqual(sha256(content), artefact.sha256)
        }
        assert.strictEqual(yield* read("a", "d/a", bytes("one"), { offset: 1, maxBytes: 1 }), "n")
        assert.strictEqual(yield* read("a", "d/a", bytes("one"), { offset: 3, maxBytes: 10 }), "")
        assert.strictEqual(yield* read("a", "d/a", bytes("one"), { offset: 30, maxBytes: 10 }), "")
      })
    )

    promise(
      "comes in pieces that are together all of it",
      Effect.gen(function*() {
        const large = Uint8Array.from({ length: 2_500_000 }, (_, index) => (index * 7) & 255)
        const [artefact] = yield* leave("a", { large, next: bytes("not this") })
        if (artefact === undefined) return yield* Effect.die("nothing was left")
        const artefacts = yield* Artefacts
        const parts = yield* Stream.runCollect(artefactPieces((range) =>
          Effect.map(
            artefacts.read(key("a"), artefact, range),
            (content) => ({ artefact, offset: range.offset, bytes: content })
          )
        ))
        assert.isAbove(parts.length, 1)
        assert.strictEqual(sha256(Buffer.concat(parts)), artefact.sha256)
      })
    )

    promise(
      "keeps what the last attempt left, and nothing of those before it",
      Effect.gen(function*() {
        yield* leave("a", { x: bytes("first"), y: bytes("first") })
        yield* leave("a", { x: bytes("other") })
        assert.strictEqual(yield* read("a", "x", bytes("other")), "other")
        assert.strictEqual(yield* read("a", "x", bytes("first")), "ArtefactNotFound")
        assert.strictEqual(yield* read("a", "y", bytes("first")), "ArtefactNotFound")
        yield* leave("a", {})
        assert.strictEqual(yield* read("a", "x", bytes("other")), "ArtefactNotFound")
        assert.strictEqual(yield* read("b", "x", bytes("other")), "ArtefactNotFound")
      })
    )

    promise(
      "shows nothing before it is kept, and forgets what never was",
      Effect.gen(function*() {
        yield* leave("a", { x: bytes("before") })
        const scope = yield* Scope.make()
        const writer = yield* (yield* Artefacts).open(key("a")).pipe(Scope.provide(scope))
        yield* writer.add("x", bytes("after!"))
        assert.strictEqual(yield* read("a", "x", bytes("before")), "before")
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* read("a", "x", bytes("before")), "before")
        assert.strictEqual(yield* read("a", "x", bytes("after!")), "ArtefactNotFound")
      })
    )

    promise(
      "goes with its job: removed by name, or when nobody knows the job any more",
      Effect.gen(function*() {
        const artefacts = yield* Artefacts
        for (const id of ["a", "b", "c"]) yield* leave(id, { x: bytes("kept") })
        yield* artefacts.remove(key("a"))
        yield* artefacts.remove(key("a"))
        assert.strictEqual(yield* read("a", "x", bytes("kept")), "ArtefactNotFound")
        const asked: Array<string> = []
        const forgetB = (keys: ReadonlyArray<string>) =>
          Effect.sync(() => {
            asked.push(...keys)
            return keys.filter((one) => one === keyText(key("b")))
          })
        assert.strictEqual(yield* everyFolder(artefacts.prune(3_600_000, forgetB)), 0)
        assert.deepStrictEqual(asked, [])
        // Files have the machine's time, and this clock has its own.
        yield* TestClock.setTime(Date.now() + 2 * 3_600_000)
        assert.isAtLeast(yield* everyFolder(artefacts.prune(3_600_000, forgetB)), 1)
        assert.includeMembers(asked, [keyText(key("b")), keyText(key("c"))])
        assert.strictEqual(yield* read("b", "x", bytes("kept")), "ArtefactNotFound")
        assert.strictEqual(yield* read("c", "x", bytes("kept")), "kept")
      })
    )
  })
}
