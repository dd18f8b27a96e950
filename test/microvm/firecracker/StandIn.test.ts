/** The stand-in is as strict as the API that it stands for: each rule by what breaks it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdirSync, truncateSync, writeFileSync } from "node:fs"
import { request } from "node:http"
import { join } from "node:path"
import { endpoints } from "./Fields.ts"
import { folder } from "./World.ts"

/** Fields of each body as the schema of 1.16.1 lists them, those it must have first. Written down by hand, to hold the table to. */
const listed: Readonly<Record<string, readonly [must: string, may: string]>> = {
  "PUT /logger": ["", "level log_path module show_level show_log_origin"],
  "PUT /metrics": ["metrics_path", ""],
  "PUT /serial": ["", "rate_limiter serial_out_path"],
  "PUT /machine-config": ["mem_size_mib vcpu_count", "cpu_template huge_pages smt track_dirty_pages"],
  "PUT /boot-source": ["kernel_image_path", "boot_args initrd_path"],
  "PUT /drives/*": [
    "drive_id is_root_device",
    "cache_type io_engine is_read_only partuuid path_on_host rate_limiter socket"
  ],
  "PUT /network-interfaces/*": ["host_dev_name iface_id", "guest_mac mtu rx_rate_limiter tx_rate_limiter"],
  "PUT /vsock": ["guest_cid uds_path", "vsock_id"],
  "PUT /entropy": ["", "rate_limiter"],
  "PUT /mmds/config": ["network_interfaces", "imds_compat ipv4_address version"],
  "PUT /actions": ["action_type", ""],
  "PATCH /vm": ["state", ""],
  "PUT /snapshot/create": ["mem_file_path snapshot_path", "snapshot_type"],
  "PUT /snapshot/load": [
    "snapshot_path",
    "clock_realtime enable_diff_snapshots mem_backend mem_file_path network_overrides resume_vm track_dirty_pages vsock_override"
  ]
}

const program = `
import { serve } from ${JSON.stringify(join(import.meta.dirname, "StandIn.ts"))}
serve(JSON.parse(process.argv[1]))
`

/** A stand-in without a jailer, in a folder of its own; ended with the scope. */
const start = Effect.fnUntraced(function*(version = "1.16.1", root?: string) {
  const place = root ?? (yield* folder)
  mkdirSync(join(place, "run"), { recursive: true })
  for (const file of ["kernel", "initrd", "root.ext4", "scratch.img"]) writeFileSync(join(place, file), file)
  const socket = `/run/${version}-${Math.random().toString(36).slice(2)}.sock`
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const args = JSON.stringify({ id: "x", root: ".", socket, version, fault: "" })
      return spawn(process.execPath, ["--input-type=module", "-e", program, args], { cwd: place, stdio: "ignore" })
    }),
    (running) =>
      Effect.promise(async () => {
        if (running.exitCode !== null) return
        const gone = once(running, "exit")
        running.kill("SIGKILL")
        await gone
      })
  )
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve))
  while (!existsSync(join(place, socket))) yield* Effect.sleep("10 millis")
  const ask = (call: string, body?: unknown) =>
    Effect.promise(() =>
      new Promise<{ readonly code: number; readonly text: string }>((resolve, reject) => {
        const [method, path] = call.split(" ")
        const text = body === undefined ? "" : typeof body === "string" ? body : JSON.stringify(body)
        const headers = text === "" ? {} : { "content-length": Buffer.byteLength(text) }
        const asking = request(
          { socketPath: join(place, socket), method, path, headers, agent: false },
          (response) => {
            let said = ""
            response.on("data", (chunk: Buffer) => said += chunk.toString())
            response.on("end", () => resolve({ code: response.statusCode ?? 0, text: said }))
          }
        )
        asking.on("error", reject)
        asking.end(text)
      })
    )
  const ok = (call: string, body: unknown) =>
    Effect.map(ask(call, body), (answer) => assert.deepStrictEqual(answer, { code: 204, text: "" }, call))
  const refuses = (call: string, body: unknown, why: RegExp) =>
    Effect.map(ask(call, body), ({ code, text }) => {
      const { fault_message }: { readonly fault_message: string } = JSON.parse(text)
      assert.strictEqual(code, 400, `${call} ${fault_message}`)
      assert.match(fault_message, why, call)
    })
  return { ask, ended, ok, place, refuses }
})

const AFTER = /not supported after starting/
const BEFORE = /not supported before starting/
const drive = { drive_id: "rootfs", is_root_device: true, is_read_only: true, path_on_host: "/root.ext4" }
const card = { iface_id: "eth0", host_dev_name: "tap0" }

