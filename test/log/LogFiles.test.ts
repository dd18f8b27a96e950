import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { crc32 } from "node:zlib"
import * as HostLive from "../../src/layers/host/HostLive.ts"
import { layerTest } from "../../src/layers/host/HostTest.ts"
import { Log } from "../../src/layers/log/Log.ts"
import * as LogFiles from "../../src/layers/log/LogFiles.ts"
import { InstanceId } from "../../src/schemas/Ids.ts"
import { suite } from "./LogSuite.ts"
import { bytes, followAll, key, Model, text } from "./Model.ts"

/** A state directory that goes with its scope. */
const folder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "stoker-log-"))),
  (path) => Effect.sync(() => fs.rmSync(path, { recursive: true }))
)

/** The log of one instance, until the test ends. */
const logOf = (state: string, instance: string, others: Map<InstanceId, boolean> = new Map()) =>
  Effect.map(
    Layer.build(Layer.fresh(LogFiles.layer).pipe(Layer.provide(layerTest({ state, instance, others })))),
    (context) => Effect.provide(context)
  )

const files = (state: string) =>
  fs.readdirSync(join(state, "logs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".log")).map((name) => join(state, "logs", name))

const now = { offset: 0, maxBytes: 1_000_000, waitMs: 0 }

/** A process that writes a log, until it prints what it was asked to and is killed. */
const writerProcess = (argv: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const [command = "", ...rest] = argv
      return spawn(command, [...rest], { stdio: ["ignore", "pipe", "inherit"] })
    }),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

suite(
  "files",
  Layer.unwrap(Effect.map(folder, (state) => LogFiles.layer.pipe(Layer.provide(layerTest({ state })))))
)

describe("Log in files", () => {
  it.live("is private, lies in one of 256 folders, and comes with the first byte", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const mine = yield* logOf(state, "w1")
      const log = yield* Log.pipe(mine)
      const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: 100 })
      assert.deepStrictEqual(files(state), [])
      yield* writer.append("stdout", bytes("x"))
      yield* writer.end
      const [file = ""] = files(state)
      assert.match(file.slice(state.length), /^\/logs\/([0-9a-f]{2})\/\1[0-9a-f]{30}\.log$/)
      assert.strictEqual(fs.statSync(file).mode & 0o777, 0o600)
      assert.strictEqual(fs.statSync(join(state, "logs")).mode & 0o777, 0o700)
    }))

  it.live("writes a thousand small pieces of one moment as one record", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const log = yield* Log.pipe(yield* logOf(state, "w1"))
      const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: 100_000 })
      yield* Effect.forEach(Array.from({ length: 1000 }), () => writer.append("stdout", bytes("x")))
      yield* writer.end
      const [file = ""] = files(state)
      const size = fs.readFileSync(file)
      // Its preamble, two records' heads (three, if the turn was cut), the bytes, and 44 bytes of end.
      assert.isAtMost(size.length, 12 + size.readUInt32LE(8) + 3 * 4 + 1000 + 44)
    }))

  it.live(
    "is read by another process while it grows, head first, and whole when it has ended",
    () =>
      Effect.gen(function*() {
        const state = yield* folder
        const log = yield* Log.pipe(yield* logOf(state, "w1"))
        const beside = yield* logOf(state, "w2", new Map([[InstanceId.make("w1"), true]]))
        const other = yield* Log.pipe(beside)
        const model = new Model(1000)
        const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: model.keepBytes })
        const write = (stream: "stdout" | "stderr", size: number) => {
          const chunk = bytes(stream.charAt(3).repeat(size))
          model.append(stream, chunk)
          return writer.append(stream, chunk)
        }
        assert.strictEqual((yield* Effect.flip(other.read(key("a"), { ...now, stream: "all" })))._tag, "LogNotFound")
        yield* write("stdout", 100)
        yield* log.read(key("a"), { ...now, stream: "all", waitMs: 60_000 })
        const first = yield* other.read(key("a"), { ...now, stream: "all" })
        assert.strictEqual(first.next, 100)
        const follower = yield* Effect.forkChild(followAll(model, key("a"), "all", () => 64).pipe(beside))
        yield* write("stdout", 2000)
        yield* write("stderr", 300)
        yield* write("stdout", 2000)
        const summaries = yield* writer.end
        assert.deepStrictEqual((yield* Fiber.join(follower)).end, { summaries, complete: true })
      }),
    20_000
  )

  it.live("tells an empty-handed reader of another's log when its time is over", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const log = yield* Log.pipe(yield* logOf(state, "w1"))
      const other = yield* Log.pipe(yield* logOf(state, "w2", new Map([[InstanceId.make("w1"), true]])))
      const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: 1000 })
      yield* writer.append("stdout", bytes("abc"))
      yield* log.read(key("a"), { ...now, stream: "all", waitMs: 60_000 })
      const slice = yield* other.read(key("a"), { ...now, stream: "all", offset: 3, waitMs: 50 })
      assert.deepStrictEqual({ ...slice, run: "" }, { entries: [], next: 3, available: 3, run: "" })
    }))

  it.live("shows a polling reader in another process the log that replaced one it has seen the end of", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const other = yield* Log.pipe(yield* logOf(state, "w2"))
      const write = Effect.fnUntraced(function*(instance: string, text: string) {
        const log = yield* Log.pipe(yield* logOf(state, instance))
        const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: 1000 })
        yield* writer.append("stdout", bytes(text))
        yield* writer.end
      }, Effect.scoped)
      const poll = other.read(key("a"), { ...now, stream: "all", waitMs: 0 })
      yield* write("w1", "first")
      const before = yield* poll
      yield* write("w3", "second")
      const after = yield* Effect.repeat(Effect.andThen(Effect.sleep("100 millis"), poll), {
        until: ({ run }) => run !== before.run,
        times: 100
      })
      assert.notStrictEqual(after.run, before.run)
      const inTheFirst = yield* other.read(key("a"), { ...now, stream: "all", run: before.run, offset: 5, waitMs: 0 })
      assert.deepStrictEqual(inTheFirst.entries, [])
      assert.isFalse(inTheFirst.end?.complete)
    }))

  it.live("ends, incomplete, for those who read in another process when an attempt replaces it or it is removed", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const mine = yield* logOf(state, "w1")
      const log = yield* Log.pipe(mine)
      const other = yield* Log.pipe(yield* logOf(state, "w2", new Map([[InstanceId.make("w1"), true]])))
      const first = yield* log.open(key("a"), { attempt: 1, keepBytes: 1000 })
      yield* first.append("stdout", bytes("first"))
      yield* log.read(key("a"), { ...now, stream: "all", waitMs: 60_000 })
      assert.strictEqual((yield* other.read(key("a"), { ...now, stream: "all" })).next, 5)
      const reader = yield* Effect.forkChild(
        other.read(key("a"), { ...now, stream: "all", offset: 5, waitMs: 60_000 }),
        { startImmediately: true }
      )
      const second = yield* log.open(key("a"), { attempt: 2, keepBytes: 1000 })
      yield* second.append("stdout", bytes("second"))
      yield* second.end
      assert.isFalse((yield* Fiber.join(reader)).end?.complete)
      assert.strictEqual(text((yield* other.read(key("a"), { ...now, stream: "all" })).entries), "second")
    }))

  it.live("is whole up to a torn record when its writer was killed, with the CRC of what is there", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const scope = yield* Scope.make()
      const log = yield* Log.pipe(yield* logOf(state, "w1"))
      const writer = yield* log.open(key("a"), { attempt: 1, keepBytes: 20 }).pipe(Scope.provide(scope))
      yield* writer.append("stdout", bytes("0123456789lost"))
      yield* writer.append("stderr", bytes("errors"))
      yield* log.read(key("a"), { ...now, stream: "stderr", waitMs: 60_000 })
      const [file = ""] = files(state)
      // As if its next write had been cut: a head that promises 100 bytes, and three of them.
      const copy = `${file}.copy`
      fs.copyFileSync(file, copy)
      fs.appendFileSync(copy, Buffer.concat([Buffer.from([100, 0, 0, 0x10]), Buffer.from("abc")]))
      yield* Scope.close(scope, Exit.void)
      fs.renameSync(copy, file)
      const other = yield* Log.pipe(yield* logOf(state, "w2", new Map([[InstanceId.make("w1"), false]])))
      // What came before the first gap is told before anybody asks whether the writer lives.
      const before = yield* other.read(key("a"), { ...now, stream: "all" })
      assert.strictEqual(text(before.entries), "0123456789")
      const slice = yield* other.read(key("a"), { ...now, stream: "all", offset: before.next })
      assert.strictEqual(text(slice.entries), "errors")
      assert.deepStrictEqual(slice.entries[0], { _tag: "Gap", stream: "stdout", from: 10, to: 14 })
      assert.deepStrictEqual(slice.end, {
        complete: false,
        summaries: [
          { stream: "stdout", producedBytes: 14, droppedBytes: 4, crc32: crc32("0123456789") },
          { stream: "stderr", producedBytes: 6, droppedBytes: 0, crc32: crc32("errors") }
        ]
      })
    }))

  it.live("refuses a file that is another job's, or no log", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const log = yield* Log.pipe(yield* logOf(state, "w1"))
      const write = (id: string) =>
        Effect.scoped(Effect.gen(function*() {
          const writer = yield* log.open(key(id), { attempt: 1, keepBytes: 10 })
          yield* writer.append("stdout", bytes(id))
          yield* writer.end
        }))
      yield* write("a")
      const [a = ""] = files(state)
      yield* write("b")
      const b = files(state).find((file) => file !== a) ?? ""
      const fresh = yield* Log.pipe(yield* logOf(state, "w2"))
      fs.copyFileSync(a, b)
      const foreign = yield* Effect.flip(fresh.read(key("b"), { ...now, stream: "all" }))
      assert.match(foreign.message, /is the log of embedded\/local\/a, not of embedded\/local\/b/)
      fs.writeFileSync(b, "something that somebody else wrote")
      assert.match((yield* Effect.flip(fresh.read(key("b"), { ...now, stream: "all" }))).message, /is no log/)
    }))

  it.live(
    "survives the kill of its worker: all that was read is there, and the end says that it is not whole",
    () =>
      Effect.gen(function*() {
        const state = yield* folder
        const child = yield* writerProcess([process.execPath, join(import.meta.dirname, "writer.ts"), state])
        const written = yield* Deferred.make<void>()
        child.stdout.once("data", () => Deferred.doneUnsafe(written, Effect.void))
        yield* Deferred.await(written)
        const host = HostLive.layer({ stateDirectory: state }).pipe(Layer.provide(SecureRandom.layerWebCrypto))
        const log = yield* Log.pipe(Effect.provide(yield* Layer.build(LogFiles.layer.pipe(Layer.provide(host)))))
        const before = yield* log.read(key("killed"), { ...now, stream: "all" })
        assert.isUndefined(before.end)
        const reader = yield* Effect.forkChild(
          log.read(key("killed"), { ...now, stream: "all", offset: before.next, waitMs: 60_000 })
        )
        child.kill("SIGKILL")
        assert.isFalse((yield* Fiber.join(reader)).end?.complete)
        assert.strictEqual(
          text((yield* log.read(key("killed"), { ...now, stream: "all" })).entries),
          text(before.entries)
        )
      }),
    20_000
  )

  it.live("says that the disk is full, refuses what comes then, and shows what it has", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const child = yield* writerProcess([
        "unshare",
        "--mount",
        "sh",
        "-c",
        `mount -t tmpfs -o size=1m,mode=700 tmpfs ${state} && exec "$0" "$@"`,
        process.execPath,
        join(import.meta.dirname, "writer.ts"),
        state,
        "fill"
      ])
      const said = yield* Effect.callback<string>((resume) => {
        let output = ""
        child.stdout.on("data", (chunk) => void (output += String(chunk)))
        child.stdout.once("close", () => resume(Effect.succeed(output)))
      })
      assert.match(said, /could not append: .*ENOSPC.*Free space/)
      assert.match(said, /again: .*ENOSPC/)
      assert.match(said, /could not end: .*ENOSPC/)
      assert.match(said, /read [1-9][0-9]* of x/)
    }), 20_000)

  it.live("prunes idle logs of forgotten jobs and nothing else, a folder at a time", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const log = yield* Log.pipe(yield* logOf(state, "w1"))
      const write = Effect.fnUntraced(function*(id: string) {
        const writer = yield* log.open(key(id), { attempt: 1, keepBytes: 100 })
        yield* writer.append("stdout", bytes(id))
        yield* writer.end
      }, Effect.scoped)
      const find = (id: string) => files(state).find((path) => fs.readFileSync(path, "latin1").includes(`/${id}"`))
      const pathOf = (id: string) => find(id) ?? assert.fail(`no log of ${id}`)
      const aged = (path: string) => Effect.sync(() => fs.utimesSync(path, 1, 1))
      for (const id of ["gone", "kept", "replaced"]) {
        yield* write(id)
        yield* aged(pathOf(id))
      }
      yield* write("recent")
      const running = yield* log.open(key("running"), { attempt: 1, keepBytes: 100 })
      yield* running.append("stdout", bytes("x"))
      while (find("running") === undefined) yield* Effect.sleep(5)
      yield* aged(pathOf("running"))
      const stranger = join(state, "logs", "00", "stranger.log")
      fs.mkdirSync(join(state, "logs", "00"), { recursive: true })
      fs.writeFileSync(stranger, "not of this version, whatever it is")
      const empty = join(state, "logs", "00", "empty.log")
      fs.writeFileSync(empty, "")
      yield* Effect.forEach([stranger, empty], aged)

      const asked = new Set<string>()
      const forgotten = Effect.fnUntraced(function*(keys: ReadonlyArray<string>) {
        for (const name of keys) asked.add(name)
        // A job of that key begins while its old log is judged.
        if (keys.some((name) => name.endsWith("/replaced"))) yield* write("replaced")
        return keys.filter((name) => !name.endsWith("/kept"))
      })
      const step = log.prune(1000, forgotten)
      const removed = yield* Effect.map(
        Effect.replicateEffect(step, 256),
        (counts) => counts.reduce((a, b) => a + b, 0)
      )
      assert.strictEqual(removed, 2)
      assert.deepStrictEqual([...asked].map((name) => name.split("/")[2]).toSorted(), ["gone", "kept", "replaced"])
      assert.isTrue(fs.existsSync(stranger))
      assert.isFalse(fs.existsSync(empty))
      assert.strictEqual((yield* Effect.flip(log.read(key("gone"), { ...now, stream: "all" })))._tag, "LogNotFound")
      for (const id of ["kept", "replaced", "recent", "running"]) {
        assert.notStrictEqual(text((yield* log.read(key(id), { ...now, stream: "all" })).entries), "", id)
      }
    }).pipe(Effect.scoped))
})
