/**
 * What limits cost: jobs in warm sandboxes whose cgroups hold nothing, and jobs that each ask for other limits than the
 * sandbox stood ready with, so that every one of them is written. In blocks, taking turns, one process.
 */
import { Context, Effect, Layer, Schedule, Stream } from "effect"
import * as Pools from "../src/actors/Pools.ts"
import { type Cgroup, Cgroups } from "../src/layers/cgroup/Cgroup.ts"
import * as CgroupsHost from "../src/layers/cgroup/CgroupsHost.ts"
import * as Settings from "../src/layers/config/Settings.ts"
import { Executor } from "../src/layers/executor/Executor.ts"
import * as SandboxExecutor from "../src/layers/executor/SandboxExecutor.ts"
import { Host } from "../src/layers/host/Host.ts"
import * as Launcher from "../src/layers/host/Launcher.ts"
import * as Native from "../src/layers/host/Native.ts"
import * as Watchdog from "../src/layers/host/Watchdog.ts"
import * as LedgerFiles from "../src/layers/ledger/LedgerFiles.ts"
import * as Oci from "../src/layers/sandbox/Oci.ts"
import { Drivers } from "../src/layers/sandbox/Sandbox.ts"
import type { Limits } from "../src/schemas/Limits.ts"
import { standardPool } from "../src/schemas/PoolConfig.ts"
import { standardClass, standardConfig } from "../src/schemas/WorkerConfig.ts"
import { layerHost } from "../src/wiring.ts"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { assignment } from "./bare.ts"
import { percentile, publish, round, spread } from "./report.ts"

const BLOCK = 25
const BLOCKS = Number(process.argv[2] ?? 12)
const WARM_UP = 4
const READY = 4
const MiB = 2 ** 20

const usual = standardClass("oci", "oci")
const pool = { ...standardPool, minimum: READY, maximum: 2 * READY, refillPauseMs: 5 }
const warm = { ...usual, pool }

/** A group that takes limits and holds none. */
const unlimited = (cgroup: Cgroup): Cgroup => ({ ...cgroup, limit: () => Effect.void })

const cgroups = (limited: boolean) =>
  Layer.unwrap(Effect.map(Host, ({ instance }) => CgroupsHost.layer({ instance }))).pipe(
    (real) =>
      limited ? real : Layer.effect(
        Cgroups,
        Effect.map(Cgroups, (made) =>
          Cgroups.of({
            ...made,
            make: (name) => Effect.map(made.make(name), unlimited),
            open: (name) => unlimited(made.open(name))
          }))
      ).pipe(Layer.provide(real))
  )

const worker = (state: string, limited: boolean) =>
  SandboxExecutor.layer.pipe(
    Layer.provideMerge(Pools.layer({})),
    Layer.provideMerge(Layer.mergeAll(
      Layer.effect(Drivers, Effect.map(Oci.make, (driver) => [driver])).pipe(
        Layer.provideMerge(Launcher.layer),
        Layer.provideMerge(Watchdog.layer),
        Layer.provideMerge(Layer.mergeAll(cgroups(limited), LedgerFiles.layer, Native.layer)),
        Layer.provideMerge(layerHost(state))
      ),
      Settings.layer({ ...standardConfig, classes: [warm] })
    ))
  )

const quiet = Effect.flatMap(Pools.Pools, (pools) => pools.stats).pipe(
  Effect.filterOrFail(({ classes }) =>
    classes.every(({ idle, leaving, making, target }) => idle >= target && making + leaving === 0)
  ),
  Effect.retry(Schedule.spaced("2 millis")),
  Effect.andThen(Effect.sleep("20 millis"))
)

const job = (limits: Partial<Limits>) =>
  Effect.scoped(Effect.gen(function*() {
    yield* quiet
    const began = performance.now()
    const { program, ...rest } = assignment(["/bin/true"])
    const [phase] = program.phases
    const run = yield* (yield* Executor).start({
      ...rest,
      program: { ...program, phases: [{ ...phase, limits: { ...phase.limits, ...limits } }] },
      class: warm
    })
    let took = Number.NaN
    yield* Stream.runForEach(run.events, (event) =>
      Effect.sync(() => {
        if (event._tag === "Finished" && event.outcome._tag === "Exited") took = performance.now() - began
      }))
    if (Number.isNaN(took)) return yield* Effect.die("a job did not succeed")
    return took
  }))

const states = [Jobs.stateDirectory(), Jobs.stateDirectory()] as const

const program = Effect.gen(function*() {
  const off = yield* Layer.build(worker(states[0], false))
  const on = yield* Layer.build(worker(states[1], true))
  const v2 = Context.get(on, Drivers)[0]?.capabilities.has("memory-high") === true
  const rows = { off: new Array<number>(), usual: new Array<number>(), all: new Array<number>() }
  const all: Partial<Limits> = {
    memoryBytes: 100 * MiB,
    pids: 20,
    cpus: 0.9,
    cpuWeight: 50,
    ...(v2 ? { memoryHighBytes: 90 * MiB, oomGroup: true } : {})
  }
  for (let block = 0; block < WARM_UP + BLOCKS; block++) {
    for (const [name, where, limits] of [["off", off, {}], ["usual", on, {}], ["all", on, all]] as const) {
      for (let n = 0; n < BLOCK; n++) {
        const took = yield* Effect.provideContext(job(limits), where)
        if (block >= WARM_UP) rows[name].push(took)
      }
    }
  }
  const beyond = (rows: ReadonlyArray<number>, floor: ReadonlyArray<number>) =>
    round((percentile(rows, 0.5) / percentile(floor, 0.5) - 1) * 100)
  return publish({
    name: "limits",
    figures: {
      rounds: BLOCK * BLOCKS,
      ...spread("warm, cgroup without limits, start to outcome, ms", rows.off),
      ...spread("warm, the class's limits, start to outcome, ms", rows.usual),
      ...spread("warm, all limits other than it stood with, ms", rows.all)
    },
    claims: [
      {
        claim: "the class's limits, warm, p50, beyond none",
        measured: beyond(rows.usual, rows.off),
        bound: 10,
        unit: "%"
      },
      {
        claim: "all limits written anew, warm, p50, beyond none",
        measured: beyond(rows.all, rows.off),
        bound: 10,
        unit: "%"
      }
    ]
  })
}).pipe(Effect.scoped)

const held = await Effect.runPromise(program)
for (const state of states) Jobs.remove(state)
process.exit(held ? 0 : 1)
