/** Puts the layers together; nothing else happens here. Laid beside ARCHITECTURE.md's picture it should look the same. */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Context, Effect, Layer, Option, Redacted, Stream } from "effect"
import manifest from "../package.json" with { type: "json" }
import * as ControlLive from "./actors/ControlLive.ts"
import * as Desk from "./actors/Desk.ts"
import * as DiskWatch from "./actors/DiskWatch.ts"
import * as Dispatcher from "./actors/Dispatcher.ts"
import * as Outbox from "./actors/Outbox.ts"
import * as Pools from "./actors/Pools.ts"
import * as Sampler from "./actors/Sampler.ts"
import * as Worker from "./actors/Worker.ts"
import { builtIns } from "./functions/BuiltIn.ts"
import { Amqp, type AmqpStatus } from "./layers/amqp/Amqp.ts"
import type { Artefacts } from "./layers/artefacts/Artefacts.ts"
import * as ArtefactsFiles from "./layers/artefacts/ArtefactsFiles.ts"
import * as CompileCacheFiles from "./layers/cache/CompileCacheFiles.ts"
import * as CgroupsHost from "./layers/cgroup/CgroupsHost.ts"
import * as CgroupsNone from "./layers/cgroup/CgroupsNone.ts"
import { distinct } from "./layers/config/DuplicateName.ts"
import * as Settings from "./layers/config/Settings.ts"
import { Control } from "./layers/control/Control.ts"
import { Operator } from "./layers/control/Operator.ts"
import { type Emitter, Emitters } from "./layers/emitter/Emitter.ts"
import { isAllowed } from "./layers/emitter/WebhookTargets.ts"
import type { Executor } from "./layers/executor/Executor.ts"
import * as Executors from "./layers/executor/Executors.ts"
import * as SandboxExecutor from "./layers/executor/SandboxExecutor.ts"
import * as FunctionFiles from "./layers/functions/FunctionFiles.ts"
import type { Functions } from "./layers/functions/Functions.ts"
import * as CgroupRecord from "./layers/host/CgroupRecord.ts"
import type { DiskSpace } from "./layers/host/DiskSpace.ts"
import * as DiskSpaceLive from "./layers/host/DiskSpaceLive.ts"
import { Host, HostError } from "./layers/host/Host.ts"
import * as HostLive from "./layers/host/HostLive.ts"
import * as Launcher from "./layers/host/Launcher.ts"
import * as Native from "./layers/host/Native.ts"
import * as Watchdog from "./layers/host/Watchdog.ts"
import * as Direct from "./layers/intake/Direct.ts"
import * as Embedded from "./layers/intake/Embedded.ts"
import { type Intake, Intakes } from "./layers/intake/Intake.ts"
import { Journal } from "./layers/journal/Journal.ts"
import type { JournalOptions } from "./layers/journal/JournalBackend.ts"
import * as JournalSqlite from "./layers/journal/JournalSqlite.ts"
import * as LedgerFiles from "./layers/ledger/LedgerFiles.ts"
import type { Log } from "./layers/log/Log.ts"
import * as LogFiles from "./layers/log/LogFiles.ts"
import * as Oci from "./layers/sandbox/Oci.ts"
import * as Process from "./layers/sandbox/Process.ts"
import { type Driver, Drivers, ProvisionFailed, type Reap, Reapers } from "./layers/sandbox/Sandbox.ts"
import type { OtlpOptions } from "./layers/telemetry/OtlpOptions.ts"
import type { Definition } from "./schemas/Function.ts"
import type { ClassName } from "./schemas/Ids.ts"
import { needsOf } from "./schemas/Limits.ts"
import { type DriverName, isCluster, type SandboxClass } from "./schemas/SandboxClass.ts"
import { standardConfig, type WorkerConfig } from "./schemas/WorkerConfig.ts"

/** The broker that CodeBench clients use. */
export interface AmqpWiring {
  /** amqp://user:password@host:port/vhost, or amqps. */
  readonly url: Redacted.Redacted<string>
  /** Hears of every change of the connections. */
  readonly onStatus?: (status: AmqpStatus) => Effect.Effect<void>
}

