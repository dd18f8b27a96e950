/**
 * Sandboxes that are machines, whichever VMM runs them: row, cgroup, network, disk, boot or restore, wire, personalise, verify; and
 * all of it back. What a VMM or an image is comes from outside (`Parts`), so that the same life is tested without one.
 */
import { Effect, Exit, Metric, Option, Schedule, Scope, Semaphore, Stream } from "effect"
import { existsSync } from "node:fs"
import * as fs from "node:fs/promises"
import { totalmem } from "node:os"
import { join } from "node:path"
import type { InstanceId, SandboxId } from "../../../schemas/Ids.ts"
import { LimitNotHeld, type Limits, needsOf } from "../../../schemas/Limits.ts"
import type { Phase, Source } from "../../../schemas/Program.ts"
import type { SandboxClass } from "../../../schemas/SandboxClass.ts"
import { textOf } from "../../host/Errno.ts"
import { Launcher, saidOf } from "../../host/Launcher.ts"
import type { MachineImage, MachineImageError, Manifest } from "../../microvm/MachineImage.ts"
import * as Scratch from "../../microvm/Scratch.ts"
import * as SparseFile from "../../microvm/SparseFile.ts"
import * as Templates from "../../microvm/Templates.ts"
import {
  GUEST_ADDRESS,
  HOST_ADDRESS,
  type Machine,
  type MachineSpec,
  type Snapshot,
  TAP_PREFIX,
  type Vmm,
  VmmError,
  WIRE_PORT
} from "../../microvm/Vmm.ts"
import type { MachineAttachment, SandboxNetwork } from "../../network/Network.ts"
import { findIn } from "../../network/Tools.ts"
import { within } from "../../Release.ts"
import { metrics } from "../../telemetry/Metrics.ts"
import type { LinkOptions } from "../GuestLink.ts"
import type { HostSandbox, Recipe } from "../HostSandbox.ts"
import * as IdRanges from "../IdRanges.ts"
import { type Capability, type Check, type Driver, ProvisionFailed, type Sandbox, SandboxLost } from "../Sandbox.ts"
import * as Census from "./Census.ts"
import * as CodeBenchAgent from "./CodeBenchAgent.ts"
import * as Confinement from "./Confinement.ts"
import type { Facts } from "./Greeting.ts"
import { deadlineMs, type Working } from "./Lifecycle.ts"
import { cgroupLimitsOf, type MachineDriver, memoryMibOf, ratesOf, vcpusOf } from "./Sizes.ts"

export type Disk = Scratch.Disk

/** What a driver is made of. */
export interface Parts {
  readonly driver: MachineDriver
  readonly vmmOf: (sandboxClass: SandboxClass) => Effect.Effect<Vmm, ProvisionFailed>
  /** Of all its VMMs: what one may have left outside of the machine's own folder. */
  readonly leftovers: Vmm["leftovers"]
  readonly isVmm: (program: string) => boolean
  /** What no VMM of it can do without. */
  readonly check: Vmm["check"]
  /** Where programs are looked for, as PATH has it. */
  readonly path: string
  readonly openImage: (sandboxClass: SandboxClass) => Effect.Effect<MachineImage, MachineImageError>
  readonly initrdOf: (
    image: MachineImage
  ) => Effect.Effect<
    { readonly path: string; readonly sha256: string },
    { readonly reason: string; readonly remedy: string }
  >
  readonly greet: (facts: Facts) => Effect.Effect<LinkOptions, ProvisionFailed>
  readonly network: SandboxNetwork
  readonly scratch: Scratch.Scratch
}

/** What a class's machines are made of, looked up anew for each of them: an image's name may lead to another one. */
interface Plan {
  readonly sandboxClass: SandboxClass
  readonly vmm: Vmm
  readonly image: MachineImage
  readonly initrd: { readonly path: string; readonly sha256: string }
  readonly bootArgs: ReadonlyArray<string>
}

/** `TAP_PREFIX` as the kernel's command line has it. */
const TAP_MASK = "255.255.255.252"

/** For the end of a guest's console. */
const CONSOLE_MS = 2000

/** For one connection to an agent that listens. */
const CONNECT_MS = 2000

/** Where a machine's own files lie. */
const MACHINES = "machines"

/** A template's disk, kept in memory between copies. */
const MOST_DISK_CONTENT = 64 * 1024 * 1024

