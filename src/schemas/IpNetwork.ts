/** IP addresses and networks as numbers: what rules of a network are made of. */

export interface IpNetwork {
  readonly family: 4 | 6
  /** Its first address. */
  readonly first: bigint
  /** Leading bits that are the same for all of its addresses. */
  readonly prefix: number
}

const octets = (text: string): bigint | undefined => {
  const parts = text.split(".")
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)) {
    return undefined
  }
  return parts.reduce((sum, part) => (sum << 8n) | BigInt(part), 0n)
}

const groupsOf = (text: string): ReadonlyArray<string> => text === "" ? [] : text.split(":")

const hextets = (text: string): bigint | undefined => {
  // The last 32 bits may be written as IPv4.
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  const low = dotted === null ? undefined : octets(dotted[2] ?? "")
  if (dotted !== null && low === undefined) return undefined
  const plain = low === undefined ? text : `${dotted?.[1]}${(low >> 16n).toString(16)}:${(low & 0xffffn).toString(16)}`
  const halves = plain.split("::")
  if (halves.length > 2) return undefined
  const [head, tail] = [groupsOf(halves[0] ?? ""), groupsOf(halves[1] ?? "")]
  const missing = 8 - head.length - tail.length
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined
  const groups = [...head, ...Array.from({ length: missing }, () => "0"), ...tail]
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined
  return groups.reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n)
}

const widthOf = (family: 4 | 6): number => family === 4 ? 32 : 128

/** `10.1.2.3`, `10.1.2.0/24`, `fd00::/8`; bits behind the prefix are cleared. Undefined if it is none. */
export const parseNetwork = (text: string): IpNetwork | undefined => {
  const [, address = "", bits] = /^([^/]*)(?:\/(\d{1,3}))?$/.exec(text) ?? []
  const family = address.includes(":") ? 6 : 4
  const value = family === 6 ? hextets(address) : octets(address)
  const width = widthOf(family)
  const prefix = bits === undefined ? width : Number(bits)
  if (value === undefined || prefix > width) return undefined
  const rest = BigInt(width - prefix)
  return { family, first: (value >> rest) << rest, prefix }
}

/** Whether the text is one address, without a prefix. */
export const isAddress = (text: string): boolean => !text.includes("/") && parseNetwork(text) !== undefined

const addressText = (family: 4 | 6, value: bigint): string =>
  family === 4
    ? [24n, 16n, 8n, 0n].map((shift) => String((value >> shift) & 0xffn)).join(".")
    : Array.from({ length: 8 }, (_, i) => ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16)).join(":")

/** `10.1.2.0/24`; a single address without its prefix. */
export const networkText = ({ family, first, prefix }: IpNetwork): string =>
  addressText(family, first) + (prefix === widthOf(family) ? "" : `/${prefix}`)

/** Whether the two have an address in common. */
export const overlap = (one: IpNetwork, other: IpNetwork): boolean => {
  if (one.family !== other.family) return false
  const rest = BigInt(widthOf(one.family) - Math.min(one.prefix, other.prefix))
  return one.first >> rest === other.first >> rest
}

/** Whether the address lies in one of the networks. Text that is no address does not. */
export const isWithin = (networks: ReadonlyArray<IpNetwork>, address: string): boolean => {
  const found = parseNetwork(address)
  return found !== undefined && networks.some((network) => network.prefix <= found.prefix && overlap(network, found))
}
