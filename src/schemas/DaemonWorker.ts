/** A worker as its configuration file means it, and a configuration file as it would be written for a worker. */
import { Schema } from "effect"
import { Schedule } from "./Cron.ts"
import type {
  DaemonConfig,
  FileClass,
  FileCluster,
  FileLimits,
  FileObjectStore,
  FilePool,
  FileSchedule
} from "./DaemonConfig.ts"
import { Limits, standardCeiling, standardDefaults } from "./Limits.ts"
import { type ObjectStoreConfig, standardObjectStore } from "./ObjectStoreConfig.ts"
import { type HostBudget, PoolConfig, standardPool } from "./PoolConfig.ts"
import { type ClusterSetup, isCluster, type SandboxClass } from "./SandboxClass.ts"
import { standardClass, standardConfig, type WorkerConfig } from "./WorkerConfig.ts"

/** The file's names of limits and theirs in the model, which carry their units. */
const limitNames: Readonly<Record<keyof FileLimits, keyof Limits>> = {
  wall: "wallMs",
  cpuTime: "cpuMs",
  memory: "memoryBytes",
  pids: "pids",
  cpus: "cpus",
  fileSize: "fileBytes",
  disk: "diskBytes",
  inodes: "diskInodes",
  output: "outputBytes",
  openFiles: "openFiles",
  cpuWeight: "cpuWeight",
  memoryHigh: "memoryHighBytes",
  swap: "swapBytes",
  oomGroup: "oomGroup",
  ioWeight: "ioWeight",
  ioRead: "ioReadBytesPerSec",
  ioWrite: "ioWriteBytesPerSec",
  ioReads: "ioReadsPerSec",
  ioWrites: "ioWritesPerSec",
  overOutput: "outputPolicy"
}

const poolNames: Readonly<Record<keyof FilePool, keyof PoolConfig>> = {
  minimum: "minimum",
  maximum: "maximum",
  parallel: "parallel",
  refillPause: "refillPauseMs",
  provision: "provisionMs",
  maxAge: "maxAgeMs",
  healthEvery: "healthEveryMs",
  health: "healthMs",
  backoff: "backoffMs",
  backoffMax: "backoffMaxMs",
  failFast: "failFastMs",
  rateWindow: "rateWindowMs",
  shrink: "shrinkMs",
  charge: "charge",
  diskFit: "diskFit"
}

type Names = Readonly<Record<string, string>>

const renamed = (names: Names, value: object) =>
  Object.fromEntries(Object.entries(value).map(([name, item]: [string, unknown]) => [names[name] ?? name, item]))

const reversed = (names: Names): Names =>
  Object.fromEntries(Object.entries(names).map(([name, other]) => [other, name]))

// Each field was checked when the file was read.
const decodeLimits = Schema.decodeUnknownSync(Limits)
const decodeSchedule = Schema.decodeUnknownSync(Schedule)
const decodePool = Schema.decodeUnknownSync(Schema.Struct(PoolConfig.fields))

const limitsOf = (file: FileLimits | undefined, usual: Limits): Limits =>
  decodeLimits({ ...usual, ...renamed(limitNames, file ?? {}) })

/** How many may stand ready where `warm` do at least: for what comes in a burst. More of them slow a worker down that is busy. */
export const mostWarm = (warm: number): number => 3 * warm

/**
 * So many ready, or more while much arrives. Idle sandboxes cost a megabyte or two; their replacements wait a moment, so
 * that the job that took one begins first.
 */
export const usualPool = (warm: number): PoolConfig => ({
  ...standardPool,
  minimum: warm,
  maximum: mostWarm(warm),
  refillPauseMs: 5
})

/** Whose sandboxes are machines. */
export const machineDrivers: ReadonlySet<string> = new Set(["firecracker", "qemu"])

/** A machine takes longer to come and to answer, and an idle one is dear: no more of them than were asked for. */
const machinePool = (warm: number, isEmulated: boolean): PoolConfig => ({
  ...usualPool(warm),
  maximum: warm,
  parallel: isEmulated ? 1 : 2,
  provisionMs: isEmulated ? 120_000 : 30_000,
  healthMs: isEmulated ? 20_000 : 5000,
  healthEveryMs: isEmulated ? 30_000 : 10_000,
  failFastMs: isEmulated ? 120_000 : 30_000
})

