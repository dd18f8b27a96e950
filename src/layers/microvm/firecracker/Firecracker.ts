/** Machines by Firecracker: each in a jail of its own, asked over its API. Needs KVM. */
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { Host } from "../../host/Host.ts"
import { Launcher } from "../../host/Launcher.ts"
import { once } from "../../Once.ts"
import {
  type BootOptions,
  type Deadlines,
  GUEST_ADDRESS,
  type Machine,
  type MachineSpec,
  type Snapshot,
  type Vmm,
  VmmError,
  WIRE_PORT
} from "../Vmm.ts"
import * as Api from "./Api.ts"
import { check } from "./Check.ts"
import * as Jail from "./Jail.ts"
import * as Jailer from "./Jailer.ts"
import * as Process from "./Process.ts"
import * as Programs from "./Programs.ts"
import * as Requests from "./Requests.ts"

export interface Settings {
  /** By the tap, or by vsock, which needs no address in the guest. */
  readonly wire: Requests.Wire
  /** Our program that connects to a guest (`native/wire.c`). */
  readonly wireProgram: string
  readonly env: Programs.Environment
  /** In place of the usual ones, in milliseconds. */
  readonly deadlines?: Partial<Deadlines>
  /** For each call of the API but those that write a snapshot. Milliseconds. */
  readonly callMs?: number
}

/** Wide: a host that boots a hundred at once is slow. Firecracker itself promises 125 ms. */
const usual: Deadlines = { bootMs: 10_000, restoreMs: 5000, personaliseMs: 5000, saveMs: 60_000 }

/** It answers within milliseconds, if at all. */
const CALL_MS = 5000

const socketFile = (path: string) => path.slice(path.lastIndexOf("/") + 1)

/** What the operator can do when Firecracker itself says no, by what it says. */
const remedyOf = (step: VmmError["step"], reason: string): string => {
  if (/No space left/i.test(reason)) return "Free space where the state directory lies"
  if (/kvm/i.test(reason)) {
    return "Look at `stoker doctor`; only a host with KVM runs these machines, driver qemu does without"
  }
  if (/tap|network/i.test(reason)) return "Look whether the machine's namespace has its tap (`ip -n NAMESPACE link`)"
  if (step === "restore") return "Remove the template: it is made anew for this version and processor"
  return "Look at what it said, and try the machine by hand with docs/firecracker.md"
}

const failed = (step: VmmError["step"], reason: string, cause?: unknown) =>
  new VmmError({
    vmm: "firecracker",
    step,
    reason,
    remedy: remedyOf(step, reason),
    ...(cause === undefined ? {} : { cause })
  })

