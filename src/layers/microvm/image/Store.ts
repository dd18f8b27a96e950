/**
 * Where machine images lie, for all workers and commands of a state directory:
 *
 *   machine-images/IDENTITY/{manifest.json,root.ext4,vmlinux,*.ko}  one image, moved there when it is whole
 *   machine-images/names/NAME -> ../IDENTITY
 *   machine-images/packages/NAME_VERSION/                            what was taken out of a Debian package
 *   machine-images/verified/HASH.json                                files of an image that were read and found right
 *   machine-images/building/RANDOM/                                  being made, removed or put aside; who makes it listens in it
 */
import { Clock, Effect, type Scope } from "effect"
import type { SecureRandom } from "effect/crypto"
import * as fs from "node:fs/promises"
import { basename, join } from "node:path"
import { codeOf } from "../../host/Errno.ts"
import { makeFolder } from "../../host/Folder.ts"
import * as InstanceLock from "../../host/InstanceLock.ts"
import { randomName } from "../../host/RandomName.ts"
import { within } from "../../Release.ts"
import type { MachineImageError } from "../MachineImage.ts"
import { failedAt, fault } from "./Fault.ts"

export interface Places {
  readonly home: string
  readonly names: string
  readonly packages: string
  readonly verified: string
  readonly building: string
}

export const placesOf = (home: string): Places => ({
  home,
  names: join(home, "names"),
  packages: join(home, "packages"),
  verified: join(home, "verified"),
  building: join(home, "building")
})

/** What a person may call an image. A long number in hexadecimal would be taken for an identity. */
export const isName = (text: string): boolean =>
  /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(text) && !isIdentityStart(text)

export const isIdentity = (text: string): boolean => /^[0-9a-f]{64}$/.test(text)
export const isIdentityStart = (text: string): boolean => /^[0-9a-f]{8,64}$/.test(text)

/** A folder in `building` without an owner that is younger may get one. */
const START_MS = 60_000

const attempt = <A>(image: string, path: string, work: () => Promise<A>): Effect.Effect<A, MachineImageError> =>
  Effect.tryPromise({ try: work, catch: failedAt(image, path) })

const unless = (code: string) => <A, B>(gone: B, effect: Effect.Effect<A, MachineImageError>) =>
  Effect.catchIf(effect, ({ cause }) => codeOf(cause) === code, () => Effect.succeed(gone))

const remove = (path: string) => fs.rm(path, { recursive: true, force: true, maxRetries: 3 })

/** Names in a folder; none if it is not there. */
export const namesIn = (path: string): Effect.Effect<ReadonlyArray<string>, MachineImageError> =>
  unless("ENOENT")([], attempt(basename(path), path, () => fs.readdir(path)))

/** Makes the folders of the store. */
export const prepare = Effect.fnUntraced(function*(image: string, places: Places) {
  for (const path of [places.names, places.packages, places.verified, places.building]) {
    yield* makeFolder(path, failedAt(image, path))
  }
})

/** Removes what builds left that were killed. */
export const sweep = Effect.fnUntraced(function*(places: Places) {
  const now = yield* Clock.currentTimeMillis
  for (const name of yield* namesIn(places.building)) {
    const path = join(places.building, name)
    const lock = yield* Effect.promise(() => fs.lstat(join(path, InstanceLock.lockName)).catch(() => undefined))
    const folder = yield* Effect.promise(() => fs.lstat(path).catch(() => undefined))
    if (folder === undefined || (lock === undefined && now - folder.mtimeMs < START_MS)) continue
    if (lock !== undefined && (yield* InstanceLock.isHeld(path))) continue
    yield* attempt(name, path, () => remove(path))
    yield* Effect.logDebug(`machine images: removed ${path}, which a build left that was killed`)
  }
})

