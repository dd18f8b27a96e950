/** A whole worker in this process, its metrics in a registry of its own, and jobs for it. */
import { ConfigProvider, Context, Effect, Layer, Logger, Metric } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { Sampler } from "../../src/actors/Sampler.ts"
import { Worker } from "../../src/actors/Worker.ts"
import { Direct } from "../../src/layers/intake/Direct.ts"
import { requestHash } from "../../src/layers/intake/RequestHash.ts"
import * as OtlpOptions from "../../src/layers/telemetry/OtlpOptions.ts"
import { FunctionName, IntakeName } from "../../src/schemas/Ids.ts"
import type { Job } from "../../src/schemas/Job.ts"
import { standardPool } from "../../src/schemas/PoolConfig.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerWorker } from "../../src/wiring.ts"
import { makeJob } from "../actors/World.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { parse } from "./Prometheus.ts"

export const acquireState = Effect.acquireRelease(
  Effect.sync(Jobs.stateDirectory),
  (state) => Effect.sync(() => Jobs.remove(state))
)

/** What the worker reads from such an environment. */
export const telemetryFrom = (environment: Readonly<Record<string, string>>) =>
  Effect.provideService(OtlpOptions.read, ConfigProvider.ConfigProvider, ConfigProvider.fromEnvRecord(environment))

export const commandJob = (id: string, argv: ReadonlyArray<string>, more: Partial<Job> = {}): Job => ({
  ...makeJob(id),
  intake: IntakeName.make("direct"),
  function: FunctionName.make("command"),
  args: { argv },
  ...more
})

export interface Options {
  readonly driver: "oci" | "process"
  readonly slots?: number
  readonly environment?: Readonly<Record<string, string>>
  readonly logger?: Logger.Logger<unknown, unknown>
}

export interface Running {
  /** Hands it over and waits until the worker has parted from it. */
  readonly run: (job: Job) => Effect.Effect<void>
  /** What a scraper is given. */
  readonly scrape: Effect.Effect<string>
  readonly drain: Effect.Effect<void>
}

/** Up when it returns, gone with the scope. */
export const start = Effect.fnUntraced(function*(options: Options) {
  const { driver, slots = 2 } = options
  const state = yield* acquireState
  const telemetry = yield* telemetryFrom(options.environment ?? {})
  const sandboxClass = {
    ...standardClass(driver, driver),
    pool: { ...standardPool, minimum: 1, maximum: 2 }
  }
  const worker = layerWorker({
    stateDirectory: state,
    config: { ...standardConfig, slots, classes: [sandboxClass], defaultClass: sandboxClass.name },
    embedded: true,
    direct: "direct",
    ...(telemetry === undefined ? {} : { telemetry })
  })
  const context = yield* Layer.build(
    Layer.fresh(worker).pipe(
      Layer.provideMerge(Logger.layer(options.logger === undefined ? [] : [options.logger])),
      Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
    )
  )
  const direct = Context.get(context, Direct)
  const running: Running = {
    run: Effect.fnUntraced(function*(job) {
      const parted = yield* direct.submit({ job, hash: requestHash(job), reply: null })
      yield* parted
    }),
    scrape: Effect.andThen(Context.get(context, Sampler).sample, PrometheusMetrics.format()).pipe(
      Effect.provideContext(context)
    ),
    drain: Context.get(context, Worker).drain
  }
  return running
})

export const families = ({ scrape }: Running) => Effect.map(scrape, parse)
