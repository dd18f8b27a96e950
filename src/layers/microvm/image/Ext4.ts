/**
 * A folder as an ext4 file system in a sparse file, without mounting anything: the same files give the same bytes. What mke2fs
 * takes from the moment (times of change, owners of whoever builds) is set afterwards.
 */
import { Effect } from "effect"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { failedAt, fault } from "./Fault.ts"
import type { Workshop } from "./Packages.ts"
import * as Tools from "./Tools.ts"

/** Every root has these: one is as good as another, and machines find it by its label. */
const UUID = "5b0c1e6a-52d4-4a3f-9d0e-73746f6b6572"
const HASH_SEED = "9d7a2c40-2f1b-4c7e-8a55-73746f6b6572"

/** The time of everything that has none of its own: 2025-01-01, in seconds since 1970. */
export const EPOCH_SECONDS = 1_735_689_600

const BLOCK = 4096
const INODE_BYTES = 256

/** Blocks and inodes that a folder's files will take. Hard links count once for each name, which is more than enough. */
const measure = async (folder: string): Promise<{ readonly blocks: number; readonly inodes: number }> => {
  let [blocks, inodes] = [0, 0]
  const left = [folder]
  for (let path = left.pop(); path !== undefined; path = left.pop()) {
    for (const entry of await fs.readdir(path, { withFileTypes: true })) {
      const found = join(path, entry.name)
      inodes += 1
      if (entry.isDirectory()) left.push(found)
      const { size } = await fs.lstat(found)
      blocks += Math.max(1, Math.ceil(size / BLOCK))
    }
  }
  return { blocks, inodes }
}

const inodesUsed = Effect.fnUntraced(function*({ image, staging }: Workshop, file: string) {
  const said = yield* Tools.run({ image, argv: ["dumpe2fs", "-h", file], cwd: staging })
  const number = (name: string) => Number(new RegExp(`^${name}: +(\\d+)$`, "m").exec(said)?.[1])
  const used = number("Inode count") - number("Free inodes")
  return Number.isSafeInteger(used)
    ? used
    : yield* fault(image, "dumpe2fs said nothing of inodes", "Is e2fsprogs of this machine whole?")
})

/** Whose a path is in the file system, where that is not whoever owns it here. */
export interface Owner {
  readonly path: string
  readonly uid: number
}

/** Makes `file` out of `tree`. */
export const make = Effect.fnUntraced(function*(
  shop: Workshop,
  tree: string,
  file: string,
  owners: ReadonlyArray<Owner>
) {
  const { image, staging } = shop
  yield* Tools.need(image, "mke2fs", "debugfs", "dumpe2fs", "e2fsck")
  const { blocks, inodes } = yield* Effect.tryPromise({ try: () => measure(tree), catch: failedAt(image, tree) })
  const mostInodes = inodes + 64
  const mostBlocks = Math.ceil((blocks + Math.ceil(mostInodes * INODE_BYTES / BLOCK)) * 1.05) + 1024
  // Both names of the same wish: mke2fs before 1.47.1 knows the second one only.
  const env = { SOURCE_DATE_EPOCH: `${EPOCH_SECONDS}`, E2FSPROGS_FAKE_TIME: `${EPOCH_SECONDS}` }
  const form = ["-t", "ext4", "-L", "rootfs", "-U", UUID, "-m", "0", "-b", `${BLOCK}`, "-I", `${INODE_BYTES}`] as const
  const features = ["-N", `${mostInodes}`, "-O", "^has_journal,^resize_inode"] as const
  const extended = `lazy_itable_init=1,root_owner=0:0,hash_seed=${HASH_SEED}`
  const argv = ["mke2fs", "-q", ...form, ...features, "-E", extended, "-d", tree, "-F", file, `${mostBlocks}`] as const
  yield* Tools.run({ image, argv, cwd: staging, env })
  const last = yield* inodesUsed(shop, file)
  // The root, then all that have names: inodes are given out one after the other. 11 is lost+found.
  const all = [2, ...Array.from({ length: Math.max(0, last - 10) }, (_, index) => index + 11)]
  const commands = [
    ...all.flatMap((inode) =>
      ["ctime", "atime"].flatMap((time) => [
        `set_inode_field <${inode}> ${time} @${EPOCH_SECONDS}`,
        `set_inode_field <${inode}> ${time}_extra 0`
      ])
    ),
    ...owners.flatMap(({ path, uid }) => ["uid", "gid"].map((field) => `set_inode_field ${path} ${field} ${uid}`))
  ]
  const script = join(staging, "debugfs")
  yield* Effect.tryPromise({
    try: () => fs.writeFile(script, `${commands.join("\n")}\n`),
    catch: failedAt(image, script)
  })
  yield* Tools.run({ image, argv: ["debugfs", "-w", "-f", script, file], cwd: staging, env })
  // Full disks and the like are not always told by who wrote.
  yield* Tools.run({ image, argv: ["e2fsck", "-f", "-n", file], cwd: staging, env })
})
