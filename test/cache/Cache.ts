/** What the tests of the compile cache share. */
import { Effect, Layer, Option } from "effect"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { CompileCache, type Compiled, type CompileKey } from "../../src/layers/cache/CompileCache.ts"
import * as CompileCacheFiles from "../../src/layers/cache/CompileCacheFiles.ts"
import * as DiskSpaceTest from "../../src/layers/host/DiskSpaceTest.ts"
import * as HostTest from "../../src/layers/host/HostTest.ts"
import type { InstanceId } from "../../src/schemas/Ids.ts"
import { WorkPath } from "../../src/schemas/Program.ts"

/** One file of so many bytes, and a warning. */
export const compiled = (bytes: number, fill = 7): Compiled => ({
  files: [{ path: WorkPath.make("program"), content: Buffer.alloc(bytes, fill), executable: true }],
  output: [
    { stream: "stderr", bytes: Buffer.from("warning: \xff\x00 é", "latin1") },
    { stream: "stdout", bytes: Buffer.from("note") }
  ]
})

/** The `n`-th key. */
export const keyOf = (n: number): CompileKey => n.toString(16).padStart(64, "0")

export const put = (n: number, what: Compiled) => Effect.flatMap(CompileCache, (cache) => cache.put(keyOf(n), what))
export const get = (n: number) => Effect.flatMap(CompileCache, (cache) => cache.get(keyOf(n)))
export const has = (n: number) => Effect.map(get(n), Option.isSome)

/** Which of the first so many are there; asking uses them. */
export const held = (count: number) => Effect.filter(Array.from({ length: count }, (_, n) => n), (n) => has(n))

export interface FilesOptions {
  readonly state: string
  readonly maximumBytes: number
  readonly instance?: string
  readonly others?: Map<InstanceId, boolean>
  readonly reserveBytes?: number
  readonly disk?: DiskSpaceTest.TestDisk
}

/** The files of one worker of a state directory. */
export const files = ({ disk, maximumBytes, reserveBytes = 0, ...host }: FilesOptions) =>
  CompileCacheFiles.layer({ maximumBytes, reserveBytes }).pipe(
    Layer.provide(Layer.merge(HostTest.layerTest(host), DiskSpaceTest.layerTest(disk)))
  )

export const folderOf = (state: string) => join(state, "cache", "compiled")

/** Entries by their names; none before there is a cache. */
export const entriesOf = (state: string): ReadonlyArray<string> => {
  try {
    return readdirSync(folderOf(state)).filter((name) => name !== "pending").toSorted()
  } catch {
    return []
  }
}

export const pendingOf = (state: string) => readdirSync(join(folderOf(state), "pending")).toSorted()
