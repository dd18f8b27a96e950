/**
 * What all queues are asked to do, in one process each: `add(n)` queues a job that does nothing, `began(n)` is called by
 * its handler. Latency: one job at a time on an idle queue, from before `add` to the handler. Throughput: all queued
 * before the worker starts.
 */
const LATENCY = 500
const WARM_UP = 200
export const JOBS = 10_000
export const CONCURRENCY = 64

const waits = new Map()

/** To be called by the handler with the number the job was added with. */
export const began = (n) => waits.get(n)?.(performance.now())

const one = async (add, n) => {
  const start = performance.now()
  const beginning = new Promise((resolve) => waits.set(n, resolve))
  await add(n)
  const at = await beginning
  waits.delete(n)
  return at - start
}

/** Prints one line of JSON. `start` starts the worker and gives its end. */
export const measure = async ({ add, addMany, start }) => {
  const stop = await start()
  const latency = []
  for (let n = 0; n < WARM_UP + LATENCY; n++) {
    const took = await one(add, n)
    if (n >= WARM_UP) latency.push(took)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  await stop()
  const first = 1_000_000
  let left = JOBS
  const all = new Promise((resolve) => {
    for (let n = first; n < first + JOBS; n++) {
      waits.set(n, () => {
        left -= 1
        if (left === JOBS - JOBS / 5) waits.set("from", performance.now())
        if (left === 0) resolve(performance.now())
      })
    }
  })
  await addMany(Array.from({ length: JOBS }, (_, n) => first + n))
  const stopAgain = await start()
  const until = await all
  await stopAgain()
  const rate = (JOBS * 0.8) / ((until - waits.get("from")) / 1000)
  process.stdout.write(`${JSON.stringify({ latency, rate })}\n`, () => process.exit(0))
}
