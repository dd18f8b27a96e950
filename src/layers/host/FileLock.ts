/** A lock between processes of this host that any death of its holder releases: the kernel's, on a file, as SQLite takes it. */
import { Effect, Schedule, type Scope } from "effect"
import { DatabaseSync } from "node:sqlite"

const BUSY = 5

const isBusy = (cause: unknown) =>
  cause instanceof Error && "errcode" in cause && typeof cause.errcode === "number" && (cause.errcode & 0xff) === BUSY

/** One try: undefined if somebody else has it. */
const lock = (path: string) => {
  const file = new DatabaseSync(path, { timeout: 0 })
  try {
    file.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE")
    return file
  } catch (cause) {
    file.close()
    if (isBusy(cause)) return undefined
    throw cause
  }
}

const again = Schedule.spaced("100 millis")

/** Waits until nobody else has it, and has it until the scope closes. The file is made, and stays. */
export const hold = <E>(path: string, failed: (cause: unknown) => E): Effect.Effect<void, E, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({ try: () => lock(path), catch: failed }).pipe(
      Effect.repeat({ until: (held) => held !== undefined, schedule: again }),
      Effect.interruptible
    ),
    (held) => Effect.sync(() => held?.close())
  ).pipe(Effect.asVoid)