/** A journal that workers of many hosts share. Absent: a file in the state directory, for the workers of this host. */
export interface JournalWiring {
  /** postgres://user:password@host:port/database?schema=stoker */
  readonly postgres: Redacted.Redacted<string>
  /** To it at most. A few more than there are slots by default, and 10 at most. */
  readonly connections?: number
}

/** What opens the object store that the configuration names. */
export interface ObjectStoreWiring {
  readonly accessKey: Redacted.Redacted<string>
  readonly secretKey: Redacted.Redacted<string>
}

/** The control plane's doors. Callers are known by the certificates they show, or by tokens over HTTP. */
export interface ApiWiring {
  /** HOST:PORT of the gRPC services. Absent: closed. */
  readonly grpc?: string
  /** HOST:PORT of the HTTP API. Absent: closed. */
  readonly http?: string
  /** PEM files, read again when they change: the callers' authority, what is shown to them, and its key. */
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string }
  /** Where a certificate has its caller's name. Absent: the common name. */
  readonly identity?: "CN" | "L"
  /** A file of `RolesFile`, read again when it changes. Absent: everybody sees to their own jobs. */
  readonly roles?: string
  /** A file of hashes of bearer tokens, read again when it changes. Absent: none is taken. */
  readonly tokens?: string
  /** Where outcomes may be posted to, and what signs them. Absent: nowhere. */
  readonly webhooks?: { readonly allow: ReadonlyArray<string>; readonly secret: Redacted.Redacted<string> }
}

/** Doors beside the worker's own, and who tells their senders. */
export interface Doors {
  readonly intakes?: ReadonlyArray<Intake>
  readonly emitters?: ReadonlyArray<Emitter>
}

/**
 * How a worker is made. Only the state directory has to be said: the rest is what `stoker worker` has, or replaces it.
 * What the given effects and layers need, and how they can fail, shows in the type of the worker's layer, but for what
 * each of them is given.
 */
export interface WorkerWiring<
  DoorsE = never,
  DoorsR = never,
  DriversE = never,
  DriversR = never,
  JournalE = never,
  JournalR = never,
  LogE = never,
  LogR = never
> {
  /** Made if it is not there. Workers and commands may share it. */
  readonly stateDirectory: string
  /** Absent: `standardConfig`, two slots of the `oci` driver. */
  readonly config?: WorkerConfig
  /** What may be run: these and no others. Absent: `builtIns`; two of them, `code` and `command`, run whatever a job brings. */
  readonly functions?: ReadonlyArray<Definition>
  /**
   * Modules of further functions, TypeScript or JavaScript, by their paths: what they export, by name or as a default list.
   * Their handlers run in the sandboxes' function hosts.
   */
  readonly functionFiles?: ReadonlyArray<string>
  /** Serve the embedded queue's rows, which any process may have written. Absent: true. */
  readonly embedded?: boolean
  /** The name, in job keys, of the door that `Direct.submit` is. Absent: `direct`. */
  readonly direct?: string
  /** The broker, with both dialects' doors. Absent: none is reached for. */
  readonly amqp?: AmqpWiring
  /** The keys of `config.objectStore`. */
  readonly objectStore?: ObjectStoreWiring
  /** Further doors, made in the worker's scope. Given: `Direct`, `Host`, `Journal`, `Log`, `Settings`. */
  readonly doors?: Effect.Effect<Doors, DoorsE, DoorsR>
  /**
   * Further drivers, for the classes of `config` that name them; one called as a built-in one replaces it. Given: `Host`,
   * `Ledger`.
   */
  readonly drivers?: Effect.Effect<ReadonlyArray<Driver>, DriversE, DriversR>
  /** Where jobs are written down. Given: `Host`. Absent: SQLite in the state directory. */
  readonly journal?: Layer.Layer<Journal, JournalE, JournalR>
  /** Where output is kept. Given: `Host`. Absent: files in the state directory. */
  readonly log?: Layer.Layer<Log, LogE, LogR>
  /** Where files that jobs leave are kept. Absent: files in the state directory. */
  readonly artefacts?: Layer.Layer<Artefacts, never, Host>
  /** Where traces, metrics and logs are sent. Absent: nowhere; the metrics are there for whoever asks. */
  readonly telemetry?: OtlpOptions
}

