/** skopeo and umoci, as programs that may hang, talk much, or meet an image made to harm: bounded, killed with their cgroup. */
import { Config, Effect, Option, Schema } from "effect"
import { spawn } from "node:child_process"
import { type Check, ProvisionFailed } from "../Sandbox.ts"
import * as Advisories from "./Advisories.ts"
import { find } from "./Crun.ts"
import * as Runsc from "./Runsc.ts"

/** A user and group of nobody else's: just above the ranges of `IdRanges.ts`. All of an unpacked image belongs to it. */
export const UNPACKER = 0x7fff_0000

/** What is kept of what a tool says. A manifest has 4 MiB at most. */
const MOST_OUTPUT = 5 * 1024 * 1024
const MOST_COMPLAINT = 16_384

export const REMEDY_TOOLS = "Install them: `apt-get install skopeo umoci`, or run `npm run setup`."

/** Why an image cannot be had, before anybody knows for which class. */
export const refused = (reason: string, remedy: string, cause?: unknown) =>
  new ProvisionFailed({
    driver: "oci",
    step: "image",
    reason,
    remedy,
    ...(cause === undefined ? {} : { cause })
  })

/** It ran and failed: its last words. */
export class ToolFailed extends Schema.TaggedError<ToolFailed>()("ToolFailed", {
  tool: Schema.String,
  said: Schema.String
}) {}

export interface Call {
  /** Words before the program: what puts it into a cgroup (`native/launch`). */
  readonly prefix: ReadonlyArray<string>
  readonly argv: readonly [string, ...Array<string>]
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
}

