/** The three small C programs: the guest inside a sandbox, the launcher into a cgroup, the watchdog over the worker. */
import { Context, Effect, Layer } from "effect"
import { accessSync, constants } from "node:fs"
import { fileURLToPath } from "node:url"
import { HostError } from "./Host.ts"

export class Native extends Context.Service<Native, {
  readonly guest: string
  readonly launch: string
  readonly watchdog: string
}>()("stoker/layers/host/Native") {}

/** From source they lie in build/native, beside the bundle in native. */
const directory = fileURLToPath(
  import.meta.url.endsWith(".ts")
    ? new URL("../../../build/native/", import.meta.url)
    : new URL("./native/", import.meta.url)
)

/** Fails when one is missing: nothing can be run without them. */
export const layer = Layer.effect(
  Native,
  Effect.gen(function*() {
    const find = (program: string) =>
      Effect.try({
        try: () => {
          accessSync(directory + program, constants.X_OK)
          return directory + program
        },
        catch: (cause) =>
          new HostError({
            operation: `find the ${program} program`,
            reason: `${directory}${program} is not an executable file`,
            remedy: "Run `npm run setup`, which builds it with the machine's C compiler.",
            cause
          })
      })
    return Native.of({
      guest: yield* find("guest"),
      launch: yield* find("launch"),
      watchdog: yield* find("watchdog")
    })
  })
)