/** This process' place on the host: identity and paths. */
export const layerHost = (stateDirectory: string) =>
  HostLive.layer({ stateDirectory }).pipe(Layer.provideMerge(layerSecureRandom))

/** Controllers that cost each sandbox something, so that they are used only where a class asks for them. */
export interface ControllerUse {
  readonly io: boolean
  readonly cpuset: boolean
}

/** What the classes' limits ask for. */
export const controllersOf = (classes: ReadonlyArray<SandboxClass>): ControllerUse => ({
  io: classes.some(({ ceiling, defaults }) => [ceiling, defaults].some((limits) => needsOf(limits).has("io-max"))),
  cpuset: classes.some(({ cpuset }) => cpuset !== undefined)
})

const layerCgroups = (use: ControllerUse) =>
  Layer.unwrap(
    Effect.map(
      Host,
      ({ instance, paths }) =>
        CgroupsHost.layer({ instance, record: CgroupRecord.recordIn(paths.instance(instance)), ...use })
    )
  )

/** Drivers that every worker has. */
const builtIn: ReadonlyArray<DriverName> = ["oci", "process", "firecracker", "qemu"]

/** A driver by the name the configuration has for it. */
const makeDriver = Effect.fnUntraced(function*(name: DriverName) {
  switch (name) {
    case "oci":
      return yield* Oci.make
    case "process":
      return yield* Process.make
    case "firecracker":
    case "qemu": {
      // Loaded only where a class asks for machines.
      const Microvm = yield* Effect.promise(() => import("./layers/sandbox/Microvm.ts"))
      return yield* Microvm.make(name)
    }
    default:
      return yield* new ProvisionFailed({
        driver: name,
        step: "driver",
        reason: "this worker does not have it",
        remedy: `Use one of ${builtIn.join(", ")}, or give the worker a driver of that name.`
      })
  }
})

/** The drivers that were added, then those the classes name beside them. */
const makeDrivers = Effect.fnUntraced(function*<E, R>(
  names: ReadonlyArray<DriverName>,
  own: Effect.Effect<ReadonlyArray<Driver>, E, R>
) {
  const added = yield* distinct("driver", yield* own)
  const others = names.filter((name) => !added.some((driver) => driver.name === name))
  return [...added, ...yield* Effect.forEach([...new Set(others)], makeDriver)]
})

/** Drivers made for nothing but to remove what a dead worker's rows name, when the first such row is met. */
const layerReapers = Layer.effect(
  Reapers,
  Effect.gen(function*() {
    const context = yield* Effect.context<Effect.Services<ReturnType<typeof makeDriver>>>()
    const known = new Map<DriverName, Reap>()
    return Effect.fnUntraced(function*(name: DriverName) {
      if (!builtIn.includes(name)) return undefined
      const found = known.get(name)
      if (found !== undefined) return found
      const made = yield* makeDriver(name).pipe(
        Effect.provideContext(context),
        Effect.tapCause((cause) => Effect.logWarning(`driver ${name}, which rows of a dead worker need`, cause)),
        Effect.option
      )
      if (Option.isNone(made)) return undefined
      known.set(name, made.value.reap)
      return made.value.reap
    })
  })
)

/** None but the worker's own. */
export const noDoors: Effect.Effect<Doors> = Effect.succeed({})
const noDrivers: Effect.Effect<ReadonlyArray<Driver>> = Effect.succeed([])

/** What makes, measures and removes sandboxes: Drivers, with Host, Native, Cgroups, Watchdog, Launcher and Ledger. */
export const layerDrivers = <E = never, R = never>(
  stateDirectory: string,
  names: ReadonlyArray<DriverName>,
  own: Effect.Effect<ReadonlyArray<Driver>, E, R> | typeof noDrivers = noDrivers,
  use: ControllerUse = { io: false, cpuset: false }
) =>
  Layer.merge(Layer.effect(Drivers, makeDrivers(names, own)), layerReapers).pipe(
    Layer.provideMerge(Launcher.layer),
    Layer.provideMerge(Watchdog.layer),
    Layer.provideMerge(Layer.mergeAll(layerCgroups(use), LedgerFiles.layer, Native.layer)),
    Layer.provideMerge(layerHost(stateDirectory))
  )

