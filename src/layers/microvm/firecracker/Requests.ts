/**
 * What is said to Firecracker's API: bodies with the API's own names and ranges, and the calls of each step in their order.
 * The API refuses fields it does not know, so these have none that the least supported version lacks, unless it says so.
 */
import { Schema } from "effect"
import type { Rates } from "../../../schemas/SandboxClass.ts"
import { MAC, type MachineSpec, TAP, WIRE_PORT } from "../Vmm.ts"
import { isBefore } from "./Version.ts"

/** Where things are for a VMM in its jail. A snapshot holds these paths: a restored machine must find the same. */
export const jailPaths = {
  socket: "/run/firecracker.socket",
  metrics: "/metrics",
  kernel: "/kernel",
  initrd: "/initrd",
  root: "/root.ext4",
  scratch: "/scratch.img",
  vsock: "/run/v.sock",
  snapshotFolder: "/snapshot",
  state: "/snapshot/state",
  memory: "/snapshot/memory"
} as const

/** The API takes no more in one body, in bytes, unless it was told otherwise at its start. */
export const MOST_BODY_BYTES = 51_200

/** The most the kernel takes on x86_64, with the NUL. */
const MOST_ARGS_BYTES = 2048

const natural = (minimum: number, maximum: number, expected: string) =>
  Schema.Int.check(Schema.isBetween({ minimum, maximum }, { expected }))

const path = Schema.String.check(Schema.isPattern(/^\/[\w./-]+$/, { expected: "an absolute path in the jail" }))
const deviceId = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_]+$/, { expected: "letters, digits and '_'" }))

/** A rate is `size` tokens in `refill_time` milliseconds; at once go `size` at most. */
export const TokenBucket = Schema.Struct({
  size: natural(1, Number.MAX_SAFE_INTEGER, "tokens"),
  refill_time: natural(1, Number.MAX_SAFE_INTEGER, "milliseconds")
})
export type TokenBucket = typeof TokenBucket.Type

export const RateLimiter = Schema.Struct({
  bandwidth: Schema.optionalKey(TokenBucket),
  ops: Schema.optionalKey(TokenBucket)
})
export type RateLimiter = typeof RateLimiter.Type

/** Without `log_path`: on its standard output, which we read as far as we like. */
export const Logger = Schema.Struct({
  level: Schema.Literals(["Error", "Warning", "Info"]),
  show_level: Schema.Boolean
})

export const Metrics = Schema.Struct({ metrics_path: path })

export const MachineConfig = Schema.Struct({
  vcpu_count: natural(1, 32, "1 to 32 processors"),
  mem_size_mib: natural(1, 2 ** 32 - 1, "MiB"),
  smt: Schema.Boolean,
  track_dirty_pages: Schema.Boolean
})

export const BootSource = Schema.Struct({
  kernel_image_path: path,
  initrd_path: path,
  boot_args: Schema.String.check(Schema.isMaxLength(MOST_ARGS_BYTES - 1))
})

export const Drive = Schema.Struct({
  drive_id: deviceId,
  is_root_device: Schema.Boolean,
  is_read_only: Schema.Boolean,
  path_on_host: path,
  cache_type: Schema.Literals(["Unsafe", "Writeback"]),
  io_engine: Schema.Literals(["Sync", "Async"]),
  rate_limiter: Schema.optionalKey(RateLimiter)
})

export const NetworkInterface = Schema.Struct({
  iface_id: deviceId,
  host_dev_name: Schema.String.check(Schema.isPattern(/^[\w.-]{1,15}$/, { expected: "an interface's name" })),
  guest_mac: Schema.String.check(Schema.isPattern(/^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$/, { expected: "a MAC address" })),
  rx_rate_limiter: Schema.optionalKey(RateLimiter),
  tx_rate_limiter: Schema.optionalKey(RateLimiter)
})

export const Vsock = Schema.Struct({ guest_cid: natural(3, 2 ** 32 - 1, "a context id from 3 on"), uds_path: path })

