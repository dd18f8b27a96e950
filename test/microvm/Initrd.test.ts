/** What a machine starts from, in the state directory. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as HostTest from "../../src/layers/host/HostTest.ts"
import * as Native from "../../src/layers/host/Native.ts"
import * as Initrd from "../../src/layers/microvm/Initrd.ts"
import type { MachineImage } from "../../src/layers/microvm/MachineImage.ts"
import { Tree } from "../support/Tree.ts"

const world = Effect.gen(function*() {
  const tree = yield* Effect.acquireRelease(
    Effect.sync(() => Tree.of({ "image/b.ko": "module b", "image/a.ko": "module a" })),
    (made) => Effect.sync(() => made[Symbol.dispose]())
  )
  const state = join(tree.path, "state")
  const image: MachineImage = {
    name: "test",
    identity: "1".repeat(64),
    directory: join(tree.path, "image"),
    manifest: {
      version: 1,
      architecture: "x64",
      madeAt: "2026-01-01T00:00:00Z",
      recipe: { base: "minimal", languages: [], packages: {}, programs: {} },
      root: { file: "root.ext4", bytes: 0, sha256: "0".repeat(64) },
      kernel: { file: "vmlinux", bytes: 0, sha256: "0".repeat(64) },
      kernelRelease: "6",
      modules: []
    },
    root: join(tree.path, "image", "root.ext4"),
    kernel: join(tree.path, "image", "vmlinux"),
    modules: [join(tree.path, "image", "b.ko"), join(tree.path, "image", "a.ko")]
  }
  const layer = Layer.merge(HostTest.layerTest({ state }), Native.layer)
  const maker = Effect.provide(Initrd.make, layer)
  return { tree, state, folder: join(state, "initrds"), image, maker }
})

/** Names and contents of a newc archive, read as the kernel does. */
const unpacked = (bytes: Buffer) => {
  const files = new Map<string, { readonly mode: number; readonly bytes: Buffer }>()
  for (let at = 0;;) {
    assert.strictEqual(bytes.toString("latin1", at, at + 6), "070701")
    const field = (index: number) =>
      Number.parseInt(bytes.toString("latin1", at + 6 + 8 * index, at + 14 + 8 * index), 16)
    const [mode, size, nameSize] = [field(1), field(6), field(11)]
    const name = bytes.toString("latin1", at + 110, at + 110 + nameSize - 1)
    const start = (at + 110 + nameSize + 3) & ~3
    if (name === "TRAILER!!!") return files
    files.set(name, { mode, bytes: bytes.subarray(start, start + size) })
    at = (start + size + 3) & ~3
  }
}

describe("an initrd", () => {
  it.live("has our programs as they are, and the image's modules in their order", () =>
    Effect.gen(function*() {
      const { folder, image, maker } = yield* world
      const { path, sha256 } = yield* (yield* maker)(image)
      assert.deepStrictEqual(readdirSync(folder), [sha256])
      assert.strictEqual(path, join(folder, sha256))
      assert.strictEqual(statSync(path).mode & 0o777, 0o644)
      const files = unpacked(readFileSync(path))
      const native = yield* Effect.provide(Native.Native, Native.layer)
      for (const name of ["agent", "guest", "init"] as const) {
        assert.isTrue(files.get(name)?.bytes.equals(readFileSync(native[name])), name)
        assert.strictEqual(files.get(name)?.mode, 0o100755)
      }
      assert.strictEqual(files.get("modules.list")?.bytes.toString(), "/b.ko\n/a.ko\n")
      assert.strictEqual(files.get("a.ko")?.bytes.toString(), "module a")
      assert.strictEqual(files.size, 6)
    }))

  it.live("is made once, and anew when it is gone, cut short or of another content", () =>
    Effect.gen(function*() {
      const { folder, image, maker } = yield* world
      const of = yield* maker
      const [first, same] = yield* Effect.all([of(image), of(image)], { concurrency: 2 })
      assert.deepStrictEqual(first, same)
      const inode = statSync(first.path).ino
      // Another worker of the same state directory takes it as it is.
      assert.strictEqual((yield* (yield* maker)(image)).path, first.path)
      assert.strictEqual(statSync(first.path).ino, inode)
      rmSync(first.path)
      assert.strictEqual((yield* of(image)).path, first.path)
      const whole = readFileSync(first.path)
      writeFileSync(first.path, whole.subarray(0, 100))
      yield* of(image)
      assert.isTrue(readFileSync(first.path).equals(whole))
      const other = yield* of({ ...image, identity: "2".repeat(64), modules: [] })
      assert.notStrictEqual(other.sha256, first.sha256)
      assert.deepStrictEqual(readdirSync(folder).toSorted(), [first.sha256, other.sha256].toSorted())
    }))

  it.live("goes when nobody has asked for it in a week, and stays with who asks", () =>
    Effect.gen(function*() {
      const { folder, image, maker } = yield* world
      const of = yield* maker
      const [used, old] = [yield* of(image), yield* of({ ...image, identity: "2".repeat(64), modules: [] })]
      mkdirSync(join(folder, "new-broken"))
      const week = Date.now() / 1000 - 8 * 86_400
      for (const path of [used.path, old.path, join(folder, "new-broken")]) utimesSync(path, week, week)
      yield* of(image)
      const more = yield* of({ ...image, identity: "3".repeat(64), modules: image.modules.toReversed() })
      assert.deepStrictEqual(readdirSync(folder).toSorted(), [used.sha256, more.sha256].toSorted())
    }))

  it.live("says of which image and file it could not be made", () =>
    Effect.gen(function*() {
      const { image, maker, state } = yield* world
      const of = yield* maker
      rmSync(image.modules[1] ?? "")
      const error = yield* Effect.flip(of(image))
      assert.match(error.message, /^machine image test: its initrd: .*a\.ko.*\./)
      writeFileSync(state, "in the way")
      const other = yield* Effect.flip(of({ ...image, modules: [] }))
      assert.match(other.message, /^machine image test: its initrd: .*state/)
    }))
})
