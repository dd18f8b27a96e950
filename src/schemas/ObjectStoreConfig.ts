/** Which object store this worker carries files from and to. Its keys are secrets, and are none of this. */
import { Schema } from "effect"

const span = (maximum: number) =>
  Schema.Int.check(Schema.isBetween({ minimum: 100, maximum }, { expected: "milliseconds, from 100 on" }))

/** Any store that speaks S3. Times are milliseconds. */
export const ObjectStoreConfig = Schema.Struct({
  /** http://HOST:PORT or https://HOST, without a path. */
  endpoint: Schema.String.check(
    Schema.isPattern(/^https?:\/\/[A-Za-z0-9.[\]:_-]+\/?$/, {
      expected: "the store's address without a path, such as https://store.example:9000"
    })
  ),
  /** As the store has it: part of every signature. */
  region: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_-]{1,64}$/, { expected: "a region, such as us-east-1" })),
  /** Buckets in the path (`/bucket/key`), else in the host's name (`bucket.host/key`). */
  pathStyle: Schema.Boolean,
  /** A store that moves no byte for so long does not answer. */
  timeoutMs: span(3_600_000),
  /** What fails for a reason that may pass is tried again for so long. */
  patienceMs: span(86_400_000)
})
export type ObjectStoreConfig = typeof ObjectStoreConfig.Type

export const standardObjectStore: Omit<ObjectStoreConfig, "endpoint"> = {
  region: "us-east-1",
  pathStyle: true,
  timeoutMs: 30_000,
  patienceMs: 60_000
}
