/** Runs programs in real sandboxes through the real executor, and counts what the host holds before and after. */
import { Effect, Layer, Stream } from "effect"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Pools from "../../src/actors/Pools.ts"
import { programs } from "../../src/functions/BuiltIn.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import { Executor } from "../../src/layers/executor/Executor.ts"
import * as SandboxExecutor from "../../src/layers/executor/SandboxExecutor.ts"
import * as FunctionFiles from "../../src/layers/functions/FunctionFiles.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import { FunctionName } from "../../src/schemas/Ids.ts"
import { type Limits, type LimitsRequest, resolve, standardCeiling } from "../../src/schemas/Limits.ts"
import type { Outcome } from "../../src/schemas/Outcome.ts"
import { WorkPath } from "../../src/schemas/Program.ts"
import type { DriverName, SandboxClass } from "../../src/schemas/SandboxClass.ts"
import type { Usage } from "../../src/schemas/Usage.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { controllersOf, layerDrivers } from "../../src/wiring.ts"
import { makeJob } from "../actors/World.ts"
import { patience } from "../support/Slowness.ts"

export interface Ran {
  readonly outcome: Outcome
  readonly usage: Usage
  readonly stdout: Buffer
  readonly stderr: Buffer
  readonly artefacts: ReadonlyMap<string, Buffer>
  /** Why the others did not come. */
  readonly missing: ReadonlyMap<string, string>
  readonly phases: ReadonlyArray<string>
}

export interface Wanted {
  readonly function?: string
  readonly args: unknown
  readonly limits?: LimitsRequest
  readonly artefacts?: ReadonlyArray<string>
  readonly artefactBytes?: number
  /** Where the limits may go beyond the standard class. */
  readonly ceiling?: Partial<Limits>
  /** Between TERM and KILL of a stop; absent: 500. */
  readonly graceMs?: number
  /** Called with every piece of output, e.g. to stop the run. */
  readonly onOutput?: (text: string, stop: Effect.Effect<void>) => Effect.Effect<void>
}

export const stateDirectory = () => {
  const path = mkdtempSync(join(tmpdir(), "stoker-test-"))
  return path
}

/** One executor with one class on a state directory of its own, which must be empty of sandboxes at the end. */
export const layerOf = (sandboxClass: SandboxClass, state: string, functionFiles: ReadonlyArray<string> = []) =>
  SandboxExecutor.layer.pipe(
    Layer.provideMerge(Pools.layer({})),
    Layer.provideMerge(Layer.mergeAll(
      layerDrivers(state, [sandboxClass.driver], undefined, controllersOf([sandboxClass])),
      Settings.layer({ ...standardConfig, classes: [sandboxClass] })
    )),
    Layer.provideMerge(
      FunctionFiles.layer({ definitions: programs, files: functionFiles, stateDirectory: state })
    )
  )

/** The same for a driver's standard class. */
export const layer = (driver: DriverName, state: string) => layerOf(standardClass(driver, driver), state)

/** A wall limit that a program keeps which takes so long on a plain machine; the ceiling at most. */
export const wallOf = (millis: number) => Math.min(standardCeiling.wallMs, patience(millis))

/** Runs it in a sandbox of the driver's standard class, which on a slow machine has as much more time. */
export const run = (driver: DriverName, wanted: Wanted) => {
  const usual = standardClass(driver, driver)
  const { cpuMs, wallMs } = usual.defaults
  return runIn({ ...usual, defaults: { ...usual.defaults, wallMs: wallOf(wallMs), cpuMs: wallOf(cpuMs) } }, wanted)
}

