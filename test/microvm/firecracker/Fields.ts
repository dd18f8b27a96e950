/**
 * What Firecracker's API takes, written down from its schema of 1.16.1 and its source: which fields a body has, which of
 * them it must have, what they hold. The stand-in refuses what is not here, as Firecracker does.
 */

/** What a field holds. */
export type Kind =
  | { readonly is: "string" | "boolean" }
  | { readonly is: "integer"; readonly minimum: number; readonly maximum: number }
  | { readonly is: "one of"; readonly values: ReadonlyArray<string> }
  | { readonly is: "object"; readonly of: Body }
  | { readonly is: "list"; readonly of: Body }

export interface Field {
  readonly kind: Kind
  readonly required?: true
  /** The first version with it. */
  readonly since?: ReadonlyArray<number>
}

export type Body = Readonly<Record<string, Field>>

const string: Kind = { is: "string" }
const boolean: Kind = { is: "boolean" }
const integer = (minimum: number, maximum: number): Kind => ({ is: "integer", minimum, maximum })
const u64 = integer(0, Number.MAX_SAFE_INTEGER)
const oneOf = (...values: ReadonlyArray<string>): Kind => ({ is: "one of", values })

const tokenBucket: Body = {
  size: { kind: u64, required: true },
  refill_time: { kind: u64, required: true },
  one_time_burst: { kind: u64 }
}

const rateLimiter: Kind = {
  is: "object",
  of: { bandwidth: { kind: { is: "object", of: tokenBucket } }, ops: { kind: { is: "object", of: tokenBucket } } }
}

const machineConfig: Body = {
  vcpu_count: { kind: integer(1, 32), required: true },
  mem_size_mib: { kind: integer(1, 2 ** 43), required: true },
  smt: { kind: boolean },
  track_dirty_pages: { kind: boolean },
  huge_pages: { kind: oneOf("None", "2M") },
  cpu_template: { kind: oneOf("C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None") }
}

/** When a call is allowed. `fresh`: before anything of a machine was configured. */
export type Phase = "before" | "after" | "paused" | "fresh"

export interface Endpoint {
  readonly body: Body
  readonly phase: Phase
  /** It configures a machine: a snapshot cannot be loaded any more. */
  readonly configures?: true
  readonly since?: ReadonlyArray<number>
}

/** By method and path; `*` is an id that the body must repeat in its field `id`. */
export const endpoints: Readonly<Record<string, Endpoint & { readonly id?: string }>> = {
  "PUT /logger": {
    phase: "before",
    body: {
      log_path: { kind: string },
      level: { kind: oneOf("Error", "Warning", "Info", "Debug", "Trace", "Off") },
      show_level: { kind: boolean },
      show_log_origin: { kind: boolean },
      module: { kind: string }
    }
  },
  "PUT /metrics": { phase: "before", body: { metrics_path: { kind: string, required: true } } },
  "PUT /serial": {
    phase: "before",
    since: [1, 14],
    body: {
      serial_out_path: { kind: string },
      rate_limiter: { kind: { is: "object", of: tokenBucket }, since: [1, 16] }
    }
  },
  "PUT /machine-config": { phase: "before", configures: true, body: machineConfig },
  "PUT /boot-source": {
    phase: "before",
    configures: true,
    body: {
      kernel_image_path: { kind: string, required: true },
      initrd_path: { kind: string },
      boot_args: { kind: string }
    }
  },
  "PUT /drives/*": {
    phase: "before",
    configures: true,
    id: "drive_id",
    body: {
      drive_id: { kind: string, required: true },
      is_root_device: { kind: boolean, required: true },
      partuuid: { kind: string },
      cache_type: { kind: oneOf("Unsafe", "Writeback") },
      is_read_only: { kind: boolean },
      path_on_host: { kind: string },
      rate_limiter: { kind: rateLimiter },
      io_engine: { kind: oneOf("Sync", "Async") },
      socket: { kind: string }
    }
  },
  "PUT /network-interfaces/*": {
    phase: "before",
    configures: true,
    id: "iface_id",
    body: {
      iface_id: { kind: string, required: true },
      host_dev_name: { kind: string, required: true },
      guest_mac: { kind: string },
      mtu: { kind: integer(68, 65_535), since: [1, 16] },
      rx_rate_limiter: { kind: rateLimiter },
      tx_rate_limiter: { kind: rateLimiter }
    }
  },
  "PUT /vsock": {
    phase: "before",
    configures: true,
    body: {
      guest_cid: { kind: integer(3, 2 ** 32 - 1), required: true },
      uds_path: { kind: string, required: true },
      vsock_id: { kind: string }
    }
  },
  "PUT /entropy": { phase: "before", configures: true, body: { rate_limiter: { kind: rateLimiter } } },
  "PUT /mmds/config": {
    phase: "before",
    configures: true,
    body: {
      version: { kind: oneOf("V1", "V2") },
      network_interfaces: { kind: { is: "list", of: {} }, required: true },
      ipv4_address: { kind: string },
      imds_compat: { kind: boolean }
    }
  },
  "PUT /actions": {
    // Which phase depends on the action.
    phase: "before",
    body: { action_type: { kind: oneOf("FlushMetrics", "InstanceStart", "SendCtrlAltDel"), required: true } }
  },
  "PATCH /vm": { phase: "after", body: { state: { kind: oneOf("Paused", "Resumed"), required: true } } },
  "PUT /snapshot/create": {
    phase: "paused",
    body: {
      snapshot_path: { kind: string, required: true },
      mem_file_path: { kind: string, required: true },
      snapshot_type: { kind: oneOf("Full", "Diff") }
    }
  },
  "PUT /snapshot/load": {
    phase: "fresh",
    body: {
      snapshot_path: { kind: string, required: true },
      mem_file_path: { kind: string },
      mem_backend: {
        kind: {
          is: "object",
          of: {
            backend_type: { kind: oneOf("File", "Uffd"), required: true },
            backend_path: { kind: string, required: true }
          }
        }
      },
      enable_diff_snapshots: { kind: boolean },
      track_dirty_pages: { kind: boolean },
      resume_vm: { kind: boolean },
      network_overrides: {
        kind: {
          is: "list",
          of: { iface_id: { kind: string, required: true }, host_dev_name: { kind: string, required: true } }
        }
      },
      vsock_override: {
        kind: { is: "object", of: { uds_path: { kind: string, required: true } } },
        since: [1, 16]
      },
      clock_realtime: { kind: boolean, since: [1, 16] }
    }
  }
}

/** Format of snapshots by version; each is bound to its own. */
export const snapshotFormat = (version: string): string =>
  version.startsWith("1.14.") ? "8.0.0" : version.startsWith("1.15.") ? "9.0.0" : "10.0.0"
