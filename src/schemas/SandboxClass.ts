/** A configured kind of sandbox: driver, size, network, and how many are kept warm. */
import { Schema } from "effect"
import { ClassName } from "./Ids.ts"
import { ImagePolicy } from "./ImagePolicy.ts"
import { isAddress, parseNetwork } from "./IpNetwork.ts"
import { Limits } from "./Limits.ts"
import { PoolConfig } from "./PoolConfig.ts"
import { SecretPolicy } from "./SecretPolicy.ts"

/**
 * What makes a class's sandboxes: `oci`, `process`, `firecracker` or `qemu`, which every worker has, or a driver that was added.
 * Lower-case letters, digits and '-', beginning with a letter.
 */
export const DriverName = Schema.String.check(
  Schema.isPattern(/^[a-z][a-z0-9-]{0,31}$/, { expected: "a driver: lower-case letters, digits and '-'" })
)
export type DriverName = typeof DriverName.Type

/** Its jobs run elsewhere: no sandbox is made for them here, and nothing of this host is held. */
export const isCluster = (driver: DriverName): boolean => driver === "kubernetes"

/** `10.1.2.0/24`, `10.1.2.3:5432/tcp`, `[fd00::1]:53/udp`: an address or network, all ports or one. No names. */
export const Destination = Schema.String.check(
  Schema.makeFilter((text: string) => {
    const match = /^(?:\[([^\]]+)\]|([^/[\]]+?))(?:\/(\d{1,3}))?(?::(\d{1,5})\/(tcp|udp))?$/.exec(text)
    const address = match?.[1] ?? match?.[2] ?? ""
    return isAddress(address) && Number(match?.[3] ?? 0) <= (address.includes(":") ? 128 : 32) &&
      Number(match?.[4] ?? 1) >= 1 && Number(match?.[4] ?? 1) <= 65_535
  }, { expected: "an address or network with an optional port, such as 10.1.2.0/24 or 10.1.2.3:5432/tcp" })
)
export type Destination = typeof Destination.Type

/**
 * What a sandbox reaches. `none`: not even a loopback that reaches the host. `internet`: the world without private ranges,
 * the host and its metadata addresses. `{ allow }`: those destinations and nothing else. `host`: the host's own network,
 * for drivers that isolate nothing.
 */
export const NetworkPolicy = Schema.Union([
  Schema.Literals(["none", "host", "internet"]),
  Schema.Struct({ allow: Schema.NonEmptyArray(Destination) })
])
export type NetworkPolicy = typeof NetworkPolicy.Type

/** Where the addresses and names of a class with a network come from. */
export const NetworkSetup = Schema.Struct({
  /** The name of a CNI network in the host's CNI directories. Absent: Stoker's own. */
  cni: Schema.optionalKey(
    Schema.String.check(
      Schema.isPattern(/^[A-Za-z0-9][A-Za-z0-9_.-]*$/, { expected: "a CNI network's name" })
    )
  ),
  /** Of Stoker's own network: one that nothing else on this host uses. One address for each sandbox, and three more. */
  subnet: Schema.optionalKey(Schema.String.check(
    Schema.makeFilter((text: string) => {
      const found = parseNetwork(text)
      return found !== undefined && found.family === 4 && found.prefix >= 8 && found.prefix <= 30
    }, { expected: "an IPv4 network from /8 to /30, such as 198.19.0.0/16" })
  )),
  /** Reached on port 53, wherever they are. Absent: for `internet` the host's, for `{ allow }` none. */
  nameservers: Schema.optionalKey(
    Schema.Array(Schema.String.check(
      Schema.makeFilter((text: string) => isAddress(text), { expected: "an address" })
    )).check(Schema.isMaxLength(3))
  )
}).check(
  Schema.makeFilter(({ cni, subnet }) => cni === undefined || subnet === undefined, {
    expected: "cni or subnet: a CNI network has its own addresses"
  })
)
export type NetworkSetup = typeof NetworkSetup.Type

const absolute = Schema.String.check(
  Schema.makeFilter((path: string) => path.startsWith("/") && !path.includes("\u0000"), {
    expected: "an absolute path"
  }),
  Schema.isMaxLength(4095)
)

/**
 * The root file system of a class's sandboxes, read-only: a directory that holds one, or an OCI image. An image is a
 * reference as container tools have them (`debian:12`, `registry.example/team/tool@sha256:…`), or an archive of this host
 * (`oci-archive:/path.tar`, `docker-archive:/path.tar`, `oci:/layout:tag`).
 */
export const Root = Schema.Union([
  Schema.Struct({ directory: absolute }),
  Schema.Struct({
    image: Schema.String.check(
      Schema.isPattern(/^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,511}$/, { expected: "an image's reference, or archive:path" })
    )
  })
])
export type Root = typeof Root.Type

/** Cores by their numbers, as the kernel writes them: `0-3,8`. */
export const CpuSet = Schema.String.check(
  Schema.isPattern(/^\d{1,4}(?:-\d{1,4})?(?:,\d{1,4}(?:-\d{1,4})?)*$/, { expected: "numbers of cores, such as 0-3,8" })
)

const rate = (what: string) =>
  Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2 ** 50 }, { expected: `${what}, 1 or more` }))

