/** Leaves artefacts on a small file system that is full, and again when there is room. Prints what it saw as JSON. */
import { Effect, Layer } from "effect"
import { rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Artefacts } from "../../src/layers/artefacts/Artefacts.ts"
import * as ArtefactsFiles from "../../src/layers/artefacts/ArtefactsFiles.ts"
import { layerTest } from "../../src/layers/host/HostTest.ts"
import { bytes, key, read } from "./ArtefactSuite.ts"

const [state = ""] = process.argv.slice(2)
const filler = join(state, "filler")

const fill = () => {
  // A full disk is what we want here.
  try {
    writeFileSync(filler, new Uint8Array(4 << 20))
  } catch {
    return
  }
}

const saw = await Effect.gen(function*() {
  const artefacts = yield* Artefacts
  const first = yield* Effect.scoped(Effect.gen(function*() {
    const writer = yield* artefacts.open(key("a"))
    yield* writer.add("small", bytes("fits"))
    const full = yield* Effect.flip(writer.add("large", new Uint8Array(4 << 20)))
    yield* writer.add("after", bytes("fits too"))
    yield* writer.keep
    return full
  }))
  yield* Effect.sync(fill)
  const second = yield* Effect.scoped(Effect.gen(function*() {
    const writer = yield* artefacts.open(key("b"))
    const full = yield* Effect.flip(writer.add("x", bytes("no room even for a name")))
    rmSync(filler)
    yield* writer.add("x", bytes("room again"))
    yield* writer.keep
    return full
  }))
  const third = yield* Effect.scoped(Effect.gen(function*() {
    const writer = yield* artefacts.open(key("c"))
    const page = new Uint8Array(4096)
    // Ends on the last free byte, so that the list finds none.
    while ((yield* Effect.exit(writer.add(`page-${Math.random()}`, page)))._tag === "Success") continue
    yield* Effect.sync(fill)
    return yield* Effect.flip(writer.keep)
  }))
  rmSync(filler)
  return {
    first: [first.reason, first.remedy],
    second: second.reason,
    third: third.reason,
    small: yield* read("a", "small", bytes("fits")),
    after: yield* read("a", "after", bytes("fits too")),
    again: yield* read("b", "x", bytes("room again")),
    none: yield* read("c", "x", bytes(""))
  }
}).pipe(
  Effect.provide(ArtefactsFiles.layer.pipe(Layer.provide(layerTest({ state })))),
  Effect.runPromise
)
process.stdout.write(`${JSON.stringify(saw)}\n`)
