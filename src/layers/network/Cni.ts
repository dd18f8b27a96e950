/** Runs a chain of CNI plugins as the specification has it. */
import { Effect } from "effect"
import type { NetworkList, PluginConfig } from "./CniConfig.ts"
import { type CniResult, decodeFailure, decodeResult } from "./CniResult.ts"
import { NetworkError } from "./Network.ts"
import { findIn, type ToolResult, type ToolRun } from "./Tools.ts"

/** The interface in the sandbox. */
export const DEVICE = "eth0"

/** What one attachment is; the same for ADD and DEL. */
export interface CniTarget {
  readonly list: NetworkList
  readonly containerId: string
  /** The namespace's path; empty when it is gone. */
  readonly netns: string
  /** Folders with plugins. */
  readonly folders: ReadonlyArray<string>
}

type Run = (run: ToolRun) => Effect.Effect<ToolResult, NetworkError>

export const pluginFile = (folders: ReadonlyArray<string>, type: string): Effect.Effect<string, NetworkError> => {
  const found = findIn(folders, type)
  return found === undefined
    ? Effect.fail(
      new NetworkError({
        reason: `there is no CNI plugin ${type} in ${folders.join(", ")}`,
        remedy:
          "Install it (`apt-get install containernetworking-plugins` has the usual ones), or use a class without a network."
      })
    )
    : Effect.succeed(found)
}

const remedyOf = (words: string): string => {
  if (/no IP addresses available/.test(words)) {
    return "Every address of its subnet is taken: give the class a larger subnet, or run fewer sandboxes at once."
  }
  return "Look at its network's configuration; the plugin says what it could not do."
}

const failed = (command: string, type: string, words: string) =>
  new NetworkError({ reason: `CNI plugin ${type} could not ${command}: ${words}`, remedy: remedyOf(words) })

/** One plugin, once. Gives what it said on stdout. */
const call = Effect.fnUntraced(function*(
  run: Run,
  command: "ADD" | "DEL",
  target: CniTarget,
  plugin: PluginConfig,
  previous: CniResult | undefined
) {
  const file = yield* pluginFile(target.folders, plugin.type)
  const { cniVersion, name } = target.list
  const config = { ...plugin, cniVersion, name, ...(previous === undefined ? {} : { prevResult: previous }) }
  const { code, stderr, stdout } = yield* run({
    argv: [file],
    stdin: JSON.stringify(config),
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: target.containerId,
      CNI_NETNS: target.netns,
      CNI_IFNAME: DEVICE,
      CNI_PATH: target.folders.join(":")
    }
  })
  if (code === 0) {
    if (stderr.trim() !== "") yield* Effect.logDebug(`CNI plugin ${plugin.type} said`, stderr.trim())
    return stdout
  }
  const said = stderr.trim() === "" ? "" : ` (${stderr.trim().slice(-2000)})`
  const words = yield* decodeFailure(stdout).pipe(
    Effect.map((error) =>
      `${error.msg}${
        error.details === undefined || error.details === "" ? "" : `: ${error.details}`
      } (code ${error.code})`
    ),
    Effect.orElseSucceed(() => `status ${code}${stdout.trim() === "" ? "" : `: ${stdout.trim().slice(-2000)}`}`)
  )
  return yield* failed(command, plugin.type, words + said)
})

/** All plugins in order, each with the result of the one before; the last one's result is the attachment's. */
export const add = Effect.fn("Cni.add")(function*(run: Run, target: CniTarget) {
  let result: CniResult | undefined
  for (const plugin of target.list.plugins) {
    const said = yield* call(run, "ADD", target, plugin, result)
    result = yield* decodeResult(said).pipe(
      Effect.mapError((cause) => failed("ADD", plugin.type, `its result cannot be read: ${cause.message}`))
    )
  }
  return result ?? (yield* failed("ADD", target.list.name, "it has no plugin"))
})

/** All plugins in reverse, each with the result of the attachment; each is asked, whatever the others say. */
export const del = Effect.fn("Cni.del")(function*(run: Run, target: CniTarget, result: CniResult | undefined) {
  const failures: Array<NetworkError> = []
  for (const plugin of target.list.plugins.toReversed()) {
    const ended = yield* Effect.result(call(run, "DEL", target, plugin, result))
    if (ended._tag === "Failure") failures.push(ended.failure)
  }
  const [first] = failures
  if (first !== undefined) return yield* first
})
