/**
 * Machines on a host with KVM, beside what Firecracker promises of itself: boot, restore, density, and a burst of 100. Where no
 * guest boots nothing is measured and nothing is claimed: it says why and fails.
 *
 *     npm run bench -- microvm-kvm [--vmm firecracker|qemu] [--accelerator kvm|tcg] [--image NAME_OR_FOLDER --state DIR]
 *                                  [--rounds N] [--idle N] [--burst N]
 *
 * Without an image it builds a minimal one. `--accelerator tcg` tries this program itself with emulated machines: figures
 * without a claim.
 */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Effect, Exit, Layer, Scope } from "effect"
import { readFileSync } from "node:fs"
import { cpus } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import * as Native from "../src/layers/host/Native.ts"
import { MachineImages } from "../src/layers/microvm/image/MachineImages.ts"
import * as MachineImagesLive from "../src/layers/microvm/image/MachineImagesLive.ts"
import { memoryMibOf } from "../src/layers/sandbox/microvm/Sizes.ts"
import { type Driver, Drivers, type Sandbox } from "../src/layers/sandbox/Sandbox.ts"
import type { SandboxClass } from "../src/schemas/SandboxClass.ts"
import { standardClass } from "../src/schemas/WorkerConfig.ts"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { percentile, publish, round, spread } from "./report.ts"

const { values } = parseArgs({
  options: {
    vmm: { type: "string", default: "firecracker" },
    accelerator: { type: "string", default: "kvm" },
    image: { type: "string" },
    state: { type: "string" },
    rounds: { type: "string", default: "20" },
    idle: { type: "string", default: "20" },
    burst: { type: "string", default: "100" }
  }
})

const wrong = (reason: string): never => {
  process.stderr.write(`${reason}\n`)
  process.exit(64)
}
const among = <A extends string>(name: string, value: string, known: ReadonlyArray<A>): A =>
  known.find((one) => one === value) ?? wrong(`--${name} is ${known.join(" or ")}, not ${value}`)
const count = (name: string, value: string): number =>
  /^[1-9]\d{0,3}$/.test(value) ? Number(value) : wrong(`--${name} is a number from 1 on, not ${value}`)

const vmm = among("vmm", values.vmm, ["firecracker", "qemu"])
const accelerator = among("accelerator", values.accelerator, ["kvm", "tcg"])
if (vmm === "firecracker" && accelerator === "tcg") {
  wrong("Firecracker emulates nothing: --accelerator tcg is for --vmm qemu")
}
const rounds = count("rounds", values.rounds)
const idle = count("idle", values.idle)
const burst = count("burst", values.burst)

const MiB = 1024 * 1024

/** One processor and 128 MiB for the job, as Firecracker's own figures are for. */
const classOf = (snapshot: boolean): SandboxClass => {
  const plain = standardClass(snapshot ? "restored" : "booted", vmm)
  const small = { cpus: 1, memoryBytes: 128 * MiB } as const
  return {
    ...plain,
    ceiling: { ...plain.ceiling, ...small },
    defaults: { ...plain.defaults, ...small },
    machine: { image: values.image ?? "bench", snapshot, vcpus: 1, ...(vmm === "qemu" ? { accelerator } : {}) }
  }
}
const booted = classOf(false)
const restored = classOf(true)
const disk = { bytes: restored.defaults.diskBytes, inodes: restored.defaults.diskInodes }

const availableMib = () => Number(/^MemAvailable:\s+(\d+) kB/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1]) / 1024

/** MiB of a VMM's processes that are not the machine's memory, which is by far the largest of its mappings. */
const ownMib = ({ place }: Sandbox): number => {
  const ofOne = (pid: string) => {
    const text = readFileSync(`/proc/${pid}/smaps`, "utf8")
    const sizes = [...text.matchAll(/^Size:\s+(\d+) kB[\s\S]*?^Pss:\s+(\d+) kB/gm)]
    return sizes.filter(([, size]) => Number(size) / 1024 < memoryMibOf(restored) / 2).reduce(
      (sum, [, , pss]) => sum + Number(pss) / 1024,
      0
    )
  }
  const pids = readFileSync(join(place, "cgroup.procs"), "utf8").split("\n").filter((pid) => pid !== "")
  return pids.filter((pid) => {
    const name = readFileSync(`/proc/${pid}/comm`, "utf8")
    return name.startsWith("firecracker") || name.startsWith("qemu")
  }).reduce((sum, pid) => sum + ofOne(pid), 0)
}

/** One machine's way from nothing to a guest that confirmed who it is, and to nothing again, in milliseconds. */
const one = (driver: Driver, sandboxClass: SandboxClass) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const began = performance.now()
    const exit = yield* Effect.exit(Scope.provide(driver.provision(sandboxClass, disk), scope))
    const took = performance.now() - began
    const ending = performance.now()
    yield* Scope.close(scope, Exit.void)
    yield* exit
    return { took, gone: performance.now() - ending }
  })

