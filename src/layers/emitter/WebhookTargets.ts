/** Where outcomes may be posted to: below addresses that the operator wrote down, and nowhere else. */

const parsed = (text: string): URL | undefined => URL.canParse(text) ? new URL(text) : undefined

const isPlain = ({ hash, password, protocol, username }: URL): boolean =>
  (protocol === "https:" || protocol === "http:") && username === "" && password === "" && hash === ""

/** Escaped slashes and dots mean to some servers what plain ones mean: a path with them may lead out of its prefix. */
const hides = /%(?:2f|5c|2e|00)|\\/i

/** Whether a prefix can allow anything: a plain address without a query. */
export const isPrefix = (prefix: string): boolean => {
  const url = parsed(prefix)
  return url !== undefined && isPlain(url) && url.search === ""
}

const below = (path: string, prefix: string): boolean =>
  path === prefix || path.startsWith(prefix.endsWith("/") ? prefix : `${prefix}/`)

/** The first of the prefixes that allows the address; `https://a/hooks` allows `https://a/hooks/1`, not `https://a/hooks-2`. */
export const allowing = (prefixes: ReadonlyArray<string>, address: string): string | undefined => {
  const url = parsed(address)
  if (url === undefined || !isPlain(url) || hides.test(url.pathname) || address.includes("\\")) return undefined
  return prefixes.find((prefix) => {
    const allowed = isPrefix(prefix) ? parsed(prefix) : undefined
    return allowed !== undefined && allowed.origin === url.origin && below(url.pathname, allowed.pathname)
  })
}

/** Whether the operator lets outcomes be posted there. */
export const isAllowed = (prefixes: ReadonlyArray<string>) => (address: string): boolean =>
  allowing(prefixes, address) !== undefined
