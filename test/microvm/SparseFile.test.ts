import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import * as Scratch from "../../src/layers/microvm/Scratch.ts"
import * as SparseFile from "../../src/layers/microvm/SparseFile.ts"

const run = promisify(execFile)
const MiB = 1024 * 1024

const folder = Effect.acquireRelease(
  Effect.promise(() => fs.mkdtemp(join(tmpdir(), "sparse-"))),
  (path) => Effect.promise(() => fs.rm(path, { recursive: true, force: true }))
)

const scratchIn = (path: string) => {
  const ran: Array<ReadonlyArray<string>> = []
  const scratch = Scratch.make({
    folder: path,
    run: (argv) => {
      ran.push(argv)
      const [program, ...args] = argv
      return Effect.promise(() => run(program, args))
    }
  })
  return { ran, scratch }
}

describe("sparse files", () => {
  it.live("are copied byte for byte, with their holes", () =>
    Effect.scoped(Effect.gen(function*() {
      const path = yield* folder
      const [from, to] = [join(path, "from"), join(path, "to")]
      yield* Effect.promise(async () => {
        await using file = await fs.open(from, "w")
        await file.truncate(64 * MiB + 123)
        await file.write("first", 0)
        await file.write(Buffer.alloc(3 * MiB, 7), 0, 3 * MiB, 20 * MiB + 5)
        await file.write("last", 64 * MiB + 119)
      })
      const loaded = yield* Effect.promise(() => SparseFile.load(from, 8 * MiB))
      assert.isDefined(loaded)
      if (loaded === undefined) return
      yield* Effect.promise(() => SparseFile.write(loaded, to))
      const [one, other] = yield* Effect.promise(() => Promise.all([fs.readFile(from), fs.readFile(to)]))
      assert.isTrue(one.equals(other))
      const { blocks } = yield* Effect.promise(() => fs.stat(to))
      assert.isBelow(blocks * 512, 4 * MiB)
      assert.deepStrictEqual(
        yield* Effect.promise(() => SparseFile.digest(from)),
        yield* Effect.promise(() => SparseFile.digest(to))
      )
      yield* Effect.promise(() => fs.truncate(to, 64 * MiB + 122))
      assert.notDeepEqual(
        yield* Effect.promise(() => SparseFile.digest(from)),
        yield* Effect.promise(() => SparseFile.digest(to))
      )
    })))

  it.live("with more in them than they may have are not kept", () =>
    Effect.scoped(Effect.gen(function*() {
      const path = join(yield* folder, "full")
      yield* Effect.promise(() => fs.writeFile(path, Buffer.alloc(2 * MiB, 1)))
      assert.isUndefined(yield* Effect.promise(() => SparseFile.load(path, MiB)))
    })))
})

describe("disks of machines", () => {
  it.live("are made once for each size, and hold what was asked for", () =>
    Effect.scoped(Effect.gen(function*() {
      const path = yield* folder
      const { ran, scratch } = scratchIn(join(path, "making"))
      const disk = { bytes: 64 * MiB, inodes: 1000 }
      yield* scratch.of(disk)
      const runs = ran.length
      const empty = yield* scratch.of(disk)
      assert.strictEqual(ran.length, runs)
      assert.deepStrictEqual(yield* Effect.promise(() => fs.readdir(join(path, "making"))), [])
      const file = join(path, "scratch.img")
      yield* scratch.write(empty, file, { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 })
      const { stdout } = yield* Effect.promise(() => run("dumpe2fs", ["-h", file]))
      const field = (name: string) => Number(new RegExp(`^${name}:\\s*(\\d+)`, "m").exec(stdout)?.[1])
      // Not a block more, for root either, than a job and Linux itself have, and no more inodes than the job may have and the
      // machine's own directories take.
      const kept = Math.floor(field("Block count") / 50)
      assert.strictEqual((field("Free blocks") - kept) * field("Block size"), disk.bytes)
      assert.strictEqual(field("Reserved block count"), 0)
      assert.strictEqual(field("Free inodes"), disk.inodes + 8)
      assert.match(stdout, /volume name:\s*scratch/)
      assert.isBelow((yield* Effect.promise(() => fs.stat(file))).blocks * 512, 4 * MiB)
      yield* Effect.promise(() => run("e2fsck", ["-f", "-n", file]))
    })))
})
