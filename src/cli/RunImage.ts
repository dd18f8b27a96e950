/** What `stoker image` does and prints. */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Effect, Layer, Option } from "effect"
import { resolve } from "node:path"
import * as Native from "../layers/host/Native.ts"
import { type ListedImage, MachineImages } from "../layers/microvm/image/MachineImages.ts"
import * as MachineImagesLive from "../layers/microvm/image/MachineImagesLive.ts"
import { type Base, type Language, type MachineImage, MachineImageError } from "../layers/microvm/MachineImage.ts"
import { monotonicMs } from "../layers/Now.ts"
import { exitWith, usageFailure } from "./CliFailure.ts"
import { exitCode } from "./ExitCode.ts"
import * as Loggers from "./Loggers.ts"
import { print, say, wantsColour } from "./Output.ts"
import * as Signals from "./Signals.ts"
import { stateDirectory } from "./StateDirectory.ts"
import { style, table } from "./Style.ts"
import { formatBytes, formatMicros } from "./Units.ts"

interface Common {
  readonly state: Option.Option<string>
  readonly json: boolean
}

const logged = Loggers.layer({ format: "auto", usual: "Warn" })

/** Runs with the images of a state directory; what is wrong with one is told in its own words. */
const withImages = <A, E, R>({ state }: Common, act: Effect.Effect<A, E, R | MachineImages>) =>
  Effect.gen(function*() {
    const directory = yield* stateDirectory(state)
    const images = MachineImagesLive.layer({ stateDirectory: directory }).pipe(
      Layer.provide([Native.layer, layerSecureRandom])
    )
    return yield* Effect.provide(act, images)
  }).pipe(
    Effect.catchIf(
      (error) => error instanceof MachineImageError,
      (error) => Effect.fail(usageFailure(`machine image ${error.image}: ${error.reason}`, `${error.remedy}.`))
    ),
    Effect.provide(logged)
  )

const facts = ({ directory, identity, manifest, name }: MachineImage) => ({ name, identity, directory, manifest })

const all: ReadonlyArray<Language> = ["c", "cpp", "python", "go"]

/** What a root is: `debian with c, cpp`. */
const kindOf = ({ base, languages }: { readonly base: Base; readonly languages: ReadonlyArray<Language> }) =>
  languages.length === 0 ? base : `${base} with ${languages.join(", ")}`

const rootOf = Effect.fnUntraced(function*({ base, languages, root }: {
  readonly base: Option.Option<"minimal" | "debian">
  readonly languages: Option.Option<ReadonlyArray<Language>>
  readonly root: Option.Option<string>
}) {
  if (Option.isSome(root)) {
    return Option.isSome(base) || Option.isSome(languages)
      ? yield* usageFailure("a root that is given is taken as it is", "Leave --base and --languages out.")
      : { base: "given", file: resolve(root.value) } as const
  }
  if (Option.contains(base, "minimal")) {
    return Option.isSome(languages)
      ? yield* usageFailure("a minimal root has no languages", "Leave --languages out, or build --base debian.")
      : { base: "minimal" } as const
  }
  return { base: "debian", languages: Option.getOrElse(languages, (): ReadonlyArray<Language> => all) } as const
})

export const buildImage = Effect.fn("RunImage.build")((
  flags: Common & {
    readonly name: string
    readonly base: Option.Option<"minimal" | "debian">
    readonly languages: Option.Option<ReadonlyArray<Language>>
    readonly root: Option.Option<string>
    readonly kernel: Option.Option<string>
  }
) =>
  Effect.gen(function*() {
    const root = yield* rootOf(flags)
    const images = yield* MachineImages
    const began = yield* monotonicMs
    const image = yield* images.build({
      name: flags.name,
      root,
      ...(Option.isSome(flags.kernel) ? { kernel: resolve(flags.kernel.value) } : {})
    }, (step) => say(`stoker: ${flags.name}: ${step}`))
    const took = formatMicros(Math.round(((yield* monotonicMs) - began) * 1000))
    if (flags.json) return yield* print(JSON.stringify(facts(image)))
    yield* print(image.identity)
    yield* say(
      `stoker: ${flags.name}: ${kindOf(image.manifest.recipe)}, kernel ${image.manifest.kernelRelease}, in ${took}\n` +
        `  ${image.directory}`
    )
  }).pipe((build) => withImages(flags, build), Signals.interruptible)
)

