/** crun, the OCI runtime: where it is, whether it is new enough, and its state directory's arguments. */
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { ProvisionFailed } from "../Sandbox.ts"

/** 1.8 is what Debian 12 has and what this driver was tried with; before it, `run.oci.seccomp_bpf_data` misbehaves. */
const MINIMUM = [1, 8] as const

const REMEDY = "Install it (`apt-get install crun`), or run `npm run setup`; STOKER_CRUN names another binary."

const failed = (reason: string, cause?: unknown) =>
  new ProvisionFailed({
    driver: "oci",
    step: "driver",
    reason,
    remedy: REMEDY,
    ...(cause === undefined ? {} : { cause })
  })

/** Runs a program to its end; its stdout, or a failure with what it said. */
export const execute = (program: string, args: ReadonlyArray<string>): Effect.Effect<string, ProvisionFailed> =>
  Effect.callback<string, ProvisionFailed>((resume) => {
    const child = execFile(program, [...args], { timeout: 20_000 }, (error, stdout, stderr) => {
      if (error === null) return resume(Effect.succeed(stdout))
      const missing = "code" in error && error.code === "ENOENT"
      const said = missing ? "there is no such program" : (stderr.trim() || error.message)
      resume(Effect.fail(failed(`${program}: ${said}`, error)))
    })
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

/** `crun version 1.8.1` and the like. */
export const parseVersion = (text: string): ReadonlyArray<number> | undefined => {
  const match = /crun version (\d+)\.(\d+)(?:\.(\d+))?/.exec(text)
  return match === null ? undefined : match.slice(1).map((part) => Number(part ?? 0))
}

/** The version, checked: an old crun is refused, not worked around. */
export const version = (crun: string) =>
  Effect.flatMap(execute(crun, ["--version"]), (text) => {
    const found = parseVersion(text)
    if (found === undefined) {
      return Effect.fail(failed(`${crun} --version said "${text.split("\n")[0]}", which is not crun's`))
    }
    const [major = 0, minor = 0] = found
    return major > MINIMUM[0] || (major === MINIMUM[0] && minor >= MINIMUM[1])
      ? Effect.succeed(found.join("."))
      : Effect.fail(failed(`crun ${found.join(".")} is too old, ${MINIMUM.join(".")} is the least`))
  })

/** The worker owns the cgroup and has put crun into it already; state lies below the instance. */
export const globals = (stateRoot: string): ReadonlyArray<string> => [
  "--root",
  stateRoot,
  "--cgroup-manager=disabled"
]
