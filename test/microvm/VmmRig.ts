/** Machines without a driver: the parts of a worker that start processes, the tests' image, and namespaces with a tap. */
import { Effect, Result, type Scope } from "effect"
import { execFileSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Personalisation from "../../src/guest/Personalisation.ts"
import { Host } from "../../src/layers/host/Host.ts"
import { type LaunchedProcess, Launcher, saidOf } from "../../src/layers/host/Launcher.ts"
import { initramfs } from "../../src/layers/microvm/Cpio.ts"
import {
  GUEST_ADDRESS,
  HOST_ADDRESS,
  HOST_MAC,
  MAC,
  type MachineSpec,
  TAP,
  TAP_PREFIX,
  type Vmm
} from "../../src/layers/microvm/Vmm.ts"
import * as GuestLink from "../../src/layers/sandbox/GuestLink.ts"
import { SandboxId } from "../../src/schemas/Ids.ts"
import { projectRoot } from "../support/Tree.ts"

/** Another one of build/machine-images, for measuring with another kernel. */
const image = join(projectRoot, "build", "machine-images", "names", process.env["STOKER_TEST_IMAGE"] ?? "minimal")
const native = join(projectRoot, "build", "native")

/** Why there are no machines here; undefined if there are. */
export const lacking = (): string | undefined => {
  if (process.platform !== "linux" || process.arch !== "x64" || process.getuid?.() !== 0) return "needs root on x86_64"
  if (!existsSync(join(image, "manifest.json"))) return "no image: scripts/machine-image says why"
  return existsSync("/usr/bin/qemu-system-x86_64") ? undefined : "no QEMU: scripts/setup test could not install it"
}

export const kernel = join(image, "vmlinux")
export const root = join(image, "root.ext4")

/** For a folder of a test: our own programs, or another first one, and the image's modules. */
export const writeInitrd = (path: string, init = readFileSync(join(native, "init"))): string => {
  const { modules } = JSON.parse(readFileSync(join(image, "manifest.json"), "utf8")) as {
    readonly modules: ReadonlyArray<{ readonly file: string }>
  }
  const read = (folder: string) => (name: string) => ({ name, bytes: readFileSync(join(folder, name)) })
  const list = modules.map(({ file }) => `/${file}\n`).join("")
  writeFileSync(
    path,
    initramfs([
      { name: "init", bytes: init },
      ...["guest", "agent"].map(read(native)),
      ...modules.map(({ file }) => file).map(read(image)),
      { name: "modules.list", bytes: Buffer.from(list) }
    ])
  )
  return path
}

const ip = (input: string, ...args: ReadonlyArray<string>) =>
  execFileSync("ip", args, { input, stdio: ["pipe", "pipe", "pipe"] })

let made = 0

/** A namespace with a tap, for as long as the scope is open; its path from any mount namespace. */
export const namespace: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const name = `stoker-test-${process.pid}-${++made}`
    ip("", "netns", "add", name)
    const lines = [
      "link set lo up",
      `tuntap add dev ${TAP} mode tap vnet_hdr`,
      `addr add ${HOST_ADDRESS}/${TAP_PREFIX} dev ${TAP}`,
      `link set ${TAP} address ${HOST_MAC} up`,
      `neigh replace ${GUEST_ADDRESS} lladdr ${MAC} dev ${TAP} nud permanent`
    ]
    ip(`${lines.join("\n")}\n`, "-n", name, "-batch", "-")
    return name
  }),
  (name) => Effect.sync(() => ip("", "netns", "del", name))
).pipe(Effect.map((name) => `/proc/${process.pid}/root/run/netns/${name}`))

export const folder = Effect.acquireRelease(
  Effect.sync(() => {
    const path = mkdtempSync(join(tmpdir(), "stoker-vmm-"))
    chmodSync(path, 0o711)
    return path
  }),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const bootArgs = ["quiet", "loglevel=3", `stoker.ip=${GUEST_ADDRESS}/${TAP_PREFIX},${HOST_ADDRESS}`, "stoker.wire=7070"]

/** Another machine below the folder, with another user. */
export const spec = Effect.fnUntraced(function*(place: string, more: Partial<MachineSpec> = {}) {
  const id = SandboxId.make(`v${process.pid}x${++made}`)
  const directory = join(place, id)
  mkdirSync(directory, { mode: 0o700 })
  const scratch = join(directory, "scratch.img")
  execFileSync("sh", ["-c", "truncate -s 64M \"$1\" && mke2fs -q -t ext4 -L scratch -F \"$1\"", "sh", scratch])
  const initrd = join(place, "initrd")
  const user = 0x7000_0000 + made
  return {
    id,
    directory,
    uid: user,
    gid: user,
    vcpus: 1,
    memoryMib: 128,
    kernel,
    initrd: existsSync(initrd) ? initrd : writeInitrd(initrd),
    root,
    scratch,
    netns: yield* namespace,
    procsFiles: [],
    ...more,
    bootArgs: [...bootArgs, ...more.bootArgs ?? []]
  } satisfies MachineSpec
})

/** Starts a program as the worker does; the scope closes its stream. */
export const launch = Effect.fnUntraced(function*(command: ReadonlyArray<string>) {
  const launcher = yield* Launcher
  const host = yield* Host
  const stderrPath = saidOf(host.paths.instance(host.instance), `test-${++made}`)
  return yield* Effect.acquireRelease(
    launcher.launch({ procsFiles: [], command, stderrPath }),
    ({ stream }) => Effect.sync(() => void stream.destroy())
  )
})

/** All that a process says, on both streams, until it ends. */
export const words = Effect.fnUntraced(function*({ ended, said, stream }: LaunchedProcess) {
  let text = ""
  stream.on("data", (chunk: Buffer) => text += chunk.toString())
  yield* ended
  return { stdout: text, stderr: yield* said }
})

/** Waits until the guest listens; "" if it does, and why not otherwise. */
export const probe = Effect.fnUntraced(function*(vmm: Vmm, machine: MachineSpec, withinMs = vmm.deadlines.bootMs) {
  return (yield* Effect.flatMap(launch(vmm.wire(machine, withinMs, "probe")), words)).stderr
})

/** Who answers on the wire: its id, once it is a machine of its own. */
export const personalise = Effect.fnUntraced(function*(vmm: Vmm, machine: MachineSpec) {
  const { stream } = yield* launch(vmm.wire(machine, vmm.deadlines.restoreMs))
  const is = {
    clockMillis: Date.now(),
    token: randomBytes(Personalisation.tokenBytes),
    entropy: randomBytes(Personalisation.entropyBytes.min),
    hostname: machine.id,
    defaultRoute: false,
    resolvConf: ""
  }
  let id = ""
  const link = GuestLink.make("qemu", stream, stream, {
    hello: Result.getOrThrow(Personalisation.encode(is)),
    confirm: (answer) => {
      id = Buffer.from(answer.machineId).toString("hex")
      return Personalisation.refusal(is, answer, Date.now())
    }
  })
  yield* link.ready
  return { id, link }
})

/** Processes of a user: a VMM is all that its user has. */
export const processesOf = (uid: number): ReadonlyArray<number> =>
  readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && new RegExp(`^Uid:\\t${uid}\\t`, "m").test(readFileSync(`/proc/${pid}/status`, "utf8"))
    } catch {
      return false // it has just ended
    }
  }).map(Number)
