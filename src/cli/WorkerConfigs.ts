/** Worker configurations as the command line makes them: one class for each driver, called like it. */
import { Effect, Option } from "effect"
import type { DaemonConfig } from "../schemas/DaemonConfig.ts"
import { mostWarm, usualPool, workerConfigOf } from "../schemas/DaemonWorker.ts"
import { ClassName } from "../schemas/Ids.ts"
import type { Limits, LimitsRequest } from "../schemas/Limits.ts"
import type { SandboxClass } from "../schemas/SandboxClass.ts"
import { standardClass, standardConfig, type WorkerConfig } from "../schemas/WorkerConfig.ts"
import { usageFailure } from "./CliFailure.ts"

/** The drivers of this version. */
export const driverNames = ["oci", "process", "firecracker", "qemu"] as const
export type DriverChoice = (typeof driverNames)[number]

/** For people who run what they do not trust. */
export const noIsolation =
  "stoker: warning: driver process isolates nothing: the program sees this host's files, network and processes"

const asDriver = Effect.fnUntraced(function*(name: string) {
  const found = driverNames.find((known) => known === name)
  return found ?? (yield* usageFailure(`there is no sandbox class ${name}`, `Use one of: ${driverNames.join(", ")}.`))
})

/** The driver that `--driver` and `--class` name; they may not contradict each other. */
export const driverOf = Effect.fnUntraced(function*(
  driver: Option.Option<DriverChoice>,
  className: Option.Option<string>
) {
  const ofClass = Option.isSome(className) ? yield* asDriver(className.value) : undefined
  const ofDriver = Option.getOrUndefined(driver)
  if (ofClass !== undefined && ofDriver !== undefined && ofClass !== ofDriver) {
    return yield* usageFailure(
      `--class ${ofClass} has the driver ${ofClass}, but --driver says ${ofDriver}`,
      "Give only one of the two."
    )
  }
  return ofClass ?? ofDriver ?? "oci"
})

const raised = (ceiling: Limits, asked: LimitsRequest): Limits => {
  const numbers = Object.entries(asked).filter(([, value]) => typeof value === "number")
  const higher = numbers.map((
    [name, value]
  ) => [name, Math.max(Number(ceiling[name as keyof Limits] ?? 0), Number(value))])
  return { ...ceiling, ...Object.fromEntries(higher) }
}

/** For one job of the machine's own user, who may have all that was asked for, and bring the image that it names. */
export const configForOne = (driver: DriverChoice, limits: LimitsRequest, image?: string): WorkerConfig => {
  const usual = standardClass(driver, driver)
  const own: SandboxClass = {
    ...usual,
    ceiling: raised(usual.ceiling, limits),
    ...(image === undefined ? {} : { images: { allow: [image] } })
  }
  return { ...standardConfig, slots: 1, waiting: 0, classes: [own], defaultClass: own.name }
}

/** What of a worker's set-up stands on the command line. It is stronger than the file. */
export interface WorkerFlags {
  /** Classes for these drivers, called like them, in place of the file's; the first is the default. */
  readonly drivers: ReadonlyArray<DriverChoice>
  readonly defaultClass: Option.Option<string>
  readonly slots: Option.Option<number>
  readonly warm: Option.Option<number>
  /** Milliseconds. */
  readonly drain: Option.Option<number>
  readonly ownLongJobs: boolean
}

const withWarm = ({ pool, ...rest }: SandboxClass, warm: number): SandboxClass =>
  warm === 0 ? rest : { ...rest, pool: { ...(pool ?? usualPool(warm)), minimum: warm, maximum: mostWarm(warm) } }

/** For a worker: what the file says, and over it the flags. */
export const configForWorker = Effect.fnUntraced(function*(flags: WorkerFlags, file: DaemonConfig = {}) {
  const [first, ...others] = flags.drivers
  const { defaultClass: _, ...rest } = file
  const fileClass = (driver: DriverChoice) => ({ name: ClassName.make(driver), driver })
  const named = first === undefined ? file : { ...rest, classes: [fileClass(first), ...others.map(fileClass)] as const }
  const usual = workerConfigOf(Option.isSome(flags.slots) ? { ...named, slots: flags.slots.value } : named)
  const wanted = Option.getOrElse(flags.defaultClass, () => usual.defaultClass)
  const defaultClass = usual.classes.find(({ name }) => name === wanted)
  if (defaultClass === undefined) {
    return yield* usageFailure(
      `--class ${wanted} is not a class of this worker`,
      `It has: ${usual.classes.map(({ name }) => name).join(", ")}; add a driver with --driver ${wanted}.`
    )
  }
  const warm = Option.getOrUndefined(flags.warm)
  const [head, ...tail] = usual.classes
  const config: WorkerConfig = {
    ...usual,
    ...(warm === undefined ? {} : { classes: [withWarm(head, warm), ...tail.map((other) => withWarm(other, warm))] }),
    ...(Option.isSome(flags.drain) ? { drainMs: flags.drain.value } : {}),
    ownLongJobs: flags.ownLongJobs || usual.ownLongJobs,
    defaultClass: defaultClass.name
  }
  return config
})
