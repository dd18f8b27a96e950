/** Where outcomes may be posted to: below addresses that the operator wrote down, and nowhere else. */

const parsed = (text: string): URL | undefined => URL.canParse(text) ? new URL(text) : undefined

const isPlain = ({ hash, password, protocol, username }: URL): boolean =>
  (protocol === "https:" || protocol === "http:") && username === "" && password === "" && hash === ""

/**
 * What means a way up, or another path, to some server behind the address: escaped slashes, dots and control characters,
 * escaped once or several times, and dots with parameters (`..;`).
 */
const hides = /%(?:25)*(?:2f|5c|2e|[01][0-9a-f]|7f)|\\|\/\.{1,2};/i

/** A URL's reader passes over these, so that it would be another text that was allowed. */
const unclean = /[\s\p{Cc}\\]/u

/** What follows an allowed beginning is the caller's, and kept with the job. Characters. */
const LONGEST = 2048

/** Whether a prefix can allow anything: a plain address without a query. */
export const isPrefix = (prefix: string): boolean => {
  const url = parsed(prefix)
  return url !== undefined && isPlain(url) && url.search === ""
}

const below = (path: string, prefix: string): boolean =>
  path === prefix || path.startsWith(prefix.endsWith("/") ? prefix : `${prefix}/`)

/** The first of the prefixes that allows the address; `https://a/hooks` allows `https://a/hooks/1`, not `https://a/hooks-2`. */
export const allowing = (prefixes: ReadonlyArray<string>, address: string): string | undefined => {
  if (address.length > LONGEST || unclean.test(address)) return undefined
  const url = parsed(address)
  if (url === undefined || !isPlain(url) || hides.test(url.pathname)) return undefined
  return prefixes.find((prefix) => {
    const allowed = isPrefix(prefix) ? parsed(prefix) : undefined
    return allowed !== undefined && allowed.origin === url.origin && below(url.pathname, allowed.pathname)
  })
}

/** Whether the operator lets outcomes be posted there. */
export const isAllowed = (prefixes: ReadonlyArray<string>) => (address: string): boolean =>
  allowing(prefixes, address) !== undefined
