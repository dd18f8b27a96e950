import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { existsSync } from "node:fs"
import * as fs from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type Binding, folderOf, make, makingOf, nameOf, type Templates } from "../../src/layers/microvm/Templates.ts"

const binding: Binding = {
  vmm: "qemu 7.2 tcg",
  image: "a".repeat(64),
  initrd: "b".repeat(64),
  vcpus: 1,
  memoryMib: 128,
  diskBytes: 1024,
  diskInodes: 16,
  bootArgs: ["quiet"]
}

const stateDirectory = Effect.acquireRelease(
  Effect.promise(() => fs.mkdtemp(join(tmpdir(), "templates-"))),
  (path) => Effect.promise(() => fs.rm(path, { recursive: true, force: true }))
)

/** Makes one of two small files, and counts how often it was asked to. */
const maker = (state: string) => {
  const made = { times: 0 }
  const build: Parameters<Templates["obtain"]>[1] = (finish) =>
    Effect.gen(function*() {
      made.times += 1
      const folder = makingOf(state, `row${made.times}`)
      yield* Effect.promise(async () => {
        await fs.mkdir(folder, { mode: 0o700 })
        await fs.writeFile(join(folder, "mem.img"), `memory ${made.times}`)
        await fs.writeFile(join(folder, "scratch.img"), "disk")
      })
      yield* finish(folder)
    }).pipe(Effect.orDie)
  return { build, made }
}

describe("machine templates", () => {
  it.live("are made once, and found by other workers of the host", () =>
    Effect.scoped(Effect.gen(function*() {
      const state = yield* stateDirectory
      const { build, made } = maker(state)
      const [one, other] = [make(state), make(state)]
      const first = yield* one.obtain(binding, build)
      const second = yield* other.obtain(binding, build)
      assert.strictEqual(made.times, 1)
      assert.strictEqual(first.directory, second.directory)
      assert.strictEqual(first.directory, join(folderOf(state), nameOf(binding)))
      assert.isFalse(existsSync(makingOf(state, "row1")))
      const stat = yield* Effect.promise(() => fs.stat(join(first.directory, "mem.img")))
      assert.strictEqual(stat.mode & 0o777, 0o444)
    })))

  it.live("are another one for another kernel, VMM, size or argument", () =>
    Effect.sync(() => {
      const names = new Set([
        binding,
        { ...binding, vmm: "qemu 8.0 tcg" },
        { ...binding, image: "c".repeat(64) },
        { ...binding, initrd: "c".repeat(64) },
        { ...binding, vcpus: 2 },
        { ...binding, memoryMib: 130 },
        { ...binding, diskBytes: 2048 },
        { ...binding, diskInodes: 17 },
        { ...binding, bootArgs: ["quiet", "stoker.wire=7070"] }
      ].map(nameOf))
      assert.strictEqual(names.size, 9)
    }))

  for (
    const [what, harm] of [
      [
        "a changed byte",
        (path: string) =>
          fs.chmod(join(path, "mem.img"), 0o644).then(() => fs.writeFile(join(path, "mem.img"), "memory 2"))
      ],
      ["a file cut off", (path: string) => fs.truncate(join(path, "mem.img"), 3)],
      ["a file gone", (path: string) => fs.rm(join(path, "scratch.img"))],
      [
        "a manifest that is none",
        (path: string) =>
          fs.chmod(join(path, "manifest.json"), 0o644).then(() => fs.writeFile(join(path, "manifest.json"), "{}"))
      ],
      ["no manifest", (path: string) => fs.rm(path, { recursive: true })]
    ] as const
  ) {
    it.live(`with ${what} are not used but made anew`, () =>
      Effect.scoped(Effect.gen(function*() {
        const state = yield* stateDirectory
        const { build, made } = maker(state)
        const { directory } = yield* make(state).obtain(binding, build)
        yield* Effect.promise(() => harm(directory))
        const later = make(state)
        assert.isUndefined(yield* later.find(binding))
        yield* later.obtain(binding, build)
        assert.strictEqual(made.times, 2)
        assert.strictEqual(
          yield* Effect.promise(() => fs.readFile(join(directory, "mem.img"), "utf8")),
          "memory 2"
        )
      })))
  }

  it.live("that failed somebody are made anew", () =>
    Effect.scoped(Effect.gen(function*() {
      const state = yield* stateDirectory
      const { build, made } = maker(state)
      const templates = make(state)
      yield* templates.obtain(binding, build)
      yield* templates.discard(binding)
      assert.isUndefined(yield* templates.find(binding))
      yield* templates.obtain(binding, build)
      assert.strictEqual(made.times, 2)
      assert.deepStrictEqual(
        (yield* Effect.promise(() => fs.readdir(folderOf(state)))).toSorted(),
        [nameOf(binding), "lock"].toSorted()
      )
    })))

  it.live("are made by one worker at a time, and the next one gets what that made", () =>
    Effect.scoped(Effect.gen(function*() {
      const state = yield* stateDirectory
      const { build, made } = maker(state)
      const begun = yield* Deferred.make<void>()
      const mayEnd = yield* Deferred.make<void>()
      const slow: typeof build = (finish) =>
        Deferred.succeed(begun, undefined).pipe(
          Effect.andThen(Deferred.await(mayEnd)),
          Effect.andThen(build(finish))
        )
      const first = yield* Effect.forkChild(make(state).obtain(binding, slow))
      yield* Deferred.await(begun)
      const second = yield* Effect.forkChild(make(state).obtain(binding, build))
      yield* Effect.sleep("300 millis")
      assert.strictEqual(made.times, 0)
      yield* Deferred.succeed(mayEnd, undefined)
      assert.deepStrictEqual(yield* Fiber.join(second), yield* Fiber.join(first))
      assert.strictEqual(made.times, 1)
    })))

  it.live("a maker that fails holds nobody up", () =>
    Effect.scoped(Effect.gen(function*() {
      const state = yield* stateDirectory
      const { build, made } = maker(state)
      const templates = make(state)
      const failed = yield* Effect.exit(templates.obtain(binding, () => Effect.fail("no guest")))
      assert.strictEqual(failed._tag, "Failure")
      yield* templates.obtain(binding, build)
      assert.strictEqual(made.times, 1)
    })))

  it.live("that nobody has used for a week go when the next one is made; those in use stay", () =>
    Effect.scoped(Effect.gen(function*() {
      const state = yield* stateDirectory
      const { build } = maker(state)
      const old = yield* make(state).obtain(binding, build)
      const own = { ...binding, vcpus: 2 }
      const templates = make(state)
      const used = yield* templates.obtain(own, build)
      const weeks = Date.now() / 1000 - 30 * 86_400
      yield* Effect.promise(() => fs.utimes(old.directory, weeks, weeks))
      yield* Effect.promise(() => fs.utimes(used.directory, weeks, weeks))
      yield* templates.obtain({ ...binding, vcpus: 3 }, build)
      assert.isFalse(existsSync(old.directory))
      assert.isTrue(existsSync(used.directory))
    })))
})
