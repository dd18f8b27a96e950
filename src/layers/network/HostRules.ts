/**
 * What the host itself keeps from sandboxes, as one table of nftables for each worker: its own addresses, whatever they
 * are and however they are translated later, and other sandboxes. Also the one rule that lets a subnet out.
 */
import { type IpNetwork, networkText } from "../../schemas/IpNetwork.ts"

export interface Subnet {
  readonly network: IpNetwork
  /** Leaves with the host's address. */
  readonly masquerade: boolean
}

const keyword = ({ family }: IpNetwork) => family === 4 ? "ip" : "ip6"

/** Before connections are tracked and destinations translated: a published port of a container is the host's, too. */
const guard = ({ network }: Subnet): ReadonlyArray<string> => {
  const from = `${keyword(network)} saddr ${networkText(network)}`
  return [
    ...(network.family === 6 ? [`${from} icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept`] : []),
    `${from} ${keyword(network)} daddr ${networkText(network)} drop`,
    `${from} fib daddr type { local, broadcast, anycast, multicast } drop`
  ]
}

const disguise = ({ masquerade, network }: Subnet): ReadonlyArray<string> =>
  masquerade
    ? [
      `${keyword(network)} saddr ${networkText(network)} ${keyword(network)} daddr != ${
        networkText(network)
      } masquerade`
    ]
    : []

/** For `nft -f -` on the host: puts the table in place of the one there was, at one stroke. */
export const hostRules = (table: string, subnets: ReadonlyArray<Subnet>): string =>
  [
    `add table inet ${table}`,
    `delete table inet ${table}`,
    `table inet ${table} {`,
    "  chain prerouting {",
    "    type filter hook prerouting priority raw; policy accept;",
    ...subnets.flatMap(guard).map((line) => `    ${line}`),
    "  }",
    "  chain postrouting {",
    "    type nat hook postrouting priority srcnat; policy accept;",
    ...subnets.flatMap(disguise).map((line) => `    ${line}`),
    "  }",
    "}",
    ""
  ].join("\n")

/** Removes the table, also if it is not there. */
export const noHostRules = (table: string): string => `add table inet ${table}\ndelete table inet ${table}\n`
