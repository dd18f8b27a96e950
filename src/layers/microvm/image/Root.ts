/** What roots have in common: folders, links, files and the worker's own programs (`infra/rootfs`). */
import { Effect } from "effect"
import * as fs from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { built } from "../../Built.ts"
import { codeOf } from "../../host/Errno.ts"
import type { MachineImageError } from "../MachineImage.ts"
import { EPOCH_SECONDS, type Owner } from "./Ext4.ts"
import { failedAt, fault } from "./Fault.ts"
import { sha256Of } from "./Verify.ts"

/** `infra/rootfs`, wherever we run. */
export const recipes = fileURLToPath(
  {
    source: new URL("../../../../infra/rootfs/", import.meta.url),
    modules: new URL("../../../../rootfs/", import.meta.url),
    bundle: new URL("./rootfs/", import.meta.url)
  }[built]
)

const io = <A>(image: string, path: string, work: () => Promise<A>) =>
  Effect.tryPromise({ try: work, catch: failedAt(image, path) })

/** A file of `infra/rootfs` as words by lines, without comments. */
export const linesOf = Effect.fnUntraced(function*(image: string, name: string) {
  const path = join(recipes, name)
  const text = yield* io(image, path, () => fs.readFile(path, "utf8"))
  return text.split("\n").filter((line) => line !== "" && !line.startsWith("#")).map((line) => line.split(/\s+/))
})

/** Where each of our programs goes. Init is what boots, the guest what it starts; the agent, for the older worker, may be missing. */
const places: ReadonlyArray<readonly [program: string, path: string]> = [
  ["init", "/sbin/init"],
  ["guest", "/usr/lib/stoker/guest"],
  ["agent", "/usr/lib/stoker/agent"]
]

/** Copies those of our programs that were built; gives their SHA-256 by path. */
const addPrograms = Effect.fnUntraced(function*(image: string, tree: string, native: string) {
  const programs: Record<string, string> = {}
  for (const [program, path] of places) {
    const [source, target] = [join(native, program), join(tree, path)]
    const isThere = yield* io(image, source, () =>
      fs.access(source).then(() => true, (cause: unknown) => {
        if (codeOf(cause) === "ENOENT") return false
        throw cause
      }))
    if (!isThere) continue
    yield* io(image, target, async () => {
      await fs.rm(target, { force: true })
      await fs.copyFile(source, target)
      await fs.chmod(target, 0o755)
    })
    programs[path] = yield* io(image, source, () => sha256Of(source))
  }
  for (const [program, path] of places) {
    if (program === "agent" || programs[path] !== undefined) continue
    return yield* fault(image, `there is no ${program} program in ${native}`, "Build it: native/build")
  }
  return programs
})

const addFolders = Effect.fnUntraced(function*(image: string, tree: string) {
  const owners: Array<Owner> = []
  for (const [mode = "", uid = "", path = ""] of yield* linesOf(image, "layout")) {
    const target = join(tree, path)
    yield* io(image, target, async () => {
      if (await fs.stat(target).then(() => true, () => false)) return
      await fs.mkdir(target, { recursive: true })
      await fs.chmod(target, Number.parseInt(mode, 8))
    })
    if (uid !== "0") owners.push({ path, uid: Number(uid) })
  }
  return owners
})

/** Files of `infra/rootfs`, instead of those that are there. */
export const addFiles = Effect.fnUntraced(function*(image: string, tree: string, folder: "common" | "minimal") {
  yield* io(image, tree, async () => {
    const source = join(recipes, folder)
    for (const entry of await fs.readdir(source, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      const path = join(entry.parentPath, entry.name).slice(source.length)
      await fs.mkdir(dirname(join(tree, path)), { recursive: true })
      await fs.rm(join(tree, path), { force: true })
      await fs.copyFile(join(source, path), join(tree, path))
      await fs.chmod(join(tree, path), 0o644)
    }
  })
})

/** The user that jobs are in a machine. */
const addUser = Effect.fnUntraced(function*(image: string, tree: string) {
  for (const [file, table] of [["user", "/etc/passwd"], ["group", "/etc/group"]] as const) {
    const source = join(recipes, file)
    yield* io(image, source, async () => fs.appendFile(join(tree, table), await fs.readFile(source)))
  }
})

/** Completes a root; gives what was put in and whose it is. */
export const complete = Effect.fnUntraced(function*(
  image: string,
  tree: string,
  native: string
): Effect.fn.Return<
  { readonly owners: ReadonlyArray<Owner>; readonly programs: Readonly<Record<string, string>> },
  MachineImageError
> {
  const owners = yield* addFolders(image, tree)
  yield* addFiles(image, tree, "common")
  yield* addUser(image, tree)
  for (const [path = "", target = ""] of yield* linesOf(image, "links")) {
    yield* io(image, path, async () => {
      await fs.rm(join(tree, path), { force: true })
      await fs.symlink(target, join(tree, path))
    })
  }
  const programs = yield* addPrograms(image, tree, native)
  yield* settleTimes(image, tree)
  return { owners, programs }
})

/**
 * What this build made or changed gets one time; what came in packages keeps its own, because Python compares the times of its
 * files with those in its compiled ones.
 */
const settleTimes = Effect.fnUntraced(function*(image: string, tree: string) {
  const { birthtimeMs } = yield* io(image, tree, () => fs.stat(tree))
  yield* io(image, tree, async () => {
    const left = [tree]
    for (let path = left.pop(); path !== undefined; path = left.pop()) {
      for (const entry of await fs.readdir(path, { withFileTypes: true })) {
        const found = join(path, entry.name)
        if (entry.isDirectory()) left.push(found)
        const { mtimeMs } = await fs.lstat(found)
        if (mtimeMs >= Math.floor(birthtimeMs)) await fs.lutimes(found, EPOCH_SECONDS, EPOCH_SECONDS)
      }
    }
    await fs.utimes(tree, EPOCH_SECONDS, EPOCH_SECONDS)
  })
})
