/**
 * Debian's packages, as apt gets them from the host's own sources: verified by it, unpacked here, not installed. What is of use
 * in one is kept by its name and version, so that the next build needs no network.
 */
import { Clock, Effect } from "effect"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import type { MachineImageError } from "../MachineImage.ts"
import { failedAt, fault } from "./Fault.ts"
import * as Store from "./Store.ts"
import * as Tools from "./Tools.ts"

export interface Package {
  readonly name: string
  readonly version: string
}

/** What was taken out of a package. */
export interface Taken extends Package {
  readonly folder: string
}

/** What a build works with. */
export interface Workshop {
  readonly image: string
  readonly places: Store.Places
  /** This build's own folder. */
  readonly staging: string
  readonly told: (step: string) => Effect.Effect<void>
}

/** Older versions that nobody has taken for so long are of no use any more. */
const OLD_MS = 24 * 60 * 60 * 1000

const folderName = ({ name, version }: Package) => `${name}_${version.replaceAll(":", "%3a")}`

const packageOf = (folder: string): Package | undefined => {
  const at = folder.indexOf("_")
  return at < 0 ? undefined : { name: folder.slice(0, at), version: folder.slice(at + 1).replaceAll("%3a", ":") }
}

/** What apt would install under that name; nothing where it knows none. */
const candidate = Effect.fnUntraced(function*({ image, staging }: Workshop, name: string) {
  const said = yield* Tools.run({ image, argv: ["apt-cache", "policy", name], cwd: staging })
  const version = /^ +Candidate: (\S+)$/m.exec(said)?.[1]
  return version === undefined || version === "(none)" ? undefined : { name, version }
})

/** The package that a name without contents of its own stands for today (`linux-image-cloud-amd64`). */
export const behind = Effect.fnUntraced(function*({ image, staging }: Workshop, name: string, pattern: RegExp) {
  const said = yield* Tools.run({ image, argv: ["apt-cache", "depends", name], cwd: staging }).pipe(
    Effect.orElseSucceed(() => "")
  )
  return said.split("\n").flatMap((line) => /^ *Depends: (\S+)$/.exec(line)?.[1] ?? []).find((each) =>
    pattern.test(each)
  )
})

/** Name and version of a package's file. */
export const fileIs = Effect.fnUntraced(function*({ image, staging }: Workshop, file: string) {
  const format = "--showformat=${Package} ${Version}"
  const said = yield* Tools.run({ image, argv: ["dpkg-deb", "--show", format, file], cwd: staging })
  const [name = "", version = ""] = said.trim().split(" ")
  return { name, version } satisfies Package
})

/** Unpacks a package's file into a new folder. */
export const unpack = Effect.fnUntraced(function*({ image, staging }: Workshop, file: string, folder: string) {
  yield* Effect.tryPromise({ try: () => fs.mkdir(folder, { mode: 0o755 }), catch: failedAt(image, folder) })
  yield* Tools.run({ image, argv: ["dpkg-deb", "--extract", file, folder], cwd: staging })
})

const download = Effect.fnUntraced(function*(shop: Workshop, { name, version }: Package) {
  const folder = join(shop.staging, `deb-${name}`)
  yield* shop.told(`downloading ${name} ${version}`)
  yield* Effect.tryPromise({ try: () => fs.mkdir(folder, { mode: 0o755 }), catch: failedAt(shop.image, folder) })
  // Its own user for downloads could not write here.
  const sandbox = ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2"]
  const argv = ["apt-get", "--quiet=2", ...sandbox, "download", `${name}=${version}`] as const
  yield* Tools.run({ image: shop.image, argv, cwd: folder })
  const [file] = (yield* Store.namesIn(folder)).filter((each) => each.endsWith(".deb"))
  if (file === undefined) {
    return yield* fault(shop.image, `apt-get downloaded no ${name}`, "Run `apt-get update`, then try again")
  }
  return join(folder, file)
})

/** The last one of those that were taken before; by time, because versions are not in order. */
const cached = Effect.fnUntraced(function*({ image, places }: Workshop, family: RegExp) {
  const found: Array<Taken & { readonly at: number }> = []
  for (const entry of yield* Store.namesIn(places.packages)) {
    const known = packageOf(entry)
    if (known === undefined || !family.test(known.name)) continue
    const folder = join(places.packages, entry)
    const { mtimeMs } = yield* Effect.tryPromise({ try: () => fs.stat(folder), catch: failedAt(image, folder) })
    found.push({ ...known, folder, at: mtimeMs })
  }
  return found.toSorted((one, other) => other.at - one.at)
})

/**
 * The newest package apt knows under `name` (for each build, or nothing), of which `take` put what is of use into a folder. Where
 * apt cannot give it, the last one of this `family` that was taken before serves, and that is told.
 */
export const obtain = Effect.fnUntraced(function*(
  shop: Workshop,
  options: {
    readonly name: string | undefined
    readonly family: RegExp
    readonly take: (unpacked: string, folder: string) => Effect.Effect<void, MachineImageError>
  }
): Effect.fn.Return<Taken, MachineImageError> {
  const before = yield* cached(shop, options.family)
  const [last] = before
  const wanted = options.name === undefined
    ? undefined
    : yield* candidate(shop, options.name).pipe(
      Effect.catch((error) => last === undefined ? Effect.fail(error) : Effect.void)
    )
  if (wanted === undefined) {
    if (last === undefined) {
      return yield* fault(
        shop.image,
        `apt knows no package ${options.name ?? options.family.source}`,
        "Run `apt-get update`, then try again; or give a kernel with --kernel"
      )
    }
    yield* shop.told(`apt knows no ${last.name}: taking ${last.version}, which was taken before`)
    return last
  }
  const known = before.find(({ name, version }) => name === wanted.name && version === wanted.version)
  if (known !== undefined) return known
  const fresh = Effect.gen(function*() {
    const file = yield* download(shop, wanted)
    const [unpacked, ready] = [join(shop.staging, `files-${wanted.name}`), join(shop.staging, `taken-${wanted.name}`)]
    yield* unpack(shop, file, unpacked)
    yield* Effect.tryPromise({ try: () => fs.mkdir(ready, { mode: 0o700 }), catch: failedAt(shop.image, ready) })
    yield* options.take(unpacked, ready)
    const folder = join(shop.places.packages, folderName(wanted))
    yield* Store.publish(shop.image, ready, folder)
    const now = yield* Clock.currentTimeMillis
    for (const old of before.filter(({ at }) => now - at > OLD_MS)) {
      yield* Store.putAside(shop.image, old.folder, shop.staging)
    }
    return { ...wanted, folder }
  })
  if (last === undefined) return yield* fresh
  return yield* fresh.pipe(
    Effect.catch((error) =>
      Effect.as(shop.told(`${error.reason}: taking ${last.name} ${last.version}, which was taken before`), last)
    )
  )
})
