/** Which addresses are the world's: what a sandbox with `internet` reaches, and no other. */
import { isAddress, isWithin, parseNetwork } from "./IpNetwork.ts"

/** Never the world: private, shared, local, documentation, benchmarks, multicast, reserved (IANA's special registry). */
export const notTheWorld4 = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/4",
  "240.0.0.0/4"
]

/** Of IPv6 only this is the world: outside lie loopback, unique-local, link-local, multicast, mapped and NAT64 addresses. */
export const theWorld6 = "2000::/3"

/** In there, but not: Teredo and 6to4, which may carry a private IPv4 address, and special purposes. */
export const notTheWorld6 = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]

const networks = (texts: ReadonlyArray<string>) => texts.map(parseNetwork).filter((network) => network !== undefined)

const closed = networks([...notTheWorld4, ...notTheWorld6])
const open6 = networks([theWorld6])

/** Whether the text is an address, and the world's. */
export const isPublic = (address: string): boolean =>
  isAddress(address) && !isWithin(closed, address) && (!address.includes(":") || isWithin(open6, address))
