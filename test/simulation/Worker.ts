/** A simulated worker: everything `wiring.ts` puts together, over the world instead of a machine. */
import { Deferred, Effect, Exit, Layer, Logger, Option } from "effect"
import * as ControlLive from "../../src/actors/ControlLive.ts"
import * as Desk from "../../src/actors/Desk.ts"
import * as DiskWatch from "../../src/actors/DiskWatch.ts"
import * as Dispatcher from "../../src/actors/Dispatcher.ts"
import * as Outbox from "../../src/actors/Outbox.ts"
import * as Pools from "../../src/actors/Pools.ts"
import { Worker } from "../../src/actors/Worker.ts"
import * as WorkerActor from "../../src/actors/Worker.ts"
import { command } from "../../src/functions/Command.ts"
import * as CgroupsHost from "../../src/layers/cgroup/CgroupsHost.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import { Control } from "../../src/layers/control/Control.ts"
import * as CodeBenchEmitter from "../../src/layers/emitter/CodeBench.ts"
import { Emitters } from "../../src/layers/emitter/Emitter.ts"
import * as StokerEmitter from "../../src/layers/emitter/Stoker.ts"
import * as SandboxExecutor from "../../src/layers/executor/SandboxExecutor.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import * as DiskSpaceTest from "../../src/layers/host/DiskSpaceTest.ts"
import { Launcher } from "../../src/layers/host/Launcher.ts"
import { Watchdog } from "../../src/layers/host/Watchdog.ts"
import * as CodeBenchIntake from "../../src/layers/intake/CodeBench.ts"
import * as Embedded from "../../src/layers/intake/Embedded.ts"
import { Intakes } from "../../src/layers/intake/Intake.ts"
import * as StokerIntake from "../../src/layers/intake/Stoker.ts"
import * as StokerControl from "../../src/layers/intake/StokerControl.ts"
import { InstanceId } from "../../src/schemas/Ids.ts"
import type { WorkerConfig } from "../../src/schemas/WorkerConfig.ts"
import * as SimulatedAmqp from "./Amqp.ts"
import * as Driver from "./Driver.ts"
import * as Outside from "./Outside.ts"
import type { Mortal, World } from "./World.ts"

export interface SimulatedWorker {
  readonly mortal: Mortal
  readonly config: WorkerConfig
  readonly embedded: boolean
  /** Undefined until it is up. */
  control: Control["Service"] | undefined
  pools: Pools.Pools["Service"] | undefined
  drainedAtMs: number | undefined
  isEnded: boolean
  readonly drain: () => void
}

/** The broker's user of all workers. */
export const USER = "stoker"

const layerDoors = ({ ownLongJobs, slots }: WorkerConfig, embedded: boolean) =>
  Layer.unwrap(Effect.gen(function*() {
    const codeBench = yield* CodeBenchEmitter.make()
    const stoker = yield* StokerEmitter.make()
    const queues = [CodeBenchIntake.exchangeQueue(2 * slots), CodeBenchIntake.readmeQueue(slots)]
    return Layer.merge(
      Layer.succeed(Intakes, [
        ...(embedded ? [(yield* Embedded.Embedded).intake] : []),
        yield* CodeBenchIntake.make({ queues, emitter: codeBench }),
        yield* StokerIntake.make({ slots, emitter: stoker, user: USER, ownLongJobs })
      ]),
      Layer.succeed(Emitters, [codeBench, stoker])
    )
  }))

const layerWorker = (world: World, mortal: Mortal, config: WorkerConfig, embedded: boolean) =>
  Layer.effectDiscard(StokerControl.make({ instance: mortal.instance, user: USER })).pipe(
    Layer.provideMerge(WorkerActor.layer),
    Layer.provideMerge(ControlLive.layer),
    Layer.provideMerge(Layer.merge(Dispatcher.layer, DiskWatch.layer)),
    Layer.provideMerge(Layer.mergeAll(
      Outbox.layer,
      Desk.layer,
      SandboxExecutor.layer.pipe(Layer.provideMerge(Pools.layer(config.budget))),
      Functions.layer([command])
    )),
    Layer.provideMerge(layerDoors(config, embedded)),
    Layer.provideMerge(Layer.mergeAll(Embedded.layer, SimulatedAmqp.layer(world, mortal))),
    Layer.provideMerge(Layer.merge(Settings.layer(config), DiskSpaceTest.layerTest())),
    Layer.provideMerge(Driver.layer(world, mortal)),
    Layer.provideMerge(CgroupsHost.layer({ instance: mortal.instance, syscalls: world.kernel })),
    Layer.provideMerge(Layer.mergeAll(
      Layer.succeed(Launcher, { launch: () => Effect.die("nothing is launched here"), died: Effect.never }),
      Layer.succeed(Watchdog, { mountNamespace: Option.none(), died: Effect.never })
    )),
    Layer.provideMerge(Outside.layer(world, mortal))
  )

export interface StartOptions {
  readonly config: WorkerConfig
  /** It serves the embedded queue. */
  readonly embedded: boolean
  /** It dies after so many touches of the world. */
  readonly steps: number
}

/** Starts one, as `stoker worker` does. It ends after a drain. */
export const start = (world: World, { config, embedded, steps }: StartOptions): SimulatedWorker => {
  const name = `w${world.workers.size + 1}`
  const mortal: Mortal = {
    name,
    instance: InstanceId.make(name),
    isAlive: true,
    isListed: true,
    stalledUntilMs: 0,
    stalledMs: 0,
    steps
  }
  world.workers.set(mortal.instance, mortal)
  world.sandboxes.setCapacity(mortal.instance, { slots: config.slots, sandboxes: config.budget.sandboxes ?? Infinity })
  world.say(mortal, `starts, ${config.slots} slots${embedded ? ", embedded" : ""}, ${steps} steps`)

  const asked = Deferred.makeUnsafe<void>()
  const worker: SimulatedWorker = {
    mortal,
    config,
    embedded,
    control: undefined,
    pools: undefined,
    drainedAtMs: undefined,
    isEnded: false,
    drain: () => {
      if (!mortal.isAlive || worker.drainedAtMs !== undefined) return
      worker.drainedAtMs = world.time.now()
      mortal.stalledMs = Math.max(0, mortal.stalledUntilMs - worker.drainedAtMs)
      world.say(mortal, "drains")
      Deferred.doneUnsafe(asked, Effect.void)
    }
  }
  const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
    if (logLevel === "Warn" || logLevel === "Error") world.say(mortal, `${logLevel}: ${String(message)}`)
  })
  const life = Effect.gen(function*() {
    worker.control = yield* Control
    worker.pools = yield* Pools.Pools
    const actor = yield* Worker
    yield* Effect.raceFirst(Deferred.await(asked), actor.failure)
    yield* actor.drain
  }).pipe(
    Effect.provide(layerWorker(world, mortal, config, embedded).pipe(Layer.provideMerge(Logger.layer([logger]))))
  )
  const fiber = Effect.runForkWith(world.time.context(mortal))(life)
  fiber.addObserver((exit) => {
    worker.isEnded = true
    mortal.isAlive = false
    world.say(mortal, "has ended")
    if (Exit.isFailure(exit)) return world.violate(`${name} failed: ${String(exit.cause)}`)
    const limitMs = config.drainMs + 40_000 + mortal.stalledMs
    const tookMs = world.time.now() - (worker.drainedAtMs ?? 0)
    if (tookMs > limitMs) world.violate(`${name} took ${tookMs} ms to drain, more than ${limitMs}`)
  })
  return worker
}
