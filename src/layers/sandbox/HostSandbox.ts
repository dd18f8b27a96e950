/**
 * What all sandboxes share whose processes are this host's: a ledger row, a cgroup with limits before the first
 * instruction, a guest on a child's stdio, measures from the host, and a teardown that is proven. A driver adds only
 * what is to be launched, and what else it has to remove.
 */
import { Effect, type Scope, Stream } from "effect"
import { existsSync, rmSync } from "node:fs"
import { join } from "node:path"
import type { RunRequest } from "../../guest/Protocol.ts"
import type { InstanceId, SandboxId } from "../../schemas/Ids.ts"
import type { Limits } from "../../schemas/Limits.ts"
import { baseEnv, type Phase, type Source } from "../../schemas/Program.ts"
import type { DriverName, SandboxClass } from "../../schemas/SandboxClass.ts"
import { type Cgroup, type CgroupError, type CgroupLimits, Cgroups } from "../cgroup/Cgroup.ts"
import { Host } from "../host/Host.ts"
import { Launcher, saidOf } from "../host/Launcher.ts"
import { Ledger, type LedgerRow } from "../ledger/Ledger.ts"
import { monotonicNanos } from "../Now.ts"
import { within } from "../Release.ts"
import * as GuestLink from "./GuestLink.ts"
import * as HostFunctions from "./HostFunctions.ts"
import * as HostLimits from "./HostLimits.ts"
import * as HostUsage from "./HostUsage.ts"
import * as MachineMeter from "./MachineMeter.ts"
import * as Meter from "./Meter.ts"
import { removeTree } from "./RemoveTree.ts"
import {
  type ImageRun,
  type PhaseEvent,
  type PhaseExit,
  ProvisionFailed,
  type Sandbox,
  SandboxLost,
  SandboxRefused
} from "./Sandbox.ts"
import * as WarmHost from "./WarmHost.ts"

const ENOMEM = 12
const EOPNOTSUPP = 95

/** A guest says that it is ready within this, or the sandbox is given up. A cold one takes about 15 ms. */
const READY_MS = 20_000

/** How long a guest may take to end by itself before the cgroup is killed. */
const FAREWELL = "1 second"

/** The runtime that makes a sandbox takes some megabytes: with so much it fits into the limits of a phase. */
const RUNTIME_BYTES = 64 * 1024 * 1024

/** Stack of a job's process: the usual default, and what judges expect for deep recursion. */
const STACK_BYTES = 64 * 1024 * 1024

/**
 * Where the sandbox is a machine: its cgroup holds the VMM and the wire to the guest, with limits of their own that stay, and a
 * kernel inside holds and counts what the phases use.
 */
export interface MachineRecipe {
  readonly limits: CgroupLimits
  /** The guest's first words to hear, made when it listens because the time is in them, and what is to be said of its answer. */
  readonly greeting: Effect.Effect<GuestLink.LinkOptions, ProvisionFailed>
  /** Ends when the VMM has, with its last words: the link itself hears nothing of that. How long to wait is its maker's affair. */
  readonly ended: Effect.Effect<string>
}

/** A machine whose guest is none of ours: no link to it stays, it is limited as a whole, and does a job in one exchange. */
export interface AgentRecipe {
  readonly limits: CgroupLimits
  /** Ends when its agent takes jobs. */
  readonly ready: Effect.Effect<void, ProvisionFailed>
  readonly source: (source: Source) => Stream.Stream<GuestLink.LinkEvent, SandboxLost | SandboxRefused>
  /** As a `MachineRecipe`'s. */
  readonly ended: Effect.Effect<string>
}

