/** What `stoker doctor` looks at. Every finding is a line; whatever goes wrong while looking is one too. */
import { Cause, Effect, Option, type Redacted, Stream } from "effect"
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { Amqp } from "../layers/amqp/Amqp.ts"
import { Cgroups } from "../layers/cgroup/Cgroup.ts"
import { isExecutable } from "../layers/host/Executable.ts"
import { Host } from "../layers/host/Host.ts"
import { Native } from "../layers/host/Native.ts"
import { monotonicNanos } from "../layers/Now.ts"
import { type Check, type Driver, Drivers } from "../layers/sandbox/Sandbox.ts"
import { machineDrivers } from "../schemas/DaemonWorker.ts"
import { baseEnv } from "../schemas/Program.ts"
import { type DriverName, isCluster, type SandboxClass } from "../schemas/SandboxClass.ts"
import { standardClass } from "../schemas/WorkerConfig.ts"
import { layerDrivers } from "../wiring.ts"
import { classLimitChecks, limitChecks } from "./LimitChecks.ts"
import { formatMicros } from "./Units.ts"
import { driverNames } from "./WorkerConfigs.ts"

/** Findings under one heading. */
export interface Section {
  readonly title: string
  /** Without it `stoker run` cannot work as it comes. */
  readonly needed: boolean
  readonly checks: ReadonlyArray<Check>
}

const SELF_TEST_LIMIT = "30 seconds"
/** An emulated machine is booted, saved and copied. */
const MACHINE_TEST_LIMIT = "3 minutes"
const BROKER_LIMIT = "5 seconds"

/** The oldest Node that has what is used: node:sqlite, type stripping for those who run from source. */
const LEAST_NODE = [22, 19] as const

const textOf = (error: unknown, field: "reason" | "remedy"): string | undefined => {
  const value: unknown = typeof error === "object" && error !== null ? Reflect.get(error, field) : undefined
  return typeof value === "string" ? value : undefined
}

/** A failure as a finding. */
const failing = (name: string) => (cause: Cause.Cause<unknown>): Check => {
  const error = Cause.squash(cause)
  return {
    name,
    status: "missing",
    detail: textOf(error, "reason") ?? (error instanceof Error ? error.message : String(error)),
    remedy: textOf(error, "remedy") ?? "This is a defect of Stoker; please report it."
  }
}

const node = Effect.sync((): Check => {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
  const detail = `${process.version} at ${process.execPath}`
  return major > LEAST_NODE[0] || (major === LEAST_NODE[0] && minor >= LEAST_NODE[1])
    ? { name: "node", status: "ok", detail }
    : { name: "node", status: "missing", detail, remedy: `Install Node ${LEAST_NODE.join(".")} or newer.` }
})

