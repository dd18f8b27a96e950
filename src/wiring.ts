/** Puts the layers together; nothing else happens here. Laid beside ARCHITECTURE.md's picture it should look the same. */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Context, Effect, Layer, Option, Redacted, Stream } from "effect"
import * as ControlLive from "./actors/ControlLive.ts"
import * as Desk from "./actors/Desk.ts"
import * as Dispatcher from "./actors/Dispatcher.ts"
import * as Outbox from "./actors/Outbox.ts"
import * as Pools from "./actors/Pools.ts"
import * as Worker from "./actors/Worker.ts"
import { code } from "./functions/Code.ts"
import { command } from "./functions/Command.ts"
import { Amqp, type AmqpStatus } from "./layers/amqp/Amqp.ts"
import * as CgroupsHost from "./layers/cgroup/CgroupsHost.ts"
import * as Settings from "./layers/config/Settings.ts"
import { Emitters } from "./layers/emitter/Emitter.ts"
import * as SandboxExecutor from "./layers/executor/SandboxExecutor.ts"
import * as Functions from "./layers/functions/Functions.ts"
import { Host } from "./layers/host/Host.ts"
import * as HostLive from "./layers/host/HostLive.ts"
import * as Launcher from "./layers/host/Launcher.ts"
import * as Native from "./layers/host/Native.ts"
import * as Watchdog from "./layers/host/Watchdog.ts"
import * as Direct from "./layers/intake/Direct.ts"
import * as Embedded from "./layers/intake/Embedded.ts"
import { type Intake, Intakes } from "./layers/intake/Intake.ts"
import * as JournalSqlite from "./layers/journal/JournalSqlite.ts"
import * as LedgerFiles from "./layers/ledger/LedgerFiles.ts"
import * as LogFiles from "./layers/log/LogFiles.ts"
import * as Oci from "./layers/sandbox/Oci.ts"
import * as Process from "./layers/sandbox/Process.ts"
import { Drivers, ProvisionFailed } from "./layers/sandbox/Sandbox.ts"
import type { DriverName } from "./schemas/SandboxClass.ts"
import type { WorkerConfig } from "./schemas/WorkerConfig.ts"

/** The broker that CodeBench clients use. */
export interface AmqpWiring {
  /** amqp://user:password@host:port/vhost, or amqps. */
  readonly url: Redacted.Redacted<string>
  /** Hears of every change of the connections. */
  readonly onStatus?: (status: AmqpStatus) => Effect.Effect<void>
}

export interface WorkerWiring {
  /** Made if it is not there. */
  readonly stateDirectory: string
  readonly config: WorkerConfig
  /** Serve the embedded queue's rows, which any process may have written. */
  readonly embedded: boolean
  /** The name, in job keys, of the door that `Direct.submit` is. */
  readonly direct: string
  readonly amqp?: AmqpWiring
}

/** This process' place on the host: identity and paths. */
export const layerHost = (stateDirectory: string) =>
  HostLive.layer({ stateDirectory }).pipe(Layer.provideMerge(layerSecureRandom))

const layerCgroups = Layer.unwrap(Effect.map(Host, ({ instance }) => CgroupsHost.layer({ instance })))

/** A driver by the name the configuration has for it. */
const makeDriver = Effect.fnUntraced(function*(name: DriverName) {
  switch (name) {
    case "oci":
      return yield* Oci.make
    case "process":
      return yield* Process.make
    case "firecracker":
    case "qemu":
      return yield* new ProvisionFailed({
        driver: name,
        step: "driver",
        reason: "this version of Stoker does not have it",
        remedy: "Use oci or process."
      })
  }
})

/** What makes, measures and removes sandboxes: Drivers, with Host, Native, Cgroups, Watchdog, Launcher and Ledger. */
export const layerDrivers = (stateDirectory: string, names: ReadonlyArray<DriverName>) =>
  Layer.effect(Drivers, Effect.forEach([...new Set(names)], makeDriver)).pipe(
    Layer.provideMerge(Launcher.layer),
    Layer.provideMerge(Watchdog.layer),
    Layer.provideMerge(Layer.mergeAll(layerCgroups, LedgerFiles.layer, Native.layer)),
    Layer.provideMerge(layerHost(stateDirectory))
  )

/** The broker, if there is one: what its dialects need. */
class Broker extends Context.Service<Broker, Option.Option<Context.Context<Amqp>>>()("stoker/wiring/Broker") {}

/** Loaded only when it is configured, so that nobody without a broker waits for it. */
const layerBroker = (wiring: AmqpWiring | undefined) =>
  Layer.effect(
    Broker,
    Effect.gen(function*() {
      if (wiring === undefined) return Option.none()
      const AmqpLib = yield* Effect.promise(() => import("./layers/amqp/AmqpLib.ts"))
      const { instance } = yield* Host
      const context = yield* Layer.build(AmqpLib.layer({ url: wiring.url, instance }))
      const { changes } = Context.get(context, Amqp)
      const { onStatus } = wiring
      if (onStatus !== undefined) yield* Effect.forkScoped(Stream.runForEach(changes, onStatus))
      return Option.some(context)
    })
  )

