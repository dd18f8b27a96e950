/**
 * A worker's configuration file: every field, what it means, and how it is written. Times and sizes are written as people
 * write them ("30s", "256M"); a plain number is milliseconds or bytes. Fields that are absent have their defaults.
 */
import { Effect, Result, Schema, SchemaIssue, SchemaTransformation } from "effect"
import { CronExpression, MissedMs, ScheduleName, schedulesOf, TimeZone } from "./Cron.ts"
import { HttpListen } from "./HttpListen.ts"
import { ClassName, FunctionName, Owner } from "./Ids.ts"
import { Limits, OutputPolicy } from "./Limits.ts"
import { ObjectStoreConfig } from "./ObjectStoreConfig.ts"
import { PoolCharge, PoolConfig } from "./PoolConfig.ts"
import { ClusterSetup, DriverName, SandboxClass } from "./SandboxClass.ts"
import { PriorityWeights } from "./Terms.ts"
import { parseBytes, parseDuration, writeBytes, writeDuration } from "./Units.ts"
import { Retention, WorkerConfig } from "./WorkerConfig.ts"

/** Where a value is written in units: how it is read, written, and what a reader expects. */
const inUnits =
  (unit: "time" | "size", parse: (text: string) => Result.Result<number, string>, write: (value: number) => string) =>
  (target: Schema.Codec<number, number>) =>
    Schema.Union([Schema.Finite, Schema.String]).annotate({
      expected: Result.getOrElse(Result.flip(parse("?")), String)
    }).pipe(
      Schema.decodeTo(
        target,
        SchemaTransformation.transformEffect({
          decode: (value: number | string) => {
            const parsed = typeof value === "number" ? Result.succeed(value) : parse(value)
            return Result.isSuccess(parsed)
              ? Effect.succeed(parsed.success)
              : Effect.fail(new SchemaIssue.InvalidValue({ expected: parsed.failure }))
          },
          encode: (value: number): Effect.Effect<number | string> => Effect.succeed(write(value))
        })
      )
    ).annotate({ title: unit })

const time = inUnits("time", parseDuration, writeDuration)
const size = inUnits("size", parseBytes, writeBytes)

/** A field that may be absent. The text is what `stoker config example` says of it. */
const field = <S extends Schema.Top>(schema: S, description: string) =>
  Schema.optionalKey(schema).pipe(Schema.annotateKey({ description }))

const limits = Schema.Struct({ ...Limits.fields }).fields

/** What one phase of a job may use. */
export const FileLimits = Schema.Struct({
  wall: field(time(Limits.fields.wallMs), "elapsed time of one phase"),
  cpuTime: field(time(Limits.fields.cpuMs), "user and system time of all its processes"),
  memory: field(size(Limits.fields.memoryBytes), "memory of all its processes, with the files in its workspace"),
  pids: field(Limits.fields.pids, "processes and threads"),
  cpus: field(Limits.fields.cpus, "cores; 0.5 is half of one"),
  fileSize: field(size(Limits.fields.fileBytes), "any one file it writes"),
  disk: field(size(Limits.fields.diskBytes), "its workspace"),
  inodes: field(Limits.fields.diskInodes, "files and directories in its workspace"),
  output: field(size(Limits.fields.outputBytes), "kept output, of stdout and stderr each"),
  openFiles: field(Limits.fields.openFiles, "open files of one process"),
  cpuWeight: field(limits.cpuWeight, "share of the cores while they are scarce (default 100)"),
  memoryHigh: field(size(limits.memoryHighBytes), "above this its processes are slowed down (cgroup v2)"),
  swap: field(size(limits.swapBytes), "swap on top of memory (default none)"),
  oomGroup: field(limits.oomGroup, "out of memory ends the whole job, not one of its processes (cgroup v2)"),
  ioWeight: field(limits.ioWeight, "share of each disk while it is busy (default 100; cgroup v2)"),
  ioRead: field(size(limits.ioReadBytesPerSec), "bytes a second from each disk"),
  ioWrite: field(size(limits.ioWriteBytesPerSec), "bytes a second to each disk"),
  ioReads: field(limits.ioReadsPerSec, "reads a second of each disk"),
  ioWrites: field(limits.ioWritesPerSec, "writes a second to each disk"),
  overOutput: field(OutputPolicy, "more output than that: truncate leaves out its middle, kill ends the job")
})
export type FileLimits = typeof FileLimits.Type

