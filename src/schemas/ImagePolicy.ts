/** Which images jobs may bring. */
import { Schema } from "effect"

/** A class's rule for the images of its container jobs. */
export const ImagePolicy = Schema.Struct({
  /** What a reference may begin with (`registry.example/team/`). Absent: anything. */
  allow: Schema.optionalKey(Schema.NonEmptyArray(Schema.NonEmptyString)),
  /** Only references with a digest, which mean one image for ever. Absent: false. */
  digests: Schema.optionalKey(Schema.Boolean)
})
export type ImagePolicy = typeof ImagePolicy.Type

/** Files of the worker's host, which no job may name unless its operator says so. */
const ofHost = /^(?:oci|oci-archive|docker-archive|dir|containers-storage|docker-daemon):/

/** Why an image may not be used; undefined if it may. */
export const imageRefusal = (
  { allow, digests = false }: ImagePolicy,
  image: string
): { readonly reason: string; readonly remedy: string } | undefined => {
  if (ofHost.test(image) && allow?.some((prefix) => ofHost.test(prefix) && image.startsWith(prefix)) !== true) {
    return {
      reason: `image ${image} is a file of the worker's host`,
      remedy: "Name an image of a registry, or ask the operator to allow those files."
    }
  }
  if (allow !== undefined && !allow.some((prefix) => image.startsWith(prefix))) {
    return {
      reason: `image ${image} is not allowed here`,
      remedy: `Allowed are those that begin with: ${allow.join(", ")}.`
    }
  }
  return digests && !/@sha256:[0-9a-f]{64}$/.test(image)
    ? { reason: `image ${image} has no digest, and only pinned images are allowed`, remedy: "Name it as NAME@sha256:…" }
    : undefined
}
