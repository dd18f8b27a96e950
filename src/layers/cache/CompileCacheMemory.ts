/** A compile cache in this process' memory: for tests, and for programs that embed a worker. */
import { Effect, Layer, Option } from "effect"
import { chargeOf, CompileCache, type Compiled, type CompileKey, mostBytesOf, sizeOf } from "./CompileCache.ts"

/** Holds at most so many bytes; what was used least recently goes first. */
export const layerMemory = (maximumBytes: number) =>
  Layer.sync(CompileCache, () => {
    /** Least recently used first. */
    const entries = new Map<CompileKey, Compiled>()
    const charge = (compiled: Compiled) => chargeOf(sizeOf(compiled), maximumBytes)
    const mostBytes = mostBytesOf(maximumBytes)
    let held = 0
    const drop = (key: CompileKey) => {
      const found = entries.get(key)
      if (found === undefined) return
      held -= charge(found)
      entries.delete(key)
    }
    return {
      mostBytes,
      get: (key) =>
        Effect.sync(() => {
          const found = entries.get(key)
          if (found === undefined) return Option.none()
          entries.delete(key)
          entries.set(key, found)
          return Option.some(found)
        }),
      put: (key, compiled) =>
        Effect.sync(() => {
          if (sizeOf(compiled) > mostBytes) return
          drop(key)
          for (const oldest of entries.keys()) {
            if (held + charge(compiled) <= maximumBytes) break
            drop(oldest)
          }
          entries.set(key, compiled)
          held += charge(compiled)
        })
    }
  })
