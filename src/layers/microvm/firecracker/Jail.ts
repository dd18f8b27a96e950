/** The files in a jail: put there before Firecracker runs, taken out after it. */
import { Effect } from "effect"
import { constants } from "node:fs"
import { chmod, chown, copyFile, link, lstat, mkdir, open, realpath, rename, stat } from "node:fs/promises"
import { join } from "node:path"
import { codeOf, remedyOf, textOf } from "../../host/Errno.ts"
import { type MachineSpec, type Snapshot, VmmError } from "../Vmm.ts"
import type { JailFolders } from "./Jailer.ts"
import { jailPaths } from "./Requests.ts"

const failed = (step: VmmError["step"], what: string, path: string) => (cause: unknown) =>
  new VmmError({
    vmm: "firecracker",
    step,
    reason: `${what}: ${textOf(cause)}`,
    remedy: codeOf(cause) === "ENOENT"
      ? `Look whether ${path} is there; \`stoker image list\` shows what is whole`
      : remedyOf(cause, path),
    cause
  })

const attempt = <A>(step: VmmError["step"], what: string, path: string, work: () => Promise<A>) =>
  Effect.tryPromise({ try: work, catch: failed(step, what, path) })

/** A link is no copy, and copies share nothing: these are the reasons for which a link cannot be had. */
const needsCopy = new Set(["EXDEV", "EMLINK", "EPERM", "ENOTSUP", "EOPNOTSUPP"])

/** The same file under another name, or a copy of it where the file system has no other way (which takes its time). */
const linkOrCopy = async (from: string, to: string) => {
  try {
    await link(from, to)
  } catch (cause) {
    if (!needsCopy.has(codeOf(cause))) throw cause
    await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
  }
}

/**
 * A file that all machines share: it stays ours, and every machine's user may read it. There is no secret in it: each guest
 * reads it all.
 */
const share = async (path: string, to: string) => {
  const from = await realpath(path)
  const found = await stat(from)
  if (!found.isFile()) throw new Error(`${from} is no file`)
  if ((found.mode & 0o004) === 0) await chmod(from, (found.mode & 0o7777) | 0o444)
  await linkOrCopy(from, to)
}

/** A file that is this machine's alone: its user's. */
const give = async (spec: Pick<MachineSpec, "uid" | "gid">, path: string, to: string) => {
  const from = await realpath(path)
  await chown(from, spec.uid, spec.gid)
  await chmod(from, 0o600)
  await linkOrCopy(from, to)
  // A copy is ours at first.
  await chown(to, spec.uid, spec.gid)
}

/** Folders of root's, so that nobody can prepare a link for the jailer; it gives the innermost to the machine's user. */
const makeFolders = async (jail: JailFolders) => {
  await mkdir(jail.run, { recursive: true, mode: 0o700 })
}

/** All that a booting machine needs. The folder must be new. */
export const prepareBoot = Effect.fnUntraced(function*(spec: MachineSpec, jail: JailFolders, forTemplate: boolean) {
  const inJail = (path: string) => join(jail.root, path)
  yield* attempt("boot", "no jail could be made", jail.root, () => makeFolders(jail))
  const shared = [[spec.kernel, jailPaths.kernel], [spec.initrd, jailPaths.initrd], [
    spec.root,
    jailPaths.root
  ]] as const
  for (const [from, to] of shared) {
    yield* attempt("boot", `${from} does not come into the jail`, from, () => share(from, inJail(to)))
  }
  yield* attempt(
    "boot",
    `${spec.scratch} does not come into the jail`,
    spec.scratch,
    () => give(spec, spec.scratch, inJail(jailPaths.scratch))
  )
  if (!forTemplate) return
  yield* attempt("boot", "no folder for a snapshot could be made", jail.root, async () => {
    await mkdir(inJail(jailPaths.snapshotFolder), { mode: 0o700 })
    await chown(inJail(jailPaths.snapshotFolder), spec.uid, spec.gid)
  })
})

/** Names of a snapshot's files in its folder. */
const STATE = "state"
const MEMORY = "memory"

/** All that a restored one needs: what it had open, at the same paths, and the snapshot. */
export const prepareRestore = Effect.fnUntraced(function*(spec: MachineSpec, jail: JailFolders, snapshot: Snapshot) {
  const inJail = (path: string) => join(jail.root, path)
  yield* attempt("restore", "no jail could be made", jail.root, async () => {
    await makeFolders(jail)
    await mkdir(inJail(jailPaths.snapshotFolder), { mode: 0o755 })
    // Whatever the umask: the machine's user goes through it, and has nothing to write there.
    await chmod(inJail(jailPaths.snapshotFolder), 0o755)
  })
  const shared = [
    [spec.root, jailPaths.root],
    [join(snapshot.directory, STATE), jailPaths.state],
    [join(snapshot.directory, MEMORY), jailPaths.memory]
  ] as const
  for (const [from, to] of shared) {
    yield* attempt("restore", `${from} does not come into the jail`, from, () => share(from, inJail(to)))
  }
  yield* attempt(
    "restore",
    `${spec.scratch} does not come into the jail`,
    spec.scratch,
    () => give(spec, spec.scratch, inJail(jailPaths.scratch))
  )
})

/** Out of a jail whose processes are dead: a regular file of the machine's user and nothing else, ours from now on. */
const take = async (spec: Pick<MachineSpec, "uid">, from: string, to: string) => {
  const found = await lstat(from)
  if (!found.isFile() || found.nlink !== 1 || found.uid !== spec.uid) throw new Error(`${from} is not what it wrote`)
  if (found.size === 0) throw new Error(`${from} is empty`)
  try {
    await rename(from, to)
  } catch (cause) {
    if (codeOf(cause) !== "EXDEV") throw cause
    await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE)
  }
  await using file = await open(to, constants.O_RDONLY | constants.O_NOFOLLOW)
  await file.chown(0, 0)
  await file.chmod(0o444)
}

/** What a machine wrote, moved to a snapshot's folder. */
export const collect = (spec: Pick<MachineSpec, "uid">, jail: JailFolders, directory: string) =>
  attempt("save", `the snapshot does not come out of the jail`, directory, async () => {
    await take(spec, join(jail.root, jailPaths.state), join(directory, STATE))
    await take(spec, join(jail.root, jailPaths.memory), join(directory, MEMORY))
  })

/** The size of a machine's disk, in bytes. */
export const sizeOf = (step: VmmError["step"], path: string) =>
  attempt(step, `${path} cannot be read`, path, async () => (await stat(path)).size)

/** The end of a file in a jail, whatever its owner has put there in its place; "" if it is none. */
export const readTail = async (path: string, most: number): Promise<string> => {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const found = await file.stat()
    if (!found.isFile()) return ""
    const { buffer, bytesRead } = await file.read({
      buffer: Buffer.alloc(most),
      position: Math.max(0, found.size - most)
    })
    return buffer.toString("utf8", 0, bytesRead)
  } catch {
    return ""
  }
}
