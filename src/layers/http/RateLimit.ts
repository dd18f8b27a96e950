/** A bucket of tokens for each caller: a burst at once, then so many requests a second. */
import { Effect } from "effect"
import { monotonicMs } from "../Now.ts"

export interface RateLimitOptions {
  readonly perSecond: number
  readonly burst: number
}

export interface RateLimit {
  /** Takes a token. 0: there was one; else the whole seconds until there is. */
  readonly take: (key: string) => Effect.Effect<number>
}

/** So many are remembered. Who was longest away is forgotten first, and begins with a full bucket again. */
const MOST_KEYS = 10_000

/** Nobody has a token yet. */
export const make = ({ burst, perSecond }: RateLimitOptions): RateLimit => {
  const buckets = new Map<string, { readonly tokens: number; readonly atMs: number }>()
  return {
    take: (key) =>
      Effect.map(monotonicMs, (atMs) => {
        const last = buckets.get(key)
        const tokens = last === undefined ? burst : Math.min(burst, last.tokens + (atMs - last.atMs) / 1000 * perSecond)
        // Put in again, so that the first key is always the one longest away.
        buckets.delete(key)
        if (buckets.size >= MOST_KEYS) {
          for (const oldest of buckets.keys()) {
            buckets.delete(oldest)
            break
          }
        }
        buckets.set(key, { tokens: tokens >= 1 ? tokens - 1 : tokens, atMs })
        return tokens >= 1 ? 0 : Math.max(1, Math.ceil((1 - tokens) / perSecond))
      })
  }
}
