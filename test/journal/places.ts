/** Where the tests' journals are kept: in memory, or in a directory that goes with the scope. */
import { Effect, Layer } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import type { Place } from "./suite.ts"

export const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "stoker-journal-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

export const memory: Place = (options) =>
  Effect.sync(() => {
    const state = JournalMemory.makeState()
    return Layer.suspend(() => JournalMemory.layer(state, options))
  })

export const sqlite: Place = (options) =>
  Effect.map(directory, (path) => JournalSqlite.layer({ filename: join(path, "journal.sqlite"), ...options }))
