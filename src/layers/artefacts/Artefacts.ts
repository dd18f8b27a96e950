/** The files that jobs left: brought back from their sandboxes, kept beside their logs and as long. */
import { Context, Effect, Option, Schema, type Scope, Stream } from "effect"
import { type JobKey, JobKey as JobKeySchema } from "../../schemas/Ids.ts"
import { type Job, keyOf } from "../../schemas/Job.ts"
import type { Artefact, BroughtBack } from "../../schemas/JobEvent.ts"

/** An artefact could not be written, read or removed. */
export class ArtefactError extends Schema.TaggedError<ArtefactError>()("ArtefactError", {
  operation: Schema.Literals(["write", "read", "remove"]),
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `an artefact could not be ${
      { write: "written", read: "read", remove: "removed" }[this.operation]
    }: ${this.reason}. ${this.remedy}`
  }
}

/** The job left no such file; or it ran elsewhere, or its retention is over. */
export class ArtefactNotFound
  extends Schema.TaggedError<ArtefactNotFound>()("ArtefactNotFound", { key: JobKeySchema, path: Schema.String })
{
  override get message() {
    return `no artefact ${this.path} is kept for ${this.key.intake}/${this.key.owner}/${this.key.id}`
  }
}

/** Where to read and how much. Bytes. */
export interface ArtefactRange {
  readonly offset: number
  /** Most bytes to give at once; at least one is given when there is one. */
  readonly maxBytes: number
}

/** A piece of an artefact. Nothing follows when `offset` and the bytes come to `artefact.bytes`. */
export interface ArtefactSlice {
  readonly artefact: Artefact
  readonly offset: number
  readonly bytes: Uint8Array
}

/** What one attempt brings back, held by the one job actor that runs the job. */
export interface ArtefactWriter {
  /** Writes one file. After an error the others are as they were, and more may be added. */
  readonly add: (path: string, content: Uint8Array) => Effect.Effect<Artefact, ArtefactError>
  /**
   * All that was added takes the place of what former attempts left, on the disk for good and in one step. Whoever does
   * not come to it leaves no trace.
   */
  readonly keep: Effect.Effect<void, ArtefactError>
}

/** Where jobs' files are kept. */
export class Artefacts extends Context.Service<Artefacts, {
  /** Makes nothing before something is added. Closing the scope removes what was not kept. */
  readonly open: (key: JobKey) => Effect.Effect<ArtefactWriter, never, Scope.Scope>
  /** Gives bytes of just that artefact, as the job's settlement names it: never another attempt's of the same name. */
  readonly read: (
    key: JobKey,
    artefact: Artefact,
    range: ArtefactRange
  ) => Effect.Effect<Uint8Array, ArtefactNotFound | ArtefactError>
  readonly remove: (key: JobKey) => Effect.Effect<void, ArtefactError>
  /** As `Log.prune`. */
  readonly prune: <E>(
    idleMs: number,
    forgotten: (keys: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string>, E>
  ) => Effect.Effect<number, ArtefactError | E>
}>()("stoker/layers/artefacts/Artefacts") {}

/** Read together from a disk, sent together over a wire. Bytes. */
const PIECE = 1024 * 1024

/** All of an artefact in pieces, with whatever reads one. Ends early if that gives less than the artefact has. */
export const artefactPieces = <E, R>(
  read: (range: ArtefactRange) => Effect.Effect<ArtefactSlice, E, R>
): Stream.Stream<Uint8Array, E, R> =>
  Stream.paginate(0, (offset) =>
    Effect.map(read({ offset, maxBytes: PIECE }), ({ artefact, bytes }) => {
      const next = offset + bytes.length
      return [
        bytes.length === 0 ? [] : [bytes],
        bytes.length === 0 || next >= artefact.bytes ? Option.none<number>() : Option.some(next)
      ] as const
    }))

/** What a record names, of whom nothing else need be known here. */
interface Named {
  readonly request: { readonly job: Job }
  readonly settlement?: BroughtBack
}

/** Bytes of the artefact that a job's record has under that name. */
export const readNamed = Effect.fnUntraced(function*(
  artefacts: Artefacts["Service"],
  { request: { job }, settlement }: Named,
  path: string,
  range: ArtefactRange
): Effect.fn.Return<ArtefactSlice, ArtefactNotFound | ArtefactError> {
  const key = keyOf(job)
  const artefact = settlement?.artefacts?.find((one) => one.path === path)
  if (artefact === undefined) return yield* new ArtefactNotFound({ key, path })
  return { artefact, offset: range.offset, bytes: yield* artefacts.read(key, artefact, range) }
})
