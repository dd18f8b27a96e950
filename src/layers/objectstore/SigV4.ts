/**
 * Signatures of AWS, version 4, in headers. What is sent is not part of them (UNSIGNED-PAYLOAD): bodies carry a Content-MD5,
 * which is signed, so a part is hashed once.
 */
import { createHash, createHmac } from "node:crypto"

export interface Credentials {
  readonly accessKey: string
  readonly secretKey: string
  readonly region: string
}

/** What is to be signed. `path` is encoded already, as it goes over the wire. */
export interface Unsigned {
  readonly method: string
  readonly path: string
  readonly query: Readonly<Record<string, string>>
  /** In lower case; `host` is among them. All of them are signed. */
  readonly headers: Readonly<Record<string, string>>
}

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex")
const hmac = (key: string | Buffer, text: string) => createHmac("sha256", key).update(text).digest()

/** RFC 3986: everything but unreserved characters, as the store will do it over again. */
export const encoded = (text: string): string =>
  encodeURIComponent(text).replaceAll(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)

/** The slashes of a key stay. */
export const encodedKey = (key: string): string => key.split("/").map(encoded).join("/")

const byCode = ([a]: readonly [string, string], [b]: readonly [string, string]) => a < b ? -1 : a > b ? 1 : 0

/** As it is signed, which is also how it is sent. */
export const queryText = (query: Readonly<Record<string, string>>): string =>
  Object.entries(query).map(([name, value]) => [encoded(name), encoded(value)] as const).toSorted(byCode)
    .map(([name, value]) => `${name}=${value}`).join("&")

/** The headers to send, with the date and the signature. */
export const signed = (
  { accessKey, region, secretKey }: Credentials,
  { headers, method, path, query }: Unsigned,
  atMs: number
): Readonly<Record<string, string>> => {
  const stamp = new Date(atMs).toISOString().replaceAll(/[-:]|\.\d{3}/g, "")
  const day = stamp.slice(0, 8)
  const payload = "UNSIGNED-PAYLOAD"
  const all = { ...headers, "x-amz-content-sha256": payload, "x-amz-date": stamp }
  const sorted = Object.entries(all).toSorted(byCode)
  const names = sorted.map(([name]) => name).join(";")
  const canonical = [
    method,
    path,
    queryText(query),
    ...sorted.map(([name, value]) => `${name}:${value.trim().replaceAll(/ +/g, " ")}`),
    "",
    names,
    payload
  ].join("\n")
  const place = `${day}/${region}/s3/aws4_request`
  const text = ["AWS4-HMAC-SHA256", stamp, place, sha256(canonical)].join("\n")
  const key = [region, "s3", "aws4_request"].reduce(hmac, hmac(`AWS4${secretKey}`, day))
  const signature = createHmac("sha256", key).update(text).digest("hex")
  return {
    ...all,
    authorization: `AWS4-HMAC-SHA256 Credential=${accessKey}/${place}, SignedHeaders=${names}, Signature=${signature}`
  }
}
