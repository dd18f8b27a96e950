/** Removes what a job has filled: it may be deeper than any path is long, closed to its owner, and changed by another. */
import { execFile } from "node:child_process"
import { readdir, rmdir, unlink } from "node:fs/promises"
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

/**
 * Removes a directory whose parent is ours alone. A flat one costs a call for each file; what has directories is left to
 * `rm`, because by paths another process of the job's user could lead us out of it with a link.
 */
export const removeTree = async (path: string): Promise<void> => {
  const entries = await readdir(path, { withFileTypes: true })
  if (entries.some((entry) => entry.isDirectory())) return removeAll(path)
  for (const { name } of entries) await unlink(join(path, name))
  await rmdir(path)
}
