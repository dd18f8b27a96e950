/** A worker process that writes a log: until it is killed, or (`fill`) until its disk is full. */
import { Effect, Layer } from "effect"
import { SecureRandom } from "effect/crypto"
import * as HostLive from "../../src/layers/host/HostLive.ts"
import { Log } from "../../src/layers/log/Log.ts"
import * as LogFiles from "../../src/layers/log/LogFiles.ts"
import { IntakeName, JobId, Owner } from "../../src/schemas/Ids.ts"

const [state = "", mode] = process.argv.slice(2)
const key = { intake: IntakeName.make("embedded"), owner: Owner.make("local"), id: JobId.make("killed") }
const say = (line: string) => Effect.sync(() => void process.stdout.write(`${line}\n`))

const run = Effect.gen(function*() {
  const log = yield* Log
  const writer = yield* log.open(key, { attempt: 1, keepBytes: 1 << 24 })
  yield* writer.append("stdout", Buffer.from("all that was written"))
  yield* log.read(key, { stream: "all", offset: 0, maxBytes: 1, waitMs: 60_000 })
  if (mode !== "fill") {
    yield* say("written")
    return yield* Effect.never
  }
  const chunk = Buffer.alloc(65_536, "x")
  const full = yield* Effect.flip(Effect.forever(writer.append("stdout", chunk)))
  yield* say(full.message)
  yield* say(`again: ${(yield* Effect.flip(writer.append("stdout", chunk))).message}`)
  yield* say((yield* Effect.flip(writer.end)).message)
  const slice = yield* log.read(key, { stream: "stdout", offset: 20, maxBytes: 1 << 24, waitMs: 0 })
  yield* say(`read ${slice.next - 20} of x`)
}).pipe(
  Effect.scoped,
  Effect.provide(LogFiles.layer.pipe(
    Layer.provide(HostLive.layer({ stateDirectory: state })),
    Layer.provide(SecureRandom.layerWebCrypto)
  ))
)

Effect.runFork(run)
// An Effect that waits keeps no process alive.
if (mode !== "fill") setInterval(() => undefined, 1000)