describe("the stand-in", { timeout: 60_000 }, () => {
  it("has the fields of the API's schema", () => {
    const table = Object.fromEntries(
      Object.entries(endpoints).map(([name, { body }]) => {
        const fields = Object.entries(body)
        const named = (must: boolean) =>
          fields.filter(([, field]) => (field.required === true) === must).map(([field]) => field).toSorted().join(" ")
        return [name, [named(true), named(false)]]
      })
    )
    assert.deepStrictEqual(table, Object.fromEntries(Object.entries(listed).map(([name, both]) => [name, [...both]])))
  })

  it.live("answers what it is, and takes no body with a question, no change without one", () =>
    Effect.gen(function*() {
      const { ask, refuses } = yield* start()
      assert.deepStrictEqual(JSON.parse((yield* ask("GET /")).text), {
        app_name: "Firecracker",
        id: "x",
        state: "Not started",
        vmm_version: "1.16.1"
      })
      assert.deepStrictEqual(JSON.parse((yield* ask("GET /version")).text), { firecracker_version: "1.16.1" })
      yield* refuses("GET /", {}, /GET request cannot have a body/)
      yield* refuses("PUT /entropy", undefined, /Empty PUT request/)
      yield* refuses("PATCH /vm", undefined, /Empty PATCH request/)
      yield* refuses("PUT /nothing", {}, /Invalid request method and\/or path: PUT nothing/)
      yield* refuses("GET /nothing", undefined, /Invalid request method and\/or path/)
      yield* refuses("PUT /entropy", "{", /deserializing/)
      yield* refuses("PUT /entropy", { rate_limiter: "x".repeat(51_200) }, /greater than the 51200 limit/)
    }))

  it.live("refuses fields it does not know, lacks, or that hold something else", () =>
    Effect.gen(function*() {
      const { refuses } = yield* start()
      yield* refuses(
        "PUT /machine-config",
        { vcpu_count: 1, mem_size_mib: 1, ht_enabled: true },
        /unknown field `ht_enabled`/
      )
      yield* refuses("PUT /machine-config", { vcpu_count: 1 }, /missing field `mem_size_mib`/)
      yield* refuses("PUT /machine-config", { vcpu_count: 33, mem_size_mib: 1 }, /vcpu_count/)
      yield* refuses("PUT /machine-config", { vcpu_count: 3, mem_size_mib: 1, smt: true }, /even number/)
      yield* refuses(
        "PUT /drives/rootfs",
        { ...drive, rate_limiter: { bandwidth: { size: 1 } } },
        /missing field `refill_time`/
      )
      yield* refuses("PUT /drives/rootfs", { ...drive, rate_limiter: { bytes: {} } }, /unknown field `bytes`/)
      yield* refuses("PUT /drives/other", drive, /does not match the id from the body/)
      yield* refuses("PUT /drives/a-b", { ...drive, drive_id: "a-b" }, /alphanumeric/)
      yield* refuses("PUT /vsock", { guest_cid: 2, uds_path: "/run/v" }, /guest_cid/)
      yield* refuses("PUT /network-interfaces/eth0", { ...card, allow_mmds_requests: true }, /unknown field/)
      yield* refuses("PUT /network-interfaces/eth0", { ...card, guest_mac: "nonsense" }, /MAC/)
      yield* refuses("PUT /logger", { level: "Loud" }, /level/)
    }))

  it.live("knows no field before its version", () =>
    Effect.gen(function*() {
      const { ok, refuses } = yield* start("1.15.1")
      yield* refuses("PUT /serial", { rate_limiter: { size: 1, refill_time: 1 } }, /unknown field `rate_limiter`/)
      yield* ok("PUT /serial", {})
      yield* refuses("PUT /snapshot/load", { snapshot_path: "/s", vsock_override: { uds_path: "/v" } }, /unknown field/)
    }))

  it.live("wants files, taps and one root disk to be there, and metadata after its interface", () =>
    Effect.gen(function*() {
      const { ok, refuses } = yield* start()
      yield* refuses("PUT /boot-source", { kernel_image_path: "/none" }, /kernel file cannot be opened.*os error 2/)
      yield* refuses("PUT /boot-source", { kernel_image_path: "/kernel", initrd_path: "/none" }, /initrd/)
      yield* refuses("PUT /drives/rootfs", { ...drive, path_on_host: "/none" }, /backing file/)
      yield* refuses("PUT /network-interfaces/eth0", { ...card, host_dev_name: "tap9" }, /Open tap device failed/)
      yield* refuses("PUT /mmds/config", { network_interfaces: ["eth0"] }, /does not correspond/)
      yield* ok("PUT /network-interfaces/eth0", card)
      yield* ok("PUT /mmds/config", { network_interfaces: ["eth0"] })
      yield* ok("PUT /drives/rootfs", drive)
      yield* ok("PUT /drives/rootfs", drive)
      yield* refuses("PUT /drives/two", { ...drive, drive_id: "two" }, /root block device already exists/)
      yield* ok("PUT /metrics", { metrics_path: "/metrics" })
      yield* refuses("PUT /metrics", { metrics_path: "/metrics" }, /Reinitialization/)
      yield* refuses("PUT /actions", { action_type: "FlushMetrics" }, BEFORE)
    }))

  it.live("holds each call to its phase; a machine starts once; it is saved when it is paused and not before", () =>
    Effect.gen(function*() {
      const { ask, ok, refuses } = yield* start()
      const snapshot = { snapshot_path: "/state", mem_file_path: "/memory" }
      yield* refuses("PATCH /vm", { state: "Paused" }, BEFORE)
      yield* refuses("PUT /snapshot/create", snapshot, BEFORE)
      yield* refuses("PUT /actions", { action_type: "InstanceStart" }, /without kernel configuration/)
      yield* ok("PUT /machine-config", { vcpu_count: 1, mem_size_mib: 1 })
      yield* ok("PUT /boot-source", { kernel_image_path: "/kernel" })
      yield* ok("PUT /actions", { action_type: "InstanceStart" })
      assert.strictEqual(JSON.parse((yield* ask("GET /")).text).state, "Running")
      yield* refuses("PUT /actions", { action_type: "InstanceStart" }, AFTER)
      const after: ReadonlyArray<readonly [string, unknown]> = [
        ["PUT /logger", {}],
        ["PUT /metrics", { metrics_path: "/m" }],
        ["PUT /serial", {}],
        ["PUT /machine-config", { vcpu_count: 1, mem_size_mib: 1 }],
        ["PUT /boot-source", { kernel_image_path: "/kernel" }],
        ["PUT /drives/rootfs", drive],
        ["PUT /network-interfaces/eth0", card],
        ["PUT /vsock", { guest_cid: 3, uds_path: "/run/v" }],
        ["PUT /entropy", {}],
        ["PUT /snapshot/load", { snapshot_path: "/state", mem_file_path: "/memory" }]
      ]
      for (const [call, body] of after) yield* refuses(call, body, AFTER)
      yield* refuses("PUT /snapshot/create", snapshot, /unavailable while running/)
      yield* ok("PATCH /vm", { state: "Paused" })
      assert.strictEqual(JSON.parse((yield* ask("GET /")).text).state, "Paused")
      yield* ok("PUT /snapshot/create", snapshot)
      yield* ok("PATCH /vm", { state: "Resumed" })
    }))

  it.live("loads in a fresh process only; a load that fails is told and ends it with 1", () =>
    Effect.gen(function*() {
      const first = yield* start()
      yield* first.ok("PUT /machine-config", { vcpu_count: 1, mem_size_mib: 1 })
      yield* first.ok("PUT /boot-source", { kernel_image_path: "/kernel" })
      yield* first.ok("PUT /drives/rootfs", drive)
      yield* first.ok("PUT /actions", { action_type: "InstanceStart" })
      yield* first.ok("PATCH /vm", { state: "Paused" })
      yield* first.ok("PUT /snapshot/create", { snapshot_path: "/state", mem_file_path: "/memory" })
      const load = { snapshot_path: "/state", mem_backend: { backend_type: "File", backend_path: "/memory" } }

      const configured = yield* start("1.16.1", first.place)
      yield* configured.refuses("PUT /snapshot/load", { snapshot_path: "/state" }, /either `mem_backend` or/)
      yield* configured.ok("PUT /entropy", {})
      yield* configured.refuses("PUT /snapshot/load", load, /not allowed after configuring/)
      // That one is still there.
      assert.strictEqual((yield* configured.ask("GET /")).code, 200)

      const second = yield* start("1.16.1", first.place)
      yield* second.ok("PUT /logger", { level: "Warning" })
      yield* second.ok("PUT /metrics", { metrics_path: "/m" })
      yield* second.ok("PUT /serial", {})
      yield* second.ok("PUT /snapshot/load", load)
      assert.strictEqual(JSON.parse((yield* second.ask("GET /")).text).state, "Paused")
      yield* second.ok("PATCH /vm", { state: "Resumed" })

      const older = yield* start("1.15.1", first.place)
      yield* older.refuses("PUT /snapshot/load", load, /Invalid snapshot version/)
      assert.strictEqual(yield* Effect.promise(() => older.ended), 1)

      truncateSync(join(first.place, "memory"), 10)
      const cut = yield* start("1.16.1", first.place)
      yield* cut.refuses("PUT /snapshot/load", { ...load, resume_vm: true }, /guest memory/)
      assert.strictEqual(yield* Effect.promise(() => cut.ended), 1)

      const missing = yield* start("1.16.1", first.place)
      yield* missing.refuses("PUT /snapshot/load", { ...load, snapshot_path: "/none" }, /ENOENT/)
      assert.strictEqual(yield* Effect.promise(() => missing.ended), 1)
    }))
})
