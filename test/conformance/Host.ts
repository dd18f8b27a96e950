/** This host as the conformance cases want it: what sandboxes of a state directory leave here, and a worker that dies. */
import { Effect, Layer, Schedule, Schema } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import * as Pools from "../../src/actors/Pools.ts"
import { ConformanceDriver, ConformanceHost } from "../../src/conformance/ConformanceHost.ts"
import { Cgroups } from "../../src/layers/cgroup/Cgroup.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import * as SandboxExecutor from "../../src/layers/executor/SandboxExecutor.ts"
import { Host } from "../../src/layers/host/Host.ts"
import { Ledger, LedgerRow } from "../../src/layers/ledger/Ledger.ts"
import { type Capability, Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { ClassName, type InstanceId } from "../../src/schemas/Ids.ts"
import type { DriverName, SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerDrivers } from "../../src/wiring.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { slowness } from "../support/Slowness.ts"

/** What there is, or nothing of what has just gone. */
const ifThere = <A>(read: () => A, otherwise: A): A => {
  try {
    return read()
  } catch {
    return otherwise
  }
}
const list = (path: string): ReadonlyArray<string> => ifThere(() => readdirSync(path), [])
const read = (path: string): string => ifThere(() => readFileSync(path, "utf8"), "")
const foldersIn = (path: string): ReadonlyArray<string> =>
  ifThere(() => readdirSync(path, { withFileTypes: true }), [])
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(path, name))

const rowsOf = (state: string, own: InstanceId) =>
  list(join(state, "ledger")).filter((id) => ifThere(() => readlinkSync(join(state, "ledger", id)), "").includes(own))

/** All that is there of the sandboxes of a state directory, in words. A dead worker's rows are its janitor's to strike. */
const leftoversOf = (state: string, own: InstanceId): ReadonlyArray<string> => {
  const instances = list(join(state, "instances"))
  const inInstances = (...parts: ReadonlyArray<string>) =>
    instances.flatMap((instance) => {
      const folder = join(state, "instances", instance, ...parts)
      return list(folder).map((name) => join(folder, name))
    })
  const rows = rowsOf(state, own)
  const processes = list("/proc").filter((pid) => {
    const groups = /^\d+$/.test(pid) ? read(`/proc/${pid}/cgroup`) : ""
    return instances.some((instance) => new RegExp(`/stoker-${instance}/[a-z0-9]+$`, "m").test(groups))
  })
  // Each instance has written down where its own are.
  const cgroups = instances.flatMap((instance) =>
    read(join(state, "instances", instance, "cgroups")).split("\n").filter((line) => line !== "").flatMap(foldersIn)
  )
  return [
    ...rows.map((id) => `row ${id}`),
    ...processes.map((pid) => `process ${pid} ${read(`/proc/${pid}/comm`).trim()}`),
    ...cgroups.map((path) => `cgroup ${path}`),
    ...inInstances("crun").map((path) => `container ${path}`),
    ...inInstances("said").map((path) => `file ${path}`),
    // Workspaces of the process driver; the one name is the root of all of oci's.
    ...inInstances("roots").filter((path) => !path.endsWith("/oci")).map((path) => `workspace ${path}`),
    ...read("/proc/self/mountinfo").split("\n").filter((line) => line.includes(state)).map((line) => `mount ${line}`)
  ]
}

const rowOf = Schema.decodeUnknownSync(Schema.fromJsonString(LedgerRow))

/** A worker of its own, by its program, that makes a sandbox, says its row and is killed while it holds it. */
export const orphanBy =
  (program: string, ...args: ReadonlyArray<string>) => async (state: string): Promise<LedgerRow> => {
    const child = spawn(process.execPath, [program, state, ...args], {
      stdio: ["ignore", "pipe", "inherit"]
    })
    const exited = once(child, "exit")
    const said: ReadonlyArray<unknown> = await Promise.race([once(createInterface(child.stdout), "line"), exited])
    child.kill("SIGKILL")
    await exited
    return rowOf(said[0])
  }

