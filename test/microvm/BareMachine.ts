/**
 * A machine without a worker: QEMU by its plain command line, without hardware virtualisation, in a network namespace of its
 * own, with the minimal image and the initrd a worker would make. It goes with its scope.
 */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Effect, Layer, Result, Stream } from "effect"
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { randomBytes } from "node:crypto"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Personalisation from "../../src/guest/Personalisation.ts"
import type { PersonalisedFrame } from "../../src/guest/Protocol.ts"
import * as HostTest from "../../src/layers/host/HostTest.ts"
import * as Native from "../../src/layers/host/Native.ts"
import { MachineImages } from "../../src/layers/microvm/image/MachineImages.ts"
import * as MachineImagesLive from "../../src/layers/microvm/image/MachineImagesLive.ts"
import * as Initrd from "../../src/layers/microvm/Initrd.ts"
import { GUEST_ADDRESS, HOST_ADDRESS, MAC, TAP, TAP_PREFIX, WIRE_PORT } from "../../src/layers/microvm/Vmm.ts"
import * as GuestLink from "../../src/layers/sandbox/GuestLink.ts"
import { eventually, tempDir, wirePath } from "../guest/Native.ts"
import { patience } from "../support/Slowness.ts"
import { projectRoot } from "../support/Tree.ts"

const build = join(projectRoot, "build")
const minimal = join(build, "machine-images", "names", "minimal")

/** Why no machine can be booted here; undefined if one can. */
export const lacking = (): string | undefined => {
  if (process.arch !== "x64" || process.getuid?.() !== 0) return "made for root on x86_64"
  if (!existsSync("/usr/bin/qemu-system-x86_64")) return "no qemu-system-x86_64: scripts/setup could not install it"
  return existsSync(minimal) ? undefined : "no minimal machine image: scripts/machine-image says why"
}

/** Emulated machines have nothing to measure their counter against, so they are told its rate. */
const rate = (folder: string) => {
  const [source, binary] = [join(folder, "rate.c"), join(folder, "rate")]
  writeFileSync(
    source,
    `#include <stdio.h>
#include <time.h>
#include <x86intrin.h>
static unsigned long long now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC_RAW, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
int main(void) {
  unsigned long long from = now(), ticks = __rdtsc();
  nanosleep(&(struct timespec){.tv_nsec = 100000000}, 0);
  printf("%llu", (__rdtsc() - ticks) * 1000000ull / (now() - from));
}
`
  )
  execFileSync("cc", ["-O2", "-o", binary, source])
  return execFileSync(binary, { encoding: "utf8" })
}

export interface Options {
  /** What the kernel is told beside what every machine is. */
  readonly args?: ReadonlyArray<string>
}

/** `ip=` or `stoker.ip=` of a machine that is served over the wire. */
export const served = [`stoker.ip=${GUEST_ADDRESS}/${TAP_PREFIX},${HOST_ADDRESS}`, `stoker.wire=${WIRE_PORT}`]

/** What all machines of a test file have in common. */
export const world = Effect.gen(function*() {
  const folder = yield* tempDir
  const layer = Layer.mergeAll(
    MachineImagesLive.layer({ stateDirectory: build }),
    HostTest.layerTest({ state: join(folder, "state") })
  ).pipe(Layer.provideMerge(Native.layer), Layer.provideMerge(layerSecureRandom))
  const { image, initrd } = yield* Effect.gen(function*() {
    const image = yield* (yield* MachineImages).open("minimal")
    return { image, initrd: (yield* (yield* Initrd.make)(image)).path }
  }).pipe(Effect.provide(layer))
  return { folder, image, initrd, khz: rate(folder) }
})

type World = Effect.Success<typeof world>

let booted = 0

