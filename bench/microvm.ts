/**
 * Machines by QEMU through the product, beside the same machines by a script: a plain command line as root, without jail,
 * filter or limits. Both are ready when the same program hears the guest. Emulated, unless `kvm` is the first argument.
 */
import { Effect, Exit, Scope } from "effect"
import { type ChildProcessByStdio, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Readable, Writable } from "node:stream"
import * as Argv from "../src/layers/microvm/qemu/Argv.ts"
import * as Qemu from "../src/layers/microvm/qemu/Qemu.ts"
import type { MachineSpec, Vmm } from "../src/layers/microvm/Vmm.ts"
import { layerDrivers } from "../src/wiring.ts"
import * as Rig from "../test/microvm/VmmRig.ts"
import { percentile, publish, round, spread } from "./report.ts"

const accelerator = process.argv[2] === "kvm" ? "kvm" : "tcg"
const BOOTS = Number(process.argv[3] ?? 7)
const RESTORES = Number(process.argv[4] ?? 20)
const CLONES = Number(process.argv[5] ?? 20)
const PROGRAM = "/usr/bin/qemu-system-x86_64"

type Child = ChildProcessByStdio<Writable, Readable, null>

/** As somebody would type it: the same machine, its files by their own names, the tap by its name. */
const plain = (spec: MachineSpec, memory: Argv.Memory, tscKhz: number, template: string): Child => {
  const names: Readonly<Record<string, string>> = {
    [Argv.KERNEL]: spec.kernel,
    [Argv.INITRD]: spec.initrd,
    [Argv.ROOT]: spec.root,
    [Argv.SCRATCH]: spec.scratch,
    [Argv.MEMORY]: join(template, "memory")
  }
  const args = Argv.argv(spec, { program: PROGRAM, accelerator, memory, tscKhz })
    .filter((arg, index, all) => arg !== "-S" && arg !== "-sandbox" && all[index - 1] !== "-sandbox")
    .map((arg) => arg.replace("net,fd=3", "net,ifname=tap0,script=no,downscript=no"))
    .map((arg) =>
      names[arg] ?? arg.replace(/(file|mem-path)=(\/[a-z0-9.]+)/, (_, key, at) => `${key}=${names[at] ?? at}`)
    )
  return spawn("nsenter", [`--net=${spec.netns}`, ...args], { stdio: ["pipe", "pipe", "inherit"] })
}

/** Loads the state and goes on, as the shortest script does it. */
const incoming = async (child: Child, state: string) => {
  let text = ""
  child.stdout.on("data", (chunk: Buffer) => text += chunk.toString())
  const say = (execute: string, more: object = {}) => child.stdin.write(`${JSON.stringify({ execute, ...more })}\n`)
  say("qmp_capabilities")
  const capabilities = ["x-ignore-shared", "events"].map((capability) => ({ capability, state: true }))
  say("migrate-set-capabilities", { arguments: { capabilities } })
  say("migrate-incoming", { arguments: { uri: `exec:cat ${state}` } })
  while (!text.includes("\"status\": \"completed\"")) await once(child.stdout, "data")
  say("cont")
}

const killed = async (child: Child) => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, "exit")
  child.kill("SIGKILL")
  await gone
}

const heard = Effect.fnUntraced(function*(vmm: Vmm, spec: MachineSpec) {
  const said = yield* Effect.scoped(Rig.probe(vmm, spec))
  if (said !== "") return yield* Effect.die(new Error(said))
})

/** MiB that the host could still give. */
const available = () => Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1]) / 1024

const ownCpu = () => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1000
}

/** Milliseconds until it is ready, and of its end. */
const byHand = (vmm: Vmm, spec: MachineSpec, memory: Argv.Memory, tscKhz: number, template: string) =>
  Effect.gen(function*() {
    const began = performance.now()
    const child = plain(spec, memory, tscKhz, template)
    if (memory === "snapshot") yield* Effect.promise(() => incoming(child, join(template, "state")))
    yield* heard(vmm, spec)
    const ready = performance.now() - began
    const ending = performance.now()
    yield* Effect.promise(() => killed(child))
    return { ready, end: performance.now() - ending }
  })

const byUs = (vmm: Vmm, spec: MachineSpec, memory: Argv.Memory, template: string) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const began = performance.now()
    yield* Scope.provide(memory === "snapshot" ? vmm.restore(spec, { directory: template }) : vmm.boot(spec), scope)
    yield* heard(vmm, spec)
    const ready = performance.now() - began
    const ending = performance.now()
    yield* Scope.close(scope, Exit.void)
    return { ready, end: performance.now() - ending }
  })

