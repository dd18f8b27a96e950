/** Removes what a job has filled: it may be deeper than any path is long, closed to its owner, and changed by another. */
import { execFile } from "node:child_process"
import { lstat, readdir, rmdir, unlink } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"

const run = promisify(execFile)

/** The tool, not Node's `rm`: it goes from directory to directory, so no path gets long and no link is ever followed. */
const removeAll = async (path: string) => {
  const rm = () => run("rm", ["-rf", "--one-file-system", "--", path])
  try {
    await rm()
  } catch (error) {
    if (process.getuid?.() === 0) throw error
    // The job's user is ours, and may have closed its own directories.
    await run("chmod", ["-R", "u+rwX", "--", path])
    await rm()
  }
}

/** What is gone already is no failure: a runtime that ends removes its own. */
const unlessGone = async <A>(work: Promise<A>, otherwise: A): Promise<A> => {
  try {
    return await work
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return otherwise
    throw error
  }
}

/**
 * Removes a file, or a directory, whose parent is ours alone. A flat one costs a call for each file; what has directories is left to
 * `rm`, because by paths another process of the job's user could lead us out of it with a link.
 */
export const removeTree = async (path: string): Promise<void> => {
  const found = await unlessGone(lstat(path), undefined)
  if (found === undefined) return
  if (!found.isDirectory()) return unlessGone(unlink(path), undefined)
  const entries = await unlessGone(readdir(path, { withFileTypes: true }), [])
  if (entries.some((entry) => entry.isDirectory())) return removeAll(path)
  for (const { name } of entries) await unlessGone(unlink(join(path, name)), undefined)
  await unlessGone(rmdir(path), undefined)
}
