/**
 * A machine as the old worker started its own: our image, and nothing on its kernel's command line that speaks of Stoker's wire.
 * QEMU without hardware virtualisation, its card connected to this process by QEMU itself.
 */
import { Effect } from "effect"
import { execFileSync, spawn } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { initramfs } from "../../src/layers/microvm/Cpio.ts"
import { tempDir } from "../guest/Native.ts"
import { patience } from "../support/Slowness.ts"
import { projectRoot } from "../support/Tree.ts"

/** In the network that QEMU makes up. */
const ADDRESS = "10.0.2.15"

const freePort = Effect.callback<number>((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

const native = (name: string) => readFileSync(join(projectRoot, "build", "native", name))

/** What our worker would make (`Initrd.ts`), of this checkout's programs. */
const makeInitrd = (image: string): Buffer => {
  const { modules } = JSON.parse(readFileSync(join(image, "manifest.json"), "utf8")) as {
    readonly modules: ReadonlyArray<{ readonly file: string }>
  }
  const files = modules.map(({ file: name }) => ({ name, bytes: readFileSync(join(image, name)) }))
  const list = { name: "modules.list", bytes: Buffer.from(files.map(({ name }) => `/${name}\n`).join("")) }
  return initramfs([...["init", "guest", "agent"].map((name) => ({ name, bytes: native(name) })), ...files, list])
}

export interface AgentMachine {
  /** Of this host: leads to 8080 of the machine. */
  readonly port: number
  readonly console: () => string
  readonly memoryKiB: () => number
}

/** Boots it for the scope; it need not be up yet. `image` is a folder of `stoker image build`. */
export const boot = Effect.fnUntraced(function*(image: string, memoryMib = 256) {
  const folder = yield* tempDir
  const port = yield* freePort
  writeFileSync(join(folder, "initrd"), makeInitrd(image))
  const append = [
    "console=ttyS0 reboot=t panic=-1 quiet loglevel=3 mitigations=off",
    // An emulated machine of this kind has no other clock to measure its counter against, and would wait for one.
    `tsc_early_khz=${
      execFileSync(join(projectRoot, "build", "native", "tsc"), { encoding: "utf8" }).trim()
    } tsc=reliable`,
    `stoker.ip=${ADDRESS}/24,10.0.2.2`
  ].join(" ")
  const args = [
    "-M",
    "microvm,acpi=on,rtc=on,isa-serial=on,x-option-roms=off",
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max",
    "-m",
    `${memoryMib}M`,
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-no-reboot",
    "-serial",
    "stdio",
    "-kernel",
    join(image, "vmlinux"),
    "-initrd",
    join(folder, "initrd"),
    "-append",
    append,
    "-drive",
    `id=root,file=${join(image, "root.ext4")},format=raw,if=none,readonly=on,file.locking=off`,
    "-device",
    "virtio-blk-device,drive=root",
    "-netdev",
    `user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:${port}-${ADDRESS}:8080`,
    "-device",
    "virtio-net-device,netdev=net",
    "-device",
    "virtio-rng-device"
  ]
  let said = ""
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn("qemu-system-x86_64", args, { stdio: ["ignore", "pipe", "pipe"] })
      for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (chunk: Buffer) => {
          said = (said + chunk.toString("latin1")).slice(-16_384)
        })
      }
      return child
    }),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )
  const machine: AgentMachine = {
    port,
    console: () => said,
    memoryKiB: () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1] ?? 0)
  }
  return machine
})

/** How long a machine may take to come up, and a program in it to compile. */
export const BOOT_MS = patience(40_000)
