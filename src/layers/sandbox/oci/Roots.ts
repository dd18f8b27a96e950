/**
 * What a class's sandboxes have for a root, read-only: the host's /usr behind a skeleton, or somebody's tree (a directory
 * of the operator, an unpacked image) under a layer of ours. That layer is an overlay's upper one: what a sandbox needs is
 * there whatever the tree has at those places, links to elsewhere included, and nothing is ever written into the tree.
 * The overlay is mounted once for each tree, in the watchdog's mount namespace, and goes with it.
 */
import { Effect, Option } from "effect"
import { createHash } from "node:crypto"
import { lstatSync, realpathSync, type Stats } from "node:fs"
import * as fs from "node:fs/promises"
import { dirname, join } from "node:path"
import type { SandboxClass } from "../../../schemas/SandboxClass.ts"
import { rootsOf, SHOWN_AT } from "../../host/Watchdog.ts"
import { once } from "../../Once.ts"
import type { HostFunctions } from "../HostFunctions.ts"
import * as HostRoot from "../HostRoot.ts"
import type { Check, ImageRun, ProvisionFailed } from "../Sandbox.ts"
import { FUNCTIONS_PATH } from "./Bundle.ts"
import { directoryIdentity } from "./DirectoryIdentity.ts"
import type { Images } from "./Images.ts"
import * as Tools from "./ImageTools.ts"
import { refused } from "./ImageTools.ts"
import { makeUpper } from "./Rootfs.ts"

/** One that stands ready. */
export interface Root {
  /** For file names: equal for equal roots of this worker. */
  readonly name: string
  /** As the runtime sees it. */
  readonly path: string
  /** The host's /usr belongs into it. */
  readonly isHosts: boolean
  /** What its programs find in their environment unless the job says otherwise. */
  readonly env: Readonly<Record<string, string>>
  /** Of an image. */
  readonly imageRun?: ImageRun
}

export interface RootsOptions {
  /** Of this worker: below it everything lies but images. */
  readonly instanceDirectory: string
  readonly stateDirectory: string
  readonly guest: string
  /** Host group of the sandboxes' roots, who alone may run the guest. */
  readonly gid: number
  readonly images: Images
  /** Into every root it goes. */
  readonly functions: HostFunctions | undefined
  /** Words that run a program in the watchdog's mount namespace; none where there is none. */
  readonly enter: Option.Option<ReadonlyArray<string>>
  readonly env: Readonly<Record<string, string>>
}

/** The skeleton over the host's /usr: its name among the roots. */
export const HOST_ROOT = "oci"

/** The host's own, and what classes have that name no other. */
export const host: Root = { name: HOST_ROOT, path: join(SHOWN_AT, HOST_ROOT), isHosts: true, env: {} }

const bad = (path: string, reason: string, remedy: string, cause?: unknown) =>
  refused(`root directory ${path}: ${reason}`, remedy, cause)

const REMEDY_DIRECTORY = "Give a directory that holds a root file system."
const REMEDY_OWNER = "Give it to root and take the others' right to write: `chown root DIR && chmod go-w DIR`."

const mine = new Set([0, process.getuid?.() ?? 0])

const isWritableByOthers = (stat: Stats) => !mine.has(stat.uid) || (stat.mode & 0o022) !== 0

const below = (path: string, ancestor: string) => path === ancestor || path.startsWith(`${ancestor}/`)

/** Those the kernel makes up; nothing of them is a root file system. */
const kernels = ["/proc", "/sys", "/dev"]

/** What is wrong with it and what to do about it, or nothing. */
const fault = (real: string, stateDirectory: string): readonly [reason: string, remedy: string] | undefined => {
  const stat = lstatSync(real)
  if (!stat.isDirectory()) return ["it is no directory", REMEDY_DIRECTORY]
  if (real === "/") {
    return ["that is the host itself", "Leave `root` out to have the host's /usr, or give a directory of its own."]
  }
  if (below(real, SHOWN_AT)) {
    return [`the runtime is shown the sandboxes' roots at ${SHOWN_AT}, which hides it`, "Give a directory elsewhere."]
  }
  if (kernels.some((kernel) => below(real, kernel))) return ["that is the kernel's", REMEDY_DIRECTORY]
  if (below(stateDirectory, real) || below(real, stateDirectory)) {
    return [`the worker's state is in it or around it (${stateDirectory})`, "Give a directory elsewhere."]
  }
  if (isWritableByOthers(stat)) {
    return [
      `others than root can write to it (uid ${stat.uid}, mode ${(stat.mode & 0o7777).toString(8)})`,
      REMEDY_OWNER
    ]
  }
  for (let parent = dirname(real); parent !== "/"; parent = dirname(parent)) {
    const above = lstatSync(parent)
    // Where the sticky bit is, nobody moves what is root's.
    if (isWritableByOthers(above) && (above.mode & 0o1000) === 0) {
      return [`others than root can write to ${parent}, so they could put another one there`, REMEDY_OWNER]
    }
  }
  return undefined
}

