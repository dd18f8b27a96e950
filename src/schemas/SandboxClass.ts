/** A configured kind of sandbox: driver, size and network, with its own pool later. */
import { Schema } from "effect"
import { ClassName } from "./Ids.ts"
import { Limits } from "./Limits.ts"

export const DriverName = Schema.Literals(["process", "oci", "firecracker", "qemu"])
export type DriverName = typeof DriverName.Type

export const SandboxClass = Schema.Struct({
  name: ClassName,
  driver: DriverName,
  /** Above these nothing goes; compile phases get them whole. */
  ceiling: Limits,
  /** What a run phase gets unless the job lowers or raises it within the ceiling. */
  defaults: Limits,
  /** `none`: not even a loopback that reaches the host. More policies come with their drivers. */
  network: Schema.Literals(["none", "host"])
})
export type SandboxClass = typeof SandboxClass.Type
