/**
 * QEMU's `microvm` machine as a VMM: hardware-virtualised, or emulated where that is asked for by name. Each machine is an
 * unprivileged process in a jail of its own (native/confine.c) with QEMU's filter of system calls on.
 */
import { Effect, Fiber, Option, type Scope } from "effect"
import { accessSync, constants, existsSync } from "node:fs"
import { chmod, chown, open, rename, rm, stat, statfs, truncate, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { codeOf, remedyOf, textOf } from "../../host/Errno.ts"
import { Host } from "../../host/Host.ts"
import { Launcher } from "../../host/Launcher.ts"
import { Native } from "../../host/Native.ts"
import { once } from "../../Once.ts"
import type { Check } from "../../sandbox/Sandbox.ts"
import * as Elf from "../image/Elf.ts"
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
import * as Argv from "./Argv.ts"
import * as Identity from "./Identity.ts"
import * as Process from "./Process.ts"
import type { Qmp, QmpError } from "./Qmp.ts"
import * as StateSocket from "./StateSocket.ts"
import * as Tool from "./Tool.ts"
import * as Tsc from "./Tsc.ts"

/** A cold boot takes 3 seconds emulated and half of one virtualised, on a machine that does nothing else. */
const deadlines: Readonly<Record<Argv.Accelerator, Deadlines>> = {
  tcg: { bootMs: 60_000, restoreMs: 20_000, personaliseMs: 15_000, saveMs: 30_000 },
  kvm: { bootMs: 15_000, restoreMs: 5_000, personaliseMs: 3_000, saveMs: 15_000 }
}

/** Where distributions put it; the jail shows /usr alone. */
const PROGRAMS = ["/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"]

/** What saving may take of a disk beside the memory. */
const SPARE_BYTES = 16 * 1024 ** 2

const CAPABILITIES = [
  // Memory that lies in a file is not sent.
  { capability: "x-ignore-shared", state: true },
  { capability: "events", state: true }
]

const USE_TCG =
  "`accelerator: tcg` in the class's `machine` emulates one instead: ten times slower, and no boundary against hostile code"

const INSTALL =
  "Install QEMU 6.0 or newer (`apt-get install qemu-system-x86`); STOKER_QEMU names another binary below /usr."

export interface Options {
  readonly accelerator: Argv.Accelerator
  /** Below /usr. Absent: where distributions put it. */
  readonly program?: string
}

const BUILD = "Build the image again: `stoker image build`."

type Step = VmmError["step"]

const failed = (step: Step, reason: string, remedy: string, cause?: unknown) =>
  new VmmError({ vmm: "qemu", step, reason, remedy, ...(cause === undefined ? {} : { cause }) })

const LOOK = "See the reason above and the worker's log; `stoker doctor` tries a machine."

/** Files of ours, for a step of a machine. */
const files = <A>(step: Step, path: string, act: () => Promise<A>) =>
  Effect.tryPromise({
    try: act,
    catch: (cause) => failed(step, textOf(cause), `${remedyOf(cause, path)}.`, cause)
  })

/** Why this is no kernel for such a machine, in words; a wrong one would say nothing at all. */
const misfit = async (path: string): Promise<string | undefined> => {
  await using file = await open(path)
  const { size } = await file.stat()
  const elf = await Elf.inspect(async (position, length) => {
    const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(length), position })
    return buffer.subarray(0, bytesRead)
  })
  if (elf === undefined) return `${path} is no kernel: no 64-bit ELF file (a vmlinux, not a bzImage)`
  const name = Elf.machineName(elf.machine)
  if (name !== process.arch) return `${path} is a kernel for ${name}, and this is ${process.arch}`
  if (elf.end > size) return `${path} is corrupt: it ends too early`
  return elf.hasPvhNote ? undefined : `${path} has no PVH note, by which it would be booted`
}

const memoryOf = (directory: string) => join(directory, "memory")
const stateOf = (directory: string) => join(directory, "state")

/** To the disk: a snapshot that outlives a power failure is whole. */
const synced = async (path: string) => {
  await using file = await open(path)
  await file.datasync()
}

