/** The host's routes, and whether a subnet for sandboxes is in their way. */
import { readFileSync } from "node:fs"
import { type IpNetwork, networkText, overlap } from "../../schemas/IpNetwork.ts"

export interface Route {
  readonly device: string
  readonly network: IpNetwork
}

/** In `/proc/net/route` an address is a 32-bit number in the machine's byte order, as hexadecimal digits. */
const addressOf = (hex: string): bigint => {
  const bytes = hex.match(/../g) ?? []
  return BigInt(`0x${(littleEndian ? bytes.toReversed() : bytes).join("")}`)
}

const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1

const bitsOf = (mask: bigint): number => mask.toString(2).replaceAll("0", "").length

/** The IPv4 routes of the main table, as `/proc/net/route` lists them. */
export const parseRoutes = (text: string): ReadonlyArray<Route> =>
  text.split("\n").slice(1).flatMap((line) => {
    const [device, destination, , , , , , mask] = line.split(/\s+/)
    if (device === undefined || destination === undefined || mask === undefined) return []
    return [{ device, network: { family: 4, first: addressOf(destination), prefix: bitsOf(addressOf(mask)) } }]
  })

/** A default route, or its two halves as tunnels set them. */
const isDefault = ({ network }: Route) => network.prefix <= 1

/** What a point-to-point link to a sandbox has: one address, behind a veth. */
const isOurs = ({ device, network }: Route) => network.prefix === 32 && device.startsWith("veth")

/** A route into the subnet that is not to a sandbox, in words; undefined if there is none. */
export const conflictOf = (routes: ReadonlyArray<Route>, subnet: IpNetwork): string | undefined => {
  const found = routes.find((route) => !isDefault(route) && !isOurs(route) && overlap(route.network, subnet))
  return found === undefined ? undefined : `${networkText(found.network)} by ${found.device}`
}

export const readRoutes = (): ReadonlyArray<Route> => parseRoutes(readFileSync("/proc/net/route", "utf8"))