/** What the file says of the class's pool, over what is usual. Not yet checked for contradictions. */
export const poolOf = (
  { driver, machine, pool }: Pick<FileClass, "driver" | "machine" | "pool">,
  slots: number
): PoolConfig => {
  const usual = machineDrivers.has(driver)
    ? machinePool(slots, machine?.accelerator === "tcg")
    : usualPool(slots)
  const { charge, ...rest } = pool ?? {}
  return decodePool({
    ...usual,
    // Who lowers the one does not want to hear of the other.
    ...(rest.maximum === undefined ? {} : { minimum: Math.min(usual.minimum, rest.maximum) }),
    ...(rest.minimum === undefined ? {} : { maximum: Math.max(usual.maximum, rest.minimum) }),
    ...renamed(poolNames, rest),
    ...(charge === undefined ? {} : { charge: { memoryBytes: charge.memory, cpus: charge.cpus } })
  })
}

const clusterOf = ({ unschedulable, ...rest }: FileCluster): ClusterSetup => ({
  ...rest,
  ...(unschedulable === undefined ? {} : { unschedulableMs: unschedulable })
})

const fileClusterOf = ({ unschedulableMs, ...rest }: ClusterSetup): FileCluster => ({
  ...rest,
  ...(unschedulableMs === undefined ? {} : { unschedulable: unschedulableMs })
})

/** A class of the file, with the usual values where it says nothing. */
export const classOf = (file: FileClass, slots: number): SandboxClass => {
  const usual = standardClass(file.name, file.driver)
  const pool = poolOf(file, slots)
  return {
    ...usual,
    network: file.network ?? usual.network,
    ...(file.networkSetup === undefined ? {} : { networkSetup: file.networkSetup }),
    ...(file.runtime === undefined ? {} : { runtime: file.runtime }),
    ...(file.root === undefined ? {} : { root: file.root }),
    ...(file.images === undefined ? {} : { images: file.images }),
    ...(file.machine === undefined ? {} : { machine: file.machine }),
    ...(file.cluster === undefined ? {} : { cluster: clusterOf(file.cluster) }),
    ...(file.cpuset === undefined ? {} : { cpuset: file.cpuset }),
    ...(file.ioDevices === undefined ? {} : { ioDevices: file.ioDevices }),
    ...(file.functions === undefined ? {} : { functions: file.functions }),
    ceiling: limitsOf(file.ceiling, standardCeiling),
    defaults: limitsOf(file.defaults, standardDefaults),
    ...(pool.maximum === 0 || isCluster(file.driver) ? {} : { pool })
  }
}

/** The classes a worker has whose file names none: the default driver's. */
export const usualClasses: readonly [FileClass] = [{ name: standardConfig.defaultClass, driver: "oci" }]

export const budgetOf = ({ budget = {} }: DaemonConfig): HostBudget => ({
  ...(budget.memory === undefined ? {} : { memoryBytes: budget.memory }),
  ...(budget.cpus === undefined ? {} : { cpus: budget.cpus }),
  ...(budget.sandboxes === undefined ? {} : { sandboxes: budget.sandboxes })
})

const scheduleOf = ({ limits = {}, missed, ...file }: FileSchedule): Schedule =>
  decodeSchedule({
    ...file,
    limits: renamed(limitNames, limits),
    ...(missed === undefined ? {} : { missedMs: missed })
  })

const objectStoreOf = ({ endpoint, patience, pathStyle, region, timeout }: FileObjectStore): ObjectStoreConfig => ({
  endpoint,
  region: region ?? standardObjectStore.region,
  pathStyle: pathStyle ?? standardObjectStore.pathStyle,
  timeoutMs: timeout ?? standardObjectStore.timeoutMs,
  patienceMs: patience ?? standardObjectStore.patienceMs
})

/** Without where its keys are. */
const fileObjectStoreOf = ({ patienceMs, timeoutMs, ...rest }: ObjectStoreConfig): FileObjectStore => ({
  ...rest,
  timeout: timeoutMs,
  patience: patienceMs
})

