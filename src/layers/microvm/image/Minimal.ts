/** The `minimal` root: busybox, and what all roots have. For static programs, and for tests. */
import { Effect } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs/promises"
import { dirname, join, relative } from "node:path"
import { promisify } from "node:util"
import { failedAt, fault } from "./Fault.ts"
import * as Packages from "./Packages.ts"
import { addFiles } from "./Root.ts"

/** Not these: init is ours. */
const left: ReadonlySet<string> = new Set(["linuxrc", "sbin/init"])

/** Fills `tree`; gives the packages it came from. */
export const make = Effect.fnUntraced(function*(shop: Packages.Workshop, tree: string) {
  const { image } = shop
  const taken = yield* Packages.obtain(shop, {
    name: "busybox-static",
    family: /^busybox-static$/,
    take: (unpacked, folder) =>
      Effect.tryPromise({
        try: async () => {
          const [file] = (await fs.readdir(unpacked, { recursive: true })).filter((path) =>
            path.endsWith("bin/busybox")
          )
          if (file === undefined) throw fault(image, "the package busybox-static has no busybox", "Is it Debian's?")
          await fs.copyFile(join(unpacked, file), join(folder, "busybox"))
          await fs.chmod(join(folder, "busybox"), 0o755)
        },
        catch: failedAt(image, folder)
      })
  })
  yield* Effect.tryPromise({
    try: async () => {
      const busybox = join(tree, "bin", "busybox")
      await fs.mkdir(dirname(busybox), { recursive: true })
      await fs.copyFile(join(taken.folder, "busybox"), busybox)
      await fs.chmod(busybox, 0o755)
      const { stdout } = await promisify(execFile)(busybox, ["--list-full"], { env: {}, timeout: 10_000 })
      for (const name of stdout.split("\n")) {
        if (name === "" || name === "bin/busybox" || left.has(name)) continue
        const link = join(tree, name)
        await fs.mkdir(dirname(link), { recursive: true })
        await fs.symlink(relative(dirname(link), busybox), link)
      }
    },
    catch: failedAt(image, tree)
  })
  yield* addFiles(image, tree, "minimal")
  // Whatever this command's umask is.
  yield* Effect.tryPromise({
    try: async () => {
      for (const entry of await fs.readdir(tree, { recursive: true, withFileTypes: true })) {
        if (entry.isDirectory()) await fs.chmod(join(entry.parentPath, entry.name), 0o755)
      }
    },
    catch: failedAt(image, tree)
  })
  return { [taken.name]: taken.version }
})
