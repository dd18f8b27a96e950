/** Under what a compile phase's result is kept. */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import type { IntakeName, Owner } from "../../schemas/Ids.ts"
import type { Phase, Program } from "../../schemas/Program.ts"
import type { CompileKey } from "./CompileCache.ts"

/** Of the key and of what is kept under it: another number, and all that was kept is forgotten. */
export const FORMAT = 1

/** Whom it is for and where it is compiled. */
export interface CompilePlace {
  readonly intake: IntakeName
  readonly owner: Owner
  readonly driver: string
  readonly runtime: string
  /** Names the root file system with its compilers (`Driver.rootIdentity`). */
  readonly root: string
}

/** Hashed in one go; others may act in between. Bytes. */
const PIECE = 1024 * 1024

/**
 * Of the program: all its files (any of them may be included), the compile phase's argv, environment and input, and what is
 * to come of it. Not its limits: they decide whether it succeeds, and only successes are kept.
 */
export const compileKey = Effect.fnUntraced(function*(
  place: CompilePlace,
  { argv, env, stdin }: Phase,
  { files, products }: Pick<Program, "files" | "products">
) {
  const hash = createHash("sha256")
  // Every part with its length before it, so that no two lists of parts are the same bytes.
  const text = (part: string) => {
    const bytes = Buffer.from(part)
    hash.update(`${bytes.length}:`).update(bytes)
  }
  const list = (parts: ReadonlyArray<string>) => {
    text(String(parts.length))
    parts.forEach(text)
  }
  const content = Effect.fnUntraced(function*(bytes: Uint8Array) {
    hash.update(`${bytes.length}:`)
    for (let at = 0; at < bytes.length; at += PIECE) {
      if (at > 0) yield* Effect.yieldNow
      hash.update(bytes.subarray(at, at + PIECE))
    }
  })
  list([String(FORMAT), place.intake, place.owner, place.driver, place.runtime, place.root])
  list(argv)
  list(Object.entries(env).toSorted(([a], [b]) => (a < b ? -1 : 1)).flat())
  list(products ?? [])
  yield* content(stdin)
  text(String(files.length))
  for (const file of files) {
    list([file.path, file.executable ? "0755" : "0644"])
    yield* content(file.content)
  }
  const key: CompileKey = hash.digest("hex")
  return key
})
