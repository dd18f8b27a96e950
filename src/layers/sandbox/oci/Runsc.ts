/**
 * runsc, the OCI runtime of gVisor: its sentry is a kernel of its own for the sandbox's processes, in user space. The same
 * bundle and guest as with crun; what a system call may do is the sentry's filter, and the sentry itself runs under one.
 */
import { Effect } from "effect"
import { readFileSync, readlinkSync } from "node:fs"
import { ProvisionFailed } from "../Sandbox.ts"
import { execute } from "./Crun.ts"

/** Debian 12's, the one this was tried with. Versions are dates. */
const MINIMUM = 20_221_219

/** From here on a faster way to catch system calls is there, and the old one not for ever. */
const SYSTRAP_SINCE = 20_230_501

/** In the cgroup beside the job: runsc that waits, the gofer, the sentry with its threads, and its stubs. */
export const OWN_PIDS = 512

/** Sentry and gofer; about 25 MiB when idle. Above the job's own limit. */
export const OWN_MEMORY_BYTES = 64 * 1024 * 1024

const REMEDY =
  "Install it (`apt-get install runsc`), or leave `runtime` out of the class; STOKER_RUNSC names another binary."

const failed = (step: "driver" | "ready", reason: string, remedy = REMEDY) =>
  new ProvisionFailed({ driver: "oci", step, reason, remedy })

/** `runsc version 0.0~20221219.0` (Debian) or `release-20240101.0`: the date as a number. */
export const parseVersion = (text: string): number | undefined => {
  const match = /^runsc version \D*(?:\d{1,3}\.\d{1,3}~)?(\d{8})\./m.exec(text)
  return match === null ? undefined : Number(match[1])
}

/** The version, checked: never is another runtime taken instead. */
export const version = (runsc: string): Effect.Effect<number, ProvisionFailed> =>
  execute(runsc, ["--version"]).pipe(
    Effect.mapError(({ reason }) => failed("driver", reason)),
    Effect.flatMap((text) => {
      const found = parseVersion(text)
      if (found === undefined) {
        return Effect.fail(failed("driver", `${runsc} --version said "${text.split("\n")[0]}", which is not runsc's`))
      }
      return found >= MINIMUM
        ? Effect.succeed(found)
        : Effect.fail(failed("driver", `runsc ${found} is too old, ${MINIMUM} is the least`))
    })
  )

/**
 * What stands before `run`. The cgroup is the worker's and it is in it already. The network is the sentry's own stack
 * with nothing but a loopback.
 */
export const globals = (stateRoot: string, found: number): ReadonlyArray<string> => [
  "--root",
  stateRoot,
  `--platform=${found >= SYSTRAP_SINCE ? "systrap" : "ptrace"}`,
  "--ignore-cgroups",
  "--network=none",
  "--host-uds=none",
  "--overlay2=none"
]

const seccompOf = (pid: number) => /^Seccomp:\s*(\d)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]

/** One process of a sandbox as the host sees it; none when it has just gone. */
const look = (pid: number) => {
  try {
    const argv = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0")
    return [{ pid, exe: readlinkSync(`/proc/${pid}/exe`), name: argv[0] ?? "", seccomp: seccompOf(pid) }]
  } catch {
    return []
  }
}

/**
 * Fails unless all processes in the cgroup are runsc's own and its sentry is confined. The guest has answered by now, so
 * it runs; it is no process of the host, so it runs on the sentry.
 */
export const verify = (runsc: string, pids: ReadonlyArray<number>): Effect.Effect<void, ProvisionFailed> =>
  Effect.suspend(() => {
    const found = pids.flatMap(look)
    const others = found.filter(({ exe }) => exe.replace(/ \(deleted\)$/, "") !== runsc)
    const sentries = found.filter(({ name }) => name === "runsc-sandbox")
    return others.length === 0 && sentries.length > 0 && sentries.every(({ seccomp }) => seccomp === "2")
      ? Effect.void
      : Effect.fail(failed(
        "ready",
        `the guest does not run on gVisor's sentry, or that is not confined (${JSON.stringify(found)})`,
        "This runsc does something else than it says; no job is run with it."
      ))
  })
