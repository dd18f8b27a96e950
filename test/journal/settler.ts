/** Claims and settles jobs, 200 at a time, until it is killed; prints the key of each one that was answered. */
import { Effect } from "effect"
import { writeSync } from "node:fs"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import * as Sample from "./samples.ts"

const [filename = "", name = ""] = process.argv.slice(2)
const instance = Sample.instance(name)

const one = Effect.fnUntraced(function*(id: string) {
  const journal = yield* Journal
  const answer = yield* journal.claim(Sample.request(id), { instance, leaseMs: 60_000, maxAttempts: 2 })
  if (answer._tag !== "Granted") return yield* Effect.die(new Error(`${id} was not granted but ${answer._tag}`))
  yield* journal.settle(answer.claim, Sample.settlement(1), [Sample.message(id)])
  // At once and whole: what the parent reads was answered before.
  yield* Effect.sync(() => writeSync(1, `${id}\n`))
})

/** One of the 200, which takes the next job as soon as its last one is answered. */
const lane = Effect.fnUntraced(function*(number: number) {
  for (let count = 0;; count += 1) yield* one(`${name}-${number}-${count}`)
})

await Effect.runPromise(
  Effect.forEach(Array.from({ length: 200 }, (_, number) => number), lane, { concurrency: "unbounded" }).pipe(
    Effect.provide(JournalSqlite.layer({ filename }))
  )
)
