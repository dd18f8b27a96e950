/** What a host lacks for a class with a network, with the fix for each gap. */
import { Effect } from "effect"
import { parseNetwork } from "../../schemas/IpNetwork.ts"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"
import type { Check } from "../sandbox/Sandbox.ts"
import { DEVICE, pluginFile } from "./Cni.ts"
import { pluginsOf } from "./CniConfig.ts"
import { hostRules } from "./HostRules.ts"
import { NetworkError } from "./Network.ts"
import * as Plan from "./Plan.ts"
import { sandboxRules } from "./Policy.ts"
import { requireTool, type Tool, type ToolResult, type ToolRun } from "./Tools.ts"

interface Surroundings {
  readonly path: string
  readonly places: Plan.Places
  readonly run: (tool: ToolRun) => Effect.Effect<ToolResult, NetworkError>
}

const line = (name: string, look: Effect.Effect<string, NetworkError>): Effect.Effect<Check> =>
  look.pipe(
    Effect.map((detail): Check => ({ name, status: "ok", detail })),
    Effect.catch(({ reason, remedy }) => Effect.succeed<Check>({ name, status: "missing", detail: reason, remedy }))
  )

const keys = ["ip", "nft", "nsenter"] as const satisfies ReadonlyArray<Tool>

/** Both tables in a namespace that goes at once: whether this kernel has what they need. */
const trial = Effect.fnUntraced(
  function*({ path, run }: Surroundings, network: Parameters<typeof sandboxRules>[0]["network"]) {
    const nft = yield* requireTool(path, "nft")
    const own = [parseNetwork("198.19.0.2")].flatMap((found) => found ?? [])
    const rules = sandboxRules({ network, device: DEVICE, own, host: own, nameservers: [] }) +
      hostRules("stoker-trial", own.map((one) => ({ network: one, masquerade: true })))
    const { code, stderr } = yield* run({ argv: ["unshare", "--net", nft, "-f", "-"], stdin: rules })
    if (code === 0) return "nftables can do what the rules need"
    return yield* new NetworkError({
      reason: `the rules cannot be set: ${stderr.trim().slice(-500) || `status ${code}`}`,
      remedy:
        "Run the worker as root on a kernel with nftables (modules nft_ct, nft_fib_inet, nft_masq, nft_reject_inet)."
    })
  }
)

export const checkClass = Effect.fn("Network.check")(function*(where: Surroundings, sandboxClass: SandboxClass) {
  if (sandboxClass.network === "none") return []
  const name = `network of ${sandboxClass.name}`
  const network = yield* Effect.result(Plan.wanted(sandboxClass))
  if (network._tag === "Failure") return [yield* line(name, Effect.fail(network.failure))]
  const list = yield* Effect.result(Plan.networkList(where.places, sandboxClass))
  const plugins = list._tag === "Failure" ? [] : pluginsOf(list.success)
  return yield* Effect.all([
    ...keys.map((tool) => line(name, requireTool(where.path, tool))),
    line(
      name,
      list._tag === "Failure" ? Effect.fail(list.failure) : Effect.succeed(`CNI network ${list.success.name}`)
    ),
    ...plugins.map((type) => line(name, pluginFile(where.places.plugins, type))),
    line(
      name,
      Effect.map(
        Plan.nameservers(where.places, sandboxClass, []),
        (found) => found.length === 0 ? "no nameserver" : `names from ${found.join(", ")}`
      )
    ),
    line(name, trial(where, network.success))
  ])
})