/** What a machine may send through one device; absent is without limit. A burst is what may go at once after a rest. */
export const Rates = Schema.Struct({
  bytesPerSec: Schema.optionalKey(rate("bytes in a second")),
  burstBytes: Schema.optionalKey(rate("bytes")),
  opsPerSec: Schema.optionalKey(rate("operations in a second")),
  burstOps: Schema.optionalKey(rate("operations"))
})
export type Rates = typeof Rates.Type

/** Of `firecracker` and `qemu`: the machines that are its sandboxes. */
export const MachineSetup = Schema.Struct({
  /** A name that `stoker image list` shows, or the absolute path of an image's folder. Absent: `default`. */
  image: Schema.optionalKey(Schema.String.check(
    Schema.isPattern(/^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63}|\/[\x20-\x7e]{1,4000})$/, {
      expected: "an image's name or folder"
    })
  )),
  /** Absent: the ceiling's cores, rounded up. */
  vcpus: Schema.optionalKey(Schema.Int.check(
    Schema.isBetween({ minimum: 1, maximum: 32 }, { expected: "1 to 32 processors" })
  )),
  /** `tcg` is emulation, ten times slower and no boundary against hostile code: only where it is asked for. `qemu`. Absent: `kvm`. */
  accelerator: Schema.optionalKey(Schema.Literals(["kvm", "tcg"])),
  /** Fill the pool with restored copies of one machine instead of booting each. Absent: true. */
  snapshot: Schema.optionalKey(Schema.Boolean),
  /** How the worker speaks to the guest. `vsock`: `firecracker` only. Absent: `tcp`. */
  wire: Schema.optionalKey(Schema.Literals(["tcp", "vsock"])),
  /** `codebench`: the image has an agent of the old worker's, which takes source code and nothing else. Absent: `stoker`. */
  agent: Schema.optionalKey(Schema.Literals(["stoker", "codebench"])),
  /** `codebench` is what the old worker set: 2 MiB and 100 operations in a second. `firecracker`; `qemu` for disks. */
  diskRates: Schema.optionalKey(Schema.Union([Rates, Schema.Literal("codebench")])),
  networkRates: Schema.optionalKey(Rates)
})
export type MachineSetup = typeof MachineSetup.Type

/** Of `kubernetes`: the cluster that runs its jobs. */
export const ClusterSetup = Schema.Struct({
  /** Absent: the worker's own, or the kubeconfig context's. */
  namespace: Schema.optionalKey(Schema.String.check(Schema.isPattern(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/))),
  /** A kubeconfig file. Absent: the pod's own account, else KUBECONFIG, else the user's. */
  kubeconfig: Schema.optionalKey(absolute),
  context: Schema.optionalKey(Schema.String),
  /** The pods' account. Absent: the namespace's default, without its token. */
  serviceAccount: Schema.optionalKey(Schema.String),
  /** A secret whose keys all jobs with buckets see as variables: the store's endpoint and credentials. */
  storeSecret: Schema.optionalKey(Schema.String),
  /** Secrets of the namespace that jobs may name. Absent: none but `storeSecret`. */
  secrets: Schema.optionalKey(SecretPolicy),
  /** A pod that no node takes in this time is given up, in milliseconds. Absent: 5 minutes. */
  unschedulableMs: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThan(0))),
  /** Pods run as this user. Absent: 65532, which owns nothing. 0 is refused. */
  runAsUser: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2 ** 31 - 1 })))
})
export type ClusterSetup = typeof ClusterSetup.Type

/** One kind of sandbox, by the name jobs ask for. */
export const SandboxClass = Schema.Struct({
  name: ClassName,
  driver: DriverName,
  /** Above these nothing goes; compile phases get them whole. */
  ceiling: Limits,
  /** What a run phase gets unless the job lowers or raises it within the ceiling. */
  defaults: Limits,
  network: NetworkPolicy,
  /** `oci` with a network: where it comes from. */
  networkSetup: Schema.optionalKey(NetworkSetup),
  /**
   * `oci`: its runtime. `runsc` is gVisor: a kernel of its own for each sandbox, slower to start, without network; the number
   * of files in the workspace is not limited but by memory, and a fork bomb ends the sandbox. Absent: crun.
   */
  runtime: Schema.optionalKey(Schema.Literals(["crun", "runsc"])),
  /** `oci`: absent: the host's /usr with a few generated files. */
  root: Schema.optionalKey(Root),
  /** `firecracker`, `qemu`: their machines. Absent: all defaults. */
  machine: Schema.optionalKey(MachineSetup),
  /** `kubernetes`: its cluster. Absent: all defaults. */
  cluster: Schema.optionalKey(ClusterSetup),
  /** Which images the jobs of `container` may bring to this class. Absent: none to `oci`, any to `kubernetes`. */
  images: Schema.optionalKey(ImagePolicy),
  /** The cores its jobs may run on. Absent: all of the worker's. */
  cpuset: Schema.optionalKey(CpuSet),
  /** Block devices the limits of I/O are for, by their nodes (`/dev/vda`). Absent: every disk of the host. */
  ioDevices: Schema.optionalKey(Schema.NonEmptyArray(absolute)),
  /**
   * Its sandboxes start a function host when they are made, so that a pool's wait with one for a call. Other jobs run in
   * them as well, and calls in other classes: both begin later.
   */
  functions: Schema.optionalKey(Schema.Boolean),
  /** Absent: every sandbox is made when it is asked for. */
  pool: Schema.optionalKey(PoolConfig)
})
export type SandboxClass = typeof SandboxClass.Type
