/** The compile cache's files: bounded, shared, restarted, damaged, without room. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { TestClock } from "effect/testing"
import { execFile } from "node:child_process"
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"
import { InstanceId } from "../../src/schemas/Ids.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { projectEnv } from "../support/Run.ts"
import * as Cache from "./Cache.ts"

const run = promisify(execFile)
const KIB = 1024
const filler = join(import.meta.dirname, "filler.ts")

interface Filled {
  readonly kept: number
  readonly entries: number
  readonly whole: number
  readonly warnings: ReadonlyArray<string>
}

describe("compiled files on the disk", () => {
  let root = ""
  let states = 0
  beforeAll(() => {
    root = Jobs.stateDirectory()
  })
  afterAll(() => Jobs.remove(root))
  const newState = () => {
    const state = join(root, String(states++))
    mkdirSync(state, { mode: 0o700 })
    return state
  }
  const pathOf = (state: string, n: number) => join(Cache.folderOf(state), Cache.keyOf(n))
  /** One worker's life over the cache. */
  const worker = <A, E>(
    options: Cache.FilesOptions,
    body: Effect.Effect<A, E>
  ) => Effect.scoped(body.pipe(Effect.provide(Cache.files(options))))
  /** With the warnings it logs. */
  const warned = Effect.fnUntraced(function*<A, E, R>(body: Effect.Effect<A, E, R>) {
    const warnings: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel === "Warn") warnings.push(String(message))
    })
    const result = yield* body.pipe(Effect.provide(Logger.layer([logger])))
    return { result, warnings }
  })

  it.effect("are for the worker's user alone, and nothing else is left beside them", () =>
    Effect.gen(function*() {
      const state = newState()
      yield* worker({ state, maximumBytes: 1024 * KIB }, Cache.put(1, Cache.compiled(100)))
      const mode = (path: string) => (statSync(path).mode & 0o777).toString(8)
      assert.strictEqual(mode(Cache.folderOf(state)), "700")
      assert.strictEqual(mode(pathOf(state, 1)), "600")
      assert.deepStrictEqual(Cache.entriesOf(state), [Cache.keyOf(1)])
      assert.deepStrictEqual(Cache.pendingOf(state), [])
    }))

  it.effect("are there for the next worker, with their order, and fewer of them if it may keep less", () =>
    Effect.gen(function*() {
      const state = newState()
      const used = <A>(step: Effect.Effect<A>) => Effect.andThen(TestClock.adjust("1 second"), step)
      yield* worker(
        { state, maximumBytes: 1024 * KIB },
        Effect.forEach([1, 2, 3, 4], (n) => used(Cache.put(n, Cache.compiled(3000))))
      )
      const first = { state, maximumBytes: 1024 * KIB, instance: "second" }
      assert.isTrue(yield* worker(first, used(Cache.has(1))))
      yield* worker(
        { state, maximumBytes: 8 * KIB, instance: "third" },
        TestClock.adjust("2 seconds").pipe(
          // Looking at files takes more than the test's time.
          Effect.andThen(Effect.promise(async () => {
            while (Cache.entriesOf(state).length > 2) await new Promise((resolve) => setTimeout(resolve, 5))
          }))
        )
      )
      assert.deepStrictEqual(Cache.entriesOf(state), [Cache.keyOf(1), Cache.keyOf(4)])
    }))

  it.effect("that are damaged are not there, and are removed", () =>
    Effect.gen(function*() {
      const damages: ReadonlyArray<readonly [string, (path: string) => void]> = [
        ["cut short", (path) => truncateSync(path, 200)],
        ["empty", (path) => truncateSync(path, 0)],
        ["longer", (path) => writeFileSync(path, "x", { flag: "a" })],
        ["another's", (path) => writeFileSync(path, readFileSync(path.replace(/1$/, "2")))],
        ["a link", (path) => {
          const moved = join(newState(), "moved")
          renameSync(path, moved)
          symlinkSync(moved, path)
        }],
        // Every part of it: magic, key, length of the head, head, content, hash.
        ...[0, 10, 41, 50, 400, -1].map((at) =>
          [`one bit at ${at}`, (path: string) => {
            const bytes = readFileSync(path)
            const place = (at + bytes.length) % bytes.length
            bytes[place] = (bytes[place] ?? 0) ^ 4
            writeFileSync(path, bytes)
          }] as const
        )
      ]
      for (const [what, damage] of damages) {
        const state = newState()
        yield* worker(
          { state, maximumBytes: 1024 * KIB },
          Effect.gen(function*() {
            yield* Cache.put(1, Cache.compiled(3000))
            yield* Cache.put(2, Cache.compiled(3000, 9))
            damage(pathOf(state, 1))
            assert.isFalse(yield* Cache.has(1), what)
            assert.deepStrictEqual(Cache.entriesOf(state), [Cache.keyOf(2)], what)
            assert.isTrue(yield* Cache.has(2), what)
            yield* Cache.put(1, Cache.compiled(3000))
            assert.isTrue(yield* Cache.has(1), what)
          })
        )
      }
    }))

  it.effect("are never reached through a link, nor waited for", () =>
    Effect.gen(function*() {
      const outside = newState()
      const state = newState()
      yield* worker({ state: outside, maximumBytes: 1024 * KIB }, Cache.put(1, Cache.compiled(3000)))
      mkdirSync(join(state, "cache"), { mode: 0o700 })
      symlinkSync(Cache.folderOf(outside), Cache.folderOf(state))
      const { result, warnings } = yield* warned(
        worker({ state, maximumBytes: 1024 * KIB }, Effect.andThen(Cache.put(2, Cache.compiled(10)), Cache.has(1)))
      )
      assert.isFalse(result)
      assert.strictEqual(warnings.length, 1)
      assert.match(warnings[0] ?? "", /no compile cache.*is not a directory/)
      assert.deepStrictEqual(Cache.entriesOf(outside), [Cache.keyOf(1)])

      const other = newState()
      yield* worker(
        { state: other, maximumBytes: 1024 * KIB },
        Effect.gen(function*() {
          yield* Effect.promise(() => run("mkfifo", [pathOf(other, 3)]))
          assert.isFalse(yield* Cache.has(3))
          assert.isFalse(existsSync(pathOf(other, 3)))
        })
      )
    }))

  it.effect("that a dead worker was writing are removed by the next one, those of the living are not", () =>
    Effect.gen(function*() {
      const state = newState()
      yield* worker({ state, maximumBytes: 1024 * KIB }, Effect.void)
      const pending = join(Cache.folderOf(state), "pending")
      for (const name of ["dead.0.new", "dead.1.room.500", "living.0.new", "living.1.room.600"]) {
        writeFileSync(join(pending, name), "x")
      }
      const others = new Map([[InstanceId.make("living"), true]])
      yield* worker({ state, maximumBytes: 1024 * KIB, others }, Effect.void)
      assert.deepStrictEqual(Cache.pendingOf(state), ["living.0.new", "living.1.room.600"])
    }))

  it.effect("leave the room that a living worker has taken, and take that of a dead one", () =>
    Effect.gen(function*() {
      const state = newState()
      const name = InstanceId.make("other")
      const others = new Map([[name, true]])
      yield* worker(
        { state, maximumBytes: 64 * KIB, others },
        Effect.gen(function*() {
          const path = join(Cache.folderOf(state), "pending", `other.1.room.${60 * KIB}`)
          writeFileSync(path, "")
          yield* Cache.put(1, Cache.compiled(6000))
          assert.isFalse(yield* Cache.has(1))
          others.set(name, false)
          yield* Cache.put(1, Cache.compiled(6000))
          assert.isTrue(yield* Cache.has(1))
          assert.isFalse(existsSync(path))
        })
      )
    }))

  it.effect("are not written into the space that new jobs need", () =>
    Effect.gen(function*() {
      const state = newState()
      const disk = { free: 1_000_000 }
      yield* worker(
        { state, maximumBytes: 1024 * KIB, reserveBytes: 1_000_000, disk },
        Effect.gen(function*() {
          yield* Cache.put(1, Cache.compiled(3000))
          assert.isFalse(yield* Cache.has(1))
          disk.free = 1_010_000
          yield* Cache.put(1, Cache.compiled(3000))
          assert.isTrue(yield* Cache.has(1))
        })
      )
    }))

  it.effect("that cannot be written are one warning, and go well again", () =>
    Effect.gen(function*() {
      const state = newState()
      const { warnings } = yield* warned(worker(
        { state, maximumBytes: 1024 * KIB },
        Effect.gen(function*() {
          const pending = join(Cache.folderOf(state), "pending")
          rmdirSync(pending)
          writeFileSync(pending, "")
          for (const n of [1, 2, 3]) yield* Cache.put(n, Cache.compiled(3000))
          assert.deepStrictEqual(yield* Cache.held(4), [])
          unlinkSync(pending)
          mkdirSync(pending)
          yield* Cache.put(1, Cache.compiled(3000))
          assert.isTrue(yield* Cache.has(1))
        })
      ))
      assert.strictEqual(warnings.length, 1)
      assert.match(warnings[0] ?? "", /compiled each time: .*ENOTDIR/)
    }))

  /** Shell commands with a tmpfs of so many KiB for `$1`, seen by them alone; `$2` is the filler. */
  const onSmallDisk = Effect.fnUntraced(function*(kib: number, script: string) {
    const mounted = `mount -t tmpfs -o size=${kib}k,mode=700 none "$1" && ${script}`
    const { stderr, stdout } = yield* Effect.promise(() =>
      run("unshare", ["--mount", "sh", "-c", mounted, "sh", newState(), filler], { env: projectEnv })
    )
    assert.strictEqual(stderr, "")
    return stdout.trim().split("\n").map((line) => JSON.parse(line) as Filled)
  })

  it.effect("of a full disk are one warning, and no half a file is left", () =>
    Effect.gen(function*() {
      const [full, left] = yield* onSmallDisk(
        128,
        `node "$2" "$1" full 1048576 20 0 20000 && node "$2" "$1" next 1048576 0 0 0 && ls "$1"/cache/compiled/pending >&2`
      )
      assert.isAtLeast(full?.kept ?? 0, 3)
      assert.isAtMost(full?.kept ?? 0, 6)
      assert.strictEqual(full?.warnings.length, 1)
      assert.match(full?.warnings[0] ?? "", /ENOSPC.*Free space/s)
      assert.deepStrictEqual(left, { kept: 0, entries: full?.kept ?? 0, whole: full?.kept ?? 0, warnings: [] })
    }))

  it.effect("of several processes are never more than the limit, and all of them whole", () =>
    Effect.gen(function*() {
      // Not a byte more fits on that disk: had they ever together more than the limit, one would have said so.
      const kib = 256
      const fill = (name: string, first: number) => `node "$2" "$1" ${name} ${kib * KIB} 150 ${first} 20000 &`
      const all = yield* onSmallDisk(
        kib,
        `{ ${fill("a", 0)} ${fill("b", 50)} ${fill("c", 1000)} wait; node "$2" "$1" d ${kib * KIB} 0 0 0; }`
      )
      assert.strictEqual(all.length, 4)
      assert.deepStrictEqual(all.flatMap(({ warnings }) => warnings), [])
      // Others push out what was just put, now and then.
      for (const { kept } of all.slice(0, 3)) assert.isAtLeast(kept, 75)
      const last = all[3]
      assert.isAtLeast(last?.entries ?? 0, 4)
      assert.strictEqual(last?.whole, last?.entries)
    }))

  it.effect("whose folder cannot be made are told once, and no worker stays away for it", () =>
    Effect.gen(function*() {
      const state = newState()
      writeFileSync(join(state, "cache"), "")
      const { result, warnings } = yield* warned(
        worker({ state, maximumBytes: 1024 * KIB }, Effect.andThen(Cache.put(1, Cache.compiled(10)), Cache.has(1)))
      )
      assert.isFalse(result)
      assert.strictEqual(warnings.length, 1)
      assert.match(warnings[0] ?? "", /^there is no compile cache: /)
    }))

  it.effect("are none when the cache is off, and what is there is not read", () =>
    Effect.gen(function*() {
      const state = newState()
      yield* worker({ state, maximumBytes: 0 }, Cache.put(1, Cache.compiled(10)))
      assert.isFalse(existsSync(join(state, "cache")))
      yield* worker({ state, maximumBytes: 1024 * KIB }, Cache.put(1, Cache.compiled(10)))
      assert.isFalse(yield* worker({ state, maximumBytes: 0 }, Cache.has(1)))
      assert.isTrue(lstatSync(pathOf(state, 1)).isFile())
    }))
})
