/** Where a worker's configuration comes from, so that it can be read again. */
import { Context, type Effect } from "effect"
import type { Refused } from "../../schemas/Operation.ts"
import type { WorkerConfig } from "../../schemas/WorkerConfig.ts"

/** A whole configuration, read and checked. */
export interface ReadConfig {
  readonly config: WorkerConfig
  /** What else was read, by the file's names, as texts to compare. Secrets among them: never shown. */
  readonly others: Readonly<Record<string, string>>
}

/** Where a worker's configuration comes from, to be read again when its operator asks for a reload. */
export class ConfigSource extends Context.Service<ConfigSource, {
  /** What the worker was started with. */
  readonly initial: ReadConfig
  /** The file. */
  readonly name: string | undefined
  /** Reads it again. Fails with all that is wrong. */
  readonly read: Effect.Effect<ReadConfig, Refused>
  /** Takes over what is not the worker's own; gives the names it took over, of `others`. */
  readonly apply: (next: ReadConfig) => Effect.Effect<ReadonlyArray<string>>
}>()("stoker/layers/config/ConfigSource") {}