/** The guest is none of ours: an agent of the old worker's, which is no part of our initrd's business. */
const hasAgent = ({ machine }: SandboxClass) => machine?.agent === "codebench"

/** An agent may be asked before it listens, so it is not saved: nobody could tell it that it was copied. */
const isTemplated = (sandboxClass: SandboxClass) => sandboxClass.machine?.snapshot !== false && !hasAgent(sandboxClass)

/** The kernel's own words where the guest knows none of ours. */
const bootArgsOf = (sandboxClass: SandboxClass, { manifest }: MachineImage): ReadonlyArray<string> => [
  "quiet",
  "loglevel=3",
  ...hasAgent(sandboxClass)
    ? [`ip=${GUEST_ADDRESS}::${HOST_ADDRESS}:${TAP_MASK}::eth0:off`, ...initArgsOf(manifest)]
    : wireArgsOf(sandboxClass)
]

/** A root of somebody else's starts its agent by itself. */
const initArgsOf = ({ recipe: { init } }: Manifest) => init === undefined ? [] : [`stoker.init=${init}`]

const wireArgsOf = ({ machine }: SandboxClass): ReadonlyArray<string> => [
  `stoker.ip=${GUEST_ADDRESS}/${TAP_PREFIX},${HOST_ADDRESS}`,
  `stoker.${machine?.wire === "vsock" ? "vsock" : "wire"}=${WIRE_PORT}`
]

const acceleratorOf = ({ machine }: SandboxClass) => machine?.accelerator ?? "kvm"

/** Only who asked for it by name gets emulation; everybody else hears why there is no machine. */
const noGuest = (driver: MachineDriver, sandboxClass: SandboxClass, { reason }: { readonly reason: string }) =>
  new ProvisionFailed({
    driver,
    step: "start",
    // A guest that does not boot may be one whose VMM somebody killed, and who kills VMMs may stop.
    isLasting: acceleratorOf(sandboxClass) === "kvm" && !existsSync("/dev/kvm"),
    reason: `no guest boots here with ${acceleratorOf(sandboxClass)}: ${reason}`,
    remedy: acceleratorOf(sandboxClass) === "tcg"
      ? "Look at the guest's last words above; `stoker doctor` looks at QEMU, images and this host."
      : "This host may show /dev/kvm and run no guest all the same. Use a host with hardware virtualisation, or a class with " +
        "driver qemu and machine {\"accelerator\": \"tcg\"}: emulated, ten times slower, and no boundary against hostile code."
  })

