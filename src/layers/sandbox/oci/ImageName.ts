/** What a class calls its image, taken apart: in a registry, in an archive of this host, or in an OCI layout. */
import { Result } from "effect"

/** An image of a registry. `repository` is what stands before tag and digest. */
export interface RegistryImage {
  readonly _tag: "Registry"
  readonly name: string
  readonly repository: string
  /** `sha256:…` of a manifest or of an index: then nobody has to be asked what the name means. */
  readonly digest: string | undefined
}

/** A file that holds one image, or several of which `tag` names one. */
export interface ArchiveImage {
  readonly _tag: "Archive"
  readonly name: string
  readonly format: "oci-archive" | "docker-archive"
  readonly path: string
  readonly tag: string | undefined
}

/** A directory in OCI's image layout. */
export interface LayoutImage {
  readonly _tag: "Layout"
  readonly name: string
  readonly path: string
  readonly tag: string | undefined
}

export type ImageName = RegistryImage | ArchiveImage | LayoutImage

const digestPattern = "sha256:[0-9a-f]{64}"
const part = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"
const host = "(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\\d{1,5})?/)?"
const registry = new RegExp(
  `^(${host}${part}(?:/${part})*)(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@(${digestPattern}))?$`
)
const local = /^(oci-archive|docker-archive|oci):(\/[^:@]*)(?::(.+))?$/
const transport = /^([a-z][a-z-]*):(?!\d{1,5}\/)(\/|.*:)/

/** Fails with why it is no name of an image. */
export const parse = (text: string): Result.Result<ImageName, string> => {
  const file = local.exec(text)
  if (file !== null) {
    const [, kind, path = "", tag] = file
    return Result.succeed(
      kind === "oci-archive" || kind === "docker-archive"
        ? { _tag: "Archive", name: text, format: kind, path, tag }
        : { _tag: "Layout", name: text, path, tag }
    )
  }
  const name = text.startsWith("docker://") ? text.slice("docker://".length) : text
  const image = registry.exec(name)
  if (image !== null) {
    return Result.succeed({ _tag: "Registry", name, repository: image[1] ?? name, digest: image[2] })
  }
  const other = transport.exec(text)?.[1]
  return Result.fail(
    other === undefined
      ? `"${text}" is no image's name`
      : `"${text}": images are not taken from "${other}:", or its path is not absolute`
  )
}
