/** crun, the OCI runtime: where it is, whether it is new enough, and its state directory's arguments. */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { basename } from "node:path"
import { findProgram } from "../../host/Executable.ts"
import { ProvisionFailed } from "../Sandbox.ts"
import * as Advisories from "./Advisories.ts"

/** 1.8 is what Debian 12 has and what this driver was tried with; before it, `run.oci.seccomp_bpf_data` misbehaves. */
const MINIMUM = [1, 8] as const

/** For a runtime that hangs; it takes milliseconds. */
const LIMIT = "20 seconds"

const REMEDY = "Install it (`apt-get install crun`), or run `npm run setup`; STOKER_CRUN names another binary."

const failed = (reason: string, cause?: unknown) =>
  new ProvisionFailed({
    driver: "oci",
    step: "driver",
    reason,
    remedy: REMEDY,
    ...(cause === undefined ? {} : { cause })
  })

export const find = findProgram

/**
 * Runs crun to its end; what it said on stdout, or a failure with what it said on stderr. `leaves`: a success leaves a
 * container behind that holds our pipes, so they have no end, and what was said is of no interest.
 */
export const execute = (
  program: string,
  args: ReadonlyArray<string>,
  leaves: "nothing" | "container" = "nothing"
): Effect.Effect<string, ProvisionFailed> =>
  Effect.callback<string, ProvisionFailed>((resume) => {
    const child = spawn(program, [...args], { stdio: ["ignore", "pipe", "pipe"] })
    const said = { stdout: "", stderr: "" }
    child.stdout.on("data", (bytes: Buffer) => said.stdout += bytes.toString("utf8"))
    child.stderr.on("data", (bytes: Buffer) => said.stderr += bytes.toString("utf8"))
    child.on(
      "error",
      (error: NodeJS.ErrnoException) =>
        resume(
          Effect.fail(
            failed(`${program}: ${error.code === "ENOENT" ? "there is no such program" : error.message}`, error)
          )
        )
    )
    child.on("exit", (code) => {
      if (code === 0 && leaves === "container") resume(Effect.succeed(""))
    })
    // Not `exit`: on a busy machine that comes before the pipes are read.
    child.on("close", (code, signal) =>
      resume(
        code === 0
          ? Effect.succeed(said.stdout)
          : Effect.fail(failed(`${program}: ${said.stderr.trim() || `it ended with ${signal ?? `status ${code}`}`}`))
      ))
    return Effect.sync(() => void child.kill("SIGKILL"))
  }).pipe(
    Effect.timeoutOrElse({
      duration: LIMIT,
      orElse: () => Effect.fail(failed(`${program} did not end within ${LIMIT}`))
    })
  )

/** `crun version 1.8.1` and the like. */
export const parseVersion = (text: string): ReadonlyArray<number> | undefined => {
  const match = /crun version (\d+)\.(\d+)(?:\.(\d+))?/.exec(text)
  return match === null ? undefined : match.slice(1).map((part) => Number(part ?? 0))
}

/** The version, checked: a crun that is old, has a known hole, or is a handler of virtual machines is refused. */
export const version = (crun: string) =>
  Effect.flatMap(execute(crun, ["--version"]), (text) => {
    const found = parseVersion(text)
    if (found === undefined) {
      return Effect.fail(failed(`${crun} --version said "${text.split("\n")[0]}", which is not crun's`))
    }
    if (Advisories.isBefore(found, MINIMUM)) {
      return Effect.fail(failed(`crun ${found.join(".")} is too old, ${MINIMUM.join(".")} is the least`))
    }
    // By that name it is another program, one that trusts images with the host's files (CVE-2025-24965).
    if (basename(crun) === "krun") return Effect.fail(failed(`${crun}: called krun it makes no containers`))
    const holes = holesOf(crun, found).filter(({ unreached }) => unreached === undefined)
    return holes.length === 0
      ? Effect.succeed(found.join("."))
      : Effect.fail(failed(`crun ${found.join(".")} has ${holes.map(Advisories.describe).join(", ")}`))
  })

const holesOf = (crun: string, found: ReadonlyArray<number>) =>
  Advisories.holesOf("crun", found, () => Advisories.changelogOf("crun", crun))

/** What is known against a version that is taken all the same, for `stoker doctor`; "" if nothing. */
export const remarks = (crun: string, version: string): string =>
  holesOf(crun, version.split(".").map(Number)).map((hole) => `, ${Advisories.describe(hole)}`).join("")

/** The worker owns the cgroup and has put crun into it already; state lies below the instance. */
export const globals = (stateRoot: string): ReadonlyArray<string> => [
  "--root",
  stateRoot,
  "--cgroup-manager=disabled"
]