export const runIn = Effect.fnUntraced(function*(sandboxClass: SandboxClass, wanted: Wanted) {
  const { defaults } = sandboxClass
  const ceiling = { ...sandboxClass.ceiling, ...wanted.ceiling }
  const limits = yield* resolve(ceiling, defaults, wanted.limits ?? {})
  const job = {
    ...makeJob("a"),
    function: FunctionName.make(wanted.function ?? "command"),
    args: JSON.parse(JSON.stringify(wanted.args))
  }
  const program = yield* (yield* Functions.Functions).program(job, { compile: ceiling, run: limits })
  const started = yield* (yield* Executor).start({
    job,
    attempt: 1,
    class: { ...sandboxClass, ceiling },
    ...(wanted.artefactBytes === undefined ? {} : { artefactBytes: wanted.artefactBytes }),
    program: { ...program, artefacts: (wanted.artefacts ?? []).map((path) => WorkPath.make(path)) }
  })
  const parts: Record<"stdout" | "stderr", Array<Uint8Array>> = { stdout: [], stderr: [] }
  const phases: Array<string> = []
  const artefacts = new Map<string, Buffer>()
  const missing = new Map<string, string>()
  let ran: Ran | undefined
  yield* Stream.runForEach(started.events, (event) =>
    Effect.suspend(() => {
      switch (event._tag) {
        case "Output":
          parts[event.stream].push(event.bytes)
          return wanted.onOutput?.(
            Buffer.from(event.bytes).toString(),
            started.stop({ reason: "enough", graceMs: wanted.graceMs ?? patience(500) })
          ) ?? Effect.void
        case "PhaseStarted":
          phases.push(event.phase)
          return Effect.void
        case "Artefact":
          artefacts.set(event.path, Buffer.from(event.content))
          return Effect.void
        case "ArtefactMissing":
          missing.set(event.path, event.reason)
          return Effect.void
        case "Finished":
          ran = {
            outcome: event.outcome,
            usage: event.usage,
            stdout: Buffer.concat(parts.stdout),
            stderr: Buffer.concat(parts.stderr),
            artefacts,
            missing,
            phases
          }
          return Effect.void
        default:
          return Effect.void
      }
    }))
  return ran ?? (yield* Effect.die("the run ended without an outcome"))
}, Effect.scoped)

const lines = (path: string) => readFileSync(path, "utf8").trim().split("\n")

/** None of one that has just gone. */
const directories = (path: string): ReadonlyArray<string> => {
  try {
    return readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => name)
  } catch {
    return []
  }
}

/** Directories below the cgroup mounts whose name begins with `stoker`, and everything below them. */
const cgroups = (): ReadonlyArray<string> => {
  const found: Array<string> = []
  const walk = (path: string, inside: boolean, depth: number) => {
    if (depth > 6) return
    for (const name of directories(path)) {
      const below = inside || name.startsWith("stoker")
      if (below) found.push(join(path, name))
      walk(join(path, name), below, depth + 1)
    }
  }
  walk("/sys/fs/cgroup", false, 0)
  return found
}

/** Instances seen below a state directory: their names outlive their directories in cgroups. */
const instancesOf = new Map<string, Set<string>>()

/** What the workers of a state directory hold on this host. Ask once while they live: then they are known afterwards. */
export const held = (state: string) => {
  const instances = instancesOf.get(state) ?? new Set<string>()
  instancesOf.set(state, instances)
  for (const instance of list(join(state, "instances"))) instances.add(instance)
  const isOurs = (path: string) => [...instances].some((instance) => path.includes(`/stoker-${instance}`))
  return {
    processes: readdirSync("/proc").filter((pid) => {
      if (!/^\d+$/.test(pid)) return false
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(state) ||
          isOurs(readFileSync(`/proc/${pid}/cgroup`, "utf8"))
      } catch {
        return false
      }
    }).length,
    cgroups: cgroups().filter(isOurs).length,
    mounts: lines("/proc/self/mountinfo").filter((line) => line.includes(state)).length,
    ledger: list(join(state, "ledger")),
    crun: list(join(state, "instances")).flatMap((instance) => list(join(state, "instances", instance, "crun"))).length,
    instances: list(join(state, "instances")).length
  }
}

const list = (path: string): ReadonlyArray<string> => {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

export const remove = (state: string) => rmSync(state, { recursive: true, force: true })
