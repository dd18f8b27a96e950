/** A worker process that has left one job's artefacts and is in the middle of another's. Says so, and lives. */
import { Effect, Layer } from "effect"
import { SecureRandom } from "effect/crypto"
import { Artefacts } from "../../src/layers/artefacts/Artefacts.ts"
import * as ArtefactsFiles from "../../src/layers/artefacts/ArtefactsFiles.ts"
import { Host } from "../../src/layers/host/Host.ts"
import * as HostLive from "../../src/layers/host/HostLive.ts"
import { bytes, key, leave } from "./ArtefactSuite.ts"

const [state = ""] = process.argv.slice(2)

const run = Effect.gen(function*() {
  yield* leave("kept", { x: bytes("whole") })
  const writer = yield* (yield* Artefacts).open(key("half"))
  yield* writer.add("x", bytes("half of it"))
  const host = yield* Host
  yield* Effect.sync(() => void process.stdout.write(`${host.instance}\n`))
  return yield* Effect.never
}).pipe(
  Effect.scoped,
  Effect.provide(ArtefactsFiles.layer.pipe(
    Layer.provideMerge(HostLive.layer({ stateDirectory: state })),
    Layer.provide(SecureRandom.layerWebCrypto)
  ))
)

Effect.runFork(run)
// An Effect that waits keeps no process alive.
setInterval(() => undefined, 1000)
