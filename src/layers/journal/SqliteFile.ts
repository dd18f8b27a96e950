/** Opens the journal's file and runs batches on it. Plain TypeScript, inside the thread. */
import { closeSync, constants, openSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { type Operation, reads } from "./Operation.ts"
import { applySync } from "./Rules.ts"
import { failureOf, isFull } from "./SqliteFailure.ts"
import { check, migrate } from "./SqliteMigrations.ts"
import type { Result, ThreadOptions } from "./SqliteProtocol.ts"
import * as SqliteStore from "./SqliteStore.ts"

export interface SqliteFile {
  /** All in one transaction; when this returns, what is `Done` is on the disk. */
  readonly run: (operations: ReadonlyArray<Operation>) => ReadonlyArray<Result>
  readonly close: () => void
}

/** Requests may hold secrets, so the file is its owner's alone; SQLite gives -wal and -shm the same mode. */
const createPrivate = (filename: string): void => {
  try {
    closeSync(openSync(filename, constants.O_CREAT | constants.O_EXCL | constants.O_RDWR, 0o600))
  } catch (error) {
    // One that is there is not opened here: closing it would drop SQLite's own locks in this process.
    if (failureOf(error).code !== "EEXIST") throw error
  }
}

const pause = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)

/** Going over to WAL needs the file alone, and SQLite does not wait for it (its busy handler is not asked). */
const useWal = (db: DatabaseSync, tries: number): void => {
  try {
    db.exec("pragma journal_mode = wal")
  } catch (error) {
    const isBusy = ((failureOf(error).errcode ?? 0) & 0xff) === 5
    if (!isBusy || tries <= 0) throw error
    pause(20)
    useWal(db, tries - 1)
  }
}

const configure = (db: DatabaseSync, busyMs: number): void => {
  // First of all, and without writing: a file that is not ours stays as it is.
  check(db)
  useWal(db, busyMs / 20)
  // full: what was answered survives a power cut. The temporary rows of savepoints stay in memory.
  db.exec("pragma synchronous = full; pragma foreign_keys = on; pragma temp_store = memory")
  // About 4 MiB are written between checkpoints; after a burst the WAL file shrinks back to four times that.
  db.exec("pragma wal_autocheckpoint = 1000; pragma journal_size_limit = 16777216")
  migrate(db)
}

/** Throws what SQLite, the file system or a migration throws; the file is then closed again. */
export const open = ({ busyMs, filename, policy }: ThreadOptions): SqliteFile => {
  createPrivate(filename)
  const db = new DatabaseSync(filename, { timeout: busyMs })
  try {
    configure(db, busyMs)
  } catch (error) {
    db.close()
    throw error
  }
  const store = SqliteStore.make(db)
  const beginRead = db.prepare("begin")
  const beginWrite = db.prepare("begin immediate")
  const commit = db.prepare("commit")
  const rollback = db.prepare("rollback")
  const savepoint = db.prepare("savepoint one")
  const release = db.prepare("release one")
  const undo = db.prepare("rollback to one")

  /** In a savepoint: when it fails, what the others wrote stays. */
  const one = (operation: Operation): Result => {
    savepoint.run()
    try {
      const answer = applySync(store, policy, operation)
      release.run()
      return { _tag: "Done", answer }
    } catch (error) {
      // Some failures (a full disk) end the whole transaction, and with it all that the batch did.
      if (!db.isTransaction) throw error
      undo.run()
      release.run()
      return { _tag: "Failed", failure: failureOf(error) }
    }
  }

  const together = (operations: ReadonlyArray<Operation>): ReadonlyArray<Result> => {
    const begin = operations.every(({ name }) => reads.has(name)) ? beginRead : beginWrite
    begin.run()
    try {
      const results = operations.map(one)
      commit.run()
      return results
    } catch (error) {
      if (db.isTransaction) rollback.run()
      throw error
    }
  }

  const run = (operations: ReadonlyArray<Operation>): ReadonlyArray<Result> => {
    try {
      return together(operations)
    } catch (error) {
      const failure = failureOf(error)
      // Without room each is tried alone: reads and what makes room still work.
      if (operations.length > 1 && isFull(failure)) return operations.flatMap((operation) => run([operation]))
      return operations.map(() => ({ _tag: "Failed", failure }))
    }
  }
  return { run, close: () => db.close() }
}
