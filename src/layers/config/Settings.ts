/** The worker's configuration as a service. */
import { Context, Layer } from "effect"
import type { WorkerConfig } from "../../schemas/WorkerConfig.ts"

export class Settings extends Context.Service<Settings, WorkerConfig>()("stoker/layers/config/Settings") {}

export const layer = (config: WorkerConfig) => Layer.succeed(Settings, config)
