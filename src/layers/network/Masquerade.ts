/**
 * What a plugin's `ipMasq` leaves on the host when it is killed, or when it finds its namespace gone: it reads there which
 * addresses to let go, so nobody would ever remove the chain. Its name says whose it is.
 */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import type { NetworkList } from "./CniConfig.ts"
import { NetworkError } from "./Network.ts"
import type { ToolResult, ToolRun } from "./Tools.ts"

/** As the plugins name it: of the network and the attachment, which no other network or sandbox shares. */
export const chainOf = (network: string, containerId: string): string =>
  `CNI-${createHash("sha512").update(network + containerId).digest("hex")}`.slice(0, 28)

/** For `iptables-restore --noflush`, from the lines of `iptables-save` that name the chain: everything that leads to it, and it. */
export const removal = (chain: string, lines: string): string | undefined => {
  const mine = lines.split("\n").filter((line) => line.split(/\s+/).includes(chain) || line.startsWith(`:${chain} `))
  if (mine.length === 0) return undefined
  const jumps = mine.filter((line) => line.startsWith("-A ") && line.endsWith(` -j ${chain}`))
  return ["*nat", ...jumps.map((line) => line.replace("-A ", "-D ")), `-F ${chain}`, `-X ${chain}`, "COMMIT", ""]
    .join("\n")
}

/** A machine may have very many rules of others'. */
const LOOK = `"$1-save" -t nat | grep -F -e "$2"`

/** Removes what there is of it, for both families. To be called when no plugin of the attachment runs any more. */
export const sweep = Effect.fn("Masquerade.sweep")(function*(
  run: (tool: ToolRun) => Effect.Effect<ToolResult, NetworkError>,
  { name, plugins }: NetworkList,
  containerId: string
) {
  if (!plugins.some(({ ipMasq }) => ipMasq === true)) return
  const chain = chainOf(name, containerId)
  for (const tables of ["iptables", "ip6tables"]) {
    const { stdout } = yield* run({ argv: ["/bin/sh", "-c", LOOK, "sh", tables, chain] })
    const input = removal(chain, stdout)
    if (input === undefined) continue
    yield* Effect.logDebug(`removing ${chain}, which a plugin of network ${name} has left in ${tables}`)
    const { code, stderr } = yield* run({ argv: [`${tables}-restore`, "-w", "--noflush"], stdin: input })
    if (code === 0) continue
    return yield* new NetworkError({
      reason: `chain ${chain} of ${tables}, left by a plugin of network ${name}, could not be removed: ${
        stderr.trim().slice(-2000) || `status ${code}`
      }`,
      remedy: "It is tried again. Does another program hold the lock of iptables?"
    })
  }
})
