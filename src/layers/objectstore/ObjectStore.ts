/** The contract of an S3-compatible object store: streams in and out, in memory bounded by two parts. */
import { Context, type Effect, Schema, type Stream } from "effect"

/** The store refused, or could not be reached: what was asked, why, and what to do. */
export class ObjectStoreError extends Schema.TaggedError<ObjectStoreError>()("ObjectStoreError", {
  operation: Schema.Literals(["list", "get", "put", "delete", "head"]),
  bucket: Schema.String,
  key: Schema.optionalKey(Schema.String),
  /**
   * `NoSuchBucket`, `SignatureDoesNotMatch` …, as the store says it. Ours are `Unreachable`, `TimedOut`, `TooSlow`,
   * `Truncated`, `Corrupt`, `Changed`, `TooLarge` and `NotUnderstood`.
   */
  code: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    const what = this.key === undefined ? this.bucket : `${this.bucket}/${this.key}`
    return `object store ${this.operation} ${what}: ${this.reason}. ${this.remedy}`
  }
}

export interface StoredObject {
  readonly key: string
  readonly bytes: number
  /** Without quotes. Empty: the store says none. */
  readonly etag: string
}

export class ObjectStore extends Context.Service<ObjectStore, {
  /** All objects whose names begin with the prefix, page by page. */
  readonly list: (bucket: string, prefix: string) => Stream.Stream<StoredObject, ObjectStoreError>
  /**
   * Its bytes, each once: a broken connection is gone on with at its offset, of the same ETag. The arrays are not reused.
   */
  readonly get: (bucket: string, key: string) => Stream.Stream<Uint8Array, ObjectStoreError>
  /**
   * Puts a stream of unknown length; nothing is there until all of it is, and nothing stays of what failed or was broken
   * off. A failure of the stream is the put's.
   */
  readonly put: <E>(
    bucket: string,
    key: string,
    bytes: Stream.Stream<Uint8Array, E>,
    contentType?: string
  ) => Effect.Effect<StoredObject, ObjectStoreError | E>
  /** What is not there is deleted. */
  readonly delete: (bucket: string, key: string) => Effect.Effect<void, ObjectStoreError>
}>()("stoker/layers/objectstore/ObjectStore") {}
