/** The skeleton every OCI sandbox has for a root: links into the host's /usr, a few files of /etc, the guest. */
import * as fs from "node:fs/promises"
import { dirname, join } from "node:path"
import { GUEST_PATH, JOB_UID } from "./Bundle.ts"

const passwd = `root:x:0:0:root:/root:/usr/sbin/nologin
job:x:${JOB_UID}:${JOB_UID}:job:/work:/bin/sh
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
`

const group = `root:x:0:
job:x:${JOB_UID}:
nogroup:x:65534:
`

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
  await fs.writeFile(join(directory, "etc/hosts"), "127.0.0.1 localhost sandbox\n::1 localhost\n")
  await fs.writeFile(join(directory, "etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n")
  // A class with a network shows its own there.
  await fs.writeFile(join(directory, "etc/resolv.conf"), "")
  for (const file of copied) await fs.copyFile(`/etc/${file}`, join(directory, "etc", file)).catch(() => {})
  const inside = join(directory, GUEST_PATH)
  await fs.copyFile(guest, inside)
  await fs.chown(inside, 0, gid)
  await fs.chmod(inside, 0o550)
}