/** What stands in for sandboxes on a host that makes none: nothing is started here, so nothing has to be watched. */
const layerNoSandboxes = (stateDirectory: string) =>
  Layer.mergeAll(
    Layer.succeed(Drivers, []),
    Layer.succeed(Reapers, () => Effect.undefined),
    Layer.succeed(Watchdog.Watchdog, { mountNamespace: Option.none(), died: Effect.never }),
    Layer.succeed(Launcher.Launcher, {
      launch: () => Effect.die("a worker without sandboxes launches nothing"),
      died: Effect.never
    }),
    CgroupsNone.layer,
    LedgerFiles.layer
  ).pipe(Layer.provideMerge(layerHost(stateDirectory)))

/**
 * Where the classes' jobs run on this host. A worker whose classes are all clusters needs no cgroups and no rights here: it
 * may be any pod.
 */
const layerPlaces = <E, R>(
  stateDirectory: string,
  classes: ReadonlyArray<SandboxClass>,
  own: Effect.Effect<ReadonlyArray<Driver>, E, R> | typeof noDrivers
) => {
  const local = classes.filter(({ driver }) => !isCluster(driver))
  const drivers = layerDrivers(stateDirectory, local.map(({ driver }) => driver), own, controllersOf(local))
  type Places = Layer.Success<ReturnType<typeof layerNoSandboxes>>
  const places: Layer.Layer<Places, Layer.Error<typeof drivers>, Layer.Services<typeof drivers>> =
    local.length === 0 && own === noDrivers ? layerNoSandboxes(stateDirectory) : drivers
  return places
}

/** Loaded only where a class has a cluster. */
const layerCluster = Layer.unwrap(Effect.promise(async () => {
  const [KubernetesExecutor, KubernetesLive] = await Promise.all([
    import("./layers/executor/KubernetesExecutor.ts"),
    import("./layers/kubernetes/KubernetesLive.ts")
  ])
  return KubernetesExecutor.layer.pipe(Layer.provide(KubernetesLive.layer()))
}))

/** The broker, if there is one: what its dialects need. */
class Broker extends Context.Service<Broker, Option.Option<Context.Context<Amqp>>>()("stoker/wiring/Broker") {}

/** Loaded only when it is configured, so that nobody without a broker waits for it. */
export const layerBroker = (wiring: AmqpWiring | undefined) =>
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
const dialects = Effect.fnUntraced(function*(amqp: AmqpWiring, { mstc, ownLongJobs, slots, weights }: WorkerConfig) {
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
  const old = mstc === undefined ? { emitters: [], intakes: [] } : yield* mstcDoor(mstc, slots)
  return {
    emitters: [codeBench, stoker, ...old.emitters],
    intakes: [
      yield* CodeBenchIntake.make({ queues, emitter: codeBench }),
      yield* StokerIntake.make({ slots, weights, emitter: stoker, user: brokerUser(amqp), ownLongJobs }),
      ...old.intakes
    ]
  }
})

/** The MSTC worker's clients at the broker. */
const mstcDoor = Effect.fnUntraced(function*(mstc: NonNullable<WorkerConfig["mstc"]>, slots: number) {
  const [MstcIntake, MstcEmitter] = yield* Effect.promise(() =>
    Promise.all([import("./layers/intake/Mstc.ts"), import("./layers/emitter/Mstc.ts")])
  )
  const emitter = yield* MstcEmitter.make
  return {
    emitters: [emitter],
    intakes: [yield* MstcIntake.make({ class: mstc.class, prefetch: 2 * slots, emitter })]
  }
})

/** The doors the worker opens, and who tells their senders. */
export const layerDoors = Effect.fnUntraced(function*<E, R>(
  { amqp, embedded = true }: Pick<WorkerWiring, "amqp" | "embedded">,
  doors: Effect.Effect<Doors, E, R>
) {
  const own = [(yield* Direct.Direct).intake, ...(embedded ? [(yield* Embedded.Embedded).intake] : [])]
  const broker = yield* Broker
  const brokered = amqp === undefined || Option.isNone(broker)
    ? { emitters: [], intakes: [] }
    : yield* dialects(amqp, yield* Settings.Settings).pipe(Effect.provideContext(broker.value))
  const { emitters = [], intakes = [] } = yield* doors
  return Layer.merge(
    Layer.effect(Intakes, distinct("intake", [...own, ...brokered.intakes, ...intakes])),
    Layer.effect(Emitters, distinct("emitter", [...brokered.emitters, ...emitters]))
  )
}, Layer.unwrap)

