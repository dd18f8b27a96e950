/** Which images jobs may bring. */
import { Schema } from "effect"

/** A class's rule for the images of its container jobs. */
export const ImagePolicy = Schema.Struct({
  /** What a reference may begin with (`registry.example/team/`). Absent: anything. */
  allow: Schema.optionalKey(Schema.NonEmptyArray(
    Schema.String.check(
      Schema.isPattern(/^[A-Za-z0-9][A-Za-z0-9._:/@-]*$/, {
        expected: "what a reference begins with, such as registry.example/team/ (a prefix: no '*')"
      })
    )
  )),
  /** Only references with a digest, which mean one image for ever. Absent: false. */
  digests: Schema.optionalKey(Schema.Boolean)
})
export type ImagePolicy = typeof ImagePolicy.Type

/** Files of the worker's host, which no job may name unless its operator says so. */
const ofHost = /^(?:oci|oci-archive|docker-archive|dir|containers-storage|docker-daemon):/

/** A prefix ends where a part of the reference does: `registry.example/team` is not `registry.example/teammate`. */
const begins = (image: string, prefix: string): boolean =>
  image.startsWith(prefix) &&
  (image.length === prefix.length || /[/:@]$/.test(prefix) || /^[/:@]/.test(image.slice(prefix.length)))

/** Why an image is not taken, and what to do; undefined if it is. Absent, the policy is that of an empty one. */
export const imageRefusal = (
  { allow, digests = false }: ImagePolicy = {},
  image: string
): { readonly reason: string; readonly remedy: string } | undefined => {
  if (image.split(/[/:@]/).some((part) => part === "." || part === "..")) {
    return { reason: `${image} is no reference of an image`, remedy: "Write it as registry/name:tag or name@digest." }
  }
  const isAllowed = allow?.some((prefix) => begins(image, prefix))
  if (ofHost.test(image) && !(isAllowed === true && allow?.some((prefix) => ofHost.test(prefix)) === true)) {
    return {
      reason: `image ${image} is a file of the worker's host`,
      remedy: "Name an image of a registry, or ask the operator to allow those files."
    }
  }
  if (isAllowed === false) {
    return {
      reason: `the class takes no image ${image}`,
      remedy: `Use one that begins with ${allow?.join(" or ")}, or have it allowed (the class's images.allow).`
    }
  }
  return digests && !/@sha256:[0-9a-f]{64}$/.test(image)
    ? {
      reason: `the class takes images by digest only, and ${image} has none`,
      remedy: "Write it as name@sha256:…, which `docker inspect` or the registry tells."
    }
    : undefined
}
