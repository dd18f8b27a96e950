/** Firecracker and its jailer on this host: where they are, whether they may be used, and what a snapshot is bound to. */
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { readFile, realpath } from "node:fs/promises"
import { release } from "node:os"
import { basename } from "node:path"
import { textOf } from "../../host/Errno.ts"
import { findProgram } from "../../host/Executable.ts"
import { VmmError } from "../Vmm.ts"
import * as Advisories from "./Advisories.ts"

/** For a program that hangs; it takes milliseconds. */
const LIMIT_MS = 20_000

const INSTALL =
  "Install the release of https://github.com/firecracker-microvm/firecracker/releases (both programs of one archive); STOKER_FIRECRACKER and STOKER_JAILER name other files"

/** What of the environment says where they are. */
export type Environment = Readonly<Partial<Record<"STOKER_FIRECRACKER" | "STOKER_JAILER" | "PATH", string>>>

/** Programs that were found and may be used. */
export interface Programs {
  /** Real paths: the jailer names a folder after the file. */
  readonly firecracker: string
  readonly jailer: string
  readonly version: ReadonlyArray<number>
  readonly jailerVersion: ReadonlyArray<number>
}

const failed = (reason: string, cause?: unknown) =>
  new VmmError({
    vmm: "firecracker",
    step: "version",
    reason,
    remedy: INSTALL,
    ...(cause === undefined ? {} : { cause })
  })

const said = (program: string, args: ReadonlyArray<string>) =>
  Effect.callback<string, VmmError>((resume) => {
    const options = { encoding: "utf8", timeout: LIMIT_MS, killSignal: "SIGKILL", env: {} } as const
    const child = execFile(program, [...args], options, (cause, stdout) =>
      resume(
        cause === null
          ? Effect.succeed(stdout)
          : Effect.fail(
            failed(
              cause.code === "ENOENT"
                ? `${program}: there is no such program`
                : cause.killed === true
                ? `${program} ${args.join(" ")} did not end within ${LIMIT_MS} ms`
                : `${program} ${args.join(" ")} failed: ${textOf(cause)}`,
              cause
            )
          )
      ))
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

/** One of them, by its name in the environment or on the PATH, with its version. */
export const look = Effect.fnUntraced(function*(program: Advisories.Program, env: Environment) {
  const named = program === "firecracker" ? env.STOKER_FIRECRACKER : env.STOKER_JAILER
  const file = findProgram(named ?? program, env.PATH ?? "")
  const text = yield* said(file, ["--version"])
  const version = Advisories.parseVersion(program, text)
  if (version === undefined) {
    return yield* failed(`${file} --version said "${text.split("\n")[0] ?? ""}", which is not ${program}'s`)
  }
  const refusal = Advisories.refusal(program, version)
  if (refusal !== undefined) return yield* failed(`${file}: ${refusal}`)
  const path = yield* Effect.tryPromise({
    try: () => realpath(file),
    catch: (cause) => failed(`${file}: ${textOf(cause)}`, cause)
  })
  // By its name a VMM is known among a machine's processes, and older jailers insist on it as well.
  if (!basename(path).startsWith(program)) {
    return yield* failed(`the name of ${path} does not begin with ${program}`)
  }
  return { path, version }
})

/** Both of them. Fails where one is missing, too old, or has a hole that reaches a machine. */
export const ready = Effect.fnUntraced(function*(env: Environment) {
  const firecracker = yield* look("firecracker", env)
  const jailer = yield* look("jailer", env)
  const programs: Programs = {
    firecracker: firecracker.path,
    jailer: jailer.path,
    version: firecracker.version,
    jailerVersion: jailer.version
  }
  return programs
})

const sha256 = (text: string | Buffer) => createHash("sha256").update(text).digest("hex").slice(0, 16)

/** What of /proc/cpuinfo a snapshot depends on: the first processor, because those of one host are alike. */
export const processorOf = (cpuinfo: string): string => {
  const [first = ""] = cpuinfo.split("\n\n")
  const field = (name: string) => new RegExp(`^${name}\\s*:\\s*(.*)$`, "m").exec(first)?.[1]?.trim() ?? "?"
  const x86 = ["vendor_id", "cpu family", "model", "stepping", "microcode"].map(field)
  const arm = ["CPU implementer", "CPU variant", "CPU part", "CPU revision"].map(field)
  const name = field("model name")
  const flags = [field("flags"), field("Features")].join(" ")
  return `${name} ${[...x86, ...arm].filter((value) => value !== "?").join("/")} flags ${sha256(flags)}`
}

/** See `Vmm.identity`. The program by its content as well: builds between releases share a number. */
export const identity = Effect.fnUntraced(function*(programs: Programs) {
  const format = (yield* said(programs.firecracker, ["--snapshot-version"])).trim()
  const [binary, cpuinfo] = yield* Effect.tryPromise({
    try: () => Promise.all([readFile(programs.firecracker), readFile("/proc/cpuinfo", "utf8")]),
    catch: (cause) => failed(textOf(cause), cause)
  })
  return [
    `firecracker ${programs.version.join(".")} ${sha256(binary)}`,
    `snapshots ${format}`,
    "kvm",
    processorOf(cpuinfo),
    `linux ${release()}`
  ].join("; ")
})