/** Questions about jobs that come over the broker. */
const layerBrokerControl = (amqp: AmqpWiring | undefined) =>
  Layer.effectDiscard(Effect.gen(function*() {
    const broker = yield* Broker
    if (amqp === undefined || Option.isNone(broker)) return
    const StokerControl = yield* Effect.promise(() => import("./layers/intake/StokerControl.ts"))
    const { instance } = yield* Host
    yield* StokerControl.make({ instance, user: brokerUser(amqp) }).pipe(Effect.provideContext(broker.value))
  }))

/** How long others may take to say that they have a job, and the broker to take a question. */
const othersLimits = { answerLimit: "1 second", brokerLimit: "3 seconds" } as const

/**
 * For doors: the worker's `Control`, which with a broker also knows of the jobs of other workers there. Without one it is
 * the worker's own.
 */
export const layerControlOfAll = (amqp: AmqpWiring | undefined) =>
  Layer.unwrap(Effect.gen(function*() {
    const broker = yield* Broker
    if (amqp === undefined || Option.isNone(broker)) return Layer.effect(Control, Control)
    const [ControlBrokered, StokerAmqpClientLive] = yield* Effect.promise(() =>
      Promise.all([
        import("./layers/control/ControlBrokered.ts"),
        import("./layers/amqpclient/StokerAmqpClientLive.ts")
      ])
    )
    const { instance } = yield* Host
    const { scope } = yield* Journal
    return ControlBrokered.layer({ instance, listsOthers: scope === "host" }).pipe(
      Layer.provide(StokerAmqpClientLive.layer({ name: instance, userId: brokerUser(amqp), ...othersLimits })),
      Layer.provide(Layer.succeedContext(broker.value))
    )
  }))

/** Loaded only where an endpoint is configured. Everything above it is traced and logged there. */
const layerTelemetry = (telemetry: OtlpOptions | undefined) =>
  Layer.unwrap(Effect.gen(function*() {
    if (telemetry === undefined) return Layer.empty
    const { instance } = yield* Host
    const Otlp = yield* Effect.promise(() => import("./layers/telemetry/Otlp.ts"))
    return Otlp.layer(telemetry, { instance, version: manifest.version })
  }))

/** Loaded only when it is configured, so that nobody else waits for it. */
export const layerPostgres = ({ connections, postgres }: JournalWiring, options?: JournalOptions) =>
  Layer.unwrap(Effect.map(
    Effect.promise(() => import("./layers/journal/JournalPostgres.ts")),
    ({ layer }) => layer({ url: postgres, ...options, ...(connections === undefined ? {} : { connections }) })
  ))

/** How long a journal keeps what is over, as the configuration says. */
export const journalOptions = ({ retention: { deadLettersMs, dedupeMs, jobsMs } }: WorkerConfig): JournalOptions => ({
  dedupeWindow: dedupeMs,
  retention: jobsMs,
  deadLetters: deadLettersMs
})

/** What was compiled, kept in the state directory for the workers of this host. */
export const layerCompileCache = ({ compileCacheBytes, diskReserveBytes }: WorkerConfig) =>
  CompileCacheFiles.layer({ maximumBytes: compileCacheBytes, reserveBytes: diskReserveBytes })

/** Loaded only where one is configured. */
const layerObjectStore = ({ objectStore }: WorkerConfig, keys: ObjectStoreWiring | undefined) =>
  Layer.unwrap(Effect.gen(function*() {
    if (objectStore === undefined) return Layer.empty
    if (keys === undefined) {
      return yield* new HostError({
        operation: "open the object store",
        reason: "the configuration names one, and there are no keys for it",
        remedy: "Give the worker `objectStore: { accessKey, secretKey }`."
      })
    }
    const [{ layer }, uploads] = yield* Effect.promise(() =>
      Promise.all([import("./layers/objectstore/ObjectStoreS3.ts"), import("./layers/objectstore/UploadsFiles.ts")])
    )
    return layer(objectStore, keys).pipe(Layer.provide(uploads.layer))
  }))

