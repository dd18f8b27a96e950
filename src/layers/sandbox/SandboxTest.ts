/** A driver without a machine, for deterministic tests: every step is a script, and what it holds is counted. */
import { Deferred, Effect, Layer, Stream } from "effect"
import { SandboxId } from "../../schemas/Ids.ts"
import type { Phase } from "../../schemas/Program.ts"
import type { DriverName, SandboxClass } from "../../schemas/SandboxClass.ts"
import {
  type Driver,
  Drivers,
  type PhaseEvent,
  ProvisionFailed,
  type Sandbox,
  SandboxLost,
  SandboxRefused
} from "./Sandbox.ts"

/** What the fake does. A test may replace any member at any time; what has begun goes on as it began. */
export interface Script {
  /** Before a sandbox is there: sleep to be slow, fail, never end. The first one has number 1. */
  provision: (number: number) => Effect.Effect<void, ProvisionFailed>
  /** What a guest without a phase answers to a signal, e.g. `Effect.never`. The sandbox is told as lost when it is. */
  answer: (id: SandboxId) => Effect.Effect<void, SandboxLost | SandboxRefused>
  /** The program. */
  phase: (phase: Phase, id: SandboxId) => Stream.Stream<PhaseEvent, SandboxLost | SandboxRefused>
  /** The teardown of one that was there. */
  release: (id: SandboxId) => Effect.Effect<void>
}

/** One that was there. `disk` is what was asked for. */
export interface MadeSandbox {
  readonly id: SandboxId
  readonly class: SandboxClass["name"]
  readonly disk: { readonly bytes: number; readonly inodes: number }
}

/** The driver, and what a test may see of it and do to it. */
export interface FakeDriver {
  readonly driver: Driver
  readonly script: Script
  /** Sandboxes there now, oldest first. */
  readonly alive: ReadonlyMap<SandboxId, MadeSandbox>
  /** All that were ever there. */
  readonly made: ReadonlyArray<MadeSandbox>
  /** Provisions begun. */
  readonly begun: () => number
  /** Being made, there, or being removed: what a host would hold. */
  readonly held: () => number
  /** The most ever held at once. */
  readonly peak: () => number
  /** It dies by itself. */
  readonly lose: (id: SandboxId) => void
}

/** What `provision` can fail with in a script. */
export const failed = (reason: string, driver: DriverName = "oci", step: ProvisionFailed["step"] = "start") =>
  new ProvisionFailed({ driver, step, reason, remedy: "Change the script of the test." })

/** Prints nothing and exits with 0. */
const quiet = (phase: Phase): Stream.Stream<PhaseEvent> =>
  Stream.make<ReadonlyArray<PhaseEvent>>(
    { _tag: "Started" },
    { _tag: "Ended", exit: { _tag: "Exited", code: 0 }, usage: { phase: phase.name, wallMicros: 1 } }
  )

const noPhase = new SandboxRefused({ operation: "signal", errno: 3, reason: "no phase runs" })

/** What differs from a driver that makes a sandbox at once, whose programs exit with 0. */
export interface FakeOptions extends Partial<Script> {
  readonly name?: DriverName
  /** Tells at once when a sandbox is lost; false leaves that to whoever asks. Default true. */
  readonly tellsLoss?: boolean
}

/** A fake driver, `oci` unless it is named otherwise. */
export const makeDriver = (options: FakeOptions = {}): FakeDriver => {
  const name = options.name ?? "oci"
  const script: Script = {
    provision: options.provision ?? (() => Effect.void),
    answer: options.answer ?? (() => Effect.fail(noPhase)),
    phase: options.phase ?? quiet,
    release: options.release ?? (() => Effect.void)
  }
  const alive = new Map<SandboxId, MadeSandbox>()
  const made: Array<MadeSandbox> = []
  const losses = new Map<SandboxId, Deferred.Deferred<SandboxLost>>()
  let begun = 0
  let held = 0
  let peak = 0

  const sandboxOf = (id: SandboxId, lost: Deferred.Deferred<SandboxLost>) => {
    const ifThere = <A>(effect: Effect.Effect<A, SandboxLost | SandboxRefused>) =>
      Effect.suspend(() => Deferred.isDoneUnsafe(lost) ? Effect.flatMap(Deferred.await(lost), Effect.fail) : effect)
    const gone = Effect.flatMap(Deferred.await(lost), Effect.fail)
    const sandbox: Sandbox & { readonly lost?: Effect.Effect<SandboxLost> } = {
      id,
      driver: name,
      place: `/fake/${id}`,
      put: () => ifThere(Effect.void),
      run: (phase) => Stream.interruptWhen(script.phase(phase, id), gone),
      signal: () => ifThere(Effect.raceFirst(script.answer(id), gone)),
      kill: Effect.sync(() => lose(id)),
      measure: Effect.succeed({}),
      get: () => ifThere(Effect.fail(new SandboxRefused({ operation: "get", errno: 2, reason: "no such file" }))),
      ...(options.tellsLoss === false ? {} : { lost: Deferred.await(lost) })
    }
    return sandbox
  }

  const lose = (id: SandboxId) => {
    const lost = losses.get(id)
    if (lost === undefined) return
    const error = new SandboxLost({ driver: name, reason: "the test took it", remedy: "none" })
    Deferred.doneUnsafe(lost, Effect.succeed(error))
  }

  const driver: Driver = {
    name,
    capabilities: new Set(),
    provision: Effect.fnUntraced(function*(sandboxClass, disk) {
      const number = ++begun
      held += 1
      peak = Math.max(peak, held)
      yield* Effect.addFinalizer(() => Effect.sync(() => held -= 1))
      yield* script.provision(number)
      const id = SandboxId.make(`fake${number}`)
      const lost = Deferred.makeUnsafe<SandboxLost>()
      const entry = { id, class: sandboxClass.name, disk }
      return yield* Effect.acquireRelease(
        Effect.sync(() => {
          alive.set(id, entry)
          made.push(entry)
          losses.set(id, lost)
          return sandboxOf(id, lost)
        }),
        () =>
          Effect.andThen(
            script.release(id),
            Effect.sync(() => {
              alive.delete(id)
              losses.delete(id)
            })
          )
      )
    }),
    reap: () => Effect.succeed(true),
    check: Effect.succeed([])
  }
  return { driver, script, alive, made, begun: () => begun, held: () => held, peak: () => peak, lose }
}

/** These are all drivers there are. */
export const layer = (...fakes: ReadonlyArray<FakeDriver>): Layer.Layer<Drivers> =>
  Layer.succeed(Drivers, fakes.map(({ driver }) => driver))
