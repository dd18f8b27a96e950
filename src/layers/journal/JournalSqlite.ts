/** The journal in a SQLite file, shared by the processes of one host. */
import { Effect, Layer } from "effect"
import { Host } from "../host/Host.ts"
import * as Bell from "./Bell.ts"
import { Journal, type JournalError } from "./Journal.ts"
import * as JournalBackend from "./JournalBackend.ts"
import * as SqliteThread from "./SqliteThread.ts"

export interface SqliteOptions extends JournalBackend.JournalOptions {
  /** Made if it is not there; its directory must be. */
  readonly filename: string
}

/** How long a transaction waits for another process to end its own. */
const busyMs = 5000

const make = Effect.fnUntraced(function*(options: SqliteOptions) {
  const thread = yield* SqliteThread.make({
    filename: options.filename,
    busyMs,
    policy: JournalBackend.policyOf(options)
  })
  const path = `${options.filename}-bell`
  const bell = { ring: Bell.ring(path), rings: Bell.rings(path) }
  return Journal.of(JournalBackend.make(thread.perform, { bell }))
})

/** In a file of that name. Fails when it cannot be opened, is damaged, or belongs to a newer version. */
export const layer = (options: SqliteOptions): Layer.Layer<Journal, JournalError> =>
  Layer.effect(Journal, make(options))

/** In the host's state directory. */
export const layerHost = (options?: JournalBackend.JournalOptions): Layer.Layer<Journal, JournalError, Host> =>
  Layer.effect(Journal, Effect.flatMap(Host, ({ paths }) => make({ ...options, filename: paths.journal })))
