/** Makes the arguments of `container` of what a command line says. */
import { Effect, Option } from "effect"
import type { SecretReference } from "../schemas/Container.ts"
import { usageFailure } from "./CliFailure.ts"

/** What says that a job is a container. */
export interface ContainerOptions {
  readonly image: Option.Option<string>
  readonly entrypoint: Option.Option<string>
  /** The rest: `submit` only. */
  readonly bucket?: Option.Option<string>
  readonly outputBucket?: Option.Option<string>
  readonly prefix?: Option.Option<string>
  readonly secret?: ReadonlyArray<readonly [variable: string, reference: SecretReference]>
  readonly pullSecret?: Option.Option<string>
}

const flags: Readonly<Record<keyof ContainerOptions, string>> = {
  image: "--image",
  entrypoint: "--entrypoint",
  bucket: "--bucket",
  outputBucket: "--output-bucket",
  prefix: "--prefix",
  secret: "--secret",
  pullSecret: "--pull-secret"
}

/** The flags among them that were given. */
export const givenContainer = (options: ContainerOptions): ReadonlyArray<string> =>
  (Object.keys(flags) as Array<keyof ContainerOptions>).flatMap((name) => {
    const value = options[name]
    const isGiven = value !== undefined && ("length" in value ? value.length > 0 : Option.isSome(value))
    return isGiven ? [flags[name]] : []
  })

const some = (option: Option.Option<string> | undefined): string | undefined =>
  option === undefined ? undefined : Option.getOrUndefined(option)

/** What is said of a container, or that none is meant; `others` are flags that no container takes. */
export const containerArgs = Effect.fnUntraced(function*(
  options: ContainerOptions,
  operands: ReadonlyArray<string>,
  others: ReadonlyArray<string>
) {
  const image = some(options.image)
  if (image === undefined) {
    const [stray] = givenContainer(options)
    return stray === undefined
      ? undefined
      : yield* usageFailure(`${stray} means nothing without --image`, "Name the container's image: --image debian:12")
  }
  if (others.length > 0) {
    return yield* usageFailure(
      `a container takes no ${others.join(", ")}`,
      `Its files come with its image, or with --bucket. What it runs stands behind --: --image ${image} -- PROGRAM ARGUMENTS`
    )
  }
  const bucket = some(options.bucket)
  const outputBucket = some(options.outputBucket)
  const prefix = some(options.prefix)
  if (bucket === undefined && (outputBucket !== undefined || prefix !== undefined)) {
    return yield* usageFailure(
      `${outputBucket === undefined ? "--prefix" : "--output-bucket"} means nothing without --bucket`,
      "Name the bucket its files come from: --bucket NAME"
    )
  }
  const entrypoint = some(options.entrypoint)
  const pullSecret = some(options.pullSecret)
  const secret = options.secret ?? []
  return {
    image,
    ...(entrypoint === undefined ? {} : { command: [entrypoint] }),
    ...(operands.length === 0 ? {} : { args: operands }),
    ...(bucket === undefined ? {} : {
      buckets: {
        input: bucket,
        ...(outputBucket === undefined ? {} : { output: outputBucket }),
        ...(prefix === undefined ? {} : { prefix })
      }
    }),
    ...(secret.length === 0 ? {} : { secrets: Object.fromEntries(secret) }),
    ...(pullSecret === undefined ? {} : { pullSecret })
  }
})
