/** Artefacts in memory, for tests and programs that want none on their disk: they end with their layer. */
import { Clock, Effect, Layer } from "effect"
import { createHash } from "node:crypto"
import { keyText } from "../../schemas/Ids.ts"
import type { Artefact } from "../../schemas/JobEvent.ts"
import { ArtefactNotFound, Artefacts } from "./Artefacts.ts"

interface Kept {
  readonly files: ReadonlyMap<string, { readonly artefact: Artefact; readonly content: Uint8Array }>
  readonly writtenMs: number
}

/** Nothing is written anywhere. */
export const layerMemory: Layer.Layer<Artefacts> = Layer.sync(Artefacts, () => {
  const jobs = new Map<string, Kept>()
  return Artefacts.of({
    open: (key) =>
      Effect.sync(() => {
        const files = new Map<string, { readonly artefact: Artefact; readonly content: Uint8Array }>()
        return {
          add: (path, content) =>
            Effect.sync(() => {
              const sha256 = createHash("sha256").update(content).digest("hex")
              const artefact: Artefact = { path, bytes: content.length, sha256 }
              files.set(path, { artefact, content: content.slice() })
              return artefact
            }),
          keep: Effect.clockWith((clock) =>
            Effect.sync(() => {
              if (files.size === 0) jobs.delete(keyText(key))
              else jobs.set(keyText(key), { files, writtenMs: clock.currentTimeMillisUnsafe() })
            })
          )
        }
      }),
    read: (key, wanted, { maxBytes, offset }) =>
      Effect.suspend(() => {
        const found = jobs.get(keyText(key))?.files.get(wanted.path)
        return found === undefined || found.artefact.sha256 !== wanted.sha256
          ? Effect.fail(new ArtefactNotFound({ key, path: wanted.path }))
          : Effect.succeed(found.content.slice(offset, offset + Math.max(1, maxBytes)))
      }),
    remove: (key) => Effect.sync(() => void jobs.delete(keyText(key))),
    prune: Effect.fnUntraced(function*(idleMs, forgotten) {
      const before = (yield* Clock.currentTimeMillis) - idleMs
      const idle = [...jobs].filter(([, { writtenMs }]) => writtenMs < before)
      const gone = yield* forgotten(idle.map(([key]) => key))
      for (const key of gone) jobs.delete(key)
      return gone.length
    })
  })
})
