/** Where an instance's cgroups are, one path a line in its directory: its janitor may start from another cgroup. */
import { Effect } from "effect"
import { readFile, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { HostError } from "./Host.ts"

const FILE = "cgroups"

/** Written before the first cgroup is made. */
const write = (instanceDirectory: string, directories: ReadonlyArray<string>) =>
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

/** The record of one instance. While it is there its directory stays, and so a janitor finds the cgroups. */
export const recordIn = (instanceDirectory: string) => ({
  write: (directories: ReadonlyArray<string>) => write(instanceDirectory, directories),
  drop: Effect.promise(() => rm(join(instanceDirectory, FILE), { force: true }).catch(() => {}))
})

/** Empty when nothing was recorded: then the instance never made a cgroup. */
export const recordedCgroups = (instanceDirectory: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.promise(() => readFile(join(instanceDirectory, FILE), "utf8").catch(() => "")).pipe(
    Effect.map((text) => text.split("\n").filter((line) => line !== ""))
  )
