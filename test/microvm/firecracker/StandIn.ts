/**
 * Firecracker's outside without its inside: the API with its phases, its refusals and its exit codes, for a process that a
 * jailer started. Whether it is right is for a real one to say (docs/firecracker.md); that it is strict, its own tests say.
 */
import {
  accessSync,
  appendFileSync,
  constants,
  openSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync
} from "node:fs"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { createServer as createSocket } from "node:net"
import { join } from "node:path"
import { isBefore } from "../../../src/layers/microvm/firecracker/Version.ts"
import { type Body, type Endpoint, endpoints, type Kind, snapshotFormat } from "./Fields.ts"

const MOST_BODY_BYTES = 51_200

export interface StandIn {
  readonly id: string
  /** What is `/` for it. Relative: the way there is closed to its user. */
  readonly root: string
  readonly socket: string
  readonly version: string
  /**
   * What goes wrong, and at which call: `hang PUT /entropy`. `die`, `hang`, `garbage`, `huge`, `refuse`, `chatter` (it floods
   * its output), `half` (it breaks off in an answer); `mute` without a call: it never listens.
   */
  readonly fault: string
}

class Refusal extends Error {}

const refuse = (message: string): never => {
  throw new Refusal(message)
}

const deserializing = (what: string) =>
  refuse(`An error occurred when deserializing the json body of a request: ${what}.`)

type Json = Readonly<Record<string, unknown>>
const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

const checkKind = (kind: Kind, name: string, value: unknown, version: ReadonlyArray<number>): void => {
  const wrong = () => deserializing(`invalid type or value for ${name}: ${JSON.stringify(value)}`)
  switch (kind.is) {
    case "string":
    case "boolean":
      return typeof value === kind.is ? undefined : wrong()
    case "integer":
      return typeof value === "number" && Number.isInteger(value) && value >= kind.minimum && value <= kind.maximum
        ? undefined
        : wrong()
    case "one of":
      return typeof value === "string" && kind.values.includes(value) ? undefined : wrong()
    case "object":
      return isObject(value) ? checkBody(kind.of, value, version) : wrong()
    case "list":
      if (!Array.isArray(value)) return wrong()
      for (const one of value) if (isObject(one)) checkBody(kind.of, one, version)
  }
}

/** Throws a refusal for a field it does not know, one that is missing, or one that holds something else. */
export const checkBody = (body: Body, value: Json, version: ReadonlyArray<number>): void => {
  const known = Object.entries(body).filter(([, { since }]) => since === undefined || !isBefore(version, since))
  for (const name of Object.keys(value)) {
    if (!known.some(([field]) => field === name)) deserializing(`unknown field \`${name}\``)
  }
  for (const [name, { kind, required }] of known) {
    if (value[name] === undefined || value[name] === null) {
      if (required === true) deserializing(`missing field \`${name}\``)
    } else checkKind(kind, name, value[name], version)
  }
}

interface Machine {
  drives: Record<string, Json>
  interfaces: Record<string, Json>
  vsock: Json | undefined
  config: Json
  boot: Json | undefined
}

