/** Puts a worker together for tests: its own actors and doors over stand-ins for everything outside. */
import { Effect, Layer, Option } from "effect"
import * as Pools from "./actors/Pools.ts"
import { code } from "./functions/Code.ts"
import { command } from "./functions/Command.ts"
import * as ArtefactsMemory from "./layers/artefacts/ArtefactsMemory.ts"
import * as CgroupsTest from "./layers/cgroup/CgroupsTest.ts"
import * as Settings from "./layers/config/Settings.ts"
import * as ExecutorTest from "./layers/executor/ExecutorTest.ts"
import * as Functions from "./layers/functions/Functions.ts"
import * as DiskSpaceTest from "./layers/host/DiskSpaceTest.ts"
import * as HostTest from "./layers/host/HostTest.ts"
import { Launcher } from "./layers/host/Launcher.ts"
import { Watchdog } from "./layers/host/Watchdog.ts"
import * as Direct from "./layers/intake/Direct.ts"
import * as Embedded from "./layers/intake/Embedded.ts"
import * as JournalMemory from "./layers/journal/JournalMemory.ts"
import * as LedgerMemory from "./layers/ledger/LedgerMemory.ts"
import * as LogMemory from "./layers/log/LogMemory.ts"
import { Drivers } from "./layers/sandbox/Sandbox.ts"
import { standardConfig } from "./schemas/WorkerConfig.ts"
import { layerActors, layerBroker, layerDoors, noDoors, type WorkerServices, type WorkerWiring } from "./wiring.ts"

/** How a test's worker is made: as a real one, but for what it has no use for. */
export interface TestWiring<E = never, R = never>
  extends Pick<WorkerWiring<E, R>, "config" | "direct" | "doors" | "embedded" | "functions">
{
  /** What each run does, instead of a sandbox. Absent: it exits with 0 at once. */
  readonly script?: ExecutorTest.Script
  /** Free space, which the test may change. Absent: there is always room. */
  readonly disk?: DiskSpaceTest.TestDisk
}

/** Nothing is launched, so nothing is watched. */
export const layerCompanions: Layer.Layer<Launcher | Watchdog> = Layer.merge(
  Layer.succeed(Launcher, { launch: () => Effect.die("a test's worker launches nothing"), died: Effect.never }),
  Layer.succeed(Watchdog, { mountNamespace: Option.none(), died: Effect.never })
)

const offering = <E, R>(
  layer: Layer.Layer<ExecutorTest.ExecutorTest | WorkerServices, E, R>
): Layer.Layer<ExecutorTest.ExecutorTest | WorkerServices, E, R> => layer

/** The same with other companions, for tests of what becomes of a worker whose companions die. */
export const layerBeside = <E, R>(companions: Layer.Layer<Launcher | Watchdog>, options: TestWiring<E, R>) => {
  const config = options.config ?? standardConfig
  return offering(layerActors.pipe(
    Layer.provideMerge(Layer.mergeAll(
      ExecutorTest.layerTest(options.script ?? ExecutorTest.printing("")),
      Pools.layer(config.budget),
      Functions.layer(options.functions ?? [code, command])
    )),
    Layer.provideMerge(layerDoors(options, options.doors ?? noDoors)),
    Layer.provideMerge(Layer.mergeAll(
      Direct.layer(options.direct ?? "direct"),
      Embedded.layer,
      layerBroker(undefined),
      Layer.succeed(Drivers, [])
    )),
    Layer.provideMerge(Layer.mergeAll(
      JournalMemory.layerMemory,
      LogMemory.layerMemory,
      ArtefactsMemory.layerMemory,
      Settings.layer(config),
      CgroupsTest.layerTest,
      LedgerMemory.layerMemory,
      DiskSpaceTest.layerTest(options.disk),
      companions
    )),
    Layer.provideMerge(HostTest.layerTest())
  ))
}

/**
 * A worker without files, processes or sandboxes, gone with its scope. Its intakes, functions and emitters are as in a
 * real one, and its jobs go the same way; `ExecutorTest` shows what it was asked to run. Fails with `DuplicateName`, and
 * as the given doors do.
 */
export const layerWorkerTest = <E = never, R = never>(options: TestWiring<E, R> = {}) =>
  layerBeside(layerCompanions, options)
