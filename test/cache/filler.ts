/**
 * A worker of its own process that fills a compile cache. usage: filler.ts STATE INSTANCE MAXIMUM COUNT FIRST BYTES
 * Says how many of its entries were there straight after their put, what was logged as a warning, and at the end which
 * entries are there, its own or not, and whether each is whole.
 */
import { Effect, Layer, Logger } from "effect"
import { InstanceId } from "../../src/schemas/Ids.ts"
import * as Cache from "./Cache.ts"

const [state = "", instance = "", ...numbers] = process.argv.slice(2)
const [maximumBytes = 0, count = 0, first = 0, bytes = 0] = numbers.map(Number)
const warnings: Array<string> = []
const logger = Logger.make(({ logLevel, message }) => {
  if (logLevel === "Warn") warnings.push(String(message))
})

/** They run beside it. */
const others = new Map(["a", "b", "c"].map((name) => [InstanceId.make(name), true]))

const fill = Effect.gen(function*() {
  let kept = 0
  for (let n = 0; n < count; n++) {
    yield* Cache.put(first + n, Cache.compiled(bytes, n % 256))
    if (yield* Cache.has(first + n)) kept += 1
  }
  const entries = Cache.entriesOf(state)
  const whole = yield* Effect.filter(entries, (name) => Cache.has(Number.parseInt(name, 16)))
  return { kept, entries: entries.length, whole: whole.length }
})
const layer = Layer.merge(Cache.files({ state, maximumBytes, instance, others }), Logger.layer([logger]))
const filled = await Effect.runPromise(fill.pipe(Effect.provide(layer)))
process.stdout.write(`${JSON.stringify({ ...filled, warnings })}\n`)