const pool = PoolConfig.fields

/** How many sandboxes of a class stand ready. */
export const FilePool = Schema.Struct({
  minimum: field(Schema.toType(pool.minimum), "ready sandboxes kept however little is asked for"),
  maximum: field(
    Schema.toType(pool.maximum),
    "ready sandboxes at most; 0: every sandbox is made when a job asks for it"
  ),
  parallel: field(Schema.toType(pool.parallel), "refills made at once"),
  refillPause: field(
    time(Schema.toType(pool.refillPauseMs)),
    "a replacement waits this long while another one stands ready"
  ),
  provision: field(time(Schema.toType(pool.provisionMs)), "a sandbox not ready in this time counts as a failure"),
  maxAge: field(time(Schema.toType(pool.maxAgeMs)), "an older one is replaced"),
  healthEvery: field(
    time(Schema.toType(pool.healthEveryMs)),
    "how often one that stands ready is asked for a sign of life"
  ),
  health: field(time(Schema.toType(pool.healthMs)), "within this it answers, or is replaced"),
  backoff: field(time(Schema.toType(pool.backoffMs)), "pause after a failure, doubled with each further one"),
  backoffMax: field(time(Schema.toType(pool.backoffMaxMs)), "the pause grows up to this"),
  failFast: field(
    time(Schema.toType(pool.failFastMs)),
    "having failed for this long, it fails jobs instead of letting them wait"
  ),
  rateWindow: field(time(Schema.toType(pool.rateWindowMs)), "how far back arrivals are looked at"),
  shrink: field(time(Schema.toType(pool.shrinkMs)), "when fewer are needed, one is let go in each such period"),
  charge: field(
    Schema.Struct({ memory: size(PoolCharge.fields.memoryBytes), cpus: PoolCharge.fields.cpus }),
    "what one sandbox counts for in the budget (default: the class's ceiling of memory and cores)"
  ),
  diskFit: field(
    Schema.Literals(["exact", "atLeast"]),
    "exact: ready sandboxes serve jobs that ask for just their workspace's size; atLeast: also for less"
  )
})
export type FilePool = typeof FilePool.Type

const cluster = ClusterSetup.fields

/** The cluster that runs a class's jobs. */
export const FileCluster = Schema.Struct({
  namespace: field(cluster.namespace.schema, "where its Jobs are made (default: the worker's own, or the context's)"),
  kubeconfig: field(cluster.kubeconfig.schema, "how it is reached (default: the pod's own account, else KUBECONFIG)"),
  context: field(Schema.String, "of the kubeconfig (default: its current one)"),
  serviceAccount: field(Schema.String, "the pods' account (default: the namespace's); they never get its token"),
  storeSecret: field(Schema.String, "a secret whose keys jobs with buckets see as variables"),
  secrets: field(
    cluster.secrets.schema,
    "secrets of that namespace which jobs may name, as [\"registry\"], or \"any\" (default: none)"
  ),
  unschedulable: field(
    time(Schema.toType(cluster.unschedulableMs.schema)),
    "a pod that no node takes in this time is given up (default: 5m)"
  ),
  runAsUser: field(cluster.runAsUser.schema, "pods run as this user (default: 65532, who owns nothing)")
})
export type FileCluster = typeof FileCluster.Type

