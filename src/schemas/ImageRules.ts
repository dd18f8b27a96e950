/** Whether a class takes an image, by its `ImagePolicy`. */
import type { ImagePolicy } from "./SandboxClass.ts"

/** A prefix ends where a part of the reference does: `registry.example/team` is not `registry.example/teammate`. */
const begins = (image: string, prefix: string): boolean =>
  image.startsWith(prefix) &&
  (image.length === prefix.length || /[/:@]$/.test(prefix) || /^[/:@]/.test(image.slice(prefix.length)))

/** Why an image is not taken, and what to do; `undefined`: it is. */
export const imageRefusal = (
  policy: ImagePolicy | undefined,
  image: string
): { readonly reason: string; readonly remedy: string } | undefined => {
  if (image.split(/[/:@]/).some((part) => part === "." || part === "..")) {
    return { reason: `${image} is no reference of an image`, remedy: "Write it as registry/name:tag or name@digest." }
  }
  const { allow, digests } = policy ?? {}
  if (allow !== undefined && !allow.some((prefix) => begins(image, prefix))) {
    return {
      reason: `the class takes no image ${image}`,
      remedy: `Use one that begins with ${allow.join(" or ")}, or have it allowed (the class's images.allow).`
    }
  }
  if (digests === true && !/@sha256:[0-9a-f]{64}$/.test(image)) {
    return {
      reason: `the class takes images by digest only, and ${image} has none`,
      remedy: "Write it as name@sha256:…, which `docker inspect` or the registry tells."
    }
  }
  return undefined
}
