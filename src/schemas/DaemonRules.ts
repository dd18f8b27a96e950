/** What fields of a configuration file have to do with each other. */
import type { DaemonConfig, FileClass, FileLimits } from "./DaemonConfig.ts"
import { budgetOf, classOf, fileClassOf, machineDrivers, poolOf, usualClasses } from "./DaemonWorker.ts"
import { isCluster } from "./SandboxClass.ts"
import { writeBytes, writeDuration } from "./Units.ts"
import { standardConfig } from "./WorkerConfig.ts"

/** Something wrong with a configuration: where, what is there, and what is wrong with it. */
export interface ConfigFault {
  /** `classes[0].pool.minimum`; empty: the file as a whole. */
  readonly path: string
  /** As it stands in the file. Absent: nothing stands there, or it may be a secret. */
  readonly value?: string
  readonly problem: string
}

type Field = keyof DaemonConfig

/** A rule is left out while one of the fields it needs is wrong by itself. */
interface Rule {
  readonly needs: ReadonlyArray<Field>
  readonly faults: (config: DaemonConfig) => ReadonlyArray<ConfigFault>
}

/** The drivers of this version. */
const drivers: ReadonlySet<string> = new Set(["oci", "process", ...machineDrivers, "kubernetes"])

const fault = (path: string, value: unknown, expected: string): ConfigFault => ({
  path,
  value: JSON.stringify(value),
  problem: `expected ${expected}`
})

const slotsOf = ({ slots = standardConfig.slots }: DaemonConfig) => slots
const classesOf = ({ classes = usualClasses }: DaemonConfig): ReadonlyArray<FileClass> => classes

const eachClass = (config: DaemonConfig, look: (file: FileClass, path: string) => ReadonlyArray<ConfigFault>) =>
  classesOf(config).flatMap((file, index) => look(file, `classes[${index}]`))

const numbers = ["pids", "cpus", "inodes", "openFiles"] as const
const sizes = ["memory", "fileSize", "disk", "output"] as const
const times = ["wall", "cpuTime"] as const

/** What a job gets without asking may not be more than it may ask for. */
const limitFaults = (file: FileClass, slots: number, path: string): ReadonlyArray<ConfigFault> => {
  const { ceiling = {}, defaults = {} } = fileClassOf(classOf(file, slots))
  const above = <N extends keyof FileLimits>(names: ReadonlyArray<N>, write: (value: number) => unknown) =>
    names.flatMap((name) => {
      const [value, most] = [Number(defaults[name]), Number(ceiling[name])]
      return value > most
        ? [fault(`${path}.defaults.${name}`, write(value), `at most the class's ceiling.${name}, ${write(most)}`)]
        : []
    })
  return [...above(numbers, Number), ...above(sizes, writeBytes), ...above(times, writeDuration)]
}

/** Fields of a class that mean nothing to its driver. */
const misplaced = (driver: string) => {
  const ofOci = [
    { name: "runtime", whose: "oci" },
    { name: "root", whose: "oci" },
    { name: "images", whose: "oci or kubernetes" }
  ] as const
  const ofMachines = { name: "machine", whose: "firecracker or qemu" } as const
  const withoutFunctions = { name: "functions", whose: "oci or process" } as const
  const withoutNetwork = { name: "networkSetup", whose: "oci, firecracker or qemu" } as const
  const ofClusters = { name: "cluster", whose: "kubernetes" } as const
  if (machineDrivers.has(driver)) return [...ofOci, withoutFunctions, ofClusters]
  if (driver === "kubernetes") {
    return [
      ...ofOci.filter(({ name }) => name !== "images"),
      withoutFunctions,
      withoutNetwork,
      ofMachines,
      { name: "pool", whose: "oci, process, firecracker or qemu" } as const,
      { name: "cpuset", whose: "oci, process, firecracker or qemu" } as const,
      { name: "ioDevices", whose: "oci, process, firecracker or qemu" } as const
    ]
  }
  return driver === "process"
    ? [withoutNetwork, ...ofOci, ofMachines, ofClusters]
    : driver === "oci"
    ? [ofMachines, ofClusters]
    : []
}