export const Entropy = Schema.Struct({ rate_limiter: Schema.optionalKey(RateLimiter) })

/** From 1.16 on with a limit. */
export const Serial = Schema.Struct({ rate_limiter: TokenBucket })

export const Action = Schema.Struct({ action_type: Schema.Literal("InstanceStart") })

export const VmState = Schema.Struct({ state: Schema.Literals(["Paused", "Resumed"]) })

export const SnapshotCreate = Schema.Struct({
  snapshot_type: Schema.Literal("Full"),
  snapshot_path: path,
  mem_file_path: path
})

export const SnapshotLoad = Schema.Struct({
  snapshot_path: path,
  mem_backend: Schema.Struct({ backend_type: Schema.Literal("File"), backend_path: path }),
  track_dirty_pages: Schema.Boolean,
  resume_vm: Schema.Boolean
})

/** The answer to `GET /`. */
export const InstanceInfo = Schema.Struct({
  app_name: Schema.String,
  id: Schema.String,
  state: Schema.Literals(["Not started", "Running", "Paused"]),
  vmm_version: Schema.String
})
export type InstanceInfo = typeof InstanceInfo.Type

/** What every refusal says. */
export const Fault = Schema.Struct({ fault_message: Schema.String })

/** One call that is answered with nothing (204) or with why not (400). */
export interface Call {
  readonly method: "PUT" | "PATCH"
  readonly path: string
  /** JSON. */
  readonly body: string
}

/** Throws where our own value is none of the API's: an error of ours, or a class that no schema should have let through. */
const call = <A>(method: Call["method"], to: string, schema: Schema.Codec<A>, value: A): Call => ({
  method,
  path: to,
  body: JSON.stringify(Schema.encodeSync(schema)(value))
})

/** One bucket: a second's worth at once, unless the burst is named. */
const bucket = (perSec: number | undefined, burst: number | undefined): TokenBucket | undefined => {
  if (perSec === undefined) return undefined
  const size = burst ?? perSec
  return { size, refill_time: Math.max(1, Math.round(size * 1000 / perSec)) }
}

/** Nothing where nothing is limited. */
export const limiterOf = (rates: Rates | undefined): RateLimiter | undefined => {
  const bandwidth = bucket(rates?.bytesPerSec, rates?.burstBytes)
  const ops = bucket(rates?.opsPerSec, rates?.burstOps)
  if (bandwidth === undefined && ops === undefined) return undefined
  return { ...(bandwidth === undefined ? {} : { bandwidth }), ...(ops === undefined ? {} : { ops }) }
}

/**
 * For a guest's random numbers 64 KiB a second are plenty, and a guest that asks for more keeps no host thread busy. The
 * largest request that Firecracker serves must fit: 64 KiB.
 */
const entropyLimiter: RateLimiter = { bandwidth: { size: 65_536, refill_time: 1000 } }

/** The kernel is told that there is no serial port; who writes to it all the same gets 16 KiB in 10 s out of it. */
const serialLimiter: TokenBucket = { size: 16_384, refill_time: 10_000 }

/**
 * What Firecracker wants of a guest's kernel, beside what it adds itself: a reboot by the keyboard controller is its only
 * clean end. Not its default `nomodule`: an image may bring modules.
 */
const BOOT_ARGS = [
  "reboot=k",
  "panic=1",
  "8250.nr_uarts=0",
  "i8042.noaux",
  "i8042.nomux",
  "i8042.dumbkbd",
  "swiotlb=noforce"
]

/** How the worker speaks to the guest. */
export type Wire = "tcp" | "vsock"

/** Any from 3 on: each VMM has its own namespace of them, in its unix socket. */
const GUEST_CID = 3

/** The kernel's command line: where the guest listens is said for one wire alone, and to a guest that is told at all. */
export const bootArgs = (neutral: ReadonlyArray<string>, wire: Wire): string => {
  const others = neutral.filter((word) => !/^stoker\.(?:wire|vsock)=/.test(word))
  const listens = others.length === neutral.length ? [] : [`stoker.${wire === "tcp" ? "wire" : "vsock"}=${WIRE_PORT}`]
  return [...BOOT_ARGS, ...others, ...listens].join(" ")
}

