/** A root file system that somebody else made: a copy of it, whole, with the label by which machines find it. */
import { Effect } from "effect"
import * as fs from "node:fs/promises"
import { codeOf } from "../../host/Errno.ts"
import { EPOCH_SECONDS } from "./Ext4.ts"
import { failedAt, fault } from "./Fault.ts"
import type { Workshop } from "./Packages.ts"
import * as Tools from "./Tools.ts"

const INIT = "/sbin/init"

/** Of an ext2, ext3 or ext4 (ext4 disk layout, "The Super Block"). */
const MAGIC = { at: 1024 + 0x38, value: 0xef53 }

const isExt = async (path: string) => {
  await using file = await fs.open(path)
  const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(2), position: MAGIC.at })
  return bytesRead === 2 && buffer.readUInt16LE(0) === MAGIC.value
}

/** Copies `source` to `file`; `init` is there if a machine could start from it. The source stays as it is. */
export const take = Effect.fnUntraced(function*({ image, staging }: Workshop, source: string, file: string) {
  yield* Tools.need(image, "cp", "debugfs", "e2fsck", "tune2fs")
  const isGood = yield* Effect.tryPromise({
    try: () => isExt(source),
    catch: (cause) =>
      codeOf(cause) === "ENOENT"
        ? fault(image, `there is no ${source}`, "Is it written as it is called?")
        : failedAt(image, source)(cause)
  })
  if (!isGood) {
    return yield* fault(
      image,
      `${source} is no ext4 file system`,
      "Give a file with one, without a partition table: `mke2fs -t ext4 -d FOLDER FILE 1G` makes one of a folder"
    )
  }
  yield* Tools.run({ image, argv: ["cp", "--sparse=always", "--reflink=auto", "--", source, file], cwd: staging })
  // Machines read it from a disk that cannot be written: nothing in it may wait to be mended. 1: it was, all of it.
  // The same file gives the same image: these note when they ran.
  const env = { E2FSPROGS_FAKE_TIME: `${EPOCH_SECONDS}`, E2FSCK_TIME: `${EPOCH_SECONDS}` }
  yield* Tools.run({ image, argv: ["e2fsck", "-f", "-y", file], cwd: staging, env, fine: [1] })
  yield* Tools.run({ image, argv: ["tune2fs", "-L", "rootfs", file], cwd: staging, env })
  const found = yield* Tools.run({ image, argv: ["debugfs", "-R", `stat ${INIT}`, file], cwd: staging })
  return /^Inode: \d+/m.test(found) ? { init: INIT } as const : {}
})
