/** The driver of a simulated worker: real ledger order and real cgroups over a kernel in memory, and all its troubles. */
import { type Cause, Deferred, Effect, Layer, Queue, Stream } from "effect"
import { Cgroups } from "../../src/layers/cgroup/Cgroup.ts"
import { Host } from "../../src/layers/host/Host.ts"
import { Ledger, type LedgerRow } from "../../src/layers/ledger/Ledger.ts"
import { within } from "../../src/layers/Release.ts"
import {
  type Driver,
  Drivers,
  type PhaseEvent,
  ProvisionFailed,
  type Sandbox,
  SandboxLost,
  SandboxRefused
} from "../../src/layers/sandbox/Sandbox.ts"
import type { SandboxId } from "../../src/schemas/Ids.ts"
import { leftFile, planOf } from "./Sandboxes.ts"
import type { Mortal, World } from "./World.ts"

const utf8 = new TextEncoder()

const noSandbox = (step: ProvisionFailed["step"], reason: string) =>
  new ProvisionFailed({ driver: "oci", step, reason, remedy: "none" })

const gone = new SandboxLost({ driver: "oci", reason: "its processes are dead", remedy: "none" })

const noPhase = new SandboxRefused({ operation: "signal", errno: 3, reason: "no phase runs" })

const SIGKILL = 9

const RELEASE_MS = 10_000