/** Boots it; nothing is waited for but its network. */
export const boot = Effect.fnUntraced(function*({ folder, image, initrd, khz }: World, options: Options = {}) {
  const name = `${++booted}`
  const scratch = join(folder, `${name}.scratch`)
  const console = join(folder, `${name}.console`)
  writeFileSync(scratch, "")
  execFileSync("mke2fs", ["-q", "-t", "ext4", "-L", "scratch", "-m", "0", "-O", "^has_journal", "-F", scratch, "64M"])
  const net = [
    "link set lo up",
    `tuntap add dev ${TAP} mode tap vnet_hdr`,
    `addr add ${HOST_ADDRESS}/${TAP_PREFIX} dev ${TAP}`,
    `link set ${TAP} up`,
    `neigh replace ${GUEST_ADDRESS} lladdr ${MAC} dev ${TAP} nud permanent`
  ].map((line) => `ip ${line}`).join(" && ")
  const append = [
    "console=ttyS0 quiet loglevel=3 reboot=t panic=-1 mitigations=off",
    `tsc_early_khz=${khz} tsc=reliable`
  ]
  const qemu = [
    ..."qemu-system-x86_64 -M microvm,acpi=on,rtc=on,isa-serial=on,x-option-roms=off".split(" "),
    ..."-accel tcg,thread=multi,tb-size=64 -cpu max -smp 1 -m 128".split(" "),
    ..."-nodefaults -no-user-config -display none -no-reboot".split(" "),
    "-kernel",
    image.kernel,
    "-initrd",
    initrd,
    "-append",
    [...append, ...options.args ?? served].join(" "),
    "-drive",
    `id=s,file=${scratch},format=raw,if=none,cache=unsafe`,
    "-device",
    "virtio-blk-device,drive=s",
    "-drive",
    `id=r,file=${image.root},format=raw,if=none,cache=unsafe,readonly=on,file.locking=off`,
    "-device",
    "virtio-blk-device,drive=r",
    "-netdev",
    `tap,id=n,ifname=${TAP},script=no,downscript=no`,
    "-device",
    `virtio-net-device,netdev=n,mac=${MAC}`,
    "-device",
    "virtio-rng-device",
    "-serial",
    `file:${console}`
  ]
  const running = yield* Effect.acquireRelease(
    Effect.sync(() => {
      // Killed with us by the kernel, should we have no time to do it.
      const bound = ["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", `${net} && echo up && exec "$@"`, "sh"]
      const child = spawn("setpriv", [...bound, ...qemu], { stdio: ["ignore", "pipe", "pipe"] })
      let said = ""
      let ended = false
      for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => said += chunk.toString())
      child.on("close", () => ended = true)
      return { child, said: () => said, ended: () => ended }
    }),
    ({ child, ended }) => end(child, ended)
  )
  yield* eventually("the machine has a network", 20, () => {
    if (running.ended()) throw new Error(`QEMU ended: ${running.said()}`)
    return running.said().startsWith("up\n")
  })
  const netns = `/proc/${running.child.pid}/ns/net`
  return {
    ended: running.ended,
    /** What it wrote on its console. */
    console: () => existsSync(console) ? readFileSync(console, "utf8") : "",
    /** The arguments of a wire to a port of it. */
    wire: (
      withinMs: number,
      port: number = WIRE_PORT
    ) => ["--netns", netns, "--connect", `${GUEST_ADDRESS}:${port}`, "--within", `${patience(withinMs)}`]
  }
})

export type BareMachine = Effect.Success<ReturnType<typeof boot>>

const end = (child: ChildProcess, ended: () => boolean) =>
  Effect.andThen(Effect.sync(() => child.kill("SIGKILL")), eventually("QEMU is gone", 10, ended))

/** A wire as a child: the link's two streams, and its end. */
export const connect = (machine: BareMachine, withinMs = 60_000) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(wirePath, machine.wire(withinMs), { stdio: ["pipe", "pipe", "pipe"] })
      let said = ""
      let ended = false
      child.stderr.on("data", (chunk: Buffer) => said += chunk.toString())
      child.stdin.on("error", () => {})
      child.on("close", () => ended = true)
      return { child, said: () => said, ended: () => ended }
    }),
    ({ child, ended }) => end(child, ended)
  )

/** What a machine may be told. */
export const personalisation = (): Personalisation.Personalisation => ({
  clockMillis: 1_000_000_000_000, // of long ago: the wire puts in the right one
  token: randomBytes(32),
  entropy: randomBytes(64),
  hostname: "box-1",
  defaultRoute: false,
  resolvConf: "nameserver 192.0.2.1\n"
})

/** A machine's guest as a worker has it, ready, and what the machine said about itself. */
export const link = Effect.fnUntraced(function*(machine: BareMachine, is = personalisation()) {
  const wire = yield* connect(machine)
  let answer: PersonalisedFrame | undefined
  const guest = GuestLink.make("test", wire.child.stdin, wire.child.stdout, {
    hello: Result.getOrThrow(Personalisation.encode(is)),
    confirm: (frame) => {
      answer = frame
      return Personalisation.refusal(is, frame, Date.now())
    }
  })
  wire.child.on("close", () => guest.lose(`the wire ended: ${wire.said()}`))
  yield* guest.ready
  if (answer === undefined) return yield* Effect.die(new Error("ready before it was personalised"))
  return { ...guest, answer, wire }
})

/** Runs a script of the image's shell to its end. */
export const shell = (guest: Pick<GuestLink.GuestLink, "run">, script: string) =>
  guest.run({
    cwd: "",
    argv: ["/bin/sh", "-c", script],
    env: { PATH: "/bin:/usr/bin:/sbin" },
    limits: { fileBytes: 0, openFiles: 0, stackBytes: 0, cpuSeconds: 0 }
  }, new Uint8Array()).pipe(
    Stream.runFold(() => ({ text: "", end: "" }), (sum, event) => {
      if (event._tag === "Output") return { ...sum, text: sum.text + Buffer.from(event.bytes).toString() }
      if (event._tag === "Started") return sum
      const { exit } = event
      return { ...sum, end: exit._tag === "Exited" ? `exit ${exit.code}` : `signal ${exit.signal}` }
    })
  )