/** What of a machine one VMM has and the other has not. */
const machineFaults = ({ driver, machine = {}, network }: FileClass, path: string): ReadonlyArray<ConfigFault> => {
  const { accelerator, agent, networkRates, wire } = machine
  return [
    ...(network === "host"
      ? [fault(`${path}.network`, network, "none, internet or {allow}: a machine never shares the host's network")]
      : []),
    ...(driver === "firecracker" && accelerator === "tcg"
      ? [fault(`${path}.machine.accelerator`, accelerator, "kvm: emulation is driver qemu's")]
      : []),
    ...(driver === "qemu" && wire === "vsock"
      ? [fault(`${path}.machine.wire`, wire, "tcp: vsock is driver firecracker's")]
      : []),
    ...(agent === "codebench" && wire === "vsock"
      ? [fault(`${path}.machine.wire`, wire, "tcp: a CodeBench agent listens nowhere else")]
      : []),
    ...(driver === "qemu" && networkRates !== undefined
      ? [fault(`${path}.machine.networkRates`, networkRates, "nothing: rates of the network are driver firecracker's")]
      : [])
  ]
}

const rules: ReadonlyArray<Rule> = [
  {
    needs: ["api"],
    faults: ({ api }) => {
      if (api === undefined) return []
      const missing = (["ca", "cert", "key"] as const).filter((name) => api[name] === undefined)
      return [
        ...missing.map((name): ConfigFault => ({
          path: `api.${name}`,
          problem: "expected a PEM file: callers are known by their certificates; `stoker certs` makes them"
        })),
        ...(api.grpc === undefined && api.http === undefined
          ? [{ path: "api", problem: "expected grpc, http or both: without them nothing is served" }]
          : []),
        ...(api.http === undefined && api.tokens !== undefined
          ? [fault("api.tokens", api.tokens, "nothing without api.http: tokens are for the HTTP API")]
          : []),
        ...(api.grpc !== undefined && api.grpc === api.http && !api.grpc.endsWith(":0")
          ? [fault("api.http", api.http, "another port than api.grpc's")]
          : [])
      ]
    }
  },
  {
    needs: ["objectStore"],
    faults: ({ objectStore }) =>
      objectStore === undefined ?
        [] :
        (["accessKey", "secretKey"] as const).flatMap((name) =>
          (objectStore[`${name}File`] === undefined) === (objectStore[`${name}Env`] === undefined)
            ? [{ path: "objectStore", problem: `expected exactly one of ${name}File and ${name}Env` }]
            : []
        )
  },
  {
    needs: ["slots", "ownerSlots"],
    faults: (config) =>
      config.ownerSlots !== undefined && config.ownerSlots > slotsOf(config)
        ? [fault("ownerSlots", config.ownerSlots, `at most slots, ${slotsOf(config)}`)]
        : []
  },
  {
    needs: ["retention"],
    faults: ({ retention = {} }) => {
      const { dedupe = standardConfig.retention.dedupeMs, jobs = standardConfig.retention.jobsMs } = retention
      return jobs < dedupe
        ? [fault("retention.jobs", writeDuration(jobs), `at least retention.dedupe, ${writeDuration(dedupe)}`)]
        : []
    }
  },
  {
    needs: ["classes", "defaultClass"],
    faults: (config) => {
      const names = classesOf(config).map(({ name }) => name)
      return config.defaultClass === undefined || names.includes(config.defaultClass)
        ? []
        : [fault("defaultClass", config.defaultClass, `the name of a class: ${names.join(", ")}`)]
    }
  },
  {
    needs: ["classes", "mstc"],
    faults: (config) => {
      const { mstc } = config
      const classes = classesOf(config)
      const found = classes.find(({ name }) => name === mstc?.class)
      if (mstc === undefined) return []
      if (found === undefined) {
        return [fault("mstc.class", mstc.class, `the name of a class: ${classes.map(({ name }) => name).join(", ")}`)]
      }
      return found.driver === "kubernetes" || found.driver === "oci" && found.images !== undefined
        ? []
        : [fault("mstc.class", mstc.class, "a class of driver kubernetes, or of oci with images")]
    }
  },
  {
    needs: ["classes", "cron"],
    faults: (config) => {
      const names = classesOf(config).map(({ name }) => name)
      return (config.cron ?? []).flatMap((schedule, index) =>
        schedule.class === undefined || names.includes(schedule.class)
          ? []
          : [fault(`cron[${index}].class`, schedule.class, `the name of a class: ${names.join(", ")}`)]
      )
    }
  },
  {
    needs: ["classes"],
    faults: (config) => {
      const names = classesOf(config).map(({ name }) => name)
      return eachClass(config, (file, path) => {
        const { driver, name, network } = file
        return [
          ...(drivers.has(driver)
            ? []
            : [fault(`${path}.driver`, driver, `a driver of this version: ${[...drivers].join(", ")}`)]),
          ...(names.filter((other) => other === name).length > 1
            ? [fault(`${path}.name`, name, "a name that no other class has")]
            : []),
          ...(driver === "process" && network !== undefined && network !== "host"
            ? [fault(`${path}.network`, network, "host: driver process isolates nothing")]
            : []),
          ...(driver === "kubernetes" && network !== undefined && network !== "host"
            ? [fault(`${path}.network`, network, "nothing: what pods reach is the cluster's affair (NetworkPolicy)")]
            : []),
          ...(driver === "oci" && network === "host"
            ? [
              fault(`${path}.network`, network, "none, internet or {allow}: driver oci never shares the host's network")
            ]
            : []),
          ...(file.runtime === "runsc" && network !== undefined && network !== "none"
            ? [fault(`${path}.network`, network, "none: runsc has a network stack of its own")]
            : []),
          ...(machineDrivers.has(driver) ? machineFaults(file, path) : []),
          ...misplaced(driver).flatMap(({ name, whose }) =>
            file[name] === undefined ? [] : [fault(`${path}.${name}`, file[name], `nothing: it is for driver ${whose}`)]
          )
        ]
      })
    }
  },
  {
    needs: ["classes", "slots"],
    faults: (config) =>
      eachClass(config, (file, path) => {
        const { backoffMaxMs, backoffMs, maximum, minimum } = poolOf(file, slotsOf(config))
        return [
          ...limitFaults(file, slotsOf(config), path),
          ...(minimum > maximum
            ? [fault(`${path}.pool.minimum`, minimum, `at most the pool's maximum, ${maximum}`)]
            : []),
          ...(backoffMs > backoffMaxMs
            ? [
              fault(
                `${path}.pool.backoff`,
                writeDuration(backoffMs),
                `at most the pool's backoffMax, ${writeDuration(backoffMaxMs)}`
              )
            ]
            : [])
        ]
      })
  },
  {
    needs: ["classes", "slots", "budget"],
    faults: (config) =>
      eachClass(config, (file, path) => {
        if (isCluster(file.driver)) return []
        const { ceiling, pool } = classOf(file, slotsOf(config))
        const { cpus, memoryBytes } = pool?.charge ?? ceiling
        const budget = budgetOf(config)
        const where = file.pool?.charge === undefined ? `${path}.ceiling` : `${path}.pool.charge`
        return [
          ...(memoryBytes > (budget.memoryBytes ?? Number.POSITIVE_INFINITY)
            ? [
              fault(
                `${where}.memory`,
                writeBytes(memoryBytes),
                `at most budget.memory, ${writeBytes(budget.memoryBytes ?? 0)}`
              )
            ]
            : []),
          ...(cpus > (budget.cpus ?? Number.POSITIVE_INFINITY)
            ? [fault(`${where}.cpus`, cpus, `at most budget.cpus, ${budget.cpus}`)]
            : [])
        ]
      })
  }
]

/** Everything wrong between fields; `wrong` are those that are wrong by themselves. */
export const crossFaults = (config: DaemonConfig, wrong: ReadonlySet<string>): ReadonlyArray<ConfigFault> =>
  rules.filter(({ needs }) => needs.every((name) => !wrong.has(name))).flatMap(({ faults }) => faults(config))
