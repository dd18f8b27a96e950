/** Makes, keeps and opens machine images below a state directory. */
import { Clock, DateTime, Effect, Layer } from "effect"
import { SecureRandom } from "effect/crypto"
import * as fs from "node:fs/promises"
import { dirname, join } from "node:path"
import { codeOf } from "../../host/Errno.ts"
import { Native } from "../../host/Native.ts"
import type { ImageFile, Manifest } from "../MachineImage.ts"
import * as Debian from "./Debian.ts"
import * as Ext4 from "./Ext4.ts"
import { failedAt, fault } from "./Fault.ts"
import * as Given from "./Given.ts"
import * as Kernel from "./Kernel.ts"
import { type ListedImage, MachineImages, type Recipe } from "./MachineImages.ts"
import * as Minimal from "./Minimal.ts"
import type { Workshop } from "./Packages.ts"
import * as Root from "./Root.ts"
import * as Store from "./Store.ts"
import * as Verify from "./Verify.ts"

/** For all of a build: a slow mirror, a slow disk. */
const DEADLINES = { minimal: "15 minutes", debian: "90 minutes", given: "15 minutes" } as const

const ROOT = "root.ext4"

const described = (folder: string, file: string, signal: AbortSignal): Promise<ImageFile> =>
  fs.stat(join(folder, file)).then(async ({ size }) => ({
    file,
    bytes: size,
    sha256: await Verify.sha256Of(join(folder, file), signal)
  }))

/** The same file by another name where the file system can do that, else a copy. */
const linkOrCopy = async (source: string, target: string) => {
  try {
    await fs.link(source, target)
  } catch (cause) {
    if (!["EXDEV", "EPERM", "EMLINK", "ENOTSUP"].includes(codeOf(cause))) throw cause
    await fs.copyFile(source, target)
  }
}

/** Blocks of a folder's files, in bytes. */
const diskBytes = async (folder: string): Promise<number> => {
  let sum = 0
  for (const name of await fs.readdir(folder).catch(() => [])) {
    const stat = await fs.lstat(join(folder, name)).catch(() => undefined)
    sum += (stat?.blocks ?? 0) * 512
  }
  return sum
}

