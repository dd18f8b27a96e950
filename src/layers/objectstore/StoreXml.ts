/** The little XML that stores answer with. Nothing in it is trusted to be there. */

const entities: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: "\"", apos: "'" }

const plain = (text: string) =>
  text.replaceAll(/&(?:#(\d+)|#x([0-9a-fA-F]+)|(\w+));/g, (whole, decimal, hex, name) => {
    if (name !== undefined) return entities[String(name)] ?? whole
    const code = decimal === undefined ? Number.parseInt(String(hex), 16) : Number(decimal)
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole
  })

/** The text of the first element of that name. */
export const textOf = (xml: string, name: string): string | undefined => {
  const found = new RegExp(`<${name}(?:\\s[^>]*)?>([^<]*)</${name}>`).exec(xml)?.[1]
  return found === undefined ? undefined : plain(found)
}

/** What lies in each element of that name; they do not lie in each other. */
export const each = (xml: string, name: string): ReadonlyArray<string> =>
  [...xml.matchAll(new RegExp(`<${name}(?:\\s[^>]*)?>(.*?)</${name}>`, "gs"))].map(([, inner = ""]) => inner)

/** An answer that is an error, also one that came with status 200. */
export const errorOf = (
  xml: string
): { readonly code: string; readonly message: string; readonly region?: string } | undefined => {
  const [inner] = each(xml, "Error")
  const code = inner === undefined ? undefined : textOf(inner, "Code")
  if (inner === undefined || code === undefined) return undefined
  const region = textOf(inner, "Region")
  return { code, message: textOf(inner, "Message") ?? "", ...(region === undefined ? {} : { region }) }
}

export const bare = (etag: string): string => etag.replaceAll("\"", "")

/** A key as a listing with `encoding-type=url` has it. */
export const decodedKey = (key: string): string => {
  try {
    return decodeURIComponent(key.replaceAll("+", "%20"))
  } catch {
    return key
  }
}

const escaped = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")

/** What completes a multipart upload: its parts' ETags, in order. */
export const completion = (etags: ReadonlyArray<string>): string =>
  `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${
    etags.map((etag, index) => `<Part><PartNumber>${index + 1}</PartNumber><ETag>"${escaped(etag)}"</ETag></Part>`)
      .join("")
  }</CompleteMultipartUpload>`