/** What it said on stdout. Interrupted, it is killed; its own children are its cgroup's. */
export const run = ({ argv, cwd, env, prefix }: Call): Effect.Effect<Buffer, ProvisionFailed | ToolFailed> =>
  Effect.callback((resume) => {
    const [program = argv[0], ...args] = [...prefix, ...argv]
    const child = spawn(program, args, { cwd, env: { ...env }, stdio: ["ignore", "pipe", "pipe"] })
    const parts: Array<Buffer> = []
    let size = 0
    let complaint = ""
    child.stdout.on("data", (bytes: Buffer) => {
      size += bytes.length
      if (size <= MOST_OUTPUT) parts.push(bytes)
      else child.kill("SIGKILL")
    })
    child.stderr.on("data", (bytes: Buffer) => {
      complaint = (complaint + bytes.toString("utf8")).slice(-MOST_COMPLAINT)
    })
    child.on("error", (cause) => resume(Effect.fail(refused(`${argv[0]}: ${cause.message}`, REMEDY_TOOLS, cause))))
    child.on("close", (code, signal) => {
      if (code === 0 && size <= MOST_OUTPUT) return resume(Effect.succeed(Buffer.concat(parts)))
      const said = size > MOST_OUTPUT ? "it said more than 5 MiB" : complaint.trim()
      // exec failed: launch says so, sh's and setpriv's children end with 127.
      resume(Effect.fail(
        code === 127 || (code === 125 && /: exec .*No such file/.test(said))
          ? refused(`${said.split("\n").at(-1) ?? argv[0]}`, REMEDY_TOOLS)
          : new ToolFailed({ tool: argv[0], said: said || `it ended with ${signal ?? `status ${code}`}` })
      ))
    })
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

/**
 * Words that run a program where it can harm nobody: as `UNPACKER`, without capabilities and without network, seeing its
 * working directory as /mnt (it may not search what lies above it) where neither devices nor setuid count. No file it
 * writes grows above `fileBytes`.
 */
export const confined = (fileBytes: number): ReadonlyArray<string> => [
  "unshare",
  "--mount",
  "--net",
  "--ipc",
  "--propagation",
  "private",
  "--",
  "sh",
  "-c",
  "mount --bind . /mnt && mount -o remount,bind,nosuid,nodev,noexec /mnt && cd /mnt && exec \"$@\"",
  "sh",
  "setpriv",
  `--reuid=${UNPACKER}`,
  `--regid=${UNPACKER}`,
  "--clear-groups",
  "--no-new-privs",
  "--inh-caps=-all",
  "--bounding-set=-all",
  "--",
  "prlimit",
  `--fsize=${fileBytes}`,
  "--core=0",
  "--"
]

/**
 * Words that run skopeo where it reaches the network and the operator's files: it may read what root may, and change
 * nothing that is not root's own.
 */
export const reading = (fileBytes: number): ReadonlyArray<string> => [
  "setpriv",
  "--no-new-privs",
  "--inh-caps=-all",
  "--bounding-set=-all,+dac_read_search",
  "--",
  "prlimit",
  `--fsize=${fileBytes}`,
  "--core=0",
  "--"
]

/** What of skopeo's complaints people can do something about. */
const causes: ReadonlyArray<readonly [RegExp, string, string]> = [
  [
    /unauthorized|authentication required|access to the resource is denied|status: 40[13]|invalid username\/password/i,
    "the registry does not let this worker have it",
    "Is the name right? Log in with `skopeo login --authfile FILE HOST` and give the worker REGISTRY_AUTH_FILE=FILE."
  ],
  [
    /manifest unknown|name unknown|not found in index|no descriptor found|Tag .* not found|no image found|does not exist in the/i,
    "there is no such image",
    "Look the name and tag up: `skopeo list-tags docker://REPOSITORY`."
  ],
  [
    /Source image rejected|Running image .* is rejected by policy/i,
    "the host's policy does not allow it",
    "See /etc/containers/policy.json (containers-policy.json(5))."
  ],
  [
    /policy\.json: no such file/i,
    "the host has no policy for images",
    "Install `golang-github-containers-common` (or containers-common), or write /etc/containers/policy.json."
  ],
  [
    /no such host|connection refused|i\/o timeout|network is unreachable|no route to host|TLS handshake|x509|server gave HTTP response/i,
    "the registry cannot be reached",
    "Is its name right, is it up, and does this host trust its certificate (/etc/containers/certs.d)?"
  ],
  [
    /digest did not match|Digest did not match|mismatch/,
    "what came is not what its digest says",
    "Pull it again; if that does not help, the registry or archive is corrupt."
  ],
  [
    /no space left on device|file too large|file size limit|short write/i,
    "there is no room for it",
    "Free some space in the state directory, or raise STOKER_IMAGE_BYTES."
  ],
  [
    /unexpected EOF|invalid tar header|archive\/tar|gzip: invalid|manifest\.json|index\.json|does not look like|invalid character/i,
    "it is corrupt, or no image",
    "Make it again, e.g. `skopeo copy docker://debian:12 oci-archive:/path.tar`."
  ]
]

/** The last line of what a Go program says, without its clock. */
const lastWords = (said: string): string => {
  const line = said.trim().split("\n").at(-1) ?? ""
  return (/msg="(.*)"$/.exec(line)?.[1] ?? line).replaceAll("\\\"", "\"").slice(0, 600)
}

/** A tool's failure in words for whoever named the image. */
export const explain = (image: string, { said, tool }: ToolFailed): ProvisionFailed => {
  const known = causes.find(([pattern]) => pattern.test(said))
  return known === undefined
    ? refused(`image ${image}: ${tool} failed: ${lastWords(said)}`, "Does the same command work by hand?")
    : refused(`image ${image}: ${known[1]} (${tool}: ${lastWords(said)})`, known[2])
}

/** What skopeo looks for in its environment; nothing else of the worker's is shown to it. */
const passed = [
  "REGISTRY_AUTH_FILE",
  "XDG_RUNTIME_DIR",
  "CONTAINERS_REGISTRIES_CONF",
  "HTTP_PROXY",
  "HTTPS_PROXY",
  "NO_PROXY",
  "http_proxy",
  "https_proxy",
  "no_proxy",
  "SSL_CERT_FILE",
  "SSL_CERT_DIR"
]

/** The tools' environment. */
export const toolEnv = Effect.fnUntraced(function*(path: string) {
  const values = yield* Effect.forEach(passed, (name) => Config.option(Config.String(name)))
  const known = passed.flatMap((name, index) =>
    Option.match(values[index] ?? Option.none(), { onNone: () => [], onSome: (value) => [[name, value] as const] })
  )
  return { PATH: path, ...Object.fromEntries(known) }
})

const versionOf = (env: Readonly<Record<string, string>>, program: string) =>
  run({ prefix: [], argv: [program, "--version"], cwd: "/", env }).pipe(
    Effect.catchTag("ToolFailed", ({ said }) => Effect.fail(refused(`${program}: ${said}`, REMEDY_TOOLS))),
    Effect.map((bytes) => bytes.toString("utf8").trim().split("\n")[0] ?? ""),
    Effect.timeoutOrElse({
      duration: "20 seconds",
      orElse: () => Effect.fail(refused(`${program} hangs`, REMEDY_TOOLS))
    })
  )

/** umoci's version line, unless it has a known hole. */
export const checkUmoci = Effect.fnUntraced(function*(env: Readonly<Record<string, string>>) {
  const line = yield* versionOf(env, "umoci")
  const found = /(\d+)\.(\d+)(?:\.(\d+))?/.exec(line)?.slice(1).map((part) => Number(part ?? 0))
  if (found === undefined) return yield* refused(`umoci --version said "${line}", which is not umoci's`, REMEDY_TOOLS)
  const file = find("umoci", env["PATH"] ?? "")
  const [hole] = Advisories.holesOf("umoci", found, () => Advisories.changelogOf("umoci", file))
  return hole === undefined
    ? line
    : yield* refused(
      `${line} has ${Advisories.describe(hole)}`,
      "Install a newer umoci: nothing is unpacked with this one."
    )
})

/** What only some classes need: a warning where it is missing. */
export const toolChecks = Effect.fnUntraced(function*(env: Readonly<Record<string, string>>, runsc: string) {
  const checks: Array<Check> = []
  for (const [name, check] of [["skopeo", versionOf(env, "skopeo")], ["umoci", checkUmoci(env)]] as const) {
    const found = yield* Effect.result(check)
    checks.push(
      found._tag === "Success"
        ? { name, status: "ok", detail: found.success }
        : {
          name,
          status: "warning",
          detail: `${found.failure.reason}: classes with an image need it`,
          remedy: found.failure.remedy
        }
    )
  }
  const found = yield* Effect.result(Runsc.version(runsc))
  checks.push(
    found._tag === "Success"
      ? { name: "runsc", status: "ok", detail: `${runsc} ${found.success}` }
      : {
        name: "runsc",
        status: "warning",
        detail: `${found.failure.reason}: classes with runtime runsc need it`,
        remedy: found.failure.remedy
      }
  )
  return checks
})
