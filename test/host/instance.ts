/** A worker process that does nothing but live: prints its instance id when others can see it. */
import { Effect, Layer } from "effect"
import { SecureRandom } from "effect/crypto"
import { Host } from "../../src/layers/host/Host.ts"
import * as HostLive from "../../src/layers/host/HostLive.ts"

const run = Effect.gen(function*() {
  const host = yield* Host
  process.stdout.write(`${host.instance}\n`)
  return yield* Effect.never
}).pipe(
  Effect.provide(
    HostLive.layer({ stateDirectory: process.argv[2] ?? "" }).pipe(Layer.provide(SecureRandom.layerWebCrypto))
  )
)

Effect.runFork(run)
// An Effect that waits keeps no process alive, nor does the lock.
setInterval(() => undefined, 1000)