export const make = Effect.fnUntraced(function*(hosted: HostSandbox, plain: () => Recipe, parts: Parts) {
  const { driver } = parts
  const launcher = yield* Launcher
  const { host } = hosted
  const uids = IdRanges.make(host.instance, IdRanges.machines)
  const templates = Templates.make(host.paths.state)
  const census = Census.make(driver)
  const turn = Semaphore.makeUnsafe(1)
  /** VMMs by name and accelerator that have had a guest that spoke. */
  const proven = new Set<string>()
  const disks = new Map<string, SparseFile.SparseFile>()
  const folderOf = (id: SandboxId) => hosted.instancePath(host.instance, MACHINES, id)

  const openImage = (sandboxClass: SandboxClass) =>
    Effect.mapError(
      parts.openImage(sandboxClass),
      (cause) =>
        new ProvisionFailed({
          driver,
          step: "image",
          reason: cause.reason,
          remedy: cause.remedy,
          isLasting: true,
          cause
        })
    )

  const failed = (step: ProvisionFailed["step"]) => (error: { readonly reason: string; readonly remedy: string }) =>
    error instanceof ProvisionFailed
      ? error
      : new ProvisionFailed({ driver, step, reason: error.reason, remedy: error.remedy, cause: error })

  const io = <A>(what: string, run: () => Promise<A>) =>
    Effect.tryPromise({
      try: run,
      catch: (cause) =>
        new ProvisionFailed({
          driver,
          step: "start",
          reason: `${what}: ${textOf(cause)}`,
          remedy: "Is the state directory writable and not full?",
          cause
        })
    })

  const planOf = Effect.fnUntraced(function*(sandboxClass: SandboxClass) {
    const vmm = yield* parts.vmmOf(sandboxClass)
    const image = yield* openImage(sandboxClass)
    const initrd = yield* Effect.mapError(parts.initrdOf(image), failed("image"))
    const plan: Plan = { sandboxClass, vmm, image, initrd, bootArgs: bootArgsOf(sandboxClass, image) }
    return plan
  })

  const bindingOf = Effect.fnUntraced(function*({ bootArgs, image, initrd, sandboxClass, vmm }: Plan, disk: Disk) {
    const identity = yield* Effect.mapError(vmm.identity, failed("driver"))
    const binding: Templates.Binding = {
      vmm: identity,
      image: image.identity,
      initrd: initrd.sha256,
      vcpus: vcpusOf(sandboxClass),
      memoryMib: memoryMibOf(sandboxClass),
      diskBytes: disk.bytes,
      diskInodes: disk.inodes,
      bootArgs
    }
    return binding
  })

  const specOf = (
    { bootArgs, image, initrd, sandboxClass }: Plan,
    id: SandboxId,
    uid: number,
    attachment: MachineAttachment,
    procsFiles: ReadonlyArray<string>
  ): MachineSpec => ({
    id,
    directory: folderOf(id),
    uid,
    gid: uid,
    vcpus: vcpusOf(sandboxClass),
    memoryMib: memoryMibOf(sandboxClass),
    kernel: image.kernel,
    initrd: initrd.path,
    root: image.root,
    scratch: join(folderOf(id), "scratch.img"),
    netns: attachment.path,
    bootArgs,
    procsFiles,
    ...(hasAgent(sandboxClass) ? { port: CodeBenchAgent.AGENT_PORT } : {}),
    ...ratesOf(sandboxClass)
  })

  /** The machine's own folder, which its VMM alone may write to. */
  const makeFolder = (id: SandboxId, uid: number) =>
    io("making the machine's folder", async () => {
      await fs.mkdir(hosted.instancePath(host.instance, MACHINES), { recursive: true, mode: 0o711 })
      await fs.mkdir(folderOf(id), { mode: 0o700 })
      await fs.chown(folderOf(id), uid, uid)
    })

  const freshDisk = Effect.fnUntraced(function*({ scratch, uid }: MachineSpec, disk: Disk) {
    const empty = yield* Effect.mapError(parts.scratch.of(disk), failed("start"))
    yield* Effect.mapError(parts.scratch.write(empty, scratch, { uid, gid: uid }), failed("start"))
  })

  const templateDisk = Effect.fnUntraced(function*({ scratch, uid }: MachineSpec, { directory }: Snapshot) {
    const known = disks.get(directory)
    const found = known ??
      (yield* io(
        "reading the template's disk",
        () => SparseFile.load(join(directory, "scratch.img"), MOST_DISK_CONTENT)
      ))
    if (found === undefined) {
      return yield* new ProvisionFailed({
        driver,
        step: "start",
        reason: "the template's disk has more on it than a fresh one should",
        remedy: "Use \"snapshot\": false for this image."
      })
    }
    if (known === undefined) {
      if (disks.size >= 4) disks.clear()
      disks.set(directory, found)
    }
    yield* Effect.mapError(parts.scratch.write(found, scratch, { uid, gid: uid }), failed("start"))
  })

  /** Ends when the guest listens; fails with what its VMM said last if that ends before, or when the time is over. */
  const listens = Effect.fnUntraced(function*(vmm: Vmm, spec: MachineSpec, machine: Machine, limitMs: number) {
    const error = (reason: string) =>
      new VmmError({
        vmm: vmm.name,
        step: "boot",
        reason,
        remedy: "Is the host overloaded, or the kernel one that this VMM does not boot? `stoker doctor` tells more."
      })
    const probe = Effect.gen(function*() {
      const { ended, said, stream } = yield* Effect.mapError(
        launcher.launch({
          procsFiles: spec.procsFiles,
          command: vmm.wire(spec, limitMs, "probe"),
          stderrPath: saidOf(host.paths.instance(host.instance), `${spec.id}.probe`)
        }),
        (cause) => error(cause.message)
      )
      stream.resume()
      yield* Effect.onInterrupt(ended, () => Effect.sync(() => stream.destroy()))
      const words = yield* said
      if (words !== "") return yield* error(`its guest does not listen: ${words}`)
    })
    const died = Effect.flatMap(
      machine.ended,
      (words) => Effect.fail(error(words === "" ? "its VMM ended" : `its VMM ended: ${words}`))
    )
    yield* Effect.raceFirst(probe, died).pipe(
      Effect.timeoutOrElse({
        duration: limitMs + 2000,
        orElse: () => Effect.fail(error(`its guest did not listen within ${limitMs} ms`))
      })
    )
  })

  /** A connection to what waits in the machine, for the scope. */
  const connect = Effect.fnUntraced(function*(vmm: Vmm, spec: MachineSpec | undefined) {
    const lost = (reason: string) =>
      new SandboxLost({ driver, reason, remedy: "The job is answered as failed; see the worker's log." })
    if (spec === undefined) return yield* lost("there is no machine yet")
    const stderrPath = saidOf(host.paths.instance(host.instance), `${spec.id}.agent`)
    const { stream } = yield* Effect.acquireRelease(
      Effect.mapError(
        launcher.launch({ procsFiles: spec.procsFiles, command: vmm.wire(spec, CONNECT_MS), stderrPath }),
        ({ message }) => lost(message)
      ),
      ({ ended, stream }) =>
        Effect.sync(() => stream.destroy()).pipe(
          Effect.andThen(ended),
          // The next connection's has the same name.
          Effect.andThen(Effect.promise(() => fs.rm(stderrPath, { force: true }))),
          within(`a connection to machine ${spec.id}`, "1 second")
        )
    )
    return stream
  })

  /** Everything of one machine below its row; nothing of it outlives the scope. */
  const provisionOne = Effect.fnUntraced(function*(plan: Plan, disk: Disk, snapshot: Snapshot | undefined) {
    const { sandboxClass, vmm } = plan
    const isRestored = snapshot !== undefined
    let id: SandboxId | undefined
    const tracked = yield* census.begin(() => id ?? "without a row")
    // Last of all: is anything left? What the clearing has not managed by then goes on for a while.
    const isGone = () => id === undefined || !(parts.network.isHeld(host.instance, id) || existsSync(folderOf(id)))
    const awaitGone = Effect.sync(isGone).pipe(
      Effect.repeat({ until: (gone) => gone, schedule: Schedule.spaced("100 millis") }),
      Effect.timeoutOption(deadlineMs("stopping", vmm.deadlines, isRestored)),
      Effect.flatMap((gone) =>
        Option.isSome(gone)
          ? tracked.happens("cleared")
          : Effect.logWarning(`machine ${id} is still not gone, and stays in the ledger for the janitor`)
      )
    )
    yield* Effect.addFinalizer(() =>
      Effect.andThen(
        tracked.happens("stop"),
        Effect.suspend(() => isGone() ? tracked.happens("cleared") : Effect.asVoid(Effect.forkDetach(awaitGone)))
      )
    )
    const uid = yield* uids.take
    let machine: Machine | undefined
    let spec: MachineSpec | undefined
    let attachment: MachineAttachment | undefined

    /** Fails when the machine is in this state for longer than it may be, with where its guest stands. */
    const inTime = Effect.fnUntraced(function*(state: Working) {
      const limitMs = deadlineMs(state, vmm.deadlines, isRestored)
      const left = yield* Effect.timeoutOption(tracked.leaves(state), limitMs)
      if (Option.isSome(left)) return
      const words = yield* Effect.timeoutOption(machine?.console ?? Effect.succeed(""), CONSOLE_MS)
      return yield* new ProvisionFailed({
        driver,
        step: state === "reserving" ? "ledger" : state === "network" ? "network" : "start",
        reason: `it was in state ${state} for more than ${limitMs} ms. ${Option.getOrElse(words, () => "")}`.trim(),
        remedy: "Is the host overloaded? Run `stoker doctor`."
      })
    })
    const overdue = Effect.forEach(["reserving", "network", "booting"] as const, inTime, { discard: true }).pipe(
      Effect.andThen(Effect.never)
    )

    const prepare: Recipe["prepare"] = Effect.fnUntraced(function*(row, procsFiles) {
      id = row
      yield* tracked.happens("reserved")
      attachment = yield* Effect.mapError(
        parts.network.acquireMachine(row, sandboxClass, { uid, gid: uid }),
        failed("network")
      )
      yield* makeFolder(row, uid)
      const made = specOf(plan, row, uid, attachment, procsFiles)
      yield* snapshot === undefined ? freshDisk(made, disk) : templateDisk(made, snapshot)
      spec = made
      yield* tracked.happens("connected")
      const starting = snapshot === undefined ? vmm.boot(made) : vmm.restore(made, snapshot)
      machine = yield* Effect.mapError(starting, failed("start"))
    })

    const { personaliseMs } = vmm.deadlines
    const reachMs = isRestored ? vmm.deadlines.restoreMs : vmm.deadlines.bootMs
    const ended = Effect.suspend(() => machine?.ended ?? Effect.never)
    const limits = cgroupLimitsOf(driver, sandboxClass)
    const outer: Recipe = {
      ...plain(),
      prepare,
      verify: (cgroup) => Confinement.verify({ driver, isVmm: parts.isVmm, uid, netns: attachment?.inode ?? 0 })(cgroup)
    }
    const agent = CodeBenchAgent.make(driver, Effect.suspend(() => connect(vmm, spec)))
    const provideAgent = hosted.provisionAgent(outer, {
      limits,
      ended,
      source: agent.source,
      ready: agent.ready(reachMs + personaliseMs).pipe(
        Effect.catch(({ reason, remedy }) =>
          Effect.flatMap(
            machine?.console ?? Effect.succeed(""),
            (words) => Effect.fail(failed("start")({ reason: `${reason}. ${words}`, remedy }))
          )
        )
      )
    })
    const recipe: Recipe = {
      ...outer,
      // Made before it is asked for.
      command: () => spec === undefined ? [] : vmm.wire(spec, reachMs),
      machine: {
        limits,
        greeting: Effect.suspend(() =>
          parts.greet({
            hostname: `stoker-${(id ?? "").slice(0, 12)}`,
            hasRoute: attachment?.hasRoute ?? false,
            resolvConf: attachment?.resolvConf ?? ""
          })
        ),
        ended
      }
    }
    const provided = hasAgent(sandboxClass) ? provideAgent : hosted.provision(recipe, sandboxClass)
    const confirmed = Effect.tap(provided, () => tracked.happens("confirmed"))
    const sandbox = yield* Effect.raceFirst(confirmed, overdue)
    yield* Metric.update(metrics.machineStarts.series({ driver, kind: isRestored ? "restored" : "booted" }), 1)
    yield* Effect.addFinalizer(() => tracked.happens("stop"))
    const taken = Effect.suspend(() => tracked.state() === "ready" ? tracked.happens("taken") : Effect.void)
    const { source } = sandbox
    const leased: Sandbox = {
      ...sandbox,
      ...(source === undefined
        ? {}
        : { source: (phase: Phase, code: Source) => Stream.unwrap(Effect.as(taken, source(phase, code))) }),
      put: (files) => Effect.andThen(taken, sandbox.put(files)),
      run: (phase) => Stream.unwrap(Effect.as(taken, sandbox.run(phase)))
    }
    return leased
  })

  /** A copy of the template if there is one; a booted machine where there is none, or where the copy came to nothing. */
  const provisionPlanned = Effect.fnUntraced(function*(plan: Plan, disk: Disk) {
    const { sandboxClass } = plan
    if (!isTemplated(sandboxClass)) return yield* provisionOne(plan, disk, undefined)
    const binding = yield* bindingOf(plan, disk)
    const snapshot = yield* templates.find(binding).pipe(
      Effect.tapError((error) => Effect.logWarning(`no machine template: ${error.message}`)),
      Effect.orElseSucceed(() => undefined)
    )
    if (snapshot === undefined) return yield* provisionOne(plan, disk, undefined)
    const outer = yield* Effect.scope
    const scope = yield* Scope.fork(outer)
    const exit = yield* Effect.exit(Scope.provide(provisionOne(plan, disk, snapshot), scope))
    if (Exit.isSuccess(exit)) return exit.value
    yield* Scope.close(scope, exit)
    const error = Option.getOrUndefined(Exit.findErrorOption(exit))
    if (error === undefined || (error.step !== "start" && error.step !== "ready")) return yield* exit
    yield* Effect.logWarning(
      `a machine of class ${sandboxClass.name} could not be restored and is booted: ${error.message}`
    )
    yield* Effect.ignore(templates.discard(binding), { log: "Warn", message: "the template could not be removed" })
    disks.delete(snapshot.directory)
    return yield* provisionOne(plan, disk, undefined)
  })

  /** A machine that is booted to be saved. Its network leads nowhere, whatever the class's does. */
  const build = (plan: Plan, disk: Disk) => (finish: Templates.Finish) =>
    hosted.aside(
      { ...plain(), machine: asideOf(plan) },
      Effect.fnUntraced(function*(id, procsFiles) {
        const { sandboxClass, vmm } = plan
        const uid = yield* uids.take
        const attachment = yield* Effect.mapError(
          parts.network.acquireMachine(id, { ...sandboxClass, network: "none" }, { uid, gid: uid }),
          failed("network")
        )
        yield* makeFolder(id, uid)
        const spec = specOf(plan, id, uid, attachment, procsFiles)
        yield* freshDisk(spec, disk)
        const making = Templates.makingOf(host.paths.state, id)
        yield* io("making the template's folder", async () => {
          await fs.mkdir(making, { mode: 0o700 })
          await fs.chown(making, uid, uid)
        })
        const machine = yield* vmm.boot(spec, { forTemplate: making })
        yield* listens(vmm, spec, machine, vmm.deadlines.bootMs)
        yield* machine.save(making).pipe(
          Effect.timeoutOrElse({
            duration: vmm.deadlines.saveMs,
            orElse: () =>
              Effect.fail(
                new VmmError({
                  vmm: vmm.name,
                  step: "save",
                  reason: `it took more than ${vmm.deadlines.saveMs} ms`,
                  remedy: "Is the disk of the state directory very slow?"
                })
              )
          })
        )
        const content = yield* io("reading the template's disk", () => SparseFile.load(spec.scratch, MOST_DISK_CONTENT))
        if (content === undefined) {
          return yield* new Templates.TemplateError({
            reason: "its disk has more on it than a fresh one should",
            remedy: "Use \"snapshot\": false for this image."
          })
        }
        yield* io("writing the template's disk", () => SparseFile.write(content, join(making, "scratch.img")))
        yield* finish(making)
      })
    )
  const asideOf = (plan: Plan): NonNullable<Recipe["machine"]> => ({
    limits: cgroupLimitsOf(driver, plan.sandboxClass),
    greeting: Effect.die("a template's machine is not greeted"),
    ended: Effect.never
  })

  const diskOf = ({ defaults, pool }: SandboxClass): Disk =>
    pool?.disk ?? { bytes: defaults.diskBytes, inodes: defaults.diskInodes }

  const keyOf = (sandboxClass: SandboxClass) =>
    `${driver} ${acceleratorOf(sandboxClass)}${hasAgent(sandboxClass) ? " codebench" : ""}`

  /** What takes long and needs doing once: a guest that boots at all, and the template of the class's machines. */
  const prepareClass = Effect.fnUntraced(function*(sandboxClass: SandboxClass) {
    const plan = yield* planOf(sandboxClass)
    const disk = diskOf(sandboxClass)
    const key = keyOf(sandboxClass)
    // Once is an accident: somebody may have killed it.
    const blame = (error: { readonly reason: string; readonly remedy: string }) =>
      proven.has(key) ? failed("start")(error) : noGuest(driver, sandboxClass, error)
    if (isTemplated(sandboxClass)) {
      const binding = yield* bindingOf(plan, disk)
      const without = ({ message }: { readonly message: string }) =>
        Effect.logWarning(`machines of class ${sandboxClass.name} are booted, each of them: ${message}`)
      yield* templates.obtain(binding, build(plan, disk)).pipe(
        Effect.retry({ times: 1, while: ({ _tag }) => _tag === "VmmError" }),
        Effect.catchTags({
          VmmError: (error) => error.step === "save" ? without(error) : Effect.fail(blame(error)),
          TemplateError: without
        })
      )
    }
    if (proven.has(key)) return
    // Opening /dev/kvm proves nothing, and a template may be of better days.
    yield* Effect.scoped(provisionPlanned(plan, disk)).pipe(
      Effect.retry({ times: 1, while: ({ step }) => step === "start" || step === "ready" }),
      Effect.mapError((error) => error.step === "start" ? blame(error) : error)
    )
    proven.add(key)
  })

  const accepts = Effect.fnUntraced(function*(sandboxClass: SandboxClass, limits: Limits) {
    const refuse = (limit: string, reason: string, remedy: string) => new LimitNotHeld({ limit, reason, remedy })
    for (const limit of needsOf(limits).values()) {
      return yield* refuse(
        limit,
        `the machines of driver ${driver} do not hold it`,
        "Leave it out, or use a sandbox class of another driver."
      )
    }
    if (limits.cpus > vcpusOf(sandboxClass)) {
      return yield* refuse(
        "cpus",
        `a machine of class ${sandboxClass.name} has ${vcpusOf(sandboxClass)} processors`,
        "Ask for less, or raise the class's machine.vcpus."
      )
    }
    if (limits.diskBytes > Scratch.MOST_BYTES) {
      return yield* refuse(
        "diskBytes",
        `a machine's disk has ${Scratch.MOST_BYTES} bytes at most`,
        "Ask for less."
      )
    }
  })

  const capabilities: ReadonlySet<Capability> = new Set<Capability>([
    "isolation",
    "memory-limit",
    "cpu-limit",
    "pids-limit",
    "disk-limit",
    "usage"
  ])

  const made: Driver = {
    name: driver,
    capabilities,
    prepare: (sandboxClass) => Semaphore.withPermits(turn, 1)(prepareClass(sandboxClass)),
    provision: Effect.fn("Machines.provision")(function*(sandboxClass, disk) {
      return yield* provisionPlanned(yield* planOf(sandboxClass), disk)
    }),
    accepts,
    reap: (row) => hosted.reap(plain(), row),
    rootIdentity: Effect.fnUntraced(function*(sandboxClass) {
      const { identity } = yield* openImage(sandboxClass)
      if (!hasAgent(sandboxClass)) return `machine image ${identity}`
      return yield* new ProvisionFailed({
        driver,
        step: "image",
        reason:
          `class ${sandboxClass.name} has machines with a CodeBench agent, which keeps what it compiles to itself`,
        remedy: "Nothing of its jobs is kept for the next one."
      })
    }),
    check: Effect.map(parts.check, (checks) => [...checks, formatter(parts.path)]),
    checkClass: (sandboxClass) => checkClass(parts, sandboxClass)
  }
  return { driver: made, counts: census.counts }
})

