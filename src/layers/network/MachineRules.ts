/**
 * A machine's namespace as texts for `ip` and `nft`: the host's end of its tap, and the policy in the way of what comes out
 * of it. The guest is its own root and sends what it likes; the rules are this side of the tap, where it cannot come.
 */
import { type IpNetwork, parseNetwork } from "../../schemas/IpNetwork.ts"
import { GUEST_ADDRESS, HOST_ADDRESS, HOST_MAC, MAC, TAP, TAP_PREFIX, WIRE_PORT } from "../microvm/Vmm.ts"
import { base, chain, count, counting, leaving, type PolicyOptions, refusal } from "./Policy.ts"

/** Where an agent of the old worker's listens. */
const AGENT_PORT = 8080

/** The unprivileged user who may open the tap. */
export interface TapOwner {
  readonly uid: number
  readonly gid: number
}

/**
 * For `ip -batch -` in the namespace. The guest's neighbour entry is there before the guest is: nobody waits for an answer,
 * and nothing that the guest says about addresses changes it. `gateway`: a default route to make.
 */
export const tapBatch = ({ gid, uid }: TapOwner, way?: { readonly device: string; readonly gateway: string }) =>
  [
    "link set lo up",
    `tuntap add dev ${TAP} mode tap user ${uid} group ${gid} vnet_hdr`,
    `addr add ${HOST_ADDRESS}/${TAP_PREFIX} dev ${TAP}`,
    `link set ${TAP} address ${HOST_MAC} up`,
    `neigh replace ${GUEST_ADDRESS} lladdr ${MAC} dev ${TAP} nud permanent`,
    ...(way === undefined ? [] : [`route replace default via ${way.gateway} dev ${way.device} onlink`]),
    ""
  ].join("\n")

/**
 * For a shell in the namespace whose arguments are `ip`, `nft` and a `tapBatch`, and whose fd 0 has the rules. `rules` is what
 * it does with them.
 */
export const tapAndRules = (rules: string) =>
  `"$1" -batch - <<END && ${rules}
$3
END
`

/** How a guest gets out: as a sandbox with these addresses would, by the first of them. */
export interface MachineWay extends Omit<PolicyOptions, "own"> {
  /** The namespace's own IPv4 address, which the guest's packets leave with. */
  readonly address: string
}

const guest: ReadonlyArray<IpNetwork> = [parseNetwork(GUEST_ADDRESS)].flatMap((found) => found ?? [])

/**
 * Before the namespace's kernel looks at anything: one sender, IPv4 and the question for our hardware address. So there are
 * no other neighbours for it to remember, whose number is bounded for the whole host.
 */
const tap = [
  "table netdev stoker {",
  ...chain("tap", [
    `type filter hook ingress device "${TAP}" priority 0; policy drop;`,
    `ether saddr ${MAC} ip saddr ${GUEST_ADDRESS} accept`,
    `ether saddr ${MAC} arp operation request arp saddr ip ${GUEST_ADDRESS} arp daddr ip ${HOST_ADDRESS} accept`
  ]),
  "}"
]

/**
 * For `nft -f -` in the namespace, once the tap is there. Nobody but the host's own processes in it begins a connection to
 * the guest. Without a way out the guest begins none either; with one, its packets go where a sandbox's of the same policy
 * would, and replies come back by the connection they belong to, so there is no translation for what comes unasked. IPv6
 * goes nowhere.
 */
export const machineRules = (way?: MachineWay): string =>
  [
    ...tap,
    "table inet stoker {",
    ...(way === undefined ? [] : [...refusal, ...counting]),
    ...base("input", [`iifname "${TAP}" ip saddr ${GUEST_ADDRESS} ct state established,related accept`]),
    ...base(
      "forward",
      way === undefined ? [] : [
        `iifname "${way.device}" oifname "${TAP}" ip daddr ${GUEST_ADDRESS} ct state established,related ${count}`,
        `iifname != "${TAP}" drop`,
        `oifname != "${way.device}" drop`,
        ...leaving({ ...way, own: guest })
      ]
    ),
    ...base("output", [
      `oifname != "${TAP}" drop`,
      `ip daddr ${GUEST_ADDRESS} tcp dport { ${WIRE_PORT}, ${AGENT_PORT} } accept`,
      // Refusals, and what the kernel says of packets that are too large.
      "ct state established,related accept"
    ]),
    ...(way === undefined ? [] : chain("postrouting", [
      "type nat hook postrouting priority srcnat; policy accept;",
      `oifname "${way.device}" ip saddr ${GUEST_ADDRESS} snat ip to ${way.address}`
    ])),
    "}",
    ""
  ].join("\n")
