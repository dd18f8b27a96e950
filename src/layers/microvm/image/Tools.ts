/** The programs that make images: found before anything begins, bounded, and dead when we are. */
import { Config, Effect, Option } from "effect"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { isExecutable } from "../../host/Executable.ts"
import type { MachineImageError } from "../MachineImage.ts"
import { fault } from "./Fault.ts"

/** Each with the Debian package that brings it. */
const packages = {
  "apt-cache": "apt",
  "apt-get": "apt",
  "apt-config": "apt",
  "dpkg-deb": "dpkg",
  xz: "xz-utils",
  cp: "coreutils",
  mke2fs: "e2fsprogs",
  debugfs: "e2fsprogs",
  dumpe2fs: "e2fsprogs",
  tune2fs: "e2fsprogs",
  e2fsck: "e2fsprogs",
  mmdebstrap: "mmdebstrap",
  setpriv: "util-linux",
  unshare: "util-linux"
} as const
export type Tool = keyof typeof packages

/** Administrators' programs are often not on a user's PATH. */
const folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]

/** Fails, with what to install, unless all are there. */
export const need = Effect.fnUntraced(function*(image: string, ...tools: ReadonlyArray<Tool>) {
  const missing = tools.filter((tool) => !folders.some((folder) => isExecutable(join(folder, tool))))
  if (missing.length === 0) return
  const wanted = [...new Set(missing.map((tool) => packages[tool]))].join(" ")
  return yield* fault(
    image,
    `this machine has no ${missing.join(", no ")}`,
    `Install what is missing: apt-get install ${wanted}`
  )
})

/** What is kept of what a tool says, from its end, in bytes. */
const MOST_SAID = 256 * 1024

export interface Call {
  readonly image: string
  readonly argv: readonly [Tool, ...ReadonlyArray<string>]
  readonly cwd: string
  readonly stdin?: string
  /** Exit codes that are no failure, beside 0. */
  readonly fine?: ReadonlyArray<number>
  readonly env?: Readonly<Record<string, string>>
  /** Where it is, for people: lines it writes on stderr. */
  readonly heard?: (line: string) => void
}

/** Proxies are the operator's; nothing else of our environment is shown to a tool. */
const passed = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"]

const proxies = Effect.forEach(passed, (name) => Config.option(Config.String(name))).pipe(
  Effect.orElseSucceed(() => []),
  Effect.map((values) =>
    Object.fromEntries(
      passed.flatMap((name, index) => {
        const value = Option.getOrUndefined(values[index] ?? Option.none())
        return value === undefined ? [] : [[name, value] as const]
      })
    )
  )
)

/**
 * Words that run a program in namespaces of its own: what it mounts is seen by nobody else, and all it starts ends with it. As
 * root it also ends with us; others pass for root in there, so that what they make belongs to root.
 */
const apart = (): readonly [string, ...ReadonlyArray<string>] => {
  const unshare = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"]
  return process.getuid?.() === 0
    ? ["setpriv", "--pdeathsig=KILL", "--", ...unshare, "--"]
    : ["unshare", "--user", "--map-root-user", ...unshare.slice(1), "--"]
}

/** What tools say where something is amiss that the operator can mend. */
const causes: ReadonlyArray<readonly [RegExp, string, string]> = [
  [
    /No space left on device|Could not allocate block in ext2 filesystem|write error.*space/i,
    "there is no room for it",
    "Free space or inodes in the state directory, or name another with --state"
  ],
  [
    /Temporary failure resolving|Could not resolve|Could not connect|Network is unreachable|Connection (?:refused|timed out)|Cannot initiate the connection/i,
    "Debian's packages cannot be reached",
    "Is this host on the network, and do its apt sources work? Try `apt-get update`"
  ],
  [
    /404 +Not Found|Failed to fetch|Hash Sum mismatch|Can't find a source|Unable to locate package|Release file .* is expired/i,
    "apt has no such package any more, or its lists are old",
    "Run `apt-get update`, then try again"
  ],
  [
    /NO_PUBKEY|is not signed|signatures (?:were|couldn't)|GPG error/i,
    "apt does not trust where the packages come from",
    "Give the source in /etc/apt its key (signed-by), as `apt-get update` asks for"
  ],
  [
    /unshare failed|write failed \/proc\/self\/(?:uid|gid)_map|cannot change root filesystem propagation/i,
    "this user may not make namespaces",
    "Run it as root"
  ]
]

const explain = (image: string, tool: string, said: string, ended: string): MachineImageError => {
  const lines = said.trim().split("\n").map((line) => line.trim()).filter((line) => line !== "")
  const known = causes.find(([pattern]) => pattern.test(said))
  const telling = known === undefined
    ? lines.filter((line) => /^(?:E:|error|mke2fs:|.*failed)/i.test(line)).at(-1) ?? lines.at(-1)
    : lines.find((line) => known[0].test(line))
  const words = `${tool}: ${(telling ?? ended).slice(0, 500)}`
  return known === undefined
    ? fault(image, words, "Does the same command work by hand? LOG_LEVEL=Debug shows it")
    : fault(image, `${known[1]} (${words})`, known[2])
}

/** What it said on stdout. Interrupted, it and all it started is dead before this ends. */
export const run = Effect.fnUntraced(function*({ argv, cwd, env, fine = [], heard, image, stdin }: Call) {
  const [tool] = argv
  yield* need(image, tool, "setpriv", "unshare")
  const shown = yield* proxies
  yield* Effect.logDebug(`machine images: ${argv.join(" ")}`)
  return yield* Effect.callback<string, MachineImageError>((resume) => {
    const [program, ...words] = [...apart(), ...argv] as const
    const child = spawn(program, words, {
      cwd,
      env: { PATH: folders.join(":"), LC_ALL: "C.UTF-8", HOME: cwd, TMPDIR: cwd, ...shown, ...env },
      stdio: ["pipe", "pipe", "pipe"]
    })
    const parts = { stdout: "", stderr: "" }
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      parts.stdout = (parts.stdout + text).slice(-MOST_SAID)
    })
    let line = ""
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      parts.stderr = (parts.stderr + text).slice(-MOST_SAID)
      const lines = (line + text).split("\n")
      line = (lines.pop() ?? "").slice(-4096)
      for (const each of lines) heard?.(each.trim())
    })
    child.stdin.on("error", () => undefined) // it ended without reading: its exit tells why
    child.stdin.end(stdin ?? "")
    const closed = new Promise<void>((done) => {
      child.on("error", (cause) => {
        done()
        resume(
          Effect.fail(fault(image, `${tool} could not be started: ${cause.message}`, "Run `stoker doctor`", cause))
        )
      })
      child.on("close", (code, signal) => {
        done()
        resume(
          code === 0 || (code !== null && fine.includes(code))
            ? Effect.succeed(parts.stdout)
            : Effect.fail(
              explain(image, tool, `${parts.stdout}\n${parts.stderr}`, `it ended with ${signal ?? `status ${code}`}`)
            )
        )
      })
    })
    return Effect.promise(() => {
      child.kill("SIGKILL")
      return closed
    })
  })
})