const idling = (driver: Driver) =>
  Effect.scoped(Effect.gen(function*() {
    const before = availableMib()
    const machines: Array<Sandbox> = []
    for (let n = 0; n < idle; n++) machines.push(yield* driver.provision(restored, disk))
    yield* Effect.sleep("3 seconds")
    const cpu = process.cpuUsage()
    yield* Effect.sleep("5 seconds")
    const { system, user } = process.cpuUsage(cpu)
    return {
      each: (before - availableMib()) / idle,
      own: machines.map(ownMib),
      workerCpu: (system + user) / 5e6 / idle * 100
    }
  }))

const bursting = (driver: Driver) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const began = performance.now()
    yield* Effect.forEach(Array.from({ length: burst }), () => Scope.provide(driver.provision(restored, disk), scope), {
      concurrency: "unbounded",
      discard: true
    }).pipe(Effect.onError(() => Scope.close(scope, Exit.void)))
    const ready = performance.now() - began
    const ending = performance.now()
    yield* Scope.close(scope, Exit.void)
    return { ready, gone: performance.now() - ending }
  })

const program = Effect.gen(function*() {
  const driver = (yield* Drivers).find(({ name }) => name === vmm) ?? wrong(`there is no driver ${vmm}`)
  for (const sandboxClass of [booted, restored]) yield* driver.prepare?.(sandboxClass) ?? Effect.void
  const boots: Array<number> = []
  const restores: Array<number> = []
  const ends: Array<number> = []
  for (let n = 0; n < rounds; n++) {
    boots.push((yield* one(driver, booted)).took)
    const { gone, took } = yield* one(driver, restored)
    restores.push(took)
    ends.push(gone)
  }
  const density = yield* idling(driver)
  const { gone, ready } = yield* bursting(driver)
  const coreSeconds = ready / 1000 * cpus().length / burst
  const report = {
    name: `microvm-kvm-${vmm}`,
    figures: {
      rounds,
      ...spread("boot, from nothing to a guest that confirmed, ms", boots),
      ...spread("restore, the same, ms", restores),
      ...spread("teardown, ms", ends),
      [`memory per idle machine, MemAvailable over ${idle}, MiB`]: round(density.each),
      "VMM beside its machine's memory, MiB (worst)": round(Math.max(...density.own)),
      "worker CPU per idle machine, %": round(density.workerCpu),
      [`burst of ${burst}, all ready after, ms`]: round(ready),
      [`burst of ${burst}, all gone after, ms`]: round(gone),
      "machines per core and second in it": round(1 / coreSeconds)
    },
    claims: [
      {
        claim:
          "boot, p50: Firecracker's 125 ms are from the start to init, these with jail, network, disk and confirmation",
        measured: percentile(boots, 0.5),
        bound: 125,
        unit: "ms"
      },
      { claim: "VMM's own memory, worst", measured: Math.max(...density.own), bound: 5, unit: "MiB" },
      { claim: "burst: 5 machines per core and second", measured: coreSeconds, bound: 0.2, unit: "core-s each" }
    ]
  }
  if (accelerator === "kvm") return publish(report)
  process.stdout.write("\nemulated machines: nothing is claimed\n")
  for (const [name, value] of Object.entries(report.figures)) process.stdout.write(`  ${name.padEnd(60)} ${value}\n`)
  return true
})

/** Without an image of the user's own. */
const minimal = (state: string) =>
  values.image !== undefined ? Effect.void : Effect.gen(function*() {
    const images = yield* MachineImages
    yield* images.build({ name: "bench", root: { base: "minimal" } }, (step) =>
      Effect.sync(() => void process.stdout.write(`image: ${step}\n`)))
  }).pipe(
    Effect.provide(
      MachineImagesLive.layer({ stateDirectory: state }).pipe(Layer.provide([Native.layer, layerSecureRandom]))
    )
  )

const state = values.state ?? Jobs.stateDirectory()
const exit = await Effect.runPromiseExit(
  Effect.andThen(minimal(state), Effect.scoped(program).pipe(Effect.provide(Jobs.layerOf(restored, state))))
)
if (values.state === undefined) Jobs.remove(state)
if (Exit.isSuccess(exit)) process.exit(exit.value ? 0 : 1)
const error = Exit.findErrorOption(exit)
const reason = error._tag === "Some" && error.value instanceof Error ? error.value.message : String(exit.cause)
process.stderr.write(`\nmicrovm-kvm: nothing was measured and nothing is claimed. ${reason}\n`)
process.exit(2)