const SERIAL_LIMITED_SINCE = [1, 16]

/** What is no part of a machine, and not of its snapshot either: said first, in a new process, for each. */
const surroundings = (version: ReadonlyArray<number>): ReadonlyArray<Call> => [
  call("PUT", "/logger", Logger, { level: "Warning", show_level: true }),
  call("PUT", "/metrics", Metrics, { metrics_path: jailPaths.metrics }),
  ...(isBefore(version, SERIAL_LIMITED_SINCE) ? [] : [call("PUT", "/serial", Serial, { rate_limiter: serialLimiter })])
]

export type BootSpec = Pick<MachineSpec, "vcpus" | "memoryMib" | "bootArgs" | "diskRates" | "networkRates">

/** The calls that boot a machine whose files are in the jail. Throws where the spec is outside of the API's ranges. */
export const boot = (spec: BootSpec, wire: Wire, version: ReadonlyArray<number>): ReadonlyArray<Call> => {
  const disk = limiterOf(spec.diskRates)
  const network = limiterOf(spec.networkRates)
  const diskLimiter = disk === undefined ? {} : { rate_limiter: disk }
  return [
    ...surroundings(version),
    call("PUT", "/machine-config", MachineConfig, {
      vcpu_count: spec.vcpus,
      mem_size_mib: spec.memoryMib,
      smt: false,
      track_dirty_pages: false
    }),
    call("PUT", "/boot-source", BootSource, {
      kernel_image_path: jailPaths.kernel,
      initrd_path: jailPaths.initrd,
      boot_args: bootArgs(spec.bootArgs, wire)
    }),
    call("PUT", "/drives/rootfs", Drive, {
      drive_id: "rootfs",
      is_root_device: true,
      is_read_only: true,
      path_on_host: jailPaths.root,
      cache_type: "Unsafe",
      io_engine: "Sync",
      ...diskLimiter
    }),
    call("PUT", "/drives/scratch", Drive, {
      drive_id: "scratch",
      is_root_device: false,
      is_read_only: false,
      path_on_host: jailPaths.scratch,
      cache_type: "Unsafe",
      io_engine: "Sync",
      ...diskLimiter
    }),
    call("PUT", "/network-interfaces/eth0", NetworkInterface, {
      iface_id: "eth0",
      host_dev_name: TAP,
      guest_mac: MAC,
      ...(network === undefined ? {} : { rx_rate_limiter: network, tx_rate_limiter: network })
    }),
    ...(wire === "vsock" ? [call("PUT", "/vsock", Vsock, { guest_cid: GUEST_CID, uds_path: jailPaths.vsock })] : []),
    call("PUT", "/entropy", Entropy, { rate_limiter: entropyLimiter }),
    call("PUT", "/actions", Action, { action_type: "InstanceStart" })
  ]
}

/**
 * The calls that restore one. Tap and sockets have the names they had, each in a namespace or jail of its own, so nothing is
 * overridden. The guest's clock is set by its host with all else that must differ: not every host can do it here.
 */
export const restore = (version: ReadonlyArray<number>): ReadonlyArray<Call> => [
  ...surroundings(version),
  call("PUT", "/snapshot/load", SnapshotLoad, {
    snapshot_path: jailPaths.state,
    mem_backend: { backend_type: "File", backend_path: jailPaths.memory },
    track_dirty_pages: false,
    resume_vm: true
  })
]

/** The calls that write a running machine down. */
export const save: ReadonlyArray<Call> = [
  call("PATCH", "/vm", VmState, { state: "Paused" }),
  call("PUT", "/snapshot/create", SnapshotCreate, {
    snapshot_type: "Full",
    snapshot_path: jailPaths.state,
    mem_file_path: jailPaths.memory
  })
]
