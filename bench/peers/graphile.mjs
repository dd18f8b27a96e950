/** Graphile Worker on PostgreSQL. usage: node graphile.mjs URL */
import { Logger, makeWorkerUtils, run } from "graphile-worker"
import { began, CONCURRENCY, measure } from "./measure.mjs"

const connectionString = process.argv[2]
const logger = new Logger(() => () => {})
const utils = await makeWorkerUtils({ connectionString, logger })
await utils.migrate()

await measure({
  add: (n) => utils.addJob("noop", { n }),
  addMany: async (all) => {
    for (let at = 0; at < all.length; at += 1000) {
      await utils.addJobs(all.slice(at, at + 1000).map((n) => ({ identifier: "noop", payload: { n } })))
    }
  },
  start: async () => {
    const runner = await run({
      connectionString,
      logger,
      concurrency: CONCURRENCY,
      noHandleSignals: true,
      maxPoolSize: 10,
      taskList: { noop: async ({ n }) => began(n) }
    })
    return () => runner.stop()
  }
})
