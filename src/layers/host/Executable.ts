/** Programs by their files. */
import { accessSync, constants, statSync } from "node:fs"

/** A file this process may run; a directory is none, though it can be searched. */
export const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}
