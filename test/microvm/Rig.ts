/** Machines of QEMU without hardware virtualisation, with the minimal image, on a state directory of the test's own. */
import { readdirSync, readFileSync, readlinkSync, realpathSync } from "node:fs"
import { join, resolve } from "node:path"
import type { PoolConfig } from "../../src/schemas/PoolConfig.ts"
import type { MachineSetup, SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import { patience } from "../support/Slowness.ts"

const MiB = 1024 * 1024

/** What scripts/machine-image has made: a folder, so that any state directory may use it. */
export const image = (): string =>
  realpathSync(resolve("build/machine-images/names", process.env["STOKER_TEST_IMAGE"] ?? "minimal"))

/** Small machines that start quickly, with limits that a slow one keeps. */
export const machineClass = (machine: MachineSetup = {}, pool?: PoolConfig): SandboxClass => {
  const usual = standardClass("vm", "qemu")
  const limits = {
    memoryBytes: 64 * MiB,
    diskBytes: 32 * MiB,
    diskInodes: 2048,
    cpus: 1,
    wallMs: patience(60_000),
    cpuMs: patience(60_000)
  }
  return {
    ...usual,
    machine: { image: image(), accelerator: "tcg", vcpus: 1, ...machine },
    ceiling: { ...usual.ceiling, ...limits },
    defaults: { ...usual.defaults, ...limits, pids: 32 },
    ...(pool === undefined ? {} : { pool })
  }
}

const names = (path: string): ReadonlyArray<string> => {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

const textOf = (path: string) => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}

const programOf = (pid: string) => {
  try {
    return readlinkSync(`/proc/${pid}/exe`)
  } catch {
    return ""
  }
}

/** Rows of a state directory. */
export const rows = (state: string): ReadonlyArray<string> => names(join(state, "ledger"))

/** VMMs of these rows: a machine's cgroup is called like its row. */
export const vmms = (ids: ReadonlyArray<string>): ReadonlyArray<number> =>
  names("/proc").filter((pid) => /^\d+$/.test(pid) && programOf(pid).includes("qemu-system")).filter((pid) => {
    const groups = textOf(`/proc/${pid}/cgroup`)
    return ids.some((id) => groups.includes(`/${id}`))
  }).map(Number)

/** All that is there of these rows and this state directory's instances; empty when nothing is. */
export const left = (state: string, ids: ReadonlyArray<string>): ReadonlyArray<string> => {
  const instances = names(join(state, "instances"))
  const below = (...parts: ReadonlyArray<string>) =>
    instances.flatMap((instance) =>
      names(join(state, "instances", instance, ...parts)).map((name) => join(instance, ...parts, name))
    )
  return [
    ...rows(state).map((id) => `row ${id}`),
    ...vmms(ids).map((pid) => `VMM ${pid}`),
    ...names("/run/netns").filter((name) => ids.includes(name.replace("stoker-", ""))).map((name) => `netns ${name}`),
    ...["machines", "network", "said", "scratch"].flatMap((folder) => below(folder)),
    ...names(join(state, "machine-templates")).filter((name) => /making|gone/.test(name))
  ]
}

/** Large enough for the cases of conformance. */
export const conformanceClass = (folder: string): SandboxClass => {
  const usual = standardClass("vm", "qemu")
  return { ...usual, machine: { image: folder, accelerator: "tcg", vcpus: 2 } }
}
