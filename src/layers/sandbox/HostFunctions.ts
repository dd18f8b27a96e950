/**
 * The function host where sandboxes see it: a directory with its files, and over an empty file in it the worker's own Node, so
 * that its pages are in memory once. That is mounted in the watchdog's mount namespace and goes with it.
 */
import { Config, Effect, Option } from "effect"
import { execFile } from "node:child_process"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import type { Limits } from "../../schemas/Limits.ts"
import { FunctionHost } from "../functions/FunctionHost.ts"
import { BUNDLE, CACHE, hostFlags, START } from "../functions/HostProgram.ts"
import { Native } from "../host/Native.ts"
import { Watchdog } from "../host/Watchdog.ts"
import { ProvisionFailed } from "./Sandbox.ts"

/** As a sandbox sees it. */
export interface SeenHost {
  readonly node: string
  readonly directory: string
}

const NODE = "node"

const execute = promisify(execFile)

/** Program and arguments of a host: one that waits says so. */
export const argvOf = (
  { directory, node }: SeenHost,
  limits: Limits,
  task: "wait" | "run"
): readonly [string, ...Array<string>] => [node, ...hostFlags(limits), join(directory, START), task]

const failed = (reason: string, cause: unknown) =>
  new ProvisionFailed({
    driver: "host",
    step: "image",
    reason: `the function host: ${reason}`,
    remedy: "Is the state directory writable and not full?",
    cause
  })

/** Undefined: this worker has none. */
export const make = Effect.gen(function*() {
  const found = Option.getOrUndefined(yield* Effect.serviceOption(FunctionHost))
  const native = yield* Native
  const { mountNamespace } = yield* Watchdog
  const path = yield* Config.String("PATH").pipe(Config.withDefault("/usr/local/bin:/usr/bin:/bin"))
  if (found === undefined) return undefined
  const prefix = Option.match(mountNamespace, { onNone: () => [], onSome: (at) => [native.launch, "-n", at, "--"] })

  return {
    /** Without a namespace of mounts sandboxes see what the worker sees. */
    plain: { node: found.node, directory: found.directory } satisfies SeenHost,
    /** Its files into `directory`, which is made. */
    copy: (directory: string) =>
      Effect.tryPromise({
        try: async () => {
          await fs.mkdir(directory, { recursive: true, mode: 0o755 })
          for (const file of [BUNDLE, CACHE, START]) {
            await fs.copyFile(join(found.directory, file), join(directory, file)).catch((error: unknown) => {
              // Without V8's code it is only slower.
              if (file !== CACHE) throw error
            })
          }
          await fs.writeFile(join(directory, NODE), "", { mode: 0o755 })
        },
        catch: (cause) => failed(`${directory}: ${String(cause)}`, cause)
      }),
    /** Node into such a directory, by the name it has in the mount namespace. */
    mount: (seen: string) =>
      Effect.tryPromise({
        try: async () => {
          const target = join(seen, NODE)
          for (const words of [["--bind", found.node, target], ["-o", "remount,bind,ro,nosuid,nodev", target]]) {
            const [program = "mount", ...args] = [...prefix, "mount", ...words]
            await execute(program, args, { cwd: "/", env: { PATH: path } })
          }
        },
        catch: (cause) => failed(`Node cannot be mounted: ${String(cause)}`, cause)
      }),
    /** In such a directory. */
    in: (seen: string): SeenHost => ({ node: join(seen, NODE), directory: seen })
  }
})

export type HostFunctions = NonNullable<Effect.Success<typeof make>>