/** A kind of sandbox that jobs may ask for. */
export const FileClass = Schema.Struct({
  name: ClassName.pipe(Schema.annotateKey({ description: "what jobs call it" })),
  driver: DriverName.pipe(
    Schema.annotateKey({
      description:
        "oci: isolated containers; firecracker, qemu: a microVM for each job; kubernetes: container jobs in a cluster; " +
        "process: NO isolation, for trusted programs"
    })
  ),
  network: field(
    SandboxClass.fields.network,
    "none; internet: all but private addresses, the host and metadata services; {\"allow\": [\"10.1.2.0/24:5432/tcp\"]}"
  ),
  networkSetup: field(
    SandboxClass.fields.networkSetup.schema,
    "whose network: {\"cni\": name} of /etc/cni/net.d, or {\"subnet\"} of Stoker's own; {\"nameservers\"} (default: the host's)"
  ),
  runtime: field(SandboxClass.fields.runtime.schema, "crun (default), or runsc: gVisor"),
  root: field(
    SandboxClass.fields.root.schema,
    "{\"directory\": path} or {\"image\": \"debian:12\"} (default: the host's /usr)"
  ),
  images: field(
    SandboxClass.fields.images.schema,
    "which images jobs may bring: {\"allow\": [\"registry.example/team/\"], \"digests\": true} (default: none to oci)"
  ),
  machine: field(
    SandboxClass.fields.machine.schema,
    "firecracker and qemu: their image, vcpus, accelerator (tcg is emulation), snapshot, wire, agent, rates (docs/microvms.md)"
  ),
  cluster: field(FileCluster, "kubernetes: the cluster that runs its jobs (docs/kubernetes.md)"),
  cpuset: field(SandboxClass.fields.cpuset.schema, "the cores its jobs may run on, such as \"0-3,8\" (default: all)"),
  ioDevices: field(
    SandboxClass.fields.ioDevices.schema,
    "block devices the limits of I/O are for, such as [\"/dev/vda\"] (default: every disk)"
  ),
  functions: field(
    Schema.Boolean,
    "its ready sandboxes have a function host that waits, so that calls of functions with a handler begin at once"
  ),
  ceiling: field(FileLimits, "the most a job of this class may ask for"),
  defaults: field(FileLimits, "what a job gets that asks for nothing"),
  pool: field(FilePool, "sandboxes that stand ready (default: as many as slots, at most three times as many)")
})
export type FileClass = typeof FileClass.Type

/** A job that is started by the clock. */
export const FileSchedule = Schema.Struct({
  name: ScheduleName.pipe(Schema.annotateKey({ description: "begins the ids of its jobs" })),
  cron: CronExpression.pipe(
    Schema.annotateKey({ description: "minute hour day month weekday, or with seconds before them" })
  ),
  timeZone: field(TimeZone, "whose time that is (default: UTC)"),
  function: FunctionName.pipe(Schema.annotateKey({ description: "what is started" })),
  args: field(Schema.Json, "its arguments (default: none)"),
  class: field(ClassName, "the sandbox class (default: the worker's)"),
  limits: field(FileLimits, "what its run may use (default: the class's)"),
  owner: field(Owner, "whose jobs they are (default: cron)"),
  missed: field(time(MissedMs), "the latest one missed is made up for if it is no longer ago (default: 10m; 0: none)")
})
export type FileSchedule = typeof FileSchedule.Type

/** An address with a password in it, or where to find one. */
export const FileSecret = Schema.Struct({
  url: field(Schema.NonEmptyString, "the address itself; better one of the others, which keep it out of this file"),
  urlFile: field(
    Schema.NonEmptyString,
    "a file with the address in its first line, readable by the worker's user only"
  ),
  urlEnv: field(Schema.NonEmptyString, "the environment variable that has the address")
}).check(
  Schema.makeFilter((secret) =>
    Object.keys(secret).length === 1 ? undefined : "exactly one of url, urlFile and urlEnv is expected"
  )
)
export type FileSecret = typeof FileSecret.Type

const path = Schema.NonEmptyString

