/** What lies in an instance's directory beside its lock, once it holds no sandbox any more. */
import { Effect } from "effect"
import { rm } from "node:fs/promises"
import { join } from "node:path"

/** Made by the watchdog, the launcher and the drivers. The record of cgroups goes when those are gone. */
const names = ["roots", "said", "launch.sock", "bundles", "layers", "crun", "runsc", "network"]

/** Removes it, so that the host layer can remove the directory itself. What cannot be removed is the next janitor's. */
export const clearInstanceFiles = (directory: string) =>
  Effect.promise(() =>
    Promise.all(names.map((name) => rm(join(directory, name), { recursive: true, force: true }).catch(() => {})))
  )
