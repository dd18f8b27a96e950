import { Effect } from "effect"
import { CgroupError, type CgroupInstance } from "./Cgroup.ts"
import type { CgroupFs } from "./CgroupFs.ts"
import type { Hierarchy } from "./Hierarchy.ts"
import * as Leaf from "./Leaf.ts"
import { workerLeaf } from "./V2Delegation.ts"

const prefix = "stoker-"

/** Names must not leave their directory, nor look like a control file. */
const isName = (name: string) => /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(name)

/** The instance of a directory name, if it is one. */
export const fromDirectory = (directory: string): string | undefined => {
  const name = directory.slice(prefix.length)
  return directory.startsWith(prefix) && directory !== workerLeaf && isName(name) ? name : undefined
}

const badName = (name: string) =>
  new CgroupError({
    operation: "name",
    path: name,
    reason: `${JSON.stringify(name)} cannot be the name of a group`,
    remedy: "use 1 to 100 of A-Z a-z 0-9 . _ - beginning with a letter or digit; not \"worker\" for an instance"
  })

/** An instance with its way to make leaves. */
export interface OwnInstance extends CgroupInstance {
  readonly make: (name: string) => Effect.Effect<ReturnType<CgroupInstance["open"]>, CgroupError>
  /** Makes `stoker-<instance>` itself, if it is not there. */
  readonly prepare: Effect.Effect<void, CgroupError>
}

/** The groups of one instance; `recorded` directories take the place of those below this worker's own cgroup. */
export const make = (
  fs: CgroupFs,
  hierarchy: Hierarchy,
  instance: string,
  recorded: ReadonlyArray<string> = []
): OwnInstance => {
  const directoryName = `${prefix}${instance}`
  const valid = fromDirectory(directoryName) !== undefined
  const isBelow = (mountPoint: string) => (path: string) =>
    path.startsWith(`${mountPoint}/`) && path.endsWith(`/${directoryName}`) && !path.split("/").includes("..")
  const directories = valid
    ? hierarchy.roots.map(({ base, mountPoint }) => recorded.find(isBelow(mountPoint)) ?? `${base}/${directoryName}`)
    : []

  const removeEmpty = (directory: string) =>
    fs.rmdir(directory).pipe(
      Effect.catchIf((error) => error.code === "ENOENT", () => Effect.void),
      // Busy with leaves is not a thing that passes: no use in trying again.
      Effect.catchIf((error) => error.code === "EBUSY", (busy) =>
        Effect.flatMap(fs.directories(directory), (below) =>
          Effect.fail(
            below.length === 0 ? busy : new CgroupError({
              operation: "rmdir",
              path: directory,
              reason: `it has ${below.length} leaves: ${below.slice(0, 5).join(", ")}`,
              remedy: "remove them first",
              code: "ENOTEMPTY",
              cause: busy
            })
          )))
    )

  const open: CgroupInstance["open"] = (name) => {
    const wrong = !valid ? instance : !isName(name) ? name : undefined
    if (wrong !== undefined) return Leaf.refused(name, badName(wrong))
    const own = directories.map((directory) => `${directory}/${name}`)
    return Leaf.make(fs, own, hierarchy.leaf(own))
  }

  return {
    directories,
    open,
    leaves: !valid
      ? Effect.fail(badName(instance))
      : Effect.map(Effect.forEach(directories, fs.directories), (names) => [...new Set(names.flat())].filter(isName)),
    remove: !valid
      ? Effect.fail(badName(instance))
      : Leaf.removeAll(directories, removeEmpty),
    make: Effect.fn("Cgroups.make")(function*(name) {
      if (!valid || !isName(name)) return yield* badName(valid ? name : instance)
      for (const directory of directories) yield* fs.mkdir(`${directory}/${name}`)
      return open(name)
    }),
    prepare: !valid
      ? Effect.fail(badName(instance))
      : Effect.andThen(
        Effect.forEach(
          directories,
          (directory) => Effect.catchIf(fs.mkdir(directory), (error) => error.code === "EEXIST", () => Effect.void),
          { discard: true }
        ),
        hierarchy.prepare(directories)
      )
  }
}
