/** Uses a journal on a small file system until it is full, and again when there is room. Prints what it saw as JSON. */
import { Effect, Exit } from "effect"
import { rmSync, writeFileSync, writeSync } from "node:fs"
import { join } from "node:path"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import * as Sample from "./samples.ts"

const [directory = ""] = process.argv.slice(2)
const filler = join(directory, "filler")
const large = "x".repeat(20_000)

const fill = () => {
  for (let size = 1 << 20; size >= 1024; size /= 2) {
    let isFull = false
    while (!isFull) {
      // A full disk is what we want here.
      try {
        writeFileSync(filler, Buffer.alloc(size), { flag: "a" })
      } catch {
        isFull = true
      }
    }
  }
}

const live = Effect.gen(function*() {
  const journal = yield* Journal
  yield* journal.submit(Sample.request("before"))
  yield* Effect.sync(fill)
  const ids = Array.from({ length: 20 }, (_, number) => `full-${number}`)
  const [exits, readable] = yield* Effect.all([
    Effect.forEach(ids, (id) => Effect.exit(journal.submit(Sample.request(id, `${id}${large}`))), {
      concurrency: "unbounded"
    }),
    // In the same transaction as those that find no room.
    Effect.exit(journal.get(Sample.key("before")))
  ], { concurrency: "unbounded" })
  const failed = yield* Effect.flip(journal.submit(Sample.request("one-more", large)))
  yield* Effect.sync(() => rmSync(filler))
  yield* journal.submit(Sample.request("after", large))
  const left = yield* journal.list({ limit: 100 })
  return {
    answered: exits.filter(({ _tag }) => _tag === "Success").length,
    error: failed.message,
    isReadable: Exit.isSuccess(readable) && readable.value !== undefined,
    left: left.map(({ request }) => request.job.id)
  }
})

const seen = await Effect.runPromise(
  live.pipe(
    Effect.provide(JournalSqlite.layer({ filename: join(directory, "journal.sqlite") })),
    Effect.catch((error) => Effect.succeed({ error: "message" in error ? error.message : "it was not refused" }))
  )
)
writeSync(1, `${JSON.stringify(seen)}\n`)
