/** Programs by their files. */
import { accessSync, constants, statSync } from "node:fs"
import { isAbsolute, join, resolve } from "node:path"

/** A file this process may run; a directory is none, though it can be searched. */
export const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/**
 * The file that the name means to this worker, so that it is the same one everywhere: the launcher has no PATH. The name
 * itself if there is none; whoever runs it says so.
 */
export const findProgram = (name: string, path: string): string =>
  name.includes("/")
    ? resolve(name)
    : path.split(":").map((folder) => join(folder, name)).find((file) => isAbsolute(file) && isExecutable(file)) ?? name