/** Where outcomes may be posted to. */
export const FileWebhooks = Schema.Struct({
  allow: Schema.NonEmptyArray(
    Schema.String.check(
      Schema.isPattern(/^https?:\/\/[^\s]+$/, {
        expected: "the beginning of addresses, such as https://hooks.example.com/"
      })
    )
  ).pipe(
    Schema.annotateKey({ description: "the beginnings of the addresses that jobs may name" })
  ),
  secretFile: field(path, "a file whose first line signs what is posted, readable by the worker's user only"),
  secretEnv: field(Schema.NonEmptyString, "the environment variable that has that secret")
}).check(
  Schema.makeFilter(({ secretEnv, secretFile }) =>
    (secretFile === undefined) !== (secretEnv === undefined)
      ? undefined
      : "exactly one of secretFile and secretEnv is expected"
  )
)
export type FileWebhooks = typeof FileWebhooks.Type

/** An S3-compatible store, and where its keys are. */
export const FileObjectStore = Schema.Struct({
  endpoint: ObjectStoreConfig.fields.endpoint.pipe(
    Schema.annotateKey({ description: "its address without a path, such as https://store.example:9000" })
  ),
  region: field(ObjectStoreConfig.fields.region, "as the store has it (default: us-east-1)"),
  pathStyle: field(
    ObjectStoreConfig.fields.pathStyle,
    "buckets are in the path (default), not in the host's name as AWS would have it"
  ),
  accessKeyFile: field(path, "a file with the access key in its first line"),
  accessKeyEnv: field(Schema.NonEmptyString, "the environment variable that has it"),
  secretKeyFile: field(path, "a file with the secret key in its first line, readable by the worker's user only"),
  secretKeyEnv: field(Schema.NonEmptyString, "the environment variable that has it"),
  timeout: field(time(ObjectStoreConfig.fields.timeoutMs), "a store silent for so long does not answer (default: 30s)"),
  patience: field(
    time(ObjectStoreConfig.fields.patienceMs),
    "what may pass, such as a store that starts again, is tried for so long (default: 1m)"
  )
})
export type FileObjectStore = typeof FileObjectStore.Type

/** The control plane's doors. */
export const FileApi = Schema.Struct({
  grpc: field(HttpListen, "HOST:PORT of the gRPC services"),
  http: field(HttpListen, "HOST:PORT of the HTTP API"),
  ca: field(path, "the authority whose certificates callers show (PEM; `stoker certs` makes all three)"),
  cert: field(path, "the certificate that is shown to callers"),
  key: field(path, "its key, readable by the worker's user only"),
  identity: field(
    Schema.Literals(["CN", "L"]),
    "where a certificate has its caller's name: common name, or locality as workernator had it"
  ),
  roles: field(path, "who may do what (default: everybody with a certificate sees to their own jobs)"),
  tokens: field(path, "bearer tokens for the HTTP API, as hashes (default: certificates only)"),
  webhooks: field(FileWebhooks, "outcomes may be posted (default: nowhere)")
})
export type FileApi = typeof FileApi.Type

/** The least a worker says: as LOG_LEVEL. */
export const FileLogLevel = Schema.Literals(["All", "Trace", "Debug", "Info", "Warn", "Error", "Fatal", "None"])

const worker = WorkerConfig.fields
const bytes = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2 ** 50 }))