export const serve = ({ fault, id, root, socket, version }: StandIn): void => {
  const numbers = version.split(".").map(Number)
  const [kindOfFault = "", ...where] = fault.split(" ")
  const faultyCall = where.join(" ")
  let state: "Not started" | "Running" | "Paused" = "Not started"
  let configured = false
  let fatal = false
  let metrics: string | undefined
  const machine: Machine = { drives: {}, interfaces: {}, vsock: undefined, config: {}, boot: undefined }

  const writeMetrics = (faults: number) => {
    if (metrics === undefined) return
    appendFileSync(metrics, `${JSON.stringify({ seccomp: { num_faults: faults }, vmm: { panic_count: 0 } })}\n`)
  }

  const inJail = (path: unknown) => join(root, String(path))
  const fail = (code: number, why: string): never => {
    writeMetrics(1)
    writeSync(2, `Error: ${why}\n`)
    writeSync(1, `${id} [main:ERROR] Firecracker exiting with error. exit_code=${code}\n`)
    process.exit(code)
  }

  const mustOpen = (what: string, path: unknown, mode: number) => {
    try {
      openSync(inJail(path), mode)
    } catch (cause) {
      refuse(`${what}: ${cause instanceof Error ? cause.message : "?"} (os error 2) ${String(path)}`)
    }
  }

  const openDrive = (drive: Json) =>
    mustOpen(
      "Drive config error: Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file",
      drive["path_on_host"],
      drive["is_read_only"] === true ? constants.O_RDONLY : constants.O_RDWR
    )

  const listenVsock = (path: unknown) => {
    // As Firecracker's: a line that asks for a port, a line that says which one it became, and then the guest's bytes.
    createSocket((connection) => {
      connection.once("data", (line) => {
        if (!/^CONNECT \d+\n$/.test(line.toString())) return void connection.destroy()
        connection.write("OK 1073741824\n")
        connection.pipe(connection)
      })
      connection.on("error", () => connection.destroy())
    }).on("error", (cause) => fail(1, `vsock: ${cause.message}`)).listen(inJail(path))
  }

  const begin = () => {
    state = "Running"
  }

  const act: Readonly<Record<string, (body: Json, name: string) => void>> = {
    "PUT /logger": () => undefined,
    "PUT /serial": () => undefined,
    "PUT /metrics": ({ metrics_path }) => {
      if (metrics !== undefined) {
        refuse("Metrics error: Cannot initialize the metrics system: Reinitialization attempted.")
      }
      metrics = inJail(metrics_path)
      writeFileSync(metrics, "", { flag: "a" })
    },
    "PUT /machine-config": (body) => {
      if (body["smt"] === true && Number(body["vcpu_count"]) > 1 && Number(body["vcpu_count"]) % 2 === 1) {
        refuse(
          "Machine config error: The vCPU number is invalid! The vCPU number can only be 1 or an even number when SMT is enabled."
        )
      }
      machine.config = body
    },
    "PUT /boot-source": (body) => {
      mustOpen("Boot source error: The kernel file cannot be opened", body["kernel_image_path"], constants.O_RDONLY)
      if (body["initrd_path"] !== undefined) {
        mustOpen("Boot source error: The initrd file cannot be opened", body["initrd_path"], constants.O_RDONLY)
      }
      if (String(body["boot_args"] ?? "").length > 2047) refuse("Boot source error: The kernel command line is invalid")
      machine.boot = body
    },
    "PUT /drives/*": (body, name) => {
      if (body["path_on_host"] === undefined) refuse("Drive config error: path_on_host is missing")
      openDrive(body)
      const others = Object.entries(machine.drives).filter(([other]) => other !== name)
      if (body["is_root_device"] === true && others.some(([, drive]) => drive["is_root_device"] === true)) {
        refuse("Drive config error: A root block device already exists!")
      }
      machine.drives[name] = body
    },
    "PUT /network-interfaces/*": (body, name) => {
      if (body["host_dev_name"] !== "tap0") {
        refuse(
          `Network config error: Open tap device failed: Error while creating ifreq structure: no ${
            body["host_dev_name"]
          }`
        )
      }
      if (!/^(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$/.test(String(body["guest_mac"] ?? "00:00:00:00:00:00"))) {
        deserializing("invalid MAC address")
      }
      machine.interfaces[name] = body
    },
    "PUT /vsock": (body) => {
      machine.vsock = body
      listenVsock(body["uds_path"])
    },
    "PUT /entropy": () => undefined,
    "PUT /mmds/config": ({ network_interfaces }) => {
      const named = Array.isArray(network_interfaces) ? network_interfaces : []
      if (named.length === 0 || named.some((name) => machine.interfaces[String(name)] === undefined)) {
        refuse(
          "MMDS config error: The list of network interface IDs provided contains at least one ID that does not correspond to any existing network interface."
        )
      }
    },
    "PUT /actions": ({ action_type }) => {
      const before = state === "Not started"
      if (action_type === "InstanceStart" && !before) {
        refuse("The requested operation is not supported after starting the microVM.")
      }
      if (action_type !== "InstanceStart" && before) {
        refuse("The requested operation is not supported before starting the microVM.")
      }
      if (action_type === "FlushMetrics") return writeMetrics(0)
      if (action_type === "SendCtrlAltDel") return
      if (machine.boot === undefined) {
        refuse("Start microvm error: Cannot start microvm without kernel configuration.")
      }
      begin()
    },
    "PATCH /vm": (body) => {
      state = body["state"] === "Paused" ? "Paused" : "Running"
    },
    "PUT /snapshot/create": ({ mem_file_path, snapshot_path }) => {
      writeFileSync(inJail(mem_file_path), "")
      truncateSync(inJail(mem_file_path), Number(machine.config["mem_size_mib"]) * 2 ** 20)
      writeFileSync(inJail(snapshot_path), JSON.stringify({ format: snapshotFormat(version), machine }))
    },
    "PUT /snapshot/load": (body) => {
      if (configured) {
        refuse("Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.")
      }
      const backend = body["mem_backend"]
      if (!isObject(backend) && body["mem_file_path"] === undefined) {
        deserializing("missing field: either `mem_backend` or `mem_file_path` is required")
      }
      // From here on the process is lost if anything fails.
      fatal = true
      const saved: { readonly format: string; readonly machine: Machine } = JSON.parse(
        readFileSync(inJail(body["snapshot_path"]), "utf8")
      )
      const restoring = "Load snapshot error: Failed to restore from snapshot"
      if (saved.format !== snapshotFormat(version)) {
        refuse(`${restoring}: Invalid snapshot version: ${saved.format}`)
      }
      const memory = inJail(isObject(backend) ? backend["backend_path"] : body["mem_file_path"])
      accessSync(memory, constants.R_OK)
      if (statSync(memory).size !== Number(saved.machine.config["mem_size_mib"]) * 2 ** 20) {
        refuse(`${restoring}: Failed to load guest memory: the size does not match`)
      }
      for (const drive of Object.values(saved.machine.drives)) openDrive(drive)
      Object.assign(machine, saved.machine)
      if (machine.vsock !== undefined) listenVsock(machine.vsock["uds_path"])
      state = "Paused"
      fatal = false
      if (body["resume_vm"] === true) begin()
    }
  }

  const checkPhase = ({ phase }: Endpoint) => {
    if (phase === "after" && state === "Not started") {
      refuse("The requested operation is not supported before starting the microVM.")
    }
    if ((phase === "before" || phase === "fresh") && state !== "Not started") {
      refuse("The requested operation is not supported after starting the microVM.")
    }
    if (phase === "paused" && state === "Not started") {
      refuse("The requested operation is not supported before starting the microVM.")
    }
    if (phase === "paused" && state !== "Paused") {
      refuse(
        "Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while running"
      )
    }
  }

  const get: Readonly<Record<string, () => Json>> = {
    "/": () => ({ id, state, vmm_version: version, app_name: "Firecracker" }),
    "/version": () => ({ firecracker_version: version }),
    "/machine-config": () => ({
      vcpu_count: 1,
      mem_size_mib: 128,
      smt: false,
      track_dirty_pages: false,
      ...machine.config
    })
  }

  const answer = (request: IncomingMessage, text: string): Json | undefined => {
    const path = new URL(request.url ?? "/", "http://localhost").pathname
    const method = request.method ?? "GET"
    if (method === "GET") {
      if (text !== "") refuse("GET request cannot have a body.")
      return (get[path] ?? refuse(`Invalid request method and/or path: GET ${path.slice(1)}.`))()
    }
    if (text === "") refuse(`Empty ${method} request.`)
    const [, first = "", second] = path.split("/")
    const exact = `${method} ${path}`
    const name = endpoints[exact] === undefined && second !== undefined ? `${method} /${first}/*` : exact
    const endpoint = endpoints[name]
    if (endpoint === undefined || (endpoint.since !== undefined && isBefore(numbers, endpoint.since))) {
      return refuse(`Invalid request method and/or path: ${method} ${first}.`)
    }
    if (endpoint.id !== undefined && !/^[A-Za-z0-9_]+$/.test(second ?? "")) {
      refuse("API Resource IDs can only contain alphanumeric characters and underscores.")
    }
    const body: unknown = (() => {
      try {
        return JSON.parse(text)
      } catch {
        return deserializing("expected value at line 1 column 1")
      }
    })()
    if (!isObject(body)) return deserializing("invalid type")
    checkBody(endpoint.body, body, numbers)
    if (endpoint.id !== undefined && body[endpoint.id] !== second) {
      refuse("The id from the path does not match the id from the body!")
    }
    if (name !== "PUT /actions") checkPhase(endpoint)
    if (endpoint.configures === true) configured = true
    act[name]?.(body, second ?? "")
    return undefined
  }

  const said = (response: ServerResponse, code: number, body?: Json) => {
    const text = body === undefined ? "" : JSON.stringify(body)
    response.writeHead(code, {
      server: "Firecracker API",
      connection: "keep-alive",
      ...(text === "" ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(text) })
    })
    response.end(text)
  }

  const misbehave = (response: ServerResponse): boolean => {
    switch (kindOfFault) {
      case "die":
        writeSync(1, `${id} [main:ERROR] Shutting down VM after intercepting a bad syscall (56).\n`)
        return fail(148, "RunWithApi(MicroVMStoppedWithError(BadSyscall))")
      case "hang":
        return true
      case "garbage":
        response.socket?.end("I am no HTTP\n")
        return true
      case "huge":
        response.writeHead(400, { "content-type": "application/json" })
        for (let n = 0; n < 64; n++) response.write("x".repeat(65_536))
        response.end()
        return true
      case "half":
        response.writeHead(400, { "content-length": 1000 })
        response.write("{")
        setTimeout(() => response.socket?.destroy(), 10)
        return true
      case "refuse":
        said(response, 400, {
          fault_message: "Start microvm error: Error creating KVM object. [The KVM module is missing]"
        })
        return true
      case "chatter":
        for (let n = 0; n < 64; n++) process.stdout.write("c".repeat(65_536))
        return false
      default:
        return false
    }
  }

  const server = createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString()
      const called = `${request.method} ${request.url}`
      // For the test to read: what was asked, in order.
      appendFileSync(join(root, "calls"), `${JSON.stringify({ call: called, body: text === "" ? null : text })}\n`)
      if (called === faultyCall && misbehave(response)) return
      try {
        if (Buffer.byteLength(text) > MOST_BODY_BYTES) {
          throw new Refusal(
            `HTTP request payload has size ${Buffer.byteLength(text)}, greater than the ${MOST_BODY_BYTES} limit`
          )
        }
        const found = answer(request, text)
        said(response, found === undefined ? 204 : 200, found)
      } catch (cause) {
        const message = cause instanceof Refusal ? cause.message : `Load snapshot error: ${String(cause)}`
        said(response, 400, { fault_message: message })
        // Told, and then it goes.
        if (fatal) response.once("close", () => fail(1, "RunWithApi(BuildMicroVMError(Restore))"))
      }
    })
  })
  if (kindOfFault === "mute") {
    setInterval(() => undefined, 1000)
    return
  }
  server.listen(join(root, socket))
}