/** The first lines of what a program says when asked for its version. */
const ask = (program: string, args: ReadonlyArray<string>) =>
  Effect.callback<string | undefined>((resume) => {
    const child = execFile(program, [...args], { timeout: 10_000, env: {} }, (error, stdout) => {
      resume(Effect.succeed(error === null ? stdout : undefined))
    })
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

/** Programs of languages, how they tell their version, and what brings them on Debian. */
const tools = [
  { name: "gcc", language: "c", args: ["--version"], install: "gcc libc6-dev" },
  { name: "g++", language: "cpp", args: ["--version"], install: "g++" },
  { name: "clang", language: "c, cpp (variant clang)", args: ["--version"], install: "clang" },
  { name: "python3", language: "python", args: ["--version"], install: "python3" },
  { name: "go", language: "go", args: ["version"], install: "golang-go" }
]

/** Looked for where sandboxes see them: below /usr, whatever this shell's PATH is. */
const languages = Effect.forEach(tools, ({ args, install, language, name }) =>
  Effect.gen(function*() {
    const path = (baseEnv["PATH"] ?? "").split(":").map((folder) => join(folder, name)).find(isExecutable)
    const said = path === undefined ? undefined : yield* ask(path, args)
    const version = /\d+\.\d+(?:\.\d+)?/.exec(said ?? "")?.[0]
    const check: Check = version === undefined
      ? { name, status: "warning", detail: `not found, no ${language}`, remedy: `apt-get install ${install}` }
      : { name, status: "ok", detail: `${version} at ${path ?? ""}, for ${language}` }
    return check
  }), { concurrency: 2 })

const micros = Effect.map(monotonicNanos, (nanos) => Number(nanos / 1000n))

/** What a pool's sandboxes have. */
const diskOf = ({ defaults, pool }: SandboxClass) =>
  pool?.disk ?? { bytes: defaults.diskBytes, inodes: defaults.diskInodes }

/** Makes a sandbox and runs `true` in it. */
const selfTest = (driver: Driver, sandboxClass: SandboxClass) =>
  Effect.gen(function*() {
    if (driver.prepare !== undefined) yield* driver.prepare(sandboxClass)
    const asked = yield* micros
    const sandbox = yield* driver.provision(sandboxClass, diskOf(sandboxClass))
    const ready = yield* micros
    const events = yield* Stream.runCollect(
      sandbox.run({ name: "run", argv: ["true"], env: baseEnv, stdin: new Uint8Array(), limits: sandboxClass.defaults })
    )
    const done = yield* micros
    const last = events.at(-1)
    const succeeded = last?._tag === "Ended" && last.exit._tag === "Exited" && last.exit.code === 0
    const check: Check = succeeded
      ? {
        name: "self-test",
        status: "ok",
        detail: `a sandbox in ${formatMicros(ready - asked)}, \`true\` in ${formatMicros(done - ready)}`
      }
      : {
        name: "self-test",
        status: "missing",
        detail: `\`true\` ended oddly in a sandbox: ${JSON.stringify(last)}`,
        remedy: "LOG_LEVEL=Debug stoker run -- true tells more."
      }
    return check
  }).pipe(
    Effect.scoped,
    Effect.timeoutOrElse({
      duration: machineDrivers.has(driver.name) ? MACHINE_TEST_LIMIT : SELF_TEST_LIMIT,
      orElse: () =>
        Effect.succeed<Check>({
          name: "self-test",
          status: "missing",
          detail: `no end within ${machineDrivers.has(driver.name) ? MACHINE_TEST_LIMIT : SELF_TEST_LIMIT}`,
          remedy: "Is the host overloaded? LOG_LEVEL=Debug stoker run -- true tells more."
        })
    }),
    Effect.catchCause((cause) => Effect.succeed(failing("self-test")(cause)))
  )

/** A worker does not start with a class whose every job would be refused. */
const byDefault = (driver: Driver, { ceiling, defaults, name, ...rest }: SandboxClass) =>
  (driver.accepts?.({ ...rest, name, ceiling, defaults }, defaults) ?? Effect.void).pipe(
    Effect.as<ReadonlyArray<Check>>([]),
    Effect.catch(({ message, remedy }) =>
      Effect.succeed([
        { name: `limits of ${name}`, status: "missing", detail: `its defaults: ${message}`, remedy } satisfies Check
      ])
    )
  )

/** Building the drivers' layers makes the state directory, the cgroups and the watchdog: it is a check by itself. */
const drivers = (
  stateDirectory: string,
  names: ReadonlyArray<DriverName>,
  needed: DriverName | undefined,
  classes: ReadonlyArray<SandboxClass>
) =>
  Effect.gen(function*() {
    const cgroups = yield* Cgroups
    const { directories, hybridMount, version } = cgroups
    const { guest } = yield* Native
    const { paths } = yield* Host
    const hybrid = Option.match(hybridMount, {
      onNone: () => "",
      onSome: (mount) => `, hybrid: v2 is at ${mount} as well`
    })
    const host: ReadonlyArray<Check> = [
      { name: "state", status: "ok", detail: paths.state },
      { name: "native programs", status: "ok", detail: guest.slice(0, guest.lastIndexOf("/")) },
      { name: "cgroups", status: "ok", detail: `${version}, memory, pids and cpu can be limited${hybrid}` },
      ...directories.map((detail): Check => ({ name: "", status: "ok", detail })),
      ...(classes.length === 0 ? limitChecks(cgroups) : classLimitChecks(cgroups, classes))
    ]
    const sections = yield* Effect.forEach(yield* Drivers, (driver) =>
      Effect.gen(function*() {
        const checks = yield* driver.check.pipe(
          Effect.catchCause((cause) => Effect.succeed([failing("checks")(cause)]))
        )
        const ofClasses = yield* Effect.forEach(
          classes.filter((one) => one.driver === driver.name),
          (one) =>
            Effect.map(
              Effect.all([driver.checkClass?.(one) ?? Effect.succeed([]), byDefault(driver, one)]),
              (found) => found.flat()
            )
        )
        const isHopeless = [...checks, ...ofClasses.flat()].some(({ status }) => status === "missing")
        const own = classes.filter((one) => one.driver === driver.name)
        // Machines differ by their class, so without one there is nothing to be proven. Of an agent's nobody asks for `true`.
        const candidates = machineDrivers.has(driver.name)
          ? own.filter(({ machine }) => machine?.agent !== "codebench")
          : [standardClass(driver.name, driver.name)]
        const tested = isHopeless ? [] : yield* Effect.forEach(candidates, (one) => selfTest(driver, one))
        const section: Section = {
          title: driver.name === "oci" ? "driver oci (default)" : `driver ${driver.name}`,
          needed: needed === undefined || driver.name === needed,
          checks: [...checks, ...ofClasses.flat(), ...tested]
        }
        return section
      }))
    return { host, sections }
  }).pipe(
    Effect.provide(layerDrivers(stateDirectory, names)),
    Effect.catchCause((cause) =>
      Effect.succeed({ host: [failing("sandboxes")(cause)], sections: [] as ReadonlyArray<Section> })
    )
  )

const broker = (url: Redacted.Redacted<string>) =>
  Effect.gen(function*() {
    const AmqpLib = yield* Effect.promise(() => import("../layers/amqp/AmqpLib.ts"))
    return yield* Effect.gen(function*() {
      const amqp = yield* Amqp
      const connected = yield* amqp.changes.pipe(
        Stream.filter((status) => status.connected),
        Stream.runHead,
        Effect.timeoutOption(BROKER_LIMIT)
      )
      if (Option.isSome(connected)) return { name: "connection", status: "ok", detail: "connected" } satisfies Check
      const { lastError } = yield* amqp.status
      return {
        name: "connection",
        status: "missing",
        detail: lastError?.message ?? `no answer within ${BROKER_LIMIT}`,
        remedy: "Check AMQP_URL, and that the broker is up and lets this user in."
      } satisfies Check
    }).pipe(Effect.provide(AmqpLib.layer({ url, instance: "doctor" })))
  }).pipe(Effect.catchCause((cause) => Effect.succeed(failing("connection")(cause))))

/** The clusters of classes: whether they answer, and whether they let us do what executors do. */
const clusterSections = Effect.fnUntraced(function*(classes: ReadonlyArray<SandboxClass>) {
  const those = classes.filter(({ driver }) => isCluster(driver))
  if (those.length === 0) return []
  const ClusterChecks = yield* Effect.promise(() => import("./ClusterChecks.ts"))
  return yield* Effect.forEach(
    those,
    ({ cluster = {}, name }) =>
      Effect.map(ClusterChecks.examineCluster(cluster), (checks): Section => ({
        title: `cluster of class ${name}`,
        needed: true,
        checks
      }))
  )
})

/** A cluster that is at hand: a pod's, or that of KUBECONFIG. Nobody has to have one. */
const clusterAtHand = Effect.suspend(() => {
  const env = (name: string) => (process.env[name] ?? "") !== ""
  return env("KUBECONFIG") || env("KUBERNETES_SERVICE_HOST")
    ? Effect.map(
      clusterSections([standardClass("kubernetes", "kubernetes")]),
      (sections) => sections.map((section) => ({ ...section, title: "driver kubernetes", needed: false }))
    )
    : Effect.succeed([])
})

/** Everything, in the order a person reads it. Leaves nothing behind but the state directory. */
export const examine = Effect.fn("HostChecks.examine")(function*(options: {
  readonly stateDirectory: string
  readonly amqp: Option.Option<Redacted.Redacted<string>>
}) {
  // Who has made no image has no machines in mind.
  const hasImages = existsSync(join(options.stateDirectory, "machine-images", "names"))
  const names = driverNames.filter((name) => hasImages || !machineDrivers.has(name))
  const { host, sections } = yield* drivers(options.stateDirectory, names, "oci", [])
  const found: ReadonlyArray<Section> = [
    { title: "host", needed: true, checks: [yield* node, ...host] },
    ...sections,
    ...yield* clusterAtHand,
    { title: "languages in sandboxes", needed: false, checks: yield* languages },
    ...(Option.isSome(options.amqp)
      ? [{ title: "RabbitMQ", needed: false, checks: [yield* broker(options.amqp.value)] }]
      : [])
  ]
  return found
})

/** What a worker needs that has these classes, all of it; the broker is asked if its address is given. */
export const examineFor = Effect.fn("HostChecks.examineFor")(function*(options: {
  readonly stateDirectory: string
  readonly classes: ReadonlyArray<SandboxClass>
  readonly amqp: Option.Option<Redacted.Redacted<string>>
}) {
  const local = options.classes.filter(({ driver }) => !isCluster(driver))
  // A host that makes no sandboxes may lack all that they need.
  const { host, sections } = local.length === 0
    ? { host: [], sections: [] }
    : yield* drivers(
      options.stateDirectory,
      [...new Set(local.map(({ driver }) => driver))],
      undefined,
      local
    )
  const found: ReadonlyArray<Section> = [
    { title: "host", needed: true, checks: [yield* node, ...host] },
    ...sections,
    ...yield* clusterSections(options.classes),
    ...(Option.isSome(options.amqp)
      ? [{ title: "RabbitMQ", needed: true, checks: [yield* broker(options.amqp.value)] }]
      : [])
  ]
  return found
})