/** The user whose connection this is, whom Stoker's dialect trusts to name owners. */
const brokerUser = ({ url }: AmqpWiring) => {
  const value = Redacted.value(url)
  const username = URL.canParse(value) ? new URL(value).username : ""
  return username === "" ? "guest" : decodeURIComponent(username)
}

/** Both dialects over one pair of connections. */
const dialects = Effect.fnUntraced(function*(amqp: AmqpWiring, { ownLongJobs, slots }: WorkerConfig) {
  const [CodeBenchIntake, CodeBenchEmitter, StokerIntake, StokerEmitter] = yield* Effect.promise(() =>
    Promise.all([
      import("./layers/intake/CodeBench.ts"),
      import("./layers/emitter/CodeBench.ts"),
      import("./layers/intake/Stoker.ts"),
      import("./layers/emitter/Stoker.ts")
    ])
  )
  const codeBench = yield* CodeBenchEmitter.make()
  const stoker = yield* StokerEmitter.make()
  // As many again as run, so that the next one is at hand when one ends.
  const queues = [CodeBenchIntake.exchangeQueue(2 * slots), CodeBenchIntake.readmeQueue(slots)]
  return {
    emitters: [codeBench, stoker],
    intakes: [
      yield* CodeBenchIntake.make({ queues, emitter: codeBench }),
      yield* StokerIntake.make({ slots, emitter: stoker, user: brokerUser(amqp), ownLongJobs })
    ]
  }
})

/** The doors the worker opens, and who tells their senders. */
const layerDoors = ({ amqp, config, embedded }: WorkerWiring) =>
  Layer.unwrap(Effect.gen(function*() {
    const own: ReadonlyArray<Intake> = [
      (yield* Direct.Direct).intake,
      ...(embedded ? [(yield* Embedded.Embedded).intake] : [])
    ]
    const broker = yield* Broker
    const { emitters, intakes } = amqp === undefined || Option.isNone(broker)
      ? { emitters: [], intakes: [] }
      : yield* dialects(amqp, config).pipe(Effect.provideContext(broker.value))
    return Layer.merge(Layer.succeed(Intakes, [...own, ...intakes]), Layer.succeed(Emitters, emitters))
  }))

/** Questions about jobs that come over the broker. */
const layerBrokerControl = ({ amqp }: WorkerWiring) =>
  Layer.effectDiscard(Effect.gen(function*() {
    const broker = yield* Broker
    if (amqp === undefined || Option.isNone(broker)) return
    const StokerControl = yield* Effect.promise(() => import("./layers/intake/StokerControl.ts"))
    const { instance } = yield* Host
    yield* StokerControl.make({ instance, user: brokerUser(amqp) }).pipe(Effect.provideContext(broker.value))
  }))

/** What an operator asks of a worker, and where: on the admin socket, and over TCP if that is wanted. */
export interface OperatorWiring {
  readonly version: string
  /** HOST:PORT for probes and metrics. */
  readonly http: Option.Option<string>
}

/** The operator's side of a worker. Loaded only where it is wanted: a worker for one job has no operator. */
export const layerOperator = ({ http, version }: OperatorWiring) =>
  Layer.unwrap(Effect.gen(function*() {
    const [OperatorLive, AdminServer, DiskSpaceLive] = yield* Effect.promise(() =>
      Promise.all([
        import("./actors/OperatorLive.ts"),
        import("./layers/control/AdminServer.ts"),
        import("./layers/host/DiskSpaceLive.ts")
      ])
    )
    const broker = yield* Broker
    const status = Option.match(broker, {
      onNone: () => Effect.undefined,
      onSome: (context) => Context.get(context, Amqp).status
    })
    return AdminServer.layerSocket.pipe(
      Layer.merge(Option.isSome(http) ? AdminServer.layerTcp(http.value) : Layer.empty),
      Layer.provideMerge(OperatorLive.layer({ version, broker: status })),
      Layer.provide(DiskSpaceLive.layer)
    )
  }))

/** A whole worker: Control to ask it, Direct to hand it jobs, Worker to drain it and to hear its failure. */
export const layerWorker = (options: WorkerWiring) =>
  layerBrokerControl(options).pipe(
    Layer.provideMerge(ControlLive.layer),
    Layer.provideMerge(Worker.layer),
    Layer.provideMerge(Dispatcher.layer),
    Layer.provideMerge(Layer.mergeAll(
      Outbox.layer,
      Desk.layer,
      SandboxExecutor.layer.pipe(Layer.provideMerge(Pools.layer(options.config.budget))),
      Functions.layer([code, command])
    )),
    Layer.provideMerge(layerDoors(options)),
    Layer.provideMerge(Layer.mergeAll(Direct.layer(options.direct), Embedded.layer, layerBroker(options.amqp))),
    Layer.provideMerge(Layer.mergeAll(JournalSqlite.layerHost(), LogFiles.layer, Settings.layer(options.config))),
    Layer.provideMerge(layerDrivers(options.stateDirectory, options.config.classes.map(({ driver }) => driver)))
  )
