/** A configured kind of sandbox: driver, size, network, and how many are kept warm. */
import { Schema } from "effect"
import { ClassName } from "./Ids.ts"
import { Limits } from "./Limits.ts"
import { PoolConfig } from "./PoolConfig.ts"

/**
 * What makes a class's sandboxes: `oci` or `process`, which every worker has, or the name of a driver that was added.
 * Lower-case letters, digits and '-', beginning with a letter.
 */
export const DriverName = Schema.String.check(
  Schema.isPattern(/^[a-z][a-z0-9-]{0,31}$/, { expected: "a driver: lower-case letters, digits and '-'" })
)
export type DriverName = typeof DriverName.Type

/** One kind of sandbox, by the name jobs ask for. */
export const SandboxClass = Schema.Struct({
  name: ClassName,
  driver: DriverName,
  /** Above these nothing goes; compile phases get them whole. */
  ceiling: Limits,
  /** What a run phase gets unless the job lowers or raises it within the ceiling. */
  defaults: Limits,
  /** `none`: not even a loopback that reaches the host. More policies come with their drivers. */
  network: Schema.Literals(["none", "host"]),
  /** Absent: every sandbox is made when it is asked for. */
  pool: Schema.optionalKey(PoolConfig)
})
export type SandboxClass = typeof SandboxClass.Type
