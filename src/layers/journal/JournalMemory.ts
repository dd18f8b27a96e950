/** The journal without a file: same rules, gone with the process. */
import { Effect, Layer } from "effect"
import { Journal } from "./Journal.ts"
import * as JournalBackend from "./JournalBackend.ts"
import * as MemoryStore from "./MemoryStore.ts"
import * as Rules from "./Rules.ts"
import type { Store } from "./Store.ts"

/** What a journal in memory knows. It outlives the layers built on it, as a file outlives a worker. */
export interface JournalState {
  readonly store: Store<never>
}

/** The state of a journal that knows no job yet. */
export const makeState = (): JournalState => ({ store: MemoryStore.make() })

/** On a given state: build it twice to see what a second worker finds after the first one's crash. */
export const layer = (state: JournalState, options?: JournalBackend.JournalOptions): Layer.Layer<Journal> => {
  const policy = JournalBackend.policyOf(options)
  return Layer.succeed(
    Journal,
    Journal.of(
      JournalBackend.make((_doing, operation) => Effect.sync(() => Rules.applySync(state.store, policy, operation)))
    )
  )
}

/** Each build begins empty. */
export const layerMemory: Layer.Layer<Journal> = Layer.unwrap(Effect.sync(() => layer(makeState())))
