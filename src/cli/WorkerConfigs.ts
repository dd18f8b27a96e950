/** Worker configurations as the command line makes them: one class for each driver, called like it. */
import { Effect, Option } from "effect"
import type { Limits, LimitsRequest } from "../schemas/Limits.ts"
import { standardPool } from "../schemas/PoolConfig.ts"
import type { SandboxClass } from "../schemas/SandboxClass.ts"
import { standardClass, standardConfig, type WorkerConfig } from "../schemas/WorkerConfig.ts"
import { usageFailure } from "./CliFailure.ts"

/** The drivers of this version. */
export const driverNames = ["oci", "process"] as const
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
  const higher = numbers.map(([name, value]) => [name, Math.max(Number(ceiling[name as keyof Limits]), Number(value))])
  return { ...ceiling, ...Object.fromEntries(higher) }
}

/** For one job of the machine's own user, who may have all that was asked for. */
export const configForOne = (driver: DriverChoice, limits: LimitsRequest): WorkerConfig => {
  const usual = standardClass(driver, driver)
  const own: SandboxClass = { ...usual, ceiling: raised(usual.ceiling, limits) }
  return { ...standardConfig, slots: 1, waiting: 0, classes: [own], defaultClass: own.name }
}

/** Idle sandboxes cost a megabyte or two; their replacements wait a moment, so that the job that took one begins first. */
const warmClass = (sandboxClass: SandboxClass, warm: number): SandboxClass =>
  warm === 0
    ? sandboxClass
    : { ...sandboxClass, pool: { ...standardPool, minimum: warm, maximum: 2 * warm, refillPauseMs: 5 } }

/** For a worker: classes for these drivers, the first is the default unless another is named. */
export const configForWorker = Effect.fnUntraced(function*(options: {
  readonly drivers: readonly [DriverChoice, ...ReadonlyArray<DriverChoice>]
  readonly defaultClass: Option.Option<string>
  readonly slots: Option.Option<number>
  readonly warm: Option.Option<number>
}) {
  const [first, ...others] = options.drivers
  const slots = Option.getOrElse(options.slots, () => standardConfig.slots)
  const warm = Option.getOrElse(options.warm, () => slots)
  const classOf = (driver: DriverChoice) => warmClass(standardClass(driver, driver), warm)
  const classes = [classOf(first), ...others.map(classOf)] as const
  const wanted = Option.getOrElse(options.defaultClass, () => first)
  const defaultClass = classes.find(({ name }) => name === wanted)
  if (defaultClass === undefined) {
    return yield* usageFailure(
      `--class ${wanted} is not a class of this worker`,
      `It has: ${classes.map(({ name }) => name).join(", ")}; add a driver with --driver ${wanted}.`
    )
  }
  const config: WorkerConfig = {
    ...standardConfig,
    classes,
    defaultClass: defaultClass.name,
    slots,
    // More than the broker hands out at once, so that no level is held up behind another.
    waiting: Math.max(standardConfig.waiting, 8 * slots)
  }
  return config
})