export const make = Effect.fnUntraced(function*(
  { accelerator, program }: Options
): Effect.fn.Return<Vmm, never, Host | Launcher | Native> {
  const host = yield* Host
  const launcher = yield* Launcher
  const native = yield* Native
  const limits = deadlines[accelerator]

  const found = () => program ?? PROGRAMS.find((file) => existsSync(file))

  const version = yield* once(Effect.gen(function*() {
    if (process.arch !== "x64") {
      return yield* failed(
        "version",
        `its machines are for x64, and this is ${process.arch}`,
        "Use another driver here."
      )
    }
    const file = found()
    if (file === undefined) return yield* failed("version", "there is no qemu-system-x86_64", INSTALL)
    if (!file.startsWith("/usr/")) {
      return yield* failed("version", `${file} does not lie below /usr, which is all that its jail shows`, INSTALL)
    }
    const said = yield* Tool.ask(launcher, host, "qemu-version", [file, "--version"]).pipe(
      Effect.mapError((reason) => failed("version", reason, INSTALL))
    )
    const parsed = Identity.parseVersion(said)
    if (parsed === undefined) {
      return yield* failed("version", `${file} --version said "${said.split("\n")[0]}", which is not QEMU's`, INSTALL)
    }
    if (!parsed.isEnough) {
      return yield* failed("version", `${file} is QEMU ${parsed.text}, ${Identity.leastVersion} is the least`, INSTALL)
    }
    return { program: file, version: parsed }
  }))

  const tscKhz = yield* once(
    Tool.ask(launcher, host, "tsc", [native.tsc]).pipe(
      Effect.map(Tsc.parse),
      Effect.filterOrFail((khz) => khz !== undefined, (khz) => `it said ${khz}`),
      Effect.mapError((reason) =>
        failed(
          "version",
          `the rate of this processor's counter could not be measured: ${reason}`,
          "Use `accelerator: kvm`."
        )
      )
    )
  )

  const known = Effect.gen(function*() {
    const { program, version: text } = yield* version
    return { program, version: text, tscKhz: accelerator === "tcg" ? yield* tscKhz : 0 }
  })

  /** What the VMM would say too late, or not at all. */
  const preflight = Effect.fnUntraced(function*(spec: MachineSpec, step: "boot" | "restore") {
    if (spec.networkRates !== undefined) {
      return yield* failed(step, "it has no limits for a network", "Leave `networkRates` out of the class's `machine`.")
    }
    if (accelerator === "kvm" && !existsSync("/dev/kvm")) {
      return yield* failed(
        step,
        "this host has no /dev/kvm",
        `Load the kernel's module (kvm_intel, kvm_amd). ${USE_TCG}.`
      )
    }
    const reason = yield* Effect.tryPromise({
      try: () => misfit(spec.kernel),
      catch: (cause) => failed(step, `the kernel cannot be read: ${textOf(cause)}`, BUILD, cause)
    })
    if (reason !== undefined) return yield* failed(step, reason, BUILD)
    for (const path of [spec.initrd, spec.root, spec.scratch]) yield* files(step, path, () => stat(path))
    yield* files(step, spec.scratch, () => chown(spec.scratch, spec.uid, spec.gid))
  })

  /** QEMU is up and its machine made, or has said why not. */
  const start = Effect.fnUntraced(function*(
    spec: MachineSpec,
    step: "boot" | "restore",
    memory: Argv.Memory,
    jail: Pick<Argv.Jail, "memory" | "state" | "stateSocket">
  ) {
    const { program, tscKhz } = yield* known
    const stderrPath = join(spec.directory, "vmm.said")
    yield* files(step, stderrPath, () => rm(stderrPath, { force: true }))
    const vm = yield* Process.start(launcher, {
      procsFiles: spec.procsFiles,
      stderrPath,
      command: [
        ...Argv.jailed(spec, { confine: native.confine, lookonly: native["lookonly.so"], accelerator, ...jail }),
        ...Argv.argv(spec, { program, accelerator, tscKhz, memory })
      ]
    }).pipe(Effect.mapError(({ reason, remedy }) => failed(step, reason, remedy)))
    yield* asked(vm, step, vm.qmp.ready)
    return vm
  })

  /** Where QEMU ends instead of answering, what it said is the reason. */
  const asked = <A>(vm: Process.Process, step: "boot" | "restore" | "save", effect: Effect.Effect<A, QmpError>) =>
    effect.pipe(
      Effect.catch((error) =>
        vm.qmp.isLost
          ? Effect.andThen(vm.kill, Effect.flatMap(vm.ended, (words) => Effect.fail(words || error.reason)))
          : Effect.fail(error.message)
      ),
      Effect.mapError((reason) => failed(step, reason, accelerator === "kvm" ? `${LOOK} ${USE_TCG}.` : LOOK))
    )

  const inTime =
    (step: "boot" | "restore" | "save", milliseconds: number) => <A, R>(effect: Effect.Effect<A, VmmError, R>) =>
      Effect.timeoutOrElse(effect, {
        duration: milliseconds,
        orElse: () => Effect.fail(failed(step, `QEMU did not do it within ${milliseconds} ms`, LOOK))
      })

  /** A migration, of which QEMU tells how it ends. */
  const migrated = (qmp: Qmp) =>
    qmp.next("migrate", ({ data, event }) => {
      const status = data?.["status"]
      return event === "MIGRATION" && (status === "completed" || status === "failed") ? status : undefined
    })

  const save = (vm: Process.Process, folder: string, socket: StateSocket.StateSocket) =>
    Effect.fnUntraced(function*(directory: string) {
      const ask = (command: string, args?: Readonly<Record<string, unknown>>) =>
        asked(vm, "save", vm.qmp.execute(command, args))
      yield* vm.expectPause
      yield* ask("stop")
      yield* ask("migrate-set-capabilities", { capabilities: CAPABILITIES })
      const told = yield* Effect.forkChild(asked(vm, "save", migrated(vm.qmp)), { startImmediately: true })
      yield* ask("migrate", { uri: `unix:${Argv.STATE_SOCKET}` })
      const status = yield* Fiber.join(told)
      if (status !== "completed") return yield* failed("save", "QEMU could not write its state", LOOK)
      const state = yield* Effect.mapError(
        socket.received,
        (reason) => failed("save", `its state did not arrive: ${reason}`, LOOK)
      )
      yield* vm.kill
      yield* files("save", directory, async () => {
        if (directory !== folder) await rename(memoryOf(folder), memoryOf(directory))
        await writeFile(stateOf(directory), state, { mode: 0o400, flag: "wx", flush: true })
        // Nobody's to write from here on; shown to VMMs, each of which is another user.
        await chown(memoryOf(directory), 0, 0)
        await chmod(memoryOf(directory), 0o444)
        await synced(memoryOf(directory))
      })
      return { directory } satisfies Snapshot
    }, inTime("save", limits.saveMs))

  const notForTemplate = () =>
    Effect.fail(failed("save", "this machine was not booted to be saved", "Boot it with `forTemplate`."))

  const machineOf = (vm: Process.Process, save: Machine["save"]): Machine => ({
    ended: vm.ended,
    console: vm.console,
    save
  })

  /**
   * A file as large as the memory: pages that are written where there is no room left kill QEMU without a word. What fails
   * here is the saving: machines can be booted without a snapshot.
   */
  const memoryFile = Effect.fnUntraced(function*(spec: MachineSpec, folder: string) {
    const bytes = spec.memoryMib * 1024 ** 2
    const path = memoryOf(folder)
    const { bavail, bsize } = yield* files("save", folder, () => statfs(folder))
    if (bavail * bsize < bytes + SPARE_BYTES) {
      return yield* failed(
        "save",
        `a template of ${spec.memoryMib} MiB does not fit on the disk of ${folder}, ${
          Math.floor(bavail * bsize / 1024 ** 2)
        } MiB are free`,
        "Free space there, or move the state directory to a larger disk."
      )
    }
    yield* files("save", path, async () => {
      await writeFile(path, "", { mode: 0o600, flag: "wx" })
      await truncate(path, bytes)
      await chown(path, spec.uid, spec.gid)
    })
    return path
  })

  const boot = Effect.fnUntraced(
    function*(spec: MachineSpec, options?: BootOptions): Effect.fn.Return<Machine, VmmError, Scope.Scope> {
      yield* preflight(spec, "boot")
      if (options?.forTemplate === undefined) {
        const vm = yield* start(spec, "boot", "none", {})
        yield* asked(vm, "boot", vm.qmp.execute("cont"))
        return machineOf(vm, notForTemplate)
      }
      const folder = options.forTemplate
      const socket = yield* StateSocket.listen(spec.directory, spec).pipe(
        Effect.mapError((reason) => failed("boot", `no socket for its state: ${reason}`, `Look at ${spec.directory}.`))
      )
      const path = yield* memoryFile(spec, folder)
      const vm = yield* start(spec, "boot", "template", { memory: { path, writable: true }, stateSocket: socket.path })
      yield* asked(vm, "boot", vm.qmp.execute("cont"))
      return machineOf(vm, save(vm, folder, socket))
    },
    inTime("boot", limits.bootMs)
  )

  const restore = Effect.fnUntraced(
    function*(spec: MachineSpec, { directory }: Snapshot): Effect.fn.Return<Machine, VmmError, Scope.Scope> {
      yield* preflight(spec, "restore")
      const path = memoryOf(directory)
      const { size } = yield* files("restore", path, () => stat(path))
      if (size !== spec.memoryMib * 1024 ** 2) {
        return yield* failed(
          "restore",
          `${path} is of a machine of another size`,
          "Remove the template: it is made again."
        )
      }
      const vm = yield* start(spec, "restore", "snapshot", {
        memory: { path, writable: false },
        state: stateOf(directory)
      })
      const ask = (command: string, args?: Readonly<Record<string, unknown>>) =>
        asked(vm, "restore", vm.qmp.execute(command, args))
      const told = yield* Effect.forkChild(asked(vm, "restore", migrated(vm.qmp)), { startImmediately: true })
      yield* ask("migrate-set-capabilities", { capabilities: CAPABILITIES })
      yield* ask("migrate-incoming", { uri: `fd:${Argv.STATE_FD}` })
      const status = yield* Fiber.join(told)
      if (status !== "completed") {
        // It ends, and has said why.
        const words = yield* vm.ended.pipe(Effect.timeoutOption("2 seconds"))
        return yield* failed(
          "restore",
          Option.getOrElse(words, () => "") || "QEMU could not read the state",
          "Remove the template: it is made again."
        )
      }
      yield* ask("cont")
      return machineOf(vm, notForTemplate)
    },
    inTime("restore", limits.restoreMs)
  )

  const kvmCheck = (): ReadonlyArray<Check> => {
    if (accelerator !== "kvm") return []
    try {
      accessSync("/dev/kvm", constants.R_OK | constants.W_OK)
      return [{ name: "kvm", status: "ok", detail: "/dev/kvm can be opened, which only a machine that boots proves" }]
    } catch (cause) {
      const detail = `/dev/kvm: ${codeOf(cause)}`
      return [{
        name: "kvm",
        status: "missing",
        detail,
        remedy: `Load the kernel's module (kvm_intel, kvm_amd). ${USE_TCG}.`
      }]
    }
  }

  return {
    name: "qemu",
    deadlines: limits,
    identity: Effect.map(known, ({ tscKhz, version }) => Identity.identity(version, accelerator, tscKhz)),
    boot,
    restore,
    leftovers: () => [],
    wire: (spec, deadlineMs, mode) => [
      native.wire,
      "--netns",
      spec.netns,
      "--connect",
      `${GUEST_ADDRESS}:${spec.port ?? WIRE_PORT}`,
      "--within",
      String(deadlineMs),
      ...mode === "probe" ? ["--probe"] : []
    ],
    check: Effect.gen(function*() {
      const program = yield* Effect.result(known)
      const first: Check = program._tag === "Success"
        ? { name: "qemu", status: "ok", detail: `${program.success.program} ${program.success.version.text}` }
        : { name: "qemu", status: "missing", detail: program.failure.reason, remedy: program.failure.remedy }
      const tun: ReadonlyArray<Check> = existsSync("/dev/net/tun")
        ? []
        : [{
          name: "tun",
          status: "missing",
          detail: "there is no /dev/net/tun",
          remedy: "Load the kernel's module: `modprobe tun`."
        }]
      return [first, ...tun, ...kvmCheck()]
    })
  }
})