const make = Effect.fnUntraced(function*(world: World, worker: Mortal) {
  const { dice, faults, kernel, outside, sandboxes, time } = world
  const cgroups = yield* Cgroups
  const host = yield* Host
  const ledger = yield* Ledger

  const remove = (id: SandboxId) =>
    world.step(
      worker,
      `removing ${id}`,
      Effect.gen(function*() {
        sandboxes.kill(id)
        // Longer than its deadline: the worker counts it no more, and the janitor sees to it.
        time.after(outside, RELEASE_MS - 1, () => sandboxes.leave(id))
        yield* Effect.sleep(dice.chance(faults().teardownSlow) ? dice.between(500, 20_000) : dice.below(20))
        if (dice.chance(faults().teardownFails)) {
          sandboxes.leave(id)
          return world.say(worker, `${id} is not removed`)
        }
        const leaf = cgroups.open(id)
        yield* leaf.kill
        yield* leaf.remove
        sandboxes.remove(id)
      })
    )

  const sandboxOf = (id: SandboxId, lost: Deferred.Deferred<SandboxLost>) => {
    const isDeaf = dice.chance(faults().deaf)
    const ifThere = <A, E>(effect: Effect.Effect<A, E>) =>
      Effect.suspend((): Effect.Effect<A, E | SandboxLost> => sandboxes.isLost(id) ? Effect.fail(gone) : effect)
    const sandbox: Sandbox = {
      id,
      driver: "oci",
      place: `/simulated/${id}`,
      put: () => ifThere(Effect.sleep(dice.below(3))),
      run: (phase) =>
        Stream.unwrap(Effect.gen(function*() {
          const events = yield* Queue.unbounded<PhaseEvent, Cause.Done | SandboxLost>()
          const plan = planOf(phase.argv)
          const began = time.now()
          const tell = (run: () => void) => void (worker.isAlive && run())
          if (sandboxes.isLost(id)) return Stream.fail(gone)
          sandboxes.begin(id, plan, (how) =>
            tell(() => {
              if (plan.bytes > 0) {
                Queue.offerUnsafe(events, {
                  _tag: "Output",
                  stream: "stdout",
                  bytes: new Uint8Array(plan.bytes).fill(120)
                })
              }
              const usage = { phase: phase.name, wallMicros: Math.round((time.now() - began) * 1000) }
              const exit = "code" in how ? { _tag: "Exited" as const, ...how } : { _tag: "Signalled" as const, ...how }
              Queue.offerUnsafe(events, { _tag: "Ended", exit, usage })
              Queue.endUnsafe(events)
            }))
          if (dice.chance(faults().diesRunning)) {
            time.after(outside, dice.below(plan.millis + 1), () => sandboxes.isRunning(id) && sandboxes.kill(id))
          }
          return Stream.concat(Stream.make<[PhaseEvent]>({ _tag: "Started" }), Stream.fromQueue(events)).pipe(
            Stream.interruptWhen(Effect.flatMap(Deferred.await(lost), Effect.fail))
          )
        })),
      signal: (signal, _scope) =>
        ifThere(Effect.suspend(() => {
          if (isDeaf) return Effect.never
          if (!sandboxes.isRunning(id)) return Effect.fail(noPhase)
          if (signal === SIGKILL || dice.chance(0.5)) sandboxes.signal(id, signal)
          return Effect.void
        })),
      kill: Effect.sync(() => sandboxes.kill(id)),
      lost: Deferred.await(lost),
      measure: Effect.succeed({}),
      // Each sandbox leaves something else, so that one attempt's file cannot be taken for another's.
      get: (path) =>
        ifThere(
          path === leftFile
            ? Effect.as(Effect.sleep(dice.below(5)), utf8.encode(id))
            : Effect.fail(new SandboxRefused({ operation: "get", errno: 2, reason: "no such file" }))
        )
    }
    return sandbox
  }

  /** How making one goes on when its kernel objects are there. */
  const trouble = Effect.suspend((): Effect.Effect<void, ProvisionFailed> => {
    if (dice.chance(faults().provisionHangs)) {
      return dice.pick([Effect.never, Effect.sleep("20 seconds"), Effect.uninterruptible(Effect.sleep("6 seconds"))])
    }
    const making = Effect.sleep(dice.between(3, 60))
    return dice.chance(faults().provisionFails)
      ? Effect.andThen(making, Effect.fail(noSandbox(dice.pick(["start", "cgroup", "ready"]), "the dice say so")))
      : making
  })

  const provision: Driver["provision"] = Effect.fnUntraced(function*() {
    const row = yield* ledger.hold("oci", ({ id }) => Effect.sync(() => !sandboxes.isThere(id))).pipe(
      Effect.mapError(({ reason }) => noSandbox("ledger", reason))
    )
    const { id } = row
    yield* Effect.addFinalizer(() => remove(id).pipe(within(`sandbox ${id}`, RELEASE_MS)))
    const leaf = yield* world.step(worker, `making ${id}`, cgroups.make(id)).pipe(
      Effect.mapError(({ reason }) => noSandbox("cgroup", reason))
    )
    const lost = yield* Deferred.make<SandboxLost>()
    if (!world.ledger.has(id)) world.violate(`${id} is made before its row is there`)
    kernel.write(`${leaf.path}/cgroup.procs`, id.slice(1))
    sandboxes.create(
      id,
      worker.instance,
      () => void (worker.isAlive && Deferred.doneUnsafe(lost, Effect.succeed(gone)))
    )
    yield* trouble
    if (sandboxes.isLost(id)) return yield* noSandbox("ready", "it died")
    if (dice.chance(faults().diesWarm)) {
      time.after(outside, dice.between(10, 30_000), () => !sandboxes.isRunning(id) && sandboxes.kill(id))
    }
    return sandboxOf(id, lost)
  })

  const reap = (row: LedgerRow) =>
    world.step(
      worker,
      `reaping ${row.id}`,
      Effect.gen(function*() {
        if (world.workers.get(row.instance)?.isAlive === true) world.violate(`${row.id} of a live worker is reaped`)
        if (dice.chance(faults().teardownFails)) return false
        yield* Effect.sleep(dice.below(20))
        const leaf = cgroups.forInstance(row.instance, yield* host.cgroupsOf(row.instance)).open(row.id)
        const cleared = yield* Effect.result(Effect.andThen(leaf.kill, leaf.remove))
        if (cleared._tag === "Failure") return false
        sandboxes.remove(row.id)
        return true
      })
    )

  const driver: Driver = { name: "oci", capabilities: new Set(), provision, reap, check: Effect.succeed([]) }
  return [driver]
})

export const layer = (world: World, worker: Mortal): Layer.Layer<Drivers, never, Cgroups | Host | Ledger> =>
  Layer.effect(Drivers, make(world, worker))