const program = Effect.gen(function*() {
  const vmm = yield* Qemu.make({ accelerator })
  const tscKhz = Number(/, (\d+) MHz/.exec(yield* vmm.identity)?.[1] ?? 0) * 1000
  const place = yield* Rig.folder
  const template = join(place, "template")
  mkdirSync(template)
  const first = yield* Rig.spec(place)
  yield* Effect.scoped(Effect.gen(function*() {
    const machine = yield* vmm.boot(first, { forTemplate: template })
    yield* heard(vmm, first)
    yield* machine.save(template)
  }))

  /** In turns, each with another namespace and disk. */
  const compare = Effect.fnUntraced(function*(memory: Argv.Memory, rounds: number, beside: number) {
    const hand: Array<{ readonly ready: number; readonly end: number }> = []
    const ours: Array<{ readonly ready: number; readonly end: number }> = []
    for (let n = 0; n < rounds; n++) {
      yield* Effect.scoped(Effect.gen(function*() {
        const specs = yield* Effect.forEach(Array.from({ length: 2 * beside }), () => Rig.spec(place))
        const of = <A, E, R>(from: number, act: (spec: MachineSpec) => Effect.Effect<A, E, R>) =>
          Effect.forEach(specs.slice(from, from + beside), act, { concurrency: beside })
        hand.push(...yield* of(0, (spec) => byHand(vmm, spec, memory, tscKhz, template)))
        ours.push(...yield* of(beside, (spec) => byUs(vmm, spec, memory, template)))
      }))
    }
    const of = (all: typeof hand, key: "end" | "ready") => all.map((one) => one[key])
    return {
      hand: { ready: of(hand, "ready"), end: of(hand, "end") },
      ours: { ready: of(ours, "ready"), end: of(ours, "end") }
    }
  })
  const cold = yield* compare("none", BOOTS, 1)
  const warm = yield* compare("snapshot", RESTORES, 1)
  const four = yield* compare("snapshot", Math.ceil(RESTORES / 4), 4)
  const ratio = (ours: ReadonlyArray<number>, hand: ReadonlyArray<number>) =>
    percentile(ours, 0.5) / percentile(hand, 0.5)

  const density = yield* Effect.scoped(Effect.gen(function*() {
    const specs = yield* Effect.forEach(Array.from({ length: CLONES }), () => Rig.spec(place))
    const before = available()
    for (const spec of specs) {
      yield* vmm.restore(spec, { directory: template })
      yield* heard(vmm, spec)
    }
    yield* Effect.sleep("5 seconds")
    const cpu = ownCpu()
    const began = performance.now()
    yield* Effect.sleep("10 seconds")
    const share = (ownCpu() - cpu) / (performance.now() - began)
    const pss = specs.flatMap(({ uid }) => Rig.processesOf(uid)).map((pid) =>
      Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1]) / 1024
    )
    return {
      mib: (before - available()) / CLONES,
      pss: pss.reduce((sum, one) => sum + one, 0) / CLONES,
      percent: share * 100 / CLONES
    }
  }))

  return publish({
    name: accelerator === "tcg" ? "microvm" : "microvm-qemu-kvm",
    figures: {
      "cold boots": BOOTS,
      restores: RESTORES,
      ...spread("cold boot by hand, ms", cold.hand.ready),
      ...spread("cold boot, ms", cold.ours.ready),
      ...spread("restore by hand, ms", warm.hand.ready),
      ...spread("restore, ms", warm.ours.ready),
      ...spread("four restores at once by hand, each, ms", four.hand.ready),
      ...spread("four restores at once, each, ms", four.ours.ready),
      ...spread("end by hand, ms", warm.hand.end),
      ...spread("end, ms", warm.ours.end),
      "four at once to four by hand, p50, ×": round(ratio(four.ours.ready, four.hand.ready)),
      [`MemAvailable per idle clone of ${CLONES}, MiB`]: round(density.mib),
      "share of memory (PSS) per idle clone, MiB": round(density.pss),
      "worker CPU per idle clone, %": round(density.percent)
    },
    claims: [
      {
        claim: "cold boot to ready, p50, to a plain QEMU",
        measured: ratio(cold.ours.ready, cold.hand.ready),
        bound: 1.3,
        unit: "×"
      },
      {
        claim: "restore to ready, p50, to a plain QEMU",
        measured: ratio(warm.ours.ready, warm.hand.ready),
        bound: 1.3,
        unit: "×"
      },
      {
        claim: "end of a machine, p50, to killing a plain QEMU",
        measured: ratio(warm.ours.end, warm.hand.end),
        bound: 2,
        unit: "×"
      },
      { claim: "memory per idle clone", measured: density.mib, bound: 45, unit: "MiB" },
      { claim: "worker CPU per idle clone", measured: density.percent, bound: 0.1, unit: "%" }
    ]
  })
}).pipe(Effect.scoped)

const state = mkdtempSync(join(tmpdir(), "stoker-bench-"))
const held = await Effect.runPromise(program.pipe(Effect.provide(layerDrivers(state, []))))
rmSync(state, { recursive: true, force: true })
process.exit(held ? 0 : 1)
