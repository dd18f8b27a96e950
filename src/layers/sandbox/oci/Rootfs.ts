/** What OCI sandboxes have in their root besides programs: places to mount on, a few files of /etc, the guest. */
import { constants } from "node:fs"
import * as fs from "node:fs/promises"
import { dirname, join } from "node:path"
import { GUEST_PATH, JOB_UID } from "./Bundle.ts"

const jobUser = `job:x:${JOB_UID}:${JOB_UID}:job:/work:/bin/sh\n`
const jobGroup = `job:x:${JOB_UID}:\n`

const passwd = `root:x:0:0:root:/root:/usr/sbin/nologin
${jobUser}nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
`

const group = `root:x:0:
${jobGroup}nogroup:x:65534:
`

const hosts = "127.0.0.1 localhost sandbox\n::1 localhost\n"
const nsswitch = "passwd: files\ngroup: files\nhosts: files dns\n"

/** What the dynamic linker and the C library look for, copied so that nothing else of the host's /etc is seen. */
const copied = ["ld.so.cache", "ld.so.conf", "localtime", "mime.types"]

/**
 * Makes the skeleton in `directory`, in place of one that was begun. `gid` is the host id of the group of the sandboxes' roots, who alone may run the guest.
 */
export const makeRootfs = async (directory: string, guest: string, gid: number): Promise<void> => {
  await fs.rm(directory, { recursive: true, force: true })
  for (
    const path of ["usr", "etc/alternatives", "proc", "dev", "sys", "tmp", "work", "run", "root", dirname(GUEST_PATH)]
  ) {
    await fs.mkdir(join(directory, path), { recursive: true, mode: 0o755 })
  }
  await fs.chmod(join(directory, "tmp"), 0o1777)
  for (const link of ["bin", "sbin", "lib", "lib32", "lib64"]) {
    const target = await fs.readlink(`/${link}`).catch(() => undefined)
    if (target !== undefined) await fs.symlink(target, join(directory, link))
  }
  await fs.writeFile(join(directory, "etc/passwd"), passwd)
  await fs.writeFile(join(directory, "etc/group"), group)
  await fs.writeFile(join(directory, "etc/hosts"), hosts)
  await fs.writeFile(join(directory, "etc/nsswitch.conf"), nsswitch)
  // A class with a network shows its own there.
  await fs.writeFile(join(directory, "etc/resolv.conf"), "")
  for (const file of copied) await fs.copyFile(`/etc/${file}`, join(directory, "etc", file)).catch(() => {})
  await putGuest(directory, guest, gid)
}

const putGuest = async (directory: string, guest: string, gid: number) => {
  const inside = join(directory, GUEST_PATH)
  await fs.copyFile(guest, inside)
  await fs.chown(inside, 0, gid)
  await fs.chmod(inside, 0o550)
}

/** Files of /etc are short; a longer one is somebody's joke. */
const MOST_ETC = 1024 * 1024

/** A file of a stranger's /etc: neither the directory nor the file may be a link, which would lead out into the host. */
const readEtc = async (tree: string, name: string): Promise<string | undefined> => {
  const folder = await fs.lstat(join(tree, "etc")).catch(() => undefined)
  if (folder?.isDirectory() !== true) return undefined
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  await using file = await fs.open(join(tree, "etc", name), flags).catch(() => undefined)
  const stat = await file?.stat()
  if (file === undefined || stat?.isFile() !== true || stat.size > MOST_ETC) return undefined
  return file.readFile("utf8")
}

/** The tree's own lines but those that have the job's name or number, and the job's. */
const withJob = (text: string | undefined, otherwise: string, job: string): string => {
  if (text === undefined) return otherwise
  const others = text.split("\n").filter((line) => {
    const [name, , id] = line.split(":")
    return line !== "" && name !== "job" && id !== String(JOB_UID)
  })
  return [...others, job].join("\n")
}

/**
 * Makes the layer that lies over a tree that is not ours (`Roots.ts`): what a sandbox must have there, in directories that
 * hide whatever else has their names. `gid` as above.
 */
export const makeUpper = async (directory: string, tree: string, guest: string, gid: number): Promise<void> => {
  for (const path of ["etc", "proc", "dev", "sys", "tmp", "work", dirname(GUEST_PATH)]) {
    await fs.mkdir(join(directory, path), { recursive: true, mode: 0o755 })
  }
  await fs.chmod(join(directory, "tmp"), 0o1777)
  const etc = (name: string, text: string) => fs.writeFile(join(directory, "etc", name), text, { mode: 0o644 })
  await etc("passwd", withJob(await readEtc(tree, "passwd"), passwd, jobUser))
  await etc("group", withJob(await readEtc(tree, "group"), group, jobGroup))
  await etc("nsswitch.conf", (await readEtc(tree, "nsswitch.conf")) ?? nsswitch)
  await etc("hosts", hosts)
  await etc("resolv.conf", "")
  await putGuest(directory, guest, gid)
}