/** A folder of our own in `building`, gone with the scope whatever became of the work. */
export const staging = Effect.fnUntraced(function*(
  random: SecureRandom.SecureRandom["Service"],
  image: string,
  places: Places
): Effect.fn.Return<string, MachineImageError, Scope.Scope> {
  const path = join(places.building, yield* randomName(random, 16))
  yield* Effect.acquireRelease(
    attempt(image, path, () => fs.mkdir(path, { mode: 0o700 })),
    () => within(`what was being made in ${path}`, "30 seconds")(Effect.promise(() => remove(path).catch(() => {})))
  )
  yield* InstanceLock.hold(path).pipe(Effect.mapError(({ cause }) => failedAt(image, path)(cause)))
  return path
})

const sync = async (path: string) => {
  const file = await fs.open(path, "r")
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

/**
 * Moves a whole folder to `place`, on the disk before it has its name. Gives false where one is there already, which may have come
 * meanwhile: then nothing is moved.
 */
export const publish = Effect.fnUntraced(function*(image: string, ready: string, place: string) {
  return yield* attempt(image, place, async () => {
    for (const name of await fs.readdir(ready)) await sync(join(ready, name))
    await sync(ready)
    try {
      await fs.rename(ready, place)
    } catch (cause) {
      if (codeOf(cause) === "ENOTEMPTY" || codeOf(cause) === "EEXIST") return false
      throw cause
    }
    await sync(join(place, ".."))
    return true
  })
})

/** Takes a folder out of the store in one step, into `staging`, where it goes with the rest. False: it is not there. */
export const putAside = (image: string, place: string, staging: string) =>
  unless("ENOENT")(
    false,
    Effect.as(attempt(image, place, () => fs.rename(place, join(staging, `aside-${basename(place)}`))), true)
  )

/** From now on the name leads to that identity. */
export const give = (places: Places, name: string, identity: string, staging: string) =>
  attempt(name, places.names, async () => {
    const link = join(staging, "name")
    await fs.rm(link, { force: true })
    await fs.symlink(join("..", identity), link)
    await fs.rename(link, join(places.names, name))
    await sync(places.names)
  })

/** False: there was none. */
export const takeAway = (places: Places, name: string) =>
  unless("ENOENT")(false, Effect.as(attempt(name, places.names, () => fs.unlink(join(places.names, name))), true))

/** The identity a name leads to; nothing for a name that is not there, or leads elsewhere. */
export const identityOf = (places: Places, name: string) =>
  Effect.promise(() => fs.readlink(join(places.names, name)).catch(() => "")).pipe(
    Effect.map((target) => isIdentity(basename(target)) ? basename(target) : undefined)
  )

/** All identities there are, with their names. */
export const all = Effect.fnUntraced(function*(places: Places) {
  const found = new Map<string, Array<string>>()
  for (const entry of yield* namesIn(places.home)) if (isIdentity(entry)) found.set(entry, [])
  for (const name of [...(yield* namesIn(places.names))].toSorted()) {
    const identity = yield* identityOf(places, name)
    if (identity === undefined) continue
    // Also one whose image is gone: it is listed as what it is.
    found.set(identity, [...found.get(identity) ?? [], name])
  }
  return found
})

/** The folder that a person means by a name, the beginning of an identity, or a path. */
export const find = Effect.fnUntraced(function*(places: Places, nameOrFolder: string) {
  if (nameOrFolder.startsWith("/")) return nameOrFolder
  const known = yield* all(places)
  const identities = [...known].flatMap(([identity, names]) =>
    names.includes(nameOrFolder) || (isIdentityStart(nameOrFolder) && identity.startsWith(nameOrFolder))
      ? [identity]
      : []
  )
  const [identity] = identities
  if (identity === undefined) {
    const names = [...known.values()].flat()
    return yield* fault(
      nameOrFolder,
      `there is none of that name in ${places.home}`,
      names.length === 0
        ? `Make one: stoker image build ${isName(nameOrFolder) ? nameOrFolder : "NAME"}`
        : `There are: ${names.toSorted().join(", ")}. Make one with \`stoker image build\``
    )
  }
  if (identities.length > 1) {
    return yield* fault(nameOrFolder, "more than one begins so", "Give more of the identity: `stoker image list`")
  }
  return join(places.home, identity)
})