/** What an operator asks of a worker, and where: on the admin socket, and over TCP if that is wanted. */
export interface OperatorWiring {
  readonly version: string
  /** HOST:PORT for probes and metrics. */
  readonly http: Option.Option<string>
}

/**
 * The operator's side of a worker, over `layerWorker`: the admin socket, probes and metrics, drain and reload. Loaded only
 * where it is wanted: a worker for one job has no operator.
 */
export const layerOperator = ({ http, version }: OperatorWiring) =>
  Layer.unwrap(Effect.gen(function*() {
    const [OperatorLive, AdminServer] = yield* Effect.promise(() =>
      Promise.all([import("./actors/OperatorLive.ts"), import("./layers/control/AdminServer.ts")])
    )
    const broker = yield* Broker
    const status = Option.match(broker, {
      onNone: () => Effect.undefined,
      onSome: (context) => Context.get(context, Amqp).status
    })
    return AdminServer.layerSocket.pipe(
      Layer.merge(Option.isSome(http) ? AdminServer.layerTcp(http.value) : Layer.empty),
      Layer.provideMerge(OperatorLive.layer({ version, broker: status }))
    )
  }))

/** For `doors` of a worker: posts outcomes to whom its jobs name. */
export const webhookDoors = Effect.fnUntraced(function*(options: NonNullable<ApiWiring["webhooks"]>) {
  const Webhook = yield* Effect.promise(() => import("./layers/emitter/Webhook.ts"))
  const client = yield* Layer.build(Webhook.layerClient)
  return { emitters: [yield* Webhook.make(options).pipe(Effect.provideContext(client))] }
})

/** Each watcher of gRPC's health looks once a second; the worker looks at its parts no more often for many of them. */
const readyOf = Effect.fnUntraced(function*() {
  const operator = Option.getOrUndefined(yield* Effect.serviceOption(Operator))
  return operator === undefined
    ? undefined
    : yield* Effect.cachedWithTTL(Effect.map(operator.ready, ({ ok }) => ok), "1 second")
})

/**
 * The control plane's doors, over `layerWorker`; over `layerOperator` too, gRPC's health is the worker's. Loaded only where
 * one is opened: gRPC and the HTTP server take their time and memory. They close before the worker does.
 */
export const layerApi = (
  { grpc, http, identity = "CN", roles, tls, tokens, webhooks }: ApiWiring,
  amqp?: AmqpWiring
) =>
  Layer.unwrap(Effect.gen(function*() {
    const { instance } = yield* Host
    const ready = yield* readyOf()
    if (!(yield* Intakes).some(({ name }) => name === Embedded.NAME)) {
      return yield* new HostError({
        operation: "open the control plane's doors",
        reason: "what is started there waits in the embedded queue, which this worker does not serve",
        remedy: "Leave out `embedded: false`."
      })
    }
    return yield* Effect.promise(async () => {
      const [JobApiLive, Access, Tls, Tokens] = await Promise.all([
        import("./layers/api/JobApiLive.ts"),
        import("./layers/api/Access.ts"),
        import("./layers/api/Tls.ts"),
        import("./layers/api/Tokens.ts")
      ])
      const mayPost = isAllowed(webhooks?.allow ?? [])
      const doors = [
        grpc === undefined
          ? Layer.empty
          : (await import("./layers/grpc/GrpcServer.ts")).layer({
            listen: grpc,
            identity,
            ...(ready === undefined ? {} : { ready })
          }),
        http === undefined
          ? Layer.empty
          : (await import("./layers/http/HttpServer.ts")).layer({ listen: http, identity })
      ] as const
      return Layer.mergeAll(...doors).pipe(
        Layer.provideMerge(JobApiLive.layer({ mayPost, instance })),
        Layer.provide(Layer.mergeAll(
          roles === undefined ? Access.layerFixed() : Access.layerFile(roles),
          tokens === undefined ? Tokens.layerNone : Tokens.layerFile(tokens),
          Tls.layerFiles(tls, "server")
        )),
        Layer.provide(Layer.merge(layerSecureRandom, layerControlOfAll(amqp)))
      )
    })
  }))

