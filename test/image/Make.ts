/** Kernels that are small enough to be made for a test, and stores of images with what a build takes from packages. */
import { execFileSync } from "node:child_process"
import { cpSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { projectRoot } from "../support/Tree.ts"

/** What `scripts/machine-image` made. */
export const shared = join(projectRoot, "build/machine-images")
export const sharedImage = join(shared, "names/minimal")

/** Why no image can be built here, or nothing. */
export const lacking = (): string | undefined =>
  existsSync(join(sharedImage, "manifest.json")) ? undefined : "scripts/machine-image could make none (build/setup.log)"

/** A small file system: busybox under the names of `programs`, and `files` that can be run, by their paths. */
export const rootFile = (
  folder: string,
  programs: ReadonlyArray<string>,
  files: Readonly<Record<string, string>>
): string => {
  const tree = join(folder, "tree")
  const [busybox = ""] = readdirSync(join(shared, "packages")).filter((name) => name.startsWith("busybox-static_"))
  for (const name of ["bin", "sbin", "etc", "proc", "sys", "dev", "tmp"]) {
    mkdirSync(join(tree, name), { recursive: true })
  }
  cpSync(join(shared, "packages", busybox, "busybox"), join(tree, "bin/busybox"))
  for (const name of programs) symlinkSync("/bin/busybox", join(tree, name))
  for (const [path, text] of Object.entries(files)) writeFileSync(join(tree, path), text, { mode: 0o755 })
  const file = join(folder, "rootfs.ext4")
  execFileSync("/sbin/mke2fs", ["-q", "-t", "ext4", "-L", "somebody's", "-d", tree, file, "16M"])
  return file
}

/** A state directory whose store has busybox already: nothing is downloaded. */
export const seeded = (state: string): string => {
  const packages = join(state, "machine-images/packages")
  mkdirSync(packages, { recursive: true, mode: 0o700 })
  const [busybox = ""] = readdirSync(join(shared, "packages")).filter((name) => name.startsWith("busybox-static_"))
  cpSync(join(shared, "packages", busybox), join(packages, busybox), { recursive: true })
  return state
}

export interface KernelOptions {
  readonly machine?: number
  readonly pvh?: boolean
  /** 1: 32 bits. */
  readonly bits?: 1 | 2
  readonly release?: string
  readonly note?: string
}

const PT_LOAD = 1
const PT_NOTE = 4

const segment = (type: number, offset: number, bytes: Buffer) => {
  const header = Buffer.alloc(56)
  header.writeUInt32LE(type, 0)
  header.writeBigUInt64LE(BigInt(offset), 8)
  header.writeBigUInt64LE(BigInt(bytes.length), 32)
  return header
}

const note = (name: string, type: number, value: Buffer) => {
  const padded = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((4 - bytes.length % 4) % 4)])
  const text = Buffer.from(`${name}\0`)
  const head = Buffer.alloc(12)
  head.writeUInt32LE(text.length, 0)
  head.writeUInt32LE(value.length, 4)
  head.writeUInt32LE(type, 8)
  return Buffer.concat([head, padded(text), padded(value)])
}

/** An ELF file that says of itself what a kernel does. It boots nothing. */
export const kernel = (options: KernelOptions = {}): Buffer => {
  const { bits = 2, machine = 62, note: name = "Xen", pvh = true, release = "6.1.0-test" } = options
  const banner = Buffer.from(`%s\0Linux version %s (%s)\0Linux version ${release} (somebody) #1\0`)
  const notes = Buffer.concat([
    note("Linux", 257, Buffer.from([0, 0, 0, 0])),
    ...(pvh ? [note(name, 18, Buffer.alloc(8))] : [])
  ])
  const header = Buffer.alloc(64)
  header.writeUInt32BE(0x7f454c46, 0)
  header[4] = bits
  header[5] = 1
  header.writeUInt16LE(2, 16)
  header.writeUInt16LE(machine, 18)
  header.writeBigUInt64LE(64n, 32)
  header.writeUInt16LE(56, 54)
  header.writeUInt16LE(2, 56)
  const start = 64 + 2 * 56
  return Buffer.concat([
    header,
    segment(PT_LOAD, start, banner),
    segment(PT_NOTE, start + banner.length, notes),
    banner,
    notes
  ])
}

/** An LZ4 legacy frame with one block of literals alone. */
export const lz4 = (bytes: Buffer): Buffer => {
  const rest = bytes.length - 15
  const lengths = Buffer.concat([Buffer.alloc(Math.floor(rest / 255), 255), Buffer.from([rest % 255])])
  const block = Buffer.concat([Buffer.from([0xf0]), lengths, bytes])
  const head = Buffer.alloc(8)
  head.writeUInt32LE(0x184c2102, 0)
  head.writeUInt32LE(block.length, 4)
  return Buffer.concat([head, block])
}

/** A bzImage around a packed kernel, as the kernel's own build makes it: the length of what is packed comes last. */
export const bzImage = (packed: Buffer, bytes: number): Buffer => {
  const setup = Buffer.alloc(2 * 512)
  setup[0x1f1] = 1
  setup.write("HdrS", 0x202, "latin1")
  setup.writeUInt16LE(0x20f, 0x206)
  setup.writeUInt32LE(16, 0x248)
  setup.writeUInt32LE(packed.length + 4, 0x24c)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(bytes)
  return Buffer.concat([setup, Buffer.alloc(16), packed, length, Buffer.alloc(64)])
}

export const file = (path: string, bytes: Buffer): string => {
  writeFileSync(path, bytes)
  return path
}
