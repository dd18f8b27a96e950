/** Submits one job of its own and claims those that another process may want too; prints those it was granted. */
import { Effect } from "effect"
import { writeSync } from "node:fs"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import * as Sample from "./samples.ts"

const [filename = "", name = ""] = process.argv.slice(2)
const instance = Sample.instance(name)

const claimAll = Effect.gen(function*() {
  const journal = yield* Journal
  yield* journal.submit(Sample.request(`by-${name}`))
  for (let number = 0; number < 100; number += 1) {
    const id = `job-${number}`
    const answer = yield* journal.claim(Sample.request(id), { instance, leaseMs: 600_000, maxAttempts: 2 })
    if (answer._tag === "Granted") yield* Effect.sync(() => writeSync(1, `${id}\n`))
  }
})

await Effect.runPromise(claimAll.pipe(Effect.provide(JournalSqlite.layer({ filename }))))
