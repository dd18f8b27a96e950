/** The `debian` root: its essential packages and compilers, by mmdebstrap from the host's own apt sources. */
import { Effect } from "effect"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import type { Language, MachineImageError } from "../MachineImage.ts"
import { EPOCH_SECONDS } from "./Ext4.ts"
import { failedAt, fault } from "./Fault.ts"
import type { Workshop } from "./Packages.ts"
import { linesOf } from "./Root.ts"
import * as Tools from "./Tools.ts"

const REMEDY = "This makes roots on Debian, of the release it runs on. Build it there, and copy the image's folder"

/** The host's release, by its os-release(5). */
const codename = Effect.fnUntraced(function*(image: string) {
  const path = "/etc/os-release"
  const text = yield* Effect.tryPromise({ try: () => fs.readFile(path, "utf8"), catch: failedAt(image, path) })
  const value = (name: string) => new RegExp(`^${name}="?([^"\n]*)"?$`, "m").exec(text)?.[1]
  const [system, found] = [value("ID"), value("VERSION_CODENAME")]
  return system === "debian" && found !== undefined
    ? found
    : yield* fault(
      image,
      `this machine runs ${system ?? "no Linux that says its name"}, not a release of Debian`,
      REMEDY
    )
})

/** The host's sources of Debian itself, as lines of sources.list(5): others' packages do not go into a root unasked. */
const sources = Effect.fnUntraced(function*({ image, staging }: Workshop, suite: string) {
  const format = "$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)"
  const argv = ["apt-get", "indextargets", "--format", format, "Created-By: Packages"] as const
  const said = yield* Tools.run({ image, argv, cwd: staging })
  const lines = said.split("\n").flatMap((line) => {
    const [origin, name = "", uri = "", release = "", component = "", signedBy = ""] = line.split("|")
    if (origin !== "Debian" || !new RegExp(`^${suite}(?:-updates|-security)?$`).test(name)) return []
    const options = signedBy.startsWith("/") ? ` [signed-by=${signedBy}]` : ""
    return [`deb${options} ${uri} ${release} ${component}`]
  })
  return lines.length > 0 ? [...new Set(lines)].toSorted() : yield* fault(
    image,
    `apt has no lists of Debian ${suite}`,
    "Run `apt-get update`, then try again"
  )
})

/** Documentation and translations are of no use to jobs. */
const leftOut = ["man", "doc", "info", "locale", "lintian", "bug", "doc-base", "groff", "linda"].map((name) =>
  `--dpkgopt=path-exclude=/usr/share/${name}/*`
)

/** What of a fresh Debian belongs to the machine it was made on, or is made anew by who needs it. */
const removed = [
  "etc/apt/sources.list",
  "etc/apt/sources.list.d",
  "etc/machine-id",
  "var/lib/dbus/machine-id",
  "var/lib/apt/lists",
  "var/lib/apt/extended_states",
  "var/cache/apt",
  "var/cache/debconf",
  "var/cache/ldconfig/aux-cache",
  "var/log",
  "var/lib/dpkg/status-old",
  "var/lib/dpkg/diversions-old",
  "var/lib/dpkg/statoverride-old",
  "etc/passwd-",
  "etc/group-",
  "etc/shadow-",
  "etc/gshadow-"
]

/** Versions of all packages in a root, by its dpkg's own file. */
const installed = Effect.fnUntraced(function*(image: string, tree: string) {
  const path = join(tree, "var/lib/dpkg/status")
  const text = yield* Effect.tryPromise({ try: () => fs.readFile(path, "utf8"), catch: failedAt(image, path) })
  const field = (entry: string, name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(entry)?.[1]
  return Object.fromEntries(
    text.split("\n\n").flatMap((entry) => {
      const [name, version] = [field(entry, "Package"), field(entry, "Version")]
      return name === undefined || version === undefined ? [] : [[name, version] as const]
    }).toSorted(([one], [other]) => one < other ? -1 : 1)
  )
})

const packagesOf = Effect.fnUntraced(function*(image: string, languages: ReadonlyArray<Language>) {
  const wanted = new Set<string>(["base", ...languages])
  const lines = yield* linesOf(image, "packages")
  return lines.flatMap(([whose = "", ...names]) => wanted.has(whose) ? names : [])
})

/** Fills `tree`; gives the packages in it. */
export const make = Effect.fnUntraced(function*(
  shop: Workshop,
  tree: string,
  languages: ReadonlyArray<Language>
): Effect.fn.Return<Record<string, string>, MachineImageError> {
  const { image, staging, told } = shop
  yield* Tools.need(image, "mmdebstrap", "apt-get")
  if (process.getuid?.() !== 0) {
    return yield* fault(
      image,
      "a Debian root has files of many owners, which only root can make",
      "Run it as root, or build `--base minimal`"
    )
  }
  const suite = yield* codename(image)
  const list = yield* sources(shop, suite)
  const names = yield* packagesOf(image, languages)
  yield* told(`making Debian ${suite} with ${names.join(", ")}: some minutes`)
  const context = yield* Effect.context<never>()
  const tell = Effect.runForkWith(context)
  yield* Tools.run({
    image,
    cwd: staging,
    env: { SOURCE_DATE_EPOCH: `${EPOCH_SECONDS}` },
    stdin: `${list.join("\n")}\n`,
    heard: (line) => {
      const step = /^I: (downloading packages|extracting archives|installing remaining packages)/.exec(line)?.[1]
      if (step !== undefined) tell(told(step))
    },
    argv: [
      "mmdebstrap",
      "--variant=minbase",
      "--mode=root",
      "--format=directory",
      ...leftOut,
      "--dpkgopt=path-include=/usr/share/locale/locale.alias",
      "--aptopt=Acquire::Retries \"3\"",
      "--aptopt=APT::Install-Recommends \"false\"",
      `--include=${names.join(",")}`,
      suite,
      tree,
      "-"
    ]
  })
  yield* Effect.tryPromise({
    try: async () => {
      for (const path of removed) await fs.rm(join(tree, path), { recursive: true, force: true })
      for (const path of ["var/log", "var/cache/apt", "var/lib/apt/lists"]) {
        await fs.mkdir(join(tree, path), { recursive: true })
        await fs.chmod(join(tree, path), 0o755)
      }
      // Made for the machine it was built on, by mmdebstrap.
      for (const path of ["etc/hostname", "etc/resolv.conf", "etc/apt/apt.conf.d/99mmdebstrap"]) {
        await fs.rm(join(tree, path), { force: true })
      }
      if (languages.includes("python")) {
        await fs.symlink("python3", join(tree, "usr/bin/python")).catch(() => undefined)
      }
    },
    catch: failedAt(image, tree)
  })
  return yield* installed(image, tree)
})
