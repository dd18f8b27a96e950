/** BullMQ on Redis. usage: node bullmq.mjs PORT */
import { Queue, Worker } from "bullmq"
import { Redis } from "ioredis"
import { began, CONCURRENCY, measure } from "./measure.mjs"

const connect = () => new Redis({ host: "127.0.0.1", port: Number(process.argv[2]), maxRetriesPerRequest: null })
const queue = new Queue("bench", { connection: connect(), defaultJobOptions: { removeOnComplete: true } })

await measure({
  add: (n) => queue.add("noop", { n }),
  addMany: (all) => queue.addBulk(all.map((n) => ({ name: "noop", data: { n } }))),
  start: async () => {
    const worker = new Worker("bench", async ({ data }) => began(data.n), { connection: connect(), concurrency: CONCURRENCY })
    await worker.waitUntilReady()
    return () => worker.close()
  }
})