const make = Effect.fnUntraced(function*(options: { readonly stateDirectory: string }) {
  const native = yield* Native
  const random = yield* SecureRandom.SecureRandom
  const places = Store.placesOf(join(options.stateDirectory, "machine-images"))

  const open = Effect.fn("MachineImages.open")(function*(nameOrFolder: string) {
    const folder = yield* Store.find(places, nameOrFolder)
    return yield* Verify.open(nameOrFolder, folder, places.verified)
  })

  /** Writes the root's file, and tells what is in it. */
  const makeRoot = Effect.fnUntraced(function*(shop: Workshop, root: Recipe["root"], file: string) {
    const { image, staging, told } = shop
    if (root.base === "given") {
      yield* told("copying the root file system")
      return {
        base: root.base,
        languages: [],
        packages: {},
        programs: {},
        ...(yield* Given.take(shop, root.file, file))
      }
    }
    const tree = join(staging, "tree")
    yield* Effect.tryPromise({
      try: async () => {
        await fs.mkdir(tree)
        await fs.chmod(tree, 0o755)
      },
      catch: failedAt(image, tree)
    })
    const languages = root.base === "minimal" ? [] : root.languages.toSorted()
    const packages = root.base === "minimal"
      ? yield* Minimal.make(shop, tree)
      : yield* Debian.make(shop, tree, languages)
    const { owners, programs } = yield* Root.complete(image, tree, dirname(native.guest))
    yield* told("making the root file system")
    yield* Ext4.make(shop, tree, file, owners)
    return { base: root.base, languages, packages, programs }
  })

  /** Everything of an image but its name, in `ready`. */
  const fill = Effect.fnUntraced(function*(shop: Workshop, recipe: Recipe, ready: string) {
    const { image, told } = shop
    const io = <A>(path: string, work: (signal: AbortSignal) => Promise<A>) =>
      Effect.tryPromise({ try: work, catch: failedAt(image, path) })
    const kernel = yield* Kernel.obtain(shop, recipe.kernel)
    const root = yield* makeRoot(shop, recipe.root, join(ready, ROOT))
    const files = [[kernel.file, Kernel.VMLINUX], ...kernel.modules.map((name) => [name, name])] as const
    for (const [source = "", target = ""] of files) {
      yield* io(ready, () => linkOrCopy(join(kernel.folder, source), join(ready, target)))
    }
    // VMMs run as users of their own, whatever this command's umask is.
    yield* io(ready, async () => {
      for (const name of await fs.readdir(ready)) await fs.chmod(join(ready, name), 0o644)
    })
    yield* told("taking checksums")
    const describe = (file: string) => io(ready, (signal) => described(ready, file, signal))
    const manifest: Manifest = {
      version: 1,
      architecture: process.arch,
      madeAt: DateTime.formatIso(DateTime.makeUnsafe(yield* Clock.currentTimeMillis)),
      recipe: { ...root, packages: { ...root.packages, ...kernel.packages } },
      root: yield* describe(ROOT),
      kernel: yield* describe(Kernel.VMLINUX),
      kernelRelease: kernel.release,
      modules: yield* Effect.forEach(kernel.modules, describe)
    }
    const path = join(ready, Verify.MANIFEST)
    yield* io(path, () => fs.writeFile(path, `${JSON.stringify(manifest, null, 2)}\n`))
    yield* io(path, () => fs.chmod(path, 0o644))
    yield* io(ready, () => fs.chmod(ready, 0o755))
    return manifest
  })

  /** Moves it to its place. One that is there and whole is the same; one that is not goes. */
  const keep = Effect.fnUntraced(function*(shop: Workshop, ready: string, identity: string) {
    const place = join(places.home, identity)
    if (yield* Store.publish(shop.image, ready, place)) return
    const whole = yield* Effect.result(Verify.open(shop.image, place, places.verified))
    if (whole._tag === "Success") return yield* shop.told("the same image is there already")
    yield* shop.told(`replacing the same image, which is not whole: ${whole.failure.reason}`)
    yield* Store.putAside(shop.image, place, shop.staging)
    yield* Store.publish(shop.image, ready, place)
  })

  const build = Effect.fn("MachineImages.build")(
    function*(recipe: Recipe, told: (step: string) => Effect.Effect<void>) {
      const image = recipe.name
      if (!Store.isName(image)) {
        return yield* fault(
          image,
          "that is no name",
          "Names have 1 to 64 letters, digits, '.', '_' and '-', begin with a letter or digit, and are no long hexadecimal number"
        )
      }
      yield* Store.prepare(image, places)
      yield* Store.sweep(places).pipe(
        Effect.ignore({ log: "Warn", message: "machine images: nothing was cleared away" })
      )
      const staging = yield* Store.staging(random, image, places)
      const shop: Workshop = { image, places, staging, told }
      const ready = join(staging, "ready")
      yield* Effect.tryPromise({ try: () => fs.mkdir(ready, { mode: 0o755 }), catch: failedAt(image, ready) })
      const manifest = yield* fill(shop, recipe, ready)
      const identity = Verify.identityOf(manifest)
      yield* keep(shop, ready, identity)
      yield* Store.give(places, image, identity, staging)
      return yield* open(image)
    },
    Effect.scoped,
    (effect, recipe) =>
      Effect.timeoutOrElse(effect, {
        duration: DEADLINES[recipe.root.base],
        orElse: () =>
          Effect.fail(
            fault(
              recipe.name,
              `it was not made within ${DEADLINES[recipe.root.base]}`,
              "Is the network or the disk very slow? Try again: what was downloaded of the kernel is kept"
            )
          )
      })
  )

  const list = Effect.gen(function*() {
    const found: Array<ListedImage> = []
    for (const [identity, names] of yield* Store.all(places)) {
      const directory = join(places.home, identity)
      const manifest = yield* Effect.result(Verify.readManifest(names[0] ?? identity.slice(0, 12), directory))
      found.push({
        identity,
        names,
        directory,
        diskBytes: yield* Effect.promise(() => diskBytes(directory)),
        manifest: manifest._tag === "Success" ? manifest.success : manifest.failure
      })
    }
    const key = ({ identity, names }: ListedImage) => `${names.length === 0 ? 1 : 0}${names[0] ?? identity}`
    return found.toSorted((one, other) => key(one) < key(other) ? -1 : 1)
  }).pipe(Effect.withSpan("MachineImages.list"))

  const remove = Effect.fn("MachineImages.remove")(function*(name: string) {
    if (name.startsWith("/")) {
      return yield* fault(
        name,
        "only images of the store are removed",
        "Give its name or identity: `stoker image list`"
      )
    }
    const identity = (yield* Store.find(places, name)).split("/").at(-1) ?? ""
    const names = (yield* Store.all(places)).get(identity) ?? []
    const isOneOf = names.includes(name)
    const going = isOneOf ? [name] : names
    for (const each of going) yield* Store.takeAway(places, each)
    if (isOneOf && names.length > 1) return { names: going }
    const staging = yield* Store.staging(random, name, places)
    yield* Store.putAside(name, join(places.home, identity), staging)
    return { names: going, identity }
  }, Effect.scoped)

  return MachineImages.of({ directory: places.home, open, build, list, remove })
})

/** Those of a state directory, which several workers and commands may use at once. */
export const layer = (
  options: { readonly stateDirectory: string }
): Layer.Layer<MachineImages, never, Native | SecureRandom.SecureRandom> => Layer.effect(MachineImages, make(options))
