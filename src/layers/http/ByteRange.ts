/** The `Range` header (RFC 9110, 14): one range of bytes; whatever else it says is passed over, as it may be. */

/** Inclusive, as in the header. */
export type ByteRange =
  | { readonly _tag: "From"; readonly first: number; readonly last?: number }
  | { readonly _tag: "Suffix"; readonly length: number }

const form = /^\s*bytes\s*=\s*(\d{0,15})\s*-\s*(\d{0,15})\s*$/i

/** Nothing if there is none, or none that is understood: then everything is sent. */
export const parse = (header: string | undefined): ByteRange | undefined => {
  const [, first = "", last = ""] = form.exec(header ?? "") ?? []
  if (first === "" && last === "") return undefined
  if (first === "") return { _tag: "Suffix", length: Number(last) }
  if (last === "") return { _tag: "From", first: Number(first) }
  return Number(last) < Number(first)
    ? undefined
    : { _tag: "From", first: Number(first), last: Number(last) }
}

/** Where it begins and ends (exclusive) in so many bytes; nothing if it has none of them. */
export const within = (
  range: ByteRange,
  size: number
): { readonly from: number; readonly to: number } | undefined => {
  const from = range._tag === "Suffix" ? Math.max(0, size - range.length) : range.first
  const to = range._tag === "Suffix" ? size : Math.min(size, (range.last ?? size) + 1)
  return from < to ? { from, to } : undefined
}

/** Whether a range still means what the caller has the beginning of. */
export const isCurrent = (ifRange: string | undefined, etag: string | undefined): boolean =>
  ifRange === undefined || ifRange === etag