/** The worker that a checked file describes. */
export const workerConfigOf = (file: DaemonConfig): WorkerConfig => {
  const slots = file.slots ?? standardConfig.slots
  const { deadLetters, dedupe, jobs } = file.retention ?? {}
  const { retention } = standardConfig
  const [first, ...others] = file.classes ?? usualClasses
  return {
    slots,
    // More than the broker hands out at once, so that no level is held up behind another.
    waiting: file.waiting ?? Math.max(standardConfig.waiting, 8 * slots),
    weights: { ...standardConfig.weights, ...file.weights },
    ...(file.ownerSlots === undefined ? {} : { ownerSlots: file.ownerSlots }),
    queueMaximum: file.queueMaximum ?? standardConfig.queueMaximum,
    leaseMs: file.lease ?? standardConfig.leaseMs,
    maxAttempts: file.maxAttempts ?? standardConfig.maxAttempts,
    drainMs: file.drain ?? standardConfig.drainMs,
    retention: {
      dedupeMs: dedupe ?? retention.dedupeMs,
      jobsMs: jobs ?? retention.jobsMs,
      deadLettersMs: deadLetters ?? retention.deadLettersMs
    },
    diskReserveBytes: file.diskReserve ?? standardConfig.diskReserveBytes,
    budget: budgetOf(file),
    compileCacheBytes: file.compileCache ?? standardConfig.compileCacheBytes,
    artefactBytes: file.artefacts ?? standardConfig.artefactBytes,
    ownLongJobs: file.ownLongJobs ?? standardConfig.ownLongJobs,
    ...(file.cron === undefined ? {} : { cron: file.cron.map(scheduleOf) }),
    ...(file.mstc === undefined ? {} : { mstc: file.mstc }),
    ...(file.objectStore === undefined ? {} : { objectStore: objectStoreOf(file.objectStore) }),
    classes: [classOf(first, slots), ...others.map((other) => classOf(other, slots))],
    defaultClass: file.defaultClass ?? first.name
  }
}

/** A class as the file would have it, with every value said. */
export const fileClassOf = ({ ceiling, cluster, defaults, pool, ...place }: SandboxClass): FileClass => {
  const { charge, disk: _, ...rest } = pool ?? { minimum: 0, maximum: 0 }
  return {
    ...place,
    ...(cluster === undefined ? {} : { cluster: fileClusterOf(cluster) }),
    ceiling: renamed(reversed(limitNames), ceiling),
    defaults: renamed(reversed(limitNames), defaults),
    pool: {
      ...renamed(reversed(poolNames), rest),
      ...(charge === undefined ? {} : { charge: { memory: charge.memoryBytes, cpus: charge.cpus } })
    }
  }
}

const fileScheduleOf = ({ limits, missedMs, ...schedule }: Schedule): FileSchedule => ({
  ...schedule,
  limits: renamed(reversed(limitNames), limits),
  missed: missedMs
})

/** The file that describes this worker, with every default said. */
export const fileOf = (config: WorkerConfig): DaemonConfig => {
  const { budget: { memoryBytes, ...budget }, classes: [first, ...others], retention } = config
  return {
    slots: config.slots,
    waiting: config.waiting,
    weights: config.weights,
    ...(config.ownerSlots === undefined ? {} : { ownerSlots: config.ownerSlots }),
    queueMaximum: config.queueMaximum,
    lease: config.leaseMs,
    maxAttempts: config.maxAttempts,
    drain: config.drainMs,
    retention: { dedupe: retention.dedupeMs, jobs: retention.jobsMs, deadLetters: retention.deadLettersMs },
    diskReserve: config.diskReserveBytes,
    budget: { ...(memoryBytes === undefined ? {} : { memory: memoryBytes }), ...budget },
    compileCache: config.compileCacheBytes,
    artefacts: config.artefactBytes,
    ownLongJobs: config.ownLongJobs,
    ...(config.cron === undefined ? {} : { cron: config.cron.map(fileScheduleOf) }),
    ...(config.mstc === undefined ? {} : { mstc: config.mstc }),
    ...(config.objectStore === undefined ? {} : { objectStore: fileObjectStoreOf(config.objectStore) }),
    classes: [fileClassOf(first), ...others.map(fileClassOf)],
    defaultClass: config.defaultClass
  }
}