const orphanOf = (driver: DriverName) => orphanBy(join(import.meta.dirname, "orphan.ts"), driver)

/** Where a driver's sandboxes are not made from its name alone. */
export interface Options {
  readonly sandboxClass?: SandboxClass
  readonly programs?: { readonly shell: string; readonly python: string }
  readonly orphan?: (state: string) => Promise<LedgerRow>
  readonly slowness?: number
}

/** What a janitor does. */
const forget = Effect.fnUntraced(function*(row: LedgerRow) {
  const host = yield* Host
  const { reap } = yield* ConformanceDriver
  const ledger = yield* Ledger
  // With a machine goes the row of the programs that made its network.
  for (const left of [row, ...(yield* ledger.rows(row.instance)).filter(({ id }) => id !== row.id)]) {
    yield* Effect.repeat(reap(left), { until: (gone) => gone, schedule: Schedule.spaced("100 millis") })
    yield* ledger.strike(left)
  }
  yield* (yield* Cgroups).forInstance(row.instance, yield* host.cgroupsOf(row.instance)).remove
  yield* host.forget(row.instance)
})

/** Drivers that may hold limits of I/O and choose cores. */
export const layerDriver = (name: DriverName, state: string) =>
  layerDrivers(state, [name], undefined, { io: true, cpuset: true })

/** One driver of this host, its executor, and this host, on a state directory of its own. */
export const layer = (name: DriverName, state: string, options: Options = {}) => {
  const sandboxClass = options.sandboxClass ?? standardClass(name, name)
  const impossible: SandboxClass = { ...sandboxClass, name: ClassName.make("unmakeable"), cpuset: "4090-4095" }
  const driver = Layer.effect(
    ConformanceDriver,
    Effect.flatMap(Drivers, ([made]) => made === undefined ? Effect.die("no driver was made") : Effect.succeed(made))
  )
  const host = Layer.effect(
    ConformanceHost,
    Effect.gen(function*() {
      const made = yield* ConformanceDriver
      const { capabilities } = made
      const { instance } = yield* Host
      const services = yield* Effect.context<Host | Ledger | Cgroups | ConformanceDriver>()
      const orphans: Array<LedgerRow> = []
      // What a driver needs once it keeps to its end: a row for the programs that make networks.
      yield* Effect.orDie(made.prepare?.(sandboxClass) ?? Effect.void)
      const standing = rowsOf(state, instance)
      const isStanding = (line: string) => standing.some((id) => line.includes(id))
      yield* Effect.addFinalizer(() =>
        Effect.forEach(orphans, forget, { discard: true }).pipe(Effect.provideContext(services), Effect.orDie)
      )
      return {
        capabilities,
        sandboxClass,
        unmakeable: impossible,
        programs: options.programs ?? { shell: "/bin/sh", python: "python3" },
        leftovers: Effect.sync(() => leftoversOf(state, instance).filter((line) => !isStanding(line))),
        orphan: Effect.promise(async () => {
          const row = await (options.orphan ?? orphanOf(name))(state)
          orphans.push(row)
          return row
        }),
        slowness: options.slowness ?? slowness
      }
    })
  )
  return Layer.merge(SandboxExecutor.layer, host).pipe(
    Layer.provide(Pools.layer({})),
    Layer.provideMerge(driver),
    Layer.provideMerge(Layer.merge(
      layerDriver(name, state),
      Settings.layer({ ...standardConfig, classes: [sandboxClass, impossible] })
    ))
  )
}

/** What a driver can do on this host. */
export const capabilitiesOf = async (name: DriverName): Promise<ReadonlySet<Capability>> => {
  const state = Jobs.stateDirectory()
  const made = Effect.map(Drivers, ([driver]) => driver?.capabilities ?? new Set<Capability>())
  try {
    return await Effect.runPromise(Effect.provide(made, layerDriver(name, state)))
  } finally {
    Jobs.remove(state)
  }
}