const checkClass = Effect.fnUntraced(function*(parts: Parts, sandboxClass: SandboxClass) {
  const { name } = sandboxClass
  const image = yield* Effect.result(parts.openImage(sandboxClass))
  const found: Check = image._tag === "Success"
    ? { name: "image", status: "ok", detail: `class ${name}: ${image.success.name}, ${image.success.directory}` }
    : {
      name: "image",
      status: "missing",
      detail: `class ${name}: ${image.failure.reason}`,
      remedy: image.failure.remedy
    }
  const vmm = yield* Effect.result(parts.vmmOf(sandboxClass))
  const checks = vmm._tag === "Success"
    ? yield* vmm.success.check
    : [{ name: "vmm", status: "missing", detail: vmm.failure.reason, remedy: vmm.failure.remedy } satisfies Check]
  const known = new Set((yield* parts.check).map(({ detail }) => detail))
  const others = checks.filter(({ detail }) => !known.has(detail))
  return [
    ...others,
    found,
    ...tooLarge(parts.driver, sandboxClass),
    ...(yield* parts.network.checkMachine(sandboxClass))
  ]
})

/** A machine that this host can never hold would be booted until it gives up. */
const tooLarge = (driver: Parts["driver"], sandboxClass: SandboxClass): ReadonlyArray<Check> => {
  const MiB = 1024 * 1024
  const needed = cgroupLimitsOf(driver, sandboxClass).memoryBytes ?? 0
  return needed <= totalmem() ? [] : [{
    name: "memory",
    status: "missing",
    detail: `class ${sandboxClass.name}: a machine takes up to ${
      Math.ceil(needed / MiB)
    } MiB with its VMM, and this host has ${Math.floor(totalmem() / MiB)} MiB`,
    remedy: "Lower the class's ceiling.memory."
  }]
}

/** Disks are made by it. */
const formatter = (path: string): Check => {
  const found = findIn([...path.split(":"), "/usr/sbin", "/sbin"], "mke2fs")
  return found === undefined
    ? { name: "mke2fs", status: "missing", detail: "not found", remedy: "apt-get install e2fsprogs" }
    : { name: "mke2fs", status: "ok", detail: found }
}

/** What one machine may have left, by its row alone. */
export const leftovers =
  (hosted: HostSandbox, ofVmm: Vmm["leftovers"]) => (instance: InstanceId, id: SandboxId): ReadonlyArray<string> => {
    const directory = hosted.instancePath(instance, MACHINES, id)
    return [
      directory,
      Templates.makingOf(hosted.host.paths.state, id),
      saidOf(hosted.instancePath(instance), `${id}.probe`),
      saidOf(hosted.instancePath(instance), `${id}.agent`),
      ...ofVmm({ id, directory })
    ]
  }