/** Firecracker as this host has it. Programs are looked for when the first machine is asked for, and again until they are there. */
export const make = Effect.fnUntraced(function*(settings: Settings) {
  const launcher = yield* Launcher
  const host = yield* Host
  const programs = yield* once(Programs.ready(settings.env))
  const identity = yield* once(Effect.flatMap(programs, Programs.identity))
  const deadlines: Deadlines = { ...usual, ...settings.deadlines }
  const callMs = settings.callMs ?? CALL_MS

  /** An API call, or why the process has ended instead. */
  const whileAlive = <A>(
    step: VmmError["step"],
    vmm: Process.VmmProcess,
    asked: Effect.Effect<A, Api.ApiError>
  ): Effect.Effect<A, VmmError> => {
    const dead = Effect.flatMap(vmm.ended, (words) => Effect.fail(failed(step, words)))
    const told = (error: Api.ApiError) =>
      // A refusal to load ends the process after it: what the API said is the better reason. A lost connection is none.
      error.kind === "gone"
        ? Effect.timeoutOrElse(dead, {
          duration: callMs,
          orElse: () => Effect.fail(failed(step, error.message, error))
        })
        : Effect.fail(failed(step, error.message, error))
    return Effect.raceFirst(asked.pipe(Effect.catch(told)), dead)
  }

  /** A process in its jail that has taken all calls. */
  const run = Effect.fnUntraced(function*(
    step: "boot" | "restore",
    spec: MachineSpec,
    jail: Jailer.JailFolders,
    calls: ReadonlyArray<Requests.Call>,
    fileBytes: number
  ) {
    const { firecracker, jailer } = yield* programs
    const command = Jailer.command({
      jailer,
      program: firecracker,
      spec,
      mountinfo: readFileSync("/proc/self/mountinfo", "utf8"),
      fileBytes
    })
    const vmm = yield* Process.start(spec, jail, command).pipe(
      Effect.provideService(Launcher, launcher),
      Effect.mapError((error) =>
        new VmmError({ vmm: "firecracker", step, reason: error.reason, remedy: error.remedy, cause: error })
      )
    )
    const api = Api.make(jail.run, socketFile(Requests.jailPaths.socket))
    yield* whileAlive(step, vmm, api.up(step === "boot" ? deadlines.bootMs : deadlines.restoreMs))
    for (const call of calls) yield* whileAlive(step, vmm, api.call(call, callMs))
    return { api, vmm }
  })

  /** Pauses, writes, ends. The files are taken when nobody can change them any more. */
  const save = (spec: MachineSpec, jail: Jailer.JailFolders, { api, vmm }: { api: Api.Api; vmm: Process.VmmProcess }) =>
    Effect.fnUntraced(function*(directory: string) {
      for (const call of Requests.save) yield* whileAlive("save", vmm, api.call(call, deadlines.saveMs))
      yield* vmm.kill
      yield* Jail.collect(spec, jail, directory)
      const snapshot: Snapshot = { directory }
      return snapshot
    })

  const notForTemplate = () =>
    Effect.fail(failed("save", "this machine was not booted to be saved: what it may write is too small"))

  const boot = Effect.fnUntraced(function*(spec: MachineSpec, options?: BootOptions) {
    const { firecracker, version } = yield* programs
    const forTemplate = options?.forTemplate !== undefined
    const jail = Jailer.foldersOf(spec, firecracker)
    const calls = yield* Effect.try({
      try: () => Requests.boot(spec, settings.wire, version),
      catch: (cause) => failed("boot", `Firecracker has no such machine: ${String(cause)}`, cause)
    })
    yield* Jail.prepareBoot(spec, jail, forTemplate)
    const diskBytes = yield* Jail.sizeOf("boot", spec.scratch)
    const fileBytes = forTemplate ? Math.max(diskBytes, spec.memoryMib * 2 ** 20) : diskBytes
    const running = yield* run("boot", spec, jail, calls, fileBytes)
    const machine: Machine = {
      ended: running.vmm.ended,
      save: forTemplate ? save(spec, jail, running) : notForTemplate
    }
    return machine
  })

  const restore = Effect.fnUntraced(function*(spec: MachineSpec, snapshot: Snapshot) {
    const { firecracker, version } = yield* programs
    const jail = Jailer.foldersOf(spec, firecracker)
    yield* Jail.prepareRestore(spec, jail, snapshot)
    const diskBytes = yield* Jail.sizeOf("restore", spec.scratch)
    const running = yield* run("restore", spec, jail, Requests.restore(version), diskBytes)
    const machine: Machine = { ended: running.vmm.ended, save: notForTemplate }
    return machine
  })

  const wire = (spec: MachineSpec, deadlineMs: number, mode?: "probe"): ReadonlyArray<string> => [
    settings.wireProgram,
    ...(settings.wire === "tcp"
      ? ["--netns", spec.netns, "--connect", `${GUEST_ADDRESS}:${spec.port ?? WIRE_PORT}`]
      : [
        "--vsock",
        join(vsockFolder(spec), socketFile(Requests.jailPaths.vsock)),
        "--port",
        `${spec.port ?? WIRE_PORT}`
      ]),
    "--within",
    `${deadlineMs}`,
    ...(mode === "probe" ? ["--probe"] : [])
  ]

  /** The jail's folder is named after the program's file, which is known once a machine was started. */
  let program = "firecracker"
  const vsockFolder = (spec: MachineSpec) => Jailer.foldersOf(spec, program).run
  const known = Effect.tap(programs, ({ firecracker }) =>
    Effect.sync(() => {
      program = firecracker
    }))

  const vmm: Vmm = {
    name: "firecracker",
    deadlines,
    identity,
    boot: (spec, options) => Effect.andThen(known, boot(spec, options)),
    restore: (spec, snapshot) => Effect.andThen(known, restore(spec, snapshot)),
    leftovers: () => [],
    wire,
    check: check(settings.env, host.paths.state)
  }
  return vmm
})
