/** The worker's configuration as a service. */
import { Context, Effect, Layer } from "effect"
import type { WorkerConfig } from "../../schemas/WorkerConfig.ts"
import { distinct, type DuplicateName } from "./DuplicateName.ts"

/** What this worker was configured with. */
export class Settings extends Context.Service<Settings, WorkerConfig>()("stoker/layers/config/Settings") {}

/** Fails when two sandbox classes have the same name. */
export const layer = (config: WorkerConfig): Layer.Layer<Settings, DuplicateName> =>
  Layer.effect(Settings, Effect.as(distinct("sandbox class", config.classes), config))
