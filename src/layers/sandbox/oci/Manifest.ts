/** Manifests and configurations of images, OCI's and Docker's (image-spec 1.1, manifest v2 schema 2), as far as they matter here. */
import { Result, Schema } from "effect"
import { ExecString } from "../../../schemas/ExecString.ts"
import type { Compression } from "./LayerScan.ts"

const Digest = Schema.String.check(Schema.isPattern(/^sha256:[0-9a-f]{64}$/, { expected: "a sha256 digest" }))
const Size = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }))

const Descriptor = Schema.Struct({
  mediaType: Schema.optionalKey(Schema.String),
  digest: Digest,
  size: Size
})

const Index = Schema.Struct({
  manifests: Schema.Array(Schema.Struct({
    ...Descriptor.fields,
    platform: Schema.optionalKey(Schema.Struct({
      os: Schema.optionalKey(Schema.String),
      architecture: Schema.optionalKey(Schema.String)
    }))
  }))
})

const Image = Schema.Struct({ config: Descriptor, layers: Schema.Array(Descriptor) })
export type Image = typeof Image.Type

const Configuration = Schema.Struct({
  os: Schema.String,
  architecture: Schema.String,
  config: Schema.optionalKey(Schema.NullOr(Schema.Struct({
    Env: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.String))),
    Entrypoint: Schema.optionalKey(Schema.NullOr(Schema.Array(ExecString))),
    Cmd: Schema.optionalKey(Schema.NullOr(Schema.Array(ExecString)))
  }))),
  rootfs: Schema.Struct({ diff_ids: Schema.Array(Digest) })
})
export type Configuration = typeof Configuration.Type

/** As Go names this machine. */
export const architectureOf = (arch: string): string => arch === "x64" ? "amd64" : arch === "ia32" ? "386" : arch

const parse =
  <S extends Schema.ConstraintDecoder<unknown>>(schema: S, what: string) =>
  (bytes: Buffer): Result.Result<S["Type"], string> => {
    const decoded = Schema.decodeUnknownResult(Schema.fromJsonString(schema))(bytes.toString("utf8"))
    return Result.mapError(decoded, (issue) => `${what} does not parse: ${String(issue).split("\n")[0]}`)
  }

export const parseIndex = parse(Index, "its index")
export const parseImage = parse(Image, "its manifest")
export const parseConfiguration = parse(Configuration, "its configuration")

/** A list of images for several machines, which points to others' manifests. */
export const isIndex = (bytes: Buffer): boolean => Result.isSuccess(parseIndex(bytes))

/** The digest of the list's image for this machine, or why there is none. */
export const chooseFrom = (bytes: Buffer, architecture: string): Result.Result<string, string> =>
  Result.flatMap(parseIndex(bytes), ({ manifests }) => {
    const found = manifests.find(({ platform }) => platform?.os === "linux" && platform.architecture === architecture)
    if (found !== undefined) return Result.succeed(found.digest)
    const others = manifests.flatMap(({ platform }) =>
      platform?.os === undefined || platform.os === "unknown" ? [] : [`${platform.os}/${platform.architecture ?? "?"}`]
    )
    return Result.fail(`it is for ${others.join(", ") || "nobody"}, and this host is linux/${architecture}`)
  })

/** How the layers are packed, in order; or why these cannot be a root file system. */
export const compressions = (image: Image): Result.Result<ReadonlyArray<Compression>, string> => {
  const found: Array<Compression> = []
  for (const { mediaType = "" } of image.layers) {
    const kind =
      /^application\/vnd\.(?:oci\.image\.layer\.v1\.tar|docker\.image\.rootfs\.diff\.tar)(?:[.+](gzip|zstd))?$/.exec(
        mediaType
      )
    if (kind === null) return Result.fail(`a layer of it is "${mediaType}", which is not unpacked`)
    found.push(kind[1] === "gzip" || kind[1] === "zstd" ? kind[1] : "none")
  }
  return found.length === 0 ? Result.fail("it has no layers: there is nothing in it") : Result.succeed(found)
}

/** What it runs, in its own words. */
export const runOf = ({ config }: Configuration) => ({
  entrypoint: config?.Entrypoint ?? [],
  arguments: config?.Cmd ?? []
})

/** Not the image's to say: where the job's own files are. */
const ours = new Set(["HOME", "TMPDIR", "PWD", "HOSTNAME"])

/** Room for all variables of an image, in characters. */
const MOST_ENV = 65_536

/** What programs of the image find in their environment; variables without a name are left out. */
export const environmentOf = ({ config }: Configuration): Result.Result<Readonly<Record<string, string>>, string> => {
  const lines = config?.Env ?? []
  if (lines.reduce((sum, line) => sum + line.length, 0) > MOST_ENV) {
    return Result.fail(`its environment is larger than ${MOST_ENV} characters`)
  }
  return Result.succeed(Object.fromEntries(lines.flatMap((line) => {
    const equals = line.indexOf("=")
    const name = line.slice(0, equals)
    return equals < 1 || ours.has(name) || line.includes("\0") ? [] : [[name, line.slice(equals + 1)]]
  })))
}