/** What a driver adds. */
export interface Recipe {
  readonly driver: DriverName
  /** Processes in the cgroup that are not the job's: the guest, and a runtime that waits for it. */
  readonly ownPids: number
  /** What they take of memory, on top of the job's limit. Absent: nothing to speak of. */
  readonly ownMemoryBytes?: number
  /**
   * The job's processes are none of the host's, but of a kernel inside the sandbox: its clock runs while it waits for a core,
   * so it is not asked to limit time; and it dies as a whole when the host refuses it a thread. Default false.
   */
  readonly hasOwnKernel?: boolean
  /** Program and arguments that become the guest, with its stdio as the link. */
  readonly command: (id: SandboxId) => ReadonlyArray<string>
  /** That program is a runtime which must not be reached from inside: it runs from a sealed copy (`LaunchRequest`). */
  readonly sealed: boolean
  /** Files and directories of one sandbox, removed after its processes are proven dead. */
  readonly paths: (instance: InstanceId, id: SandboxId) => ReadonlyArray<string>
  /** What its root runs by itself, where that is an image. */
  readonly imageRun?: ImageRun
  /** Where its sandboxes see the function host. Absent: they have none. */
  readonly functions?: HostFunctions.SeenHost
  /** Replaces the base environment's paths where the workspace is not /work. */
  readonly env?: (id: SandboxId) => Readonly<Record<string, string>>
  /**
   * Makes what must be there before the launch, below `paths`; what it starts is in the group of these files, and ends with
   * the scope.
   */
  readonly prepare?: (
    id: SandboxId,
    procsFiles: ReadonlyArray<string>
  ) => Effect.Effect<void, ProvisionFailed, Scope.Scope>
  readonly machine?: MachineRecipe
  /** What `prepare` made outside of `paths`, if any: removed when the processes are dead, before the cgroup. */
  readonly network?: {
    readonly isHeld: (instance: InstanceId, id: SandboxId) => boolean
    readonly release: (instance: InstanceId, id: SandboxId) => Effect.Effect<void, unknown>
  }
  /** Looked at once the guest is up: fails a sandbox that is not as isolated as it should be. */
  readonly verify: (cgroup: Cgroup) => Effect.Effect<void, ProvisionFailed>
}

/** How a sandbox stands between its phases. */
interface Standing {
  readonly meter: Meter.Meter
  /** We have killed it from outside: its guest can say nothing any more, the counters can. */
  killed: boolean
  /** Waits for a call. */
  host: WarmHost.WarmHost | undefined
}

/** How a phase's program begins. */
type Begin = (request: RunRequest) => Stream.Stream<GuestLink.LinkEvent, SandboxLost | SandboxRefused>

