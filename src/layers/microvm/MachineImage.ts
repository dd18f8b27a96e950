/** The contract of machine images: a root file system and a kernel for microVMs, built once, named by their content. */
import { Schema } from "effect"

/** An image is missing, corrupt, for another architecture, or could not be built. */
export class MachineImageError extends Schema.TaggedError<MachineImageError>()("MachineImageError", {
  image: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `machine image ${this.image}: ${this.reason}. ${this.remedy}`
  }
}

const Sha256 = Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/, { expected: "a SHA-256 in hexadecimal" }))

/**
 * `minimal`: busybox, for static programs. `debian`: a small Debian, with compilers. `given`: a file system that somebody else made,
 * such as an original of the CodeBench worker's.
 */
export const Base = Schema.Literals(["minimal", "debian", "given"])
export type Base = typeof Base.Type

/** What can be compiled and run in a machine. */
export const Language = Schema.Literals(["c", "cpp", "python", "go"])
export type Language = typeof Language.Type

/** One file of an image, by its name in the image's folder. */
export const ImageFile = Schema.Struct({
  file: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/, { expected: "a file name" })),
  bytes: Schema.Natural,
  sha256: Sha256
})
export type ImageFile = typeof ImageFile.Type

/** `manifest.json` beside each image. */
export const Manifest = Schema.Struct({
  version: Schema.Literal(1),
  /** Node's name for it: `x64`, `arm64`. */
  architecture: Schema.String,
  madeAt: Schema.String,
  /** How it was made: what `stoker image build` was given, and the exact versions that came of it. */
  recipe: Schema.Struct({
    base: Base,
    languages: Schema.Array(Language),
    /** Of `given`: its own first process, which machines with an agent start; absent: it has none. */
    init: Schema.optionalKey(Schema.Literal("/sbin/init")),
    /** Debian packages in the root and of the kernel, by name, with their versions. */
    packages: Schema.Record(Schema.String, Schema.String),
    /** The worker's own programs that are in the root, by path, with their SHA-256. */
    programs: Schema.Record(Schema.String, Sha256)
  }),
  /** ext4, labelled `rootfs`. */
  root: ImageFile,
  /** ELF `vmlinux`. */
  kernel: ImageFile,
  /** As `uname -r` says it. */
  kernelRelease: Schema.String,
  /** Kernel modules in the order in which they are loaded; none for a kernel that has all built in. */
  modules: Schema.Array(ImageFile)
})
export type Manifest = typeof Manifest.Type

/** An image that was found whole. Paths are absolute. */
export interface MachineImage {
  readonly name: string
  /** SHA-256 over the manifest's checksums: another content, another identity. */
  readonly identity: string
  readonly directory: string
  readonly manifest: Manifest
  readonly root: string
  readonly kernel: string
  readonly modules: ReadonlyArray<string>
}
