/** Uploads in parts that are under way, written down so that those of dead workers can be aborted. */
import { Context, Effect, Schema } from "effect"

/** One upload: a store keeps its parts until it is completed or aborted, for ever if need be. */
export const Upload = Schema.Struct({
  endpoint: Schema.String,
  bucket: Schema.String,
  key: Schema.String,
  uploadId: Schema.String
})
export type Upload = typeof Upload.Type

/** One that nobody goes on with. */
export interface LeftUpload {
  readonly upload: Upload
  /** It is aborted: nobody needs to know of it any more. */
  readonly strike: Effect.Effect<void>
}

/** Nothing here fails: an upload goes on without its record, too. Absent: nothing is written down. */
export const Uploads = Context.Reference<{
  /** Writes it down; gives what strikes it out. */
  readonly note: (upload: Upload) => Effect.Effect<Effect.Effect<void>>
  /** Those of this host's dead workers. */
  readonly left: Effect.Effect<ReadonlyArray<LeftUpload>>
}>("stoker/layers/objectstore/Uploads", {
  defaultValue: () => ({ note: () => Effect.succeed(Effect.void), left: Effect.succeed([]) })
})