const row = ({ diskBytes, identity, manifest, names }: ListedImage): ReadonlyArray<string> => {
  const head = [names.join(",") || "-", identity.slice(0, 12)]
  if (manifest instanceof MachineImageError) {
    return [...head, "-", "-", formatBytes(diskBytes), style(wantsColour("stdout")).red(`broken: ${manifest.reason}`)]
  }
  const { kernelRelease, madeAt, recipe } = manifest
  return [...head, kindOf(recipe), kernelRelease, formatBytes(diskBytes), `${madeAt.slice(0, 19)}Z`]
}

export const listImages = Effect.fn("RunImage.list")((flags: Common) =>
  withImages(
    flags,
    Effect.gen(function*() {
      const images = yield* MachineImages
      const found = yield* images.list
      if (flags.json) {
        return yield* print(JSON.stringify(found.map(({ manifest, ...rest }) =>
          manifest instanceof MachineImageError ? { ...rest, broken: manifest.reason } : { ...rest, manifest }
        )))
      }
      if (found.length === 0) {
        return yield* say(`stoker: no images in ${images.directory}\n  Make one: stoker image build`)
      }
      yield* print(table([["NAME", "IDENTITY", "ROOT", "KERNEL", "DISK", "MADE"], ...found.map(row)]))
      yield* exitWith(
        found.some(({ manifest }) =>
            manifest instanceof MachineImageError
          )
          ? exitCode.usage
          : 0
      )
    })
  )
)

const details = ({ directory, identity, manifest, name }: MachineImage) => {
  const { architecture, kernel, kernelRelease, madeAt, modules, recipe, root } = manifest
  const size = ({ bytes }: { readonly bytes: number }) => formatBytes(bytes)
  const known = [
    ["image", name],
    ["identity", identity],
    ["folder", directory],
    ["made", madeAt],
    ["machine", architecture],
    ["root", `${kindOf(recipe)}, ${size(root)}`],
    ["kernel", `${kernelRelease}, ${size(kernel)}`],
    ["modules", modules.map(({ file }) => file.replace(/\.ko$/, "")).join(" ") || "all in the kernel"],
    ...Object.entries(recipe.programs).map(([path, sha256]) => ["program", `${path} ${sha256.slice(0, 12)}`]),
    ...Object.entries(recipe.packages).map(([each, version]) => ["package", `${each} ${version}`])
  ]
  return table(known)
}

export const showImage = Effect.fn("RunImage.show")((flags: Common & { readonly name: string }) =>
  withImages(
    flags,
    Effect.gen(function*() {
      const image = yield* (yield* MachineImages).open(nameOf(flags.name))
      yield* print(flags.json ? JSON.stringify(facts(image)) : details(image))
    })
  )
)

/** A folder may be given as one would type it here. */
const nameOf = (text: string) => text.includes("/") ? resolve(text) : text

export const removeImage = Effect.fn("RunImage.remove")((flags: Common & { readonly name: string }) =>
  withImages(
    flags,
    Effect.gen(function*() {
      const { identity, names } = yield* (yield* MachineImages).remove(nameOf(flags.name))
      if (flags.json) return yield* print(JSON.stringify({ names, ...(identity === undefined ? {} : { identity }) }))
      yield* say(
        identity === undefined
          ? `stoker: the name ${names.join(", ")} is gone; its image has another`
          : `stoker: image ${identity.slice(0, 12)} is gone${names.length === 0 ? "" : `, with ${names.join(", ")}`}`
      )
    })
  )
)
