/** Where an instance's cgroups are, one path a line in its directory: its janitor may start from another cgroup. */
import { Effect } from "effect"
import { readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { HostError } from "./Host.ts"

const FILE = "cgroups"

/** Written before the first sandbox is made. */
export const recordCgroups = (instanceDirectory: string, directories: ReadonlyArray<string>) =>
  Effect.tryPromise({
    try: () =>
      writeFile(join(instanceDirectory, FILE), directories.map((path) => `${path}\n`).join(""), { mode: 0o600 }),
    catch: (cause) =>
      new HostError({
        operation: "write down where the cgroups are",
        reason: String(cause),
        remedy: "Is the state directory writable and not full?",
        cause
      })
  })

/** Empty when nothing was recorded: then the instance never made a sandbox. */
export const recordedCgroups = (instanceDirectory: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.promise(() => readFile(join(instanceDirectory, FILE), "utf8").catch(() => "")).pipe(
    Effect.map((text) => text.split("\n").filter((line) => line !== ""))
  )
