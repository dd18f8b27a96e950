/** What a host lacks for a class with a network, with the fix for each gap. */
import { Effect } from "effect"
import { existsSync, statSync } from "node:fs"
import { parseNetwork } from "../../schemas/IpNetwork.ts"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"
import type { Check } from "../sandbox/Sandbox.ts"
import { DEVICE, pluginFile } from "./Cni.ts"
import { type NetworkList, pluginsOf, withoutTap } from "./CniConfig.ts"
import { hostRules } from "./HostRules.ts"
import { machineRules, tapAndRules, tapBatch } from "./MachineRules.ts"
import { NetworkError } from "./Network.ts"
import * as Plan from "./Plan.ts"
import { parseDestination, type PolicyOptions, sandboxRules } from "./Policy.ts"
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

const own = [parseNetwork("198.19.0.2")].flatMap((found) => found ?? [])

const ofHost = () => hostRules("stoker-trial", own.map((one) => ({ network: one, masquerade: true })))

/** In a namespace that goes at once: whether this kernel has what it takes. */
const trial = Effect.fnUntraced(function*(
  { run }: Surroundings,
  tool: ToolRun,
  words: { readonly can: string; readonly cannot: string; readonly remedy: string }
) {
  const { code, stderr } = yield* run({ ...tool, argv: ["unshare", "--net", ...tool.argv] })
  if (code === 0) return words.can
  return yield* new NetworkError({
    reason: `${words.cannot}: ${stderr.trim().slice(-500) || `status ${code}`}`,
    remedy: words.remedy
  })
})

const rulesTrial = Effect.fnUntraced(function*(where: Surroundings, network: PolicyOptions["network"]) {
  const nft = yield* requireTool(where.path, "nft")
  const rules = sandboxRules({ network, device: DEVICE, own, host: own, nameservers: [] }) + ofHost()
  return yield* trial(where, { argv: [nft, "-f", "-"], stdin: rules }, {
    can: "nftables can do what the rules need",
    cannot: "the rules cannot be set",
    remedy:
      "Run the worker as root on a kernel with nftables (modules nft_ct, nft_fib_inet, nft_masq, nft_reject_inet)."
  })
})

/** All of a machine's network but CNI's part. */
const machineTrial = Effect.fnUntraced(
  function*(where: Surroundings, network: PolicyOptions["network"] | undefined) {
    const ip = yield* requireTool(where.path, "ip")
    const nft = yield* requireTool(where.path, "nft")
    const rules = network === undefined
      ? machineRules()
      : machineRules({ network, device: DEVICE, address: "198.19.0.2", host: own, nameservers: [] }) + ofHost()
    const batch = tapBatch({ uid: 65_534, gid: 65_534 })
    return yield* trial(
      where,
      { argv: ["/bin/sh", "-c", tapAndRules(`exec "$2" -f -`), "sh", ip, nft, batch], stdin: rules },
      {
        can: "a tap can be made, with the rules behind it",
        cannot: "a tap and its rules cannot be set",
        remedy:
          "Run the worker as root on a kernel with tun and nftables (modules tun, nf_tables, nft_ct, nft_nat, nft_reject_inet)."
      }
    )
  }
)

const TUN = "/dev/net/tun"

const tun = Effect.suspend(() =>
  existsSync(TUN) && statSync(TUN).isCharacterDevice()
    ? Effect.succeed(TUN)
    : Effect.fail(
      new NetworkError({
        reason: `there is no device ${TUN}, which a machine's tap needs`,
        remedy: "Load the module (`modprobe tun`), or give the worker's container the device."
      })
    )
)

const toolLines = (where: Surroundings, name: string) => keys.map((tool) => line(name, requireTool(where.path, tool)))

/** Where addresses and names come from. */
const linesOfCni = Effect.fnUntraced(function*(
  where: Surroundings,
  name: string,
  sandboxClass: SandboxClass,
  adjust: (list: NetworkList) => Effect.Effect<NetworkList, NetworkError> = Effect.succeed
) {
  const list = yield* Effect.result(Effect.flatMap(Plan.networkList(where.places, sandboxClass), adjust))
  const plugins = list._tag === "Failure" ? [] : pluginsOf(list.success)
  return [
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
    )
  ]
})

const nameOf = ({ name }: SandboxClass) => `network of ${name}`

export const checkClass = Effect.fn("Network.check")(function*(where: Surroundings, sandboxClass: SandboxClass) {
  if (sandboxClass.network === "none") return []
  const name = nameOf(sandboxClass)
  const network = yield* Effect.result(Plan.wanted(sandboxClass))
  if (network._tag === "Failure") return [yield* line(name, Effect.fail(network.failure))]
  return yield* Effect.all([
    ...toolLines(where, name),
    ...(yield* linesOfCni(where, name, sandboxClass)),
    line(name, rulesTrial(where, network.success))
  ])
})

export const checkMachine = Effect.fn("Network.checkMachine")(
  function*(where: Surroundings, sandboxClass: SandboxClass) {
    const name = nameOf(sandboxClass)
    const always = [...toolLines(where, name), line(name, tun)]
    if (sandboxClass.network === "none") {
      return yield* Effect.all([...always, line(name, machineTrial(where, undefined))])
    }
    const network = yield* Effect.result(Plan.wanted(sandboxClass))
    if (network._tag === "Failure") return [yield* line(name, Effect.fail(network.failure))]
    return yield* Effect.all([
      ...always,
      ...(yield* linesOfCni(where, name, sandboxClass, withoutTap)),
      ...outOfReach(sandboxClass).map((text) => Effect.succeed<Check>({ name, status: "warning", ...text })),
      line(name, machineTrial(where, network.success))
    ])
  }
)

/** What a class allows and its machines do not reach: they speak IPv4. */
const outOfReach = ({ network, networkSetup }: SandboxClass) =>
  [...(typeof network === "object" ? network.allow : []), ...(networkSetup?.nameservers ?? [])]
    .filter((text) => parseDestination(text)?.network.family === 6)
    .map((text) => ({
      detail: `${text} is IPv6, which no machine has`,
      remedy: "Leave it out, or use a class of driver oci."
    }))
