/** The files a job leaves, from its run to its settlement. What is wrong with one of them is said, and changes nothing else. */
import { Effect, type Scope } from "effect"
import { Artefacts, type ArtefactWriter } from "../layers/artefacts/Artefacts.ts"
import type { Claim } from "../layers/journal/Journal.ts"
import type { JobKey } from "../schemas/Ids.ts"
import {
  type Artefact,
  type BroughtBack,
  broughtBack,
  type MissingArtefact,
  type StoredArtefact
} from "../schemas/JobEvent.ts"
import type { Harvest, JobResult } from "./JobResult.ts"

/** What is gathered while a run ends. */
export interface Gathering {
  readonly add: (path: string, content: Uint8Array) => Effect.Effect<void>
  /** Its executor has put it into a bucket. */
  readonly store: (stored: StoredArtefact) => Effect.Effect<void>
  readonly miss: (path: string, reason: string) => Effect.Effect<void>
  /** When nothing more comes: each file that was asked for is in it, there, stored or missing. */
  readonly harvest: () => Harvest | undefined
}

/** For a job that asked for these. What is not kept before the scope closes is removed. */
export const gather = Effect.fnUntraced(function*(
  key: JobKey,
  asked: ReadonlyArray<string>
): Effect.fn.Return<Gathering, never, Artefacts | Scope.Scope> {
  if (asked.length === 0) {
    return { add: () => Effect.void, store: () => Effect.void, miss: () => Effect.void, harvest: () => undefined }
  }
  const writer: ArtefactWriter = yield* (yield* Artefacts).open(key)
  const artefacts: Array<Artefact> = []
  const artefactsStored: Array<StoredArtefact> = []
  const artefactsMissing: Array<MissingArtefact> = []
  const miss = (path: string, reason: string) => void artefactsMissing.push({ path, reason })
  return {
    add: (path, content) =>
      Effect.match(writer.add(path, content), {
        onSuccess: (artefact) => void artefacts.push(artefact),
        onFailure: (error) => miss(path, notKept(error.reason))
      }),
    store: (stored) => Effect.sync(() => void artefactsStored.push(stored)),
    miss: (path, reason) => Effect.sync(() => miss(path, reason)),
    harvest: () => {
      const told = new Set([...artefacts, ...artefactsStored, ...artefactsMissing].map(({ path }) => path))
      const untold = asked.filter((path) => !told.has(path))
      for (const path of untold) miss(path, "the job ended before anything could be brought back")
      return { ...broughtBack({ artefacts, artefactsStored, artefactsMissing }), keep: writer.keep }
    }
  }
})

const notKept = (reason: string) => `it could not be kept: ${reason}`

/** Keeps what was gathered; gives what is to be written down of it. A former attempt's files go in any case. */
export const kept = Effect.fnUntraced(function*(
  { attempt, key }: Claim,
  { harvest, startedAtMs }: Pick<JobResult, "harvest" | "startedAtMs">
): Effect.fn.Return<BroughtBack, never, Artefacts> {
  if (harvest === undefined) {
    // Not run now, or not for the first time: somebody may have died between keeping and settling.
    if (attempt > 1 || startedAtMs === undefined) {
      yield* Effect.ignore((yield* Artefacts).remove(key), {
        log: "Warn",
        message: "what a former attempt left is removed later"
      })
    }
    return {}
  }
  const { artefacts = [], artefactsMissing = [], artefactsStored = [], keep } = harvest
  return yield* Effect.match(keep, {
    onSuccess: () => broughtBack({ artefacts, artefactsStored, artefactsMissing }),
    onFailure: ({ reason }) =>
      broughtBack({
        artefactsStored,
        artefactsMissing: [
          ...artefactsMissing,
          ...artefacts.map(({ path }) => ({ path, reason: notKept(reason) }))
        ]
      })
  })
})
