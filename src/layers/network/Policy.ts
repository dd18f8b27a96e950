/**
 * What a sandbox may reach, as rules of nftables in its network namespace. That namespace belongs to the host's user
 * namespace, so nobody inside, whatever capabilities its own user namespace gives it, can change them.
 */
import { type IpNetwork, networkText, parseNetwork } from "../../schemas/IpNetwork.ts"
import { notTheWorld4, notTheWorld6, theWorld6 } from "../../schemas/PublicAddresses.ts"
import type { Destination, SandboxClass } from "../../schemas/SandboxClass.ts"

export interface Target {
  readonly network: IpNetwork
  readonly port?: number
  readonly protocol?: "tcp" | "udp"
}

/** Undefined if the text is no destination. */
export const parseDestination = (text: Destination): Target | undefined => {
  const [, bracketed, plain, bits, port, protocol] =
    /^(?:\[([^\]]+)\]|([^/[\]]+?))(?:\/(\d{1,3}))?(?::(\d{1,5})\/(tcp|udp))?$/.exec(text) ?? []
  const network = parseNetwork(`${bracketed ?? plain ?? ""}${bits === undefined ? "" : `/${bits}`}`)
  if (network === undefined) return undefined
  return protocol === "tcp" || protocol === "udp" ? { network, port: Number(port), protocol } : { network }
}

export interface PolicyOptions {
  readonly network: Exclude<SandboxClass["network"], "none" | "host">
  /** The interface that leads out. */
  readonly device: string
  /** The sandbox's own addresses: nothing leaves from another one. */
  readonly own: ReadonlyArray<IpNetwork>
  /**
   * The host's as they are now: refused whatever else is allowed. The host itself refuses them too, also later ones
   * (`HostRules.ts`), until somebody empties its rules; these stay.
   */
  readonly host: ReadonlyArray<IpNetwork>
  /** Reached on port 53 wherever they are. */
  readonly nameservers: ReadonlyArray<IpNetwork>
}

const set = (values: ReadonlyArray<string>) => `{ ${values.join(", ")} }`

const keyword = ({ family }: IpNetwork) => family === 4 ? "ip" : "ip6"

const ofFamily = (networks: ReadonlyArray<IpNetwork>, family: 4 | 6) =>
  networks.filter((network) => network.family === family).map(networkText)

/** Any other source is dropped, before anything else is looked at; a family without an address has no sources. */
const sources = (own: ReadonlyArray<IpNetwork>, family: 4 | 6): string => {
  const addresses = ofFamily(own, family)
  if (addresses.length === 0) return `meta nfproto ipv${family} drop`
  return `${family === 4 ? "ip" : "ip6"} saddr != ${set(addresses)} drop`
}

/** What finds neighbours in IPv6. The job cannot send it by itself: that takes a raw socket. */
const neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept"

const never = (networks: ReadonlyArray<IpNetwork>) =>
  ([4, 6] as const).flatMap((family) => {
    const addresses = ofFamily(networks, family)
    return addresses.length === 0 ? [] : [`${family === 4 ? "ip" : "ip6"} daddr ${set(addresses)} ${refuse}`]
  })

const dns = (networks: ReadonlyArray<IpNetwork>) =>
  networks.map((network) =>
    `${keyword(network)} daddr ${networkText(network)} meta l4proto { tcp, udp } th dport 53 ${count}`
  )

const refuse = "goto refuse"

/** Accepts, if the sandbox has not too many connections already. */
export const count = "goto count"

const destinations = (network: PolicyOptions["network"]): ReadonlyArray<string> => {
  if (network === "internet") {
    return [
      `ip daddr ${set(notTheWorld4)} ${refuse}`,
      `ip6 daddr != ${theWorld6} ${refuse}`,
      `ip6 daddr ${set(notTheWorld6)} ${refuse}`,
      `meta l4proto { tcp, udp } ${count}`
    ]
  }
  return network.allow.flatMap((text) => {
    const target = parseDestination(text)
    if (target === undefined) return [] // the schema has refused it
    const where = `${keyword(target.network)} daddr ${networkText(target.network)}`
    return [
      target.protocol === undefined
        ? `${where} meta l4proto { tcp, udp } ${count}`
        : `${where} ${target.protocol} dport ${target.port} ${count}`
    ]
  })
}

export const chain = (name: string, lines: ReadonlyArray<string>) => [
  `  chain ${name} {`,
  ...lines.map((line) => `    ${line}`),
  "  }"
]

/** Where packets begin; what no rule accepts is dropped. */
export const base = (hook: "input" | "forward" | "output", lines: ReadonlyArray<string>) =>
  chain(hook, [`type filter hook ${hook} priority filter; policy drop;`, ...lines])

/**
 * The chain that `leaving` leads to. Refused aloud, so that a job need not wait for an answer. By a reset, because a TCP
 * socket that is just connecting does not heed ICMP before it has tried again, a second later.
 */
export const refusal = chain("refuse", [
  "meta l4proto tcp reject with tcp reset",
  "reject with icmpx type admin-prohibited"
])

/** Of one sandbox at a time, and of those that its host still remembers: a fortieth of what a host of 8 GiB keeps in all. */
export const CONNECTIONS = 4096

/**
 * The host tracks each connection that leaves it, in one table for everybody, so one sandbox must not fill that. Each is
 * noted here for as long as the host remembers it: this namespace has seen the same packets and knows how long that is
 * (`ct expiration`: 5 days for an open TCP connection, 2 minutes for a closed one, 30 seconds for a question by UDP). What
 * finds no room is refused. A match on counts (`ct count`) would be shorter, but many kernels are built without.
 */
export const counting = [
  "  set connections {",
  "    typeof ct id",
  `    size ${CONNECTIONS}`,
  "    flags dynamic,timeout",
  "  }",
  ...chain("count", [
    // Errors about a connection keep none alive.
    "ct state related meta l4proto { icmp, icmpv6 } accept",
    // One without its beginning: the host would take it for an open one.
    "ct state new tcp flags & (fin | syn | rst | ack) != syn drop",
    ...[
      "ct state established ct expiration > 5m|5d",
      "ct state established ct expiration > 2m|5m",
      "ct state established ct expiration <= 30s|30s",
      "ct state new meta l4proto udp|30s",
      "|2m"
    ].map((line) => {
      const [when = "", time = ""] = line.split("|")
      return `${when} update @connections { ct id timeout ${time} } accept`.trim()
    }),
    refuse
  ])
]

/** What becomes of a packet on its way out, wherever the sandbox is that sent it: counted and accepted, refused or dropped. */
export const leaving = ({ host, nameservers, network, own }: Omit<PolicyOptions, "device">): ReadonlyArray<string> => [
  sources(own, 4),
  sources(own, 6),
  `ct state established,related ${count}`,
  "ct state invalid drop",
  ...never(host),
  ...dns(nameservers),
  ...destinations(network),
  refuse
]

/** For `nft -f -` in the sandbox's namespace. */
export const sandboxRules = ({ device, ...policy }: PolicyOptions): string => {
  const nd = ofFamily(policy.own, 6).length > 0 ? [neighbours] : []
  return [
    "table inet stoker {",
    ...refusal,
    ...counting,
    ...base("input", [
      `iifname "lo" accept`,
      `ct state established,related ${count}`,
      ...nd
    ]),
    ...base("forward", []),
    ...base("output", [
      `oifname "lo" accept`,
      `oifname != "${device}" drop`,
      ...nd,
      ...leaving(policy)
    ]),
    "}",
    ""
  ].join("\n")
}
