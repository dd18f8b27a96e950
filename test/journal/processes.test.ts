import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { rmSync } from "node:fs"
import { join } from "node:path"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import * as Place from "./places.ts"
import { child, output } from "./process.ts"
import * as Sample from "./samples.ts"

const file = Effect.map(Place.directory, (path) => join(path, "journal.sqlite"))

/** A directory that is a small file system of its own, seen by the command alone. */
const onSmallDisk = (directory: string, options: string) => {
  const script = `mount -t tmpfs -o size=2m,mode=700 stoker-test "$0" && mount -o ${options} "$0" && exec "$@"`
  return ["unshare", "--mount", "sh", "-c", script, directory]
}

describe("Journal: sqlite, in processes", { timeout: 60_000 }, () => {
  it.live(
    "what was answered is there after kill -9 in the middle of 200 concurrent settles",
    () =>
      Effect.gen(function*() {
        const filename = yield* file
        const settler = yield* child("settler.ts", [filename, "ann"])
        const answered = yield* Effect.promise(async () => {
          const ids: Array<string> = []
          for await (const id of settler.lines) {
            ids.push(id)
            if (ids.length === 500) settler.process.kill("SIGKILL")
          }
          await settler.ended
          return ids
        })
        assert.strictEqual(settler.process.signalCode, "SIGKILL")
        assert.isAtLeast(answered.length, 500)
        yield* Journal.use((journal) =>
          Effect.gen(function*() {
            const ended = yield* journal.list({ state: "ended", limit: 100_000 })
            const owed = yield* journal.owed(100_000)
            const ids = new Set(ended.map(({ request }) => String(request.job.id)))
            const messages = new Set(owed.map(({ message }) => message.id))
            assert.deepStrictEqual(answered.filter((id) => !ids.has(id) || !messages.has(id)), [])
            // Both were written in one transaction, so neither is there without the other.
            assert.deepStrictEqual(messages, ids)
            const abandoned = yield* journal.abandon(Sample.instance("ann"))
            assert.strictEqual(abandoned, (yield* journal.list({ state: "running", limit: 100_000 })).length)
          })
        ).pipe(Effect.provide(JournalSqlite.layer({ filename })))
      })
  )

  it.live("of two processes on one file no job has both", () =>
    Effect.gen(function*() {
      const filename = yield* file
      const both = yield* Effect.forEach(["ann", "bob"], (name) => child("claimer.ts", [filename, name]))
      const [ann = [], bob = []] = yield* Effect.forEach(both, output, { concurrency: "unbounded" })
      assert.deepStrictEqual(both.map(({ process }) => process.exitCode), [0, 0])
      assert.strictEqual(new Set([...ann, ...bob]).size, 100)
      assert.strictEqual(ann.length + bob.length, 100)
    }))

  it.live("a poll of the queue sees what another process submitted", () =>
    Effect.gen(function*() {
      const filename = yield* file
      yield* Journal.use((journal) =>
        Effect.gen(function*() {
          assert.deepStrictEqual(yield* Sample.queued(journal, 10), [])
          yield* output(yield* child("claimer.ts", [filename, "ann"]))
          assert.deepStrictEqual(yield* Sample.queued(journal, 10), [Sample.request("by-ann")])
        })
      ).pipe(Effect.provide(JournalSqlite.layer({ filename })))
    }))

  it.live("what another process submitted is told, also when the file that tells it was removed", () =>
    Effect.gen(function*() {
      const filename = yield* file
      yield* Journal.use((journal) =>
        Effect.gen(function*() {
          const submit = (name: string) => Effect.flatMap(child("claimer.ts", [filename, name]), output)
          const told = yield* Effect.forkChild(Stream.runHead(journal.arrivals), { startImmediately: true })
          yield* submit("ann")
          yield* Fiber.join(told)
          const again = yield* Effect.forkChild(Stream.runHead(journal.arrivals), { startImmediately: true })
          rmSync(`${filename}-bell`)
          yield* Effect.sleep("5200 millis")
          yield* submit("bob")
          yield* Fiber.join(again)
        })
      ).pipe(Effect.provide(JournalSqlite.layer({ filename })))
    }))

  it.live(
    "a full disk is said, loses nothing that was answered, and is forgotten when there is room",
    () =>
      Effect.gen(function*() {
        const directory = yield* Place.directory
        const [line = ""] = yield* output(yield* child("cramped.ts", [directory], onSmallDisk(directory, "remount,rw")))
        const seen = JSON.parse(line)
        assert.match(seen.error, /could not write down job .*no space is left for .*journal\.sqlite.*Free space/)
        assert.isTrue(seen.isReadable)
        assert.isBelow(seen.answered, 20)
        assert.strictEqual(seen.left.length, seen.answered + 2)
        assert.strictEqual(seen.left[0], "after")
        assert.strictEqual(seen.left.at(-1), "before")
      })
  )

  it.live("a directory that cannot be written is said", () =>
    Effect.gen(function*() {
      const directory = yield* Place.directory
      const [line = ""] = yield* output(yield* child("cramped.ts", [directory], onSmallDisk(directory, "remount,ro")))
      assert.match(
        JSON.parse(line).error,
        /could not be opened: .*cannot be opened for writing.*EROFS.*mounted for writing/
      )
    }))
})