/** The directory's real path, if nobody but root can put something else there. */
export const checkDirectory = Effect.fnUntraced(function*(path: string, stateDirectory: string) {
  const found = yield* Effect.try({
    try: () => {
      const real = realpathSync(path)
      const wrong = fault(real, stateDirectory)
      const { dev, ino } = lstatSync(real)
      return { real, dev, ino, wrong }
    },
    catch: (cause) => bad(path, `it cannot be found: ${String(cause)}`, REMEDY_DIRECTORY, cause)
  })
  if (found.wrong !== undefined) return yield* bad(path, ...found.wrong)
  return found
})

/** A tree to be put under ours. */
interface Given {
  readonly name: string
  readonly tree: string
  readonly env: Readonly<Record<string, string>>
  readonly imageRun?: ImageRun
}

const shortHash = (text: string) => createHash("sha256").update(text).digest("hex").slice(0, 32)

export const make = Effect.fnUntraced(function*(options: RootsOptions) {
  const { images, instanceDirectory } = options
  const hostRoot = yield* HostRoot.make
  const mounted = new Map<string, Effect.Effect<Root, ProvisionFailed>>()

  const mount = Effect.fnUntraced(function*({ env, imageRun, name, tree }: Given) {
    if (Option.isNone(options.enter)) {
      return yield* refused(`${tree} cannot be mounted`, "Run the worker as root.")
    }
    const layers = join("layers", name)
    yield* Effect.tryPromise({
      try: async () => {
        const folder = join(instanceDirectory, layers)
        await fs.rm(folder, { recursive: true, force: true })
        await makeUpper(join(folder, "ours"), tree, options.guest, options.gid)
        // By a name of ours: the tree's own may have characters that separate layers.
        await fs.symlink(tree, join(folder, "given"))
        await fs.mkdir(join(rootsOf(instanceDirectory), name), { recursive: true, mode: 0o755 })
      },
      catch: (cause) =>
        refused(`making the root ${name}: ${String(cause)}`, "Is the state directory writable and not full?", cause)
    })
    const { functions } = options
    if (functions !== undefined) yield* functions.copy(join(instanceDirectory, layers, "ours", FUNCTIONS_PATH))
    const path = join(SHOWN_AT, name)
    yield* Tools.run({
      prefix: options.enter.value,
      argv: [
        "mount",
        "--types=overlay",
        `--options=ro,nosuid,nodev,redirect_dir=nofollow,metacopy=off,lowerdir=${layers}/ours:${layers}/given`,
        "stoker",
        path
      ],
      cwd: instanceDirectory,
      env: options.env
    }).pipe(
      Effect.catchTag("ToolFailed", ({ said }) =>
        Effect.fail(
          refused(
            `${tree} cannot be mounted under an overlay: ${said}`,
            "Does the kernel have overlayfs, and is the directory on an ordinary file system (not itself an overlay of two)?"
          )
        ))
    )
    if (functions !== undefined) yield* functions.mount(join(path, FUNCTIONS_PATH))
    return { name, path, isHosts: false, env, ...(imageRun === undefined ? {} : { imageRun }) } satisfies Root
  }, Effect.uninterruptible)

  const mountedOnce = Effect.fnUntraced(function*(given: Given) {
    const known = mounted.get(given.name) ?? (yield* once(mount(given)))
    mounted.set(given.name, known)
    return yield* known
  })

  return {
    /** The root of a class; an image is pulled first, should it not be there. */
    of: Effect.fnUntraced(function*({ root }: SandboxClass): Effect.fn.Return<Root, ProvisionFailed> {
      if (root === undefined) return host
      if ("directory" in root) {
        const { dev, ino, real } = yield* checkDirectory(root.directory, options.stateDirectory)
        // Another one at the same place is another root.
        return yield* mountedOnce({ name: `directory-${shortHash(`${real} ${dev} ${ino}`)}`, tree: real, env: {} })
      }
      const { digest, env, run, tree } = yield* images.get(root.image)
      const name = `image-${shortHash(digest)}`
      return yield* mountedOnce({ name, tree, env, ...(run === undefined ? {} : { imageRun: run }) })
    }),
    /** What is wrong with a class's root, as far as it can be said without making anything. */
    check: Effect.fnUntraced(function*({ name, root }: SandboxClass) {
      if (root === undefined) return []
      const found = yield* Effect.result(
        "directory" in root
          ? Effect.as(checkDirectory(root.directory, options.stateDirectory), root.directory)
          : images.check(root.image)
      )
      const check: Check = found._tag === "Success"
        ? { name: "root", status: "ok", detail: `class ${name}: ${found.success}` }
        : {
          name: "root",
          status: "missing",
          detail: `class ${name}: ${found.failure.reason}`,
          remedy: found.failure.remedy
        }
      return [check]
    }),
    /** See `Driver.rootIdentity`. Of a directory: its own time and its toolchains; who changes something deep in it, touches it. */
    identity: Effect.fnUntraced(function*({ root }: SandboxClass): Effect.fn.Return<string, ProvisionFailed> {
      if (root === undefined) return yield* hostRoot
      if ("directory" in root) {
        const { real } = yield* checkDirectory(root.directory, options.stateDirectory)
        return `directory ${directoryIdentity(real)}`
      }
      return `image ${(yield* images.get(root.image)).digest}`
    })
  }
})

export type Roots = Effect.Success<ReturnType<typeof make>>
