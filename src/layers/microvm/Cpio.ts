/** A cpio archive ("newc"), as the kernel unpacks it before its first process. Written here, because no plain host has cpio. */
export interface Entry {
  readonly name: string
  readonly bytes: Buffer
}

const executable = 0o100755

const padded = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((4 - bytes.length % 4) % 4)])

const member = (name: string, mode: number, inode: number, bytes: Buffer) => {
  const fields = [inode, mode, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, name.length + 1, 0]
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}${name}\0`
  return Buffer.concat([padded(Buffer.from(header)), padded(bytes)])
}

/** Files of the archive's root, all of them executable and root's; the same files make the same bytes. */
export const initramfs = (entries: ReadonlyArray<Entry>): Buffer =>
  Buffer.concat([
    ...entries.map(({ bytes, name }, index) => member(name, executable, index + 1, bytes)),
    member("TRAILER!!!", 0, 0, Buffer.alloc(0))
  ])