/** The REST of the MSTC worker, over `layerWorker`, which has to serve the embedded queue. */
export const layerMstcRest = (options: { readonly listen: string; readonly class: ClassName }) =>
  Layer.unwrap(Effect.map(Effect.promise(() => import("./layers/http/MstcRest.ts")), ({ layer }) => layer(options)))

/** Everybody who acts, over whatever contracts are provided: a worker without its outside world. */
export const layerActors = Layer.merge(Worker.layer, Sampler.layer(manifest.version)).pipe(
  Layer.provideMerge(ControlLive.layer),
  Layer.provideMerge(Layer.merge(Dispatcher.layer, DiskWatch.layer)),
  Layer.provideMerge(Layer.merge(Outbox.layer, Desk.layer))
)

/** The worker's own affair, which only its operator's side asks. */
type Internals = Broker | Desk.Desk | Dispatcher.Dispatcher | DiskSpace

/** What a worker gives to the program around it. */
export type WorkerServices =
  | Internals
  | Artefacts
  | Control
  | Direct.Direct
  | DiskWatch.DiskWatch
  | Drivers
  | Emitters
  | Executor
  | Functions
  | Host
  | Intakes
  | Journal
  | Log
  | Pools.Pools
  | Sampler.Sampler
  | Settings.Settings
  | Worker.Worker

/** No more than that leaves the worker. */
const offering = <E, R>(layer: Layer.Layer<WorkerServices, E, R>): Layer.Layer<WorkerServices, E, R> => layer

/**
 * A whole worker: Control to ask it, Direct to hand it jobs, Worker to drain it and to hear its failure. It takes jobs
 * from when it is built until its scope closes. It is not built if its host lacks something (`HostError`,
 * `CgroupUnavailable`, `ProvisionFailed`), its state cannot be opened (`JournalError`, `LogError`, `LedgerError`), the
 * broker's address is none (`AmqpError`), a STOKER_ variable of the environment is none (`ConfigError`), a pool could
 * never be (`PoolMisconfigured`), a file of functions cannot be used (`FunctionsRefused`), or two things have one name
 * (`DuplicateName`).
 */
export const layerWorker = <
  DoorsE = never,
  DoorsR = never,
  DriversE = never,
  DriversR = never,
  JournalE = never,
  JournalR = never,
  LogE = never,
  LogR = never
>(
  options: WorkerWiring<DoorsE, DoorsR, DriversE, DriversR, JournalE, JournalR, LogE, LogR>
) => {
  const config = options.config ?? standardConfig
  return offering(
    layerBrokerControl(options.amqp).pipe(
      Layer.provideMerge(layerActors),
      Layer.provideMerge(
        Executors.layer({
          sandbox: SandboxExecutor.layer.pipe(Layer.provide(layerCompileCache(config))),
          cluster: config.classes.some(({ driver }) => isCluster(driver)) ? layerCluster : undefined
        }).pipe(Layer.provideMerge(Pools.layer(config.budget)))
      ),
      Layer.provideMerge(layerObjectStore(config, options.objectStore)),
      Layer.provideMerge(layerDoors(options, options.doors ?? noDoors)),
      Layer.provideMerge(
        Layer.mergeAll(Direct.layer(options.direct ?? "direct"), Embedded.layer, layerBroker(options.amqp))
      ),
      Layer.provideMerge(Layer.mergeAll(
        options.journal ?? JournalSqlite.layerHost(journalOptions(config)),
        options.log ?? LogFiles.layer,
        options.artefacts ?? ArtefactsFiles.layer,
        DiskSpaceLive.layer,
        Settings.layer(config)
      )),
      Layer.provideMerge(layerTelemetry(options.telemetry)),
      Layer.provideMerge(
        layerPlaces(options.stateDirectory, config.classes, options.drivers ?? noDrivers)
      ),
      // Below the drivers, which show the function host to their sandboxes.
      Layer.provideMerge(
        FunctionFiles.layer({
          definitions: options.functions ?? builtIns,
          files: options.functionFiles ?? [],
          stateDirectory: options.stateDirectory
        })
      )
    )
  )
}