export const make = Effect.gen(function*() {
  const host = yield* Host
  const launcher = yield* Launcher
  const cgroups = yield* Cgroups
  const ledger = yield* Ledger

  /** Removes what is named, in order; true when nothing of it is left. */
  const clear = (recipe: Recipe, cgroup: Cgroup, instance: InstanceId, id: SandboxId) =>
    Effect.gen(function*() {
      if (recipe.network?.isHeld(instance, id) === true) {
        yield* cgroup.kill
        yield* recipe.network.release(instance, id)
      }
      if (!(yield* cgroup.dissolve)) {
        yield* cgroup.kill // succeeds only when nobody is left
        yield* cgroup.remove
      }
      for (const path of recipe.paths(instance, id)) {
        // crun has removed its own by now unless it was killed, and asking is cheaper than removing nothing.
        if (existsSync(path)) yield* Effect.promise(() => removeTree(path))
      }
      // Nearly none has it, and to find that out takes a thread longer than us.
      rmSync(saidOf(host.paths.instance(instance), id), { force: true })
      return true
    }).pipe(
      Effect.catchCause((cause) => Effect.as(Effect.logDebug(`sandbox ${id} is not gone yet`, cause), false))
    )

  /** A guest under its cgroup's limits, and the link to it, until the scope says farewell. */
  const launch = Effect.fnUntraced(function*(recipe: Recipe, id: SandboxId, cgroup: Cgroup) {
    const { ended, said, stream } = yield* launcher.launch({
      procsFiles: cgroup.procsFiles,
      command: recipe.command(id),
      sealed: recipe.sealed,
      stderrPath: saidOf(host.paths.instance(host.instance), id)
    })
    const { machine } = recipe
    const link = machine === undefined
      ? GuestLink.make(recipe.driver, stream, stream)
      : GuestLink.make(recipe.driver, stream, stream, yield* machine.greeting)
    let asked = false
    const close = Effect.sync(() => {
      asked = true
    }).pipe(
      Effect.andThen(link.close),
      // A machine has nothing to tidy up: its disk goes with it.
      Effect.andThen(machine === undefined ? Effect.timeoutOption(ended, FAREWELL) : Effect.ignore(cgroup.kill)),
      // Its last words are of no use any more, and would lie about as a file.
      Effect.andThen(Effect.sync(() => stream.destroy()))
    )
    yield* Effect.addFinalizer(() => within(`guest ${id}`, "3 seconds")(close))
    if (machine !== undefined) {
      yield* machine.ended.pipe(
        Effect.map((words) => link.lose(words === "" ? "its VMM ended" : `its VMM ended: ${words}`)),
        Effect.forkScoped
      )
    }
    // Not of the scope: whoever still waits for an answer when it closes is to hear of the end, too.
    yield* ended.pipe(
      Effect.andThen(Effect.suspend(() => asked ? Effect.succeed("") : said)),
      Effect.map((words) => link.lose(words === "" ? "it ended" : `it ended: ${words}`)),
      Effect.forkDetach
    )
    return { ended, link, said }
  })

  const failed =
    (recipe: Recipe, step: ProvisionFailed["step"]) => (error: { readonly reason: string; readonly remedy: string }) =>
      new ProvisionFailed({ driver: recipe.driver, step, reason: error.reason, remedy: error.remedy, cause: error })

  /** The program's own values win over the recipe's, those over the base. */
  const environment = (recipe: Recipe, id: SandboxId, env: Phase["env"]) => {
    const own = Object.entries(env).filter(([name, value]) => baseEnv[name] !== value)
    return { ...env, ...recipe.env?.(id), ...Object.fromEntries(own) }
  }

  const requestOf = (
    recipe: Recipe,
    id: SandboxId,
    argv: Phase["argv"],
    env: Phase["env"],
    limits: Limits
  ): RunRequest => ({
    cwd: "",
    argv,
    env: environment(recipe, id, env),
    limits: {
      fileBytes: limits.fileBytes,
      openFiles: limits.openFiles,
      stackBytes: STACK_BYTES,
      // The host watches the sum of all processes; this stops a single one should the worker be held up.
      cpuSeconds: recipe.hasOwnKernel === true ? 0 : Math.ceil(limits.cpuMs / 1000) + 1
    }
  })

  const runPhase = (
    recipe: Recipe,
    id: SandboxId,
    standing: Standing,
    phase: Phase,
    begin: Begin
  ) =>
    Stream.unwrap(Effect.gen(function*() {
      const lost = (error: CgroupError) =>
        new SandboxLost({ driver: recipe.driver, reason: error.message, remedy: error.remedy, cause: error })
      const { meter } = standing
      const before = yield* Effect.catchTag(
        meter.enter(phase),
        "CgroupError",
        // What the phase before left in the workspace is more than this one may have: the program's doing.
        (error) =>
          Effect.fail(
            error.code === "EBUSY"
              ? new SandboxRefused({ operation: "run", errno: ENOMEM, reason: error.message })
              : lost(error)
          )
      )
      const wasKilled = standing.killed
      const parts: HostUsage.MemoryParts = { anonBytes: 0, fileBytes: 0 }
      yield* Effect.forkScoped(meter.sample(parts))
      // From the request on, not from the guest's word that it has begun: an upper bound nobody inside can shorten.
      const began = yield* monotonicNanos
      const { limits } = phase
      const request = requestOf(recipe, id, phase.argv, phase.env, limits)
      const ended = Effect.fnUntraced(function*(exit: PhaseExit, maxRssBytes: number) {
        const wallMicros = Number(((yield* monotonicNanos) - began) / 1000n)
        const { left, oomVictim, usage: after } = yield* Effect.mapError(meter.count(before), lost)
        const { ownPids } = recipe
        const usage = HostUsage.phaseUsage({
          phase,
          wallMicros,
          before,
          after,
          left,
          parts,
          maxRssBytes,
          ownPids,
          oomVictim
        })
        return { _tag: "Ended", exit, usage } satisfies PhaseEvent
      })
      return begin(request).pipe(
        Stream.mapEffect((event): Effect.Effect<PhaseEvent, SandboxLost> => {
          switch (event._tag) {
            case "Started":
            case "Output":
              return Effect.succeed(event)
            case "Exited":
              return Effect.map(
                ended(event.exit, event.maxRssBytes),
                (last) => event.phase !== undefined ? { ...last, usage: { ...last.usage, phase: event.phase } } : last
              )
          }
        }),
        // The kernel may have chosen the guest: the phase ended for want of memory, or a kernel inside for want of threads,
        // which counters prove. Or the guest could not say in time what came of the phase, and died with it by our hand.
        Stream.catchTag("SandboxLost", (error) =>
          Stream.unwrap(Effect.gen(function*() {
            const last = yield* ended({ _tag: "Signalled", signal: 9 }, Number.POSITIVE_INFINITY)
            const isOwnFault = (standing.killed && !wasKilled) || (last.usage.oomKills ?? 0) > 0 ||
              (recipe.hasOwnKernel === true && (last.usage.pidsRefused ?? 0) > 0)
            return isOwnFault ? Stream.succeed<PhaseEvent>(last) : Stream.fail(error)
          })))
      )
    }))

  /** A row, and when it goes nothing of what it names is left. */
  const hold = (recipe: Recipe) =>
    ledger.hold(recipe.driver, (row) => clear(recipe, cgroups.open(row.id), row.instance, row.id)).pipe(
      Effect.mapError(failed(recipe, "ledger"))
    )

  /** For what runs on the host for a moment and is no sandbox: with a row and a cgroup like one, so that it never stays. */
  const aside = <A, E>(
    recipe: Recipe,
    use: (id: SandboxId, procsFiles: ReadonlyArray<string>) => Effect.Effect<A, E, Scope.Scope>
  ): Effect.Effect<A, E | ProvisionFailed> =>
    Effect.scoped(Effect.gen(function*() {
      const { id } = yield* hold(recipe)
      const cgroup = yield* Effect.mapError(cgroups.make(id), failed(recipe, "cgroup"))
      const { machine } = recipe
      if (machine !== undefined) yield* Effect.mapError(cgroup.limit(machine.limits), failed(recipe, "cgroup"))
      return yield* use(id, cgroup.procsFiles)
    }))

  /** A function host that waits, under the limits most calls have. */
  const startHost = Effect.fnUntraced(function*(
    recipe: Recipe,
    id: SandboxId,
    link: GuestLink.GuestLink,
    limits: Limits
  ) {
    if (recipe.functions === undefined) {
      return yield* new ProvisionFailed({
        driver: recipe.driver,
        step: "driver",
        reason: "its class wants function hosts, and there are none",
        remedy: "Give the worker functions with a handler (--functions FILE), or leave `functions` out of the class."
      })
    }
    const argv = HostFunctions.argvOf(recipe.functions, limits, "wait")
    const request = requestOf(recipe, id, argv, baseEnv, WarmHost.startLimits(limits))
    return yield* WarmHost.start(recipe.driver, link, request)
  })

  /** All that a sandbox is before anybody in it says a word. */
  const reserve = Effect.fnUntraced(function*(recipe: Recipe, limits: CgroupLimits) {
    // The row first, so it is struck last, and only when all it names is proven gone.
    const row = yield* hold(recipe)
    const cgroup = yield* cgroups.make(row.id).pipe(
      Effect.tap((made) => made.limit(limits)),
      Effect.mapError(failed(recipe, "cgroup"))
    )
    if (recipe.prepare !== undefined) yield* recipe.prepare(row.id, cgroup.procsFiles)
    return { row, cgroup }
  })

  /** What the host alone does with a sandbox and knows of it. */
  const outsideOf = (recipe: Recipe, id: SandboxId, cgroup: Cgroup, standing: Standing) => ({
    id,
    driver: recipe.driver,
    place: cgroup.path,
    kill: Effect.suspend(() => {
      standing.killed = true
      return Effect.ignore(cgroup.kill, { log: "Warn", message: `sandbox ${id} could not be killed at once` })
    }),
    measure: cgroup.cpu.pipe(
      Effect.map((cpuMicros) => ({ cpuMicros })),
      Effect.orElseSucceed(() => ({}))
    ),
    observe: Effect.orElseSucceed(standing.meter.observe, () => ({}))
  })

  /** A sandbox that takes a job as one source file, and nothing else. */
  const provisionAgent = Effect.fnUntraced(function*(recipe: Recipe, agent: AgentRecipe) {
    const { cgroup, row } = yield* reserve(recipe, agent.limits)
    const lost = Effect.map(agent.ended, (words) =>
      new SandboxLost({
        driver: recipe.driver,
        reason: words === "" ? "its VMM ended" : `its VMM ended: ${words}`,
        remedy: "The job is answered as failed; see the worker's log, and `stoker doctor` if it happens again."
      }))
    const untilLost = Effect.flatMap(lost, Effect.fail)
    yield* Effect.raceFirst(agent.ready, Effect.mapError(untilLost, failed(recipe, "start")))
    yield* recipe.verify(cgroup)
    const standing: Standing = { meter: MachineMeter.outside(cgroup), killed: false, host: undefined }
    const refuse = (operation: SandboxRefused["operation"]) =>
      new SandboxRefused({
        operation,
        errno: EOPNOTSUPP,
        reason: "the machine's agent takes source code and nothing else"
      })
    const sandbox: Sandbox = {
      ...outsideOf(recipe, row.id, cgroup, standing),
      put: () => Effect.fail(refuse("put")),
      get: () => Effect.fail(refuse("get")),
      signal: () => Effect.fail(refuse("signal")),
      run: () => Stream.fail(refuse("run")),
      // A dead machine answers nothing, not even that it has no connection.
      source: (phase, source) =>
        runPhase(
          recipe,
          row.id,
          standing,
          phase,
          () => Stream.interruptWhen(agent.source(source), untilLost)
        ),
      lost
    }
    return sandbox
  })

  const provision = Effect.fnUntraced(function*(recipe: Recipe, sandboxClass: SandboxClass) {
    const { ceiling, defaults } = sandboxClass
    const { ownMemoryBytes = 0, ownPids } = recipe
    const frame: HostLimits.Frame = { ownPids, ownMemoryBytes, sandboxClass }
    const { machine } = recipe
    const limitsOf = (limits: Limits) => machine?.limits ?? HostLimits.cgroupLimits(limits, frame)
    const isRoomy = defaults.memoryBytes >= RUNTIME_BYTES
    const { cgroup, row } = yield* reserve(recipe, limitsOf(isRoomy ? defaults : ceiling))
    const { ended, link, said } = yield* Effect.uninterruptible(launch(recipe, row.id, cgroup)).pipe(
      Effect.mapError(failed(recipe, "start"))
    )
    const inTime = Effect.timeoutOrElse(link.ready, {
      duration: READY_MS,
      orElse: () =>
        // What it has said is told at its end.
        Effect.ignore(cgroup.kill).pipe(
          Effect.andThen(Effect.timeoutOption(ended, FAREWELL)),
          Effect.andThen(said),
          Effect.flatMap((words) =>
            new SandboxLost({
              driver: recipe.driver,
              reason: `its guest was not ready within ${READY_MS} ms. ${words}`,
              remedy: "Is the host overloaded? Run `stoker doctor`."
            })
          )
        )
    })
    yield* Effect.mapError(machine === undefined ? inTime : link.ready, failed(recipe, "start"))
    yield* recipe.verify(cgroup)
    // What most phases ask for, so that they find it done.
    const limits = limitsOf(defaults)
    const changed = isRoomy ? undefined : HostLimits.changes(limitsOf(ceiling), limits)
    if (changed !== undefined) yield* Effect.mapError(cgroup.limit(changed), failed(recipe, "cgroup"))
    const warm = sandboxClass.functions === true ? yield* startHost(recipe, row.id, link, defaults) : undefined
    const meter = yield* Effect.mapError(
      machine === undefined
        ? Meter.ofCgroup(cgroup, row.id, frame, limits)
        : MachineMeter.make(recipe.driver, cgroup, link, defaults),
      failed(recipe, "cgroup")
    )
    const standing: Standing = { meter, killed: false, host: warm }
    /** Nobody waits any more: the next phase begins with its own program, and what it uses is counted from there. */
    const dismiss = Effect.suspend(() => {
      const { host: dismissed } = standing
      standing.host = undefined
      if (dismissed === undefined) return Effect.void
      meter.forget()
      return dismissed.end
    })
    const run = (phase: Phase) => runPhase(recipe, row.id, standing, phase, (request) => link.run(request, phase.stdin))
    const { functions: seen } = recipe
    /** In a host that is started for it. */
    const callCold = (phase: Phase, invocation: Uint8Array, host: HostFunctions.SeenHost) =>
      Stream.unwrap(Effect.as(
        dismiss,
        Stream.suspend(() =>
          run({ ...phase, argv: HostFunctions.argvOf(host, phase.limits, "run"), stdin: invocation })
        )
      ))
    const call = (phase: Phase, invocation: Uint8Array, seenHost: HostFunctions.SeenHost) =>
      Stream.suspend(() => {
        const { host: waiting } = standing
        if (waiting === undefined || waiting.hasEnded() || !WarmHost.fits(phase.limits, defaults)) {
          return callCold(phase, invocation, seenHost)
        }
        return runPhase(recipe, row.id, standing, phase, () =>
          waiting.feed(invocation, WarmHost.lowered(phase.limits, defaults)))
      })
    const sandbox: Sandbox = {
      ...outsideOf(recipe, row.id, cgroup, standing),
      ...(recipe.imageRun === undefined ? {} : { imageRun: recipe.imageRun }),
      put: (files) => Effect.forEach(files, link.put, { discard: true }),
      putStream: link.putStream,
      run: (phase) => Stream.unwrap(Effect.as(dismiss, Stream.suspend(() => run(phase)))),
      ...(seen === undefined
        ? {}
        : { call: (phase: Phase, invocation: Uint8Array) => call(phase, invocation, seen) }),
      signal: link.signal,
      lost: warm === undefined ? link.lost : Effect.raceFirst(link.lost, warm.lost),
      get: link.get,
      getStream: link.getStream
    }
    return sandbox
  })

  const instancePath = (instance: InstanceId, ...parts: ReadonlyArray<string>) =>
    join(host.paths.instance(instance), ...parts)

  /** The same clearing for a dead worker's row, at the cgroups that worker wrote down. */
  const reap = (recipe: Recipe, row: LedgerRow) =>
    Effect.flatMap(
      host.cgroupsOf(row.instance),
      (recorded) => clear(recipe, cgroups.forInstance(row.instance, recorded).open(row.id), row.instance, row.id)
    )

  const functions = yield* HostFunctions.make

  return {
    host,
    functions,
    aside,
    provision,
    provisionAgent,
    reap,
    instancePath,
    holds: cgroups.holds,
    accepts: HostLimits.accepts(cgroups)
  }
})

export type HostSandbox = Effect.Success<typeof make>
