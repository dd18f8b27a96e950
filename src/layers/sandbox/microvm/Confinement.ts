/** What the host sees of a VMM that runs: that it is confined, and where. */
import { Effect } from "effect"
import { readFileSync, readlinkSync, statSync } from "node:fs"
import { basename } from "node:path"
import type { Cgroup } from "../../cgroup/Cgroup.ts"
import { ProvisionFailed } from "../Sandbox.ts"

interface Seen {
  readonly program: string
  readonly uid: number
  readonly gid: number
  readonly noNewPrivs: boolean
  readonly isFiltered: boolean
  readonly capabilities: string
  readonly netns: number
}

const lookAt = (pid: number): Seen | undefined => {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8")
    const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, "m").exec(status)?.[1] ?? ""
    const noNewPrivs = field("NoNewPrivs") === "1"
    // What it may never have more than is of no use to who can gain nothing; Firecracker's jailer leaves it.
    const capabilities = ["CapEff", "CapPrm", "CapInh", "CapAmb", ...(noNewPrivs ? [] : ["CapBnd"])]
    return {
      program: basename(readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, "")),
      uid: Number(field("Uid")),
      gid: Number(field("Gid")),
      noNewPrivs,
      isFiltered: field("Seccomp") === "2",
      capabilities: capabilities.map(field).join(""),
      netns: statSync(`/proc/${pid}/ns/net`).ino
    }
  } catch {
    // It has ended.
    return undefined
  }
}

export interface Expected {
  readonly driver: string
  /** How VMMs' programs are called. */
  readonly isVmm: (program: string) => boolean
  readonly uid: number
  readonly netns: number
}

/** Why a VMM is not as confined as it has to be; undefined if it is. */
const flaw = ({ netns, uid }: Expected, seen: Seen): string | undefined => {
  if (seen.uid !== uid || seen.gid !== uid) return `its VMM runs as ${seen.uid}:${seen.gid}, not as ${uid}`
  if (/[1-9a-f]/.test(seen.capabilities)) return "its VMM has capabilities"
  if (!seen.noNewPrivs) return "its VMM may gain privileges"
  if (!seen.isFiltered) return "its VMM has no seccomp filter"
  if (seen.netns !== netns) return "its VMM is not in the machine's network namespace"
  return undefined
}

/** Fails for a machine whose VMM could harm the host, should its guest break out into it. */
export const verify = (expected: Expected) =>
  Effect.fnUntraced(function*(cgroup: Cgroup) {
    const { driver, isVmm } = expected
    const fail = (reason: string, cause?: unknown) =>
      new ProvisionFailed({
        driver,
        step: "ready",
        reason,
        remedy:
          "No job is run in it. Does this host have seccomp and user-less processes as usual? Run `stoker doctor`.",
        ...(cause === undefined ? {} : { cause })
      })
    const pids = yield* Effect.mapError(cgroup.pids, (error) => fail(error.message, error))
    const found = pids.map(lookAt).filter((seen) => seen !== undefined).filter(({ program }) => isVmm(program))
    if (found.length === 0) return yield* fail("no VMM is in the machine's cgroup")
    const reason = found.map((seen) => flaw(expected, seen)).find((one) => one !== undefined)
    if (reason !== undefined) return yield* fail(reason)
  })