export const DaemonConfig = Schema.Struct({
  stateDirectory: field(
    Schema.NonEmptyString,
    "where journal, logs and sandboxes lie (default: STOKER_STATE, else /var/lib/stoker for root)"
  ),
  slots: field(worker.slots, "jobs that run at once"),
  waiting: field(worker.waiting, "jobs taken from the queues that may wait for a slot"),
  weights: field(
    Schema.Struct({
      high: field(PriorityWeights.fields.high, "turns of jobs with priority high"),
      normal: field(PriorityWeights.fields.normal, "turns of those with normal"),
      low: field(PriorityWeights.fields.low, "turns of those with low")
    }),
    "whose turn it is while jobs of several priorities wait"
  ),
  ownerSlots: field(WorkerConfig.fields.slots, "jobs of one owner that run at once (default: as many as slots)"),
  queueMaximum: field(worker.queueMaximum, "jobs the embedded queue may hold; more are refused"),
  lease: field(time(worker.leaseMs), "how long a claim on a job holds without being renewed"),
  maxAttempts: field(worker.maxAttempts, "how often a job may begin when its workers die under it"),
  drain: field(time(worker.drainMs), "how long running jobs have to end after SIGTERM before they are given back"),
  retention: field(
    Schema.Struct({
      dedupe: field(
        time(Retention.fields.dedupeMs),
        "a repeat of a job that ended less than this ago is not run again"
      ),
      jobs: field(time(Retention.fields.jobsMs), "ended jobs and their logs; at least dedupe"),
      deadLetters: field(time(Retention.fields.deadLettersMs), "dead letters of the embedded queue")
    }),
    "how long what is over is kept"
  ),
  diskReserve: field(size(worker.diskReserveBytes), "with less than this free in the state directory no job is taken"),
  budget: field(
    Schema.Struct({
      memory: field(size(bytes), "memory"),
      cpus: field(Schema.Finite.check(Schema.isBetween({ minimum: 0.01, maximum: 4096 })), "cores"),
      sandboxes: field(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100_000 })), "their number")
    }),
    "what all sandboxes may hold together (default: no bound)"
  ),
  compileCache: field(
    size(worker.compileCacheBytes),
    "programs kept so that the same source of the same owner is compiled once; 0: none"
  ),
  artefacts: field(
    size(worker.artefactBytes),
    "files one job may bring back, together; 0: jobs that ask for some are rejected"
  ),
  ownLongJobs: field(
    worker.ownLongJobs,
    "let this worker's own journal keep jobs that may run longer than RabbitMQ lets them be held (25 min)"
  ),
  cron: field(schedulesOf(FileSchedule), "jobs that are started by the clock, once on all workers of one journal"),
  functions: field(
    Schema.Array(Schema.NonEmptyString),
    "files of TypeScript or JavaScript with functions of your own, beside the built-in ones (paths beside this file)"
  ),
  classes: field(Schema.NonEmptyArray(FileClass), "kinds of sandboxes that jobs may ask for"),
  defaultClass: field(ClassName, "what a job gets that names no class (default: the first)"),
  mstc: field(
    Schema.Struct({
      class: ClassName.pipe(Schema.annotateKey({ description: "where their container jobs run" })),
      listen: field(HttpListen, "HOST:PORT of the old REST, which knows no callers: keep it on a trusted network")
    }),
    "serve the clients of the MSTC cloud worker, at the broker and by its REST (default: no)"
  ),
  objectStore: field(
    FileObjectStore,
    "the S3-compatible store of container jobs' buckets (default: none; pods of a cluster have access of their own)"
  ),
  amqp: field(FileSecret, "RabbitMQ, amqp://user:password@host:port/vhost (default: AMQP_URL; without: none)"),
  journal: field(FileSecret, "PostgreSQL as the journal of several hosts (default: a file in the state directory)"),
  http: field(
    Schema.Struct({
      listen: HttpListen.pipe(Schema.annotateKey({ description: "HOST:PORT" }))
    }),
    "probes and metrics over TCP: /livez, /readyz, /metrics (default: only the admin socket)"
  ),
  api: field(FileApi, "gRPC and HTTP for callers with certificates (default: neither)"),
  log: field(
    Schema.Struct({
      format: field(Schema.Literals(["auto", "pretty", "json"]), "auto: pretty on a terminal, else lines of JSON"),
      level: field(FileLogLevel, "LOG_LEVEL and --log-level are stronger")
    }),
    "the worker's own log, on stderr"
  )
})
export type DaemonConfig = typeof DaemonConfig.Type
