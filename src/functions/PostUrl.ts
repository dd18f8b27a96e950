/** What `wait` may be told to call. */
import { Result, Schema } from "effect"
import { isAddress } from "../schemas/IpNetwork.ts"
import { isPublic } from "../schemas/PublicAddresses.ts"

const mostCharacters = 4096

/** Why it may not be called. */
const faultOf = (text: string): string | undefined => {
  if (text.length > mostCharacters) return `expected a URL of at most ${mostCharacters} characters`
  const url = URL.parse(text)
  if (url === null) return "expected a URL, such as https://example.org/done"
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    return "expected a URL that begins with http:// or https://"
  }
  return url.username === "" && url.password === ""
    ? undefined
    : "expected a URL without user and password: arguments are kept, and shown to whoever may see the job"
}

/** An http or https URL without credentials. */
export const PostUrl = Schema.String.check(Schema.makeFilter(faultOf, { toJsonSchema: () => ({ format: "uri" }) }))

/**
 * The host of a URL as an address, if it is one, or as a name. The URL parser has brought all ways to write an IPv4
 * address (`2130706433`, `0x7f.1`, `127.1`) to the usual one.
 */
const hostOf = (url: string): string => new URL(url).hostname.replace(/^\[(.*)\]$/, "$1").replace(/\.$/, "")

const isLocalName = (host: string) => host === "localhost" || host.endsWith(".localhost")

/** Why no class with `internet` reaches it: the URL itself names a place that is not the world's. */
export const notPublic = (url: string): Result.Result<void, string> => {
  const host = hostOf(url)
  if (isLocalName(host)) return Result.fail(`${host} is the sandbox itself`)
  return isAddress(host) && !isPublic(host)
    ? Result.fail(`${host} is no public address (loopback, private, link-local, metadata or reserved)`)
    : Result.void
}
