/** Whom a sandbox asks for names. */
import { isAddress, isWithin, parseNetwork } from "../../schemas/IpNetwork.ts"

/** What the host's `/etc/resolv.conf` names, in order. */
export const nameserversOf = (resolvConf: string): ReadonlyArray<string> =>
  resolvConf.split("\n").flatMap((line) => {
    const address = /^\s*nameserver\s+(\S+)/.exec(line)?.[1]
    return address !== undefined && isAddress(address) ? [address] : []
  })

const loopback = ["127.0.0.0/8", "::1/128", "0.0.0.0/8"].flatMap((text) => parseNetwork(text) ?? [])

/** One on the host's loopback, or of another address of the host, cannot be reached from a sandbox. */
export const isReachable = (own: ReadonlySet<string>) => (address: string): boolean =>
  !isWithin(loopback, address) && !own.has(address)

/** glibc reads three. */
export const resolvConfOf = (nameservers: ReadonlyArray<string>): string =>
  nameservers.slice(0, 3).map((address) => `nameserver ${address}\n`).join("")
