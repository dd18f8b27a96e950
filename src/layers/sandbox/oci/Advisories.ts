/**
 * Known holes of the programs that sandboxes are made with. Those below a program's least version are refused with it; this
 * table is for what is found later, and for what a number cannot tell: distributions mend old versions without renaming
 * them, and say so in the package's changelog.
 */
import { readFileSync, realpathSync } from "node:fs"
import { gunzipSync } from "node:zlib"

export type Program = "crun" | "umoci"

export interface Advisory {
  readonly id: string
  readonly program: Program
  /** The first version without it. */
  readonly fixed: ReadonlyArray<number>
  readonly what: string
  /** Why no sandbox of ours is exposed to it; absent: a version that has it is refused. */
  readonly unreached?: string
}

export const advisories: ReadonlyArray<Advisory> = [
  {
    id: "CVE-2022-27650",
    program: "crun",
    fixed: [1, 4, 4],
    what: "processes begin with inheritable capabilities"
  },
  {
    id: "CVE-2025-24965",
    program: "crun",
    fixed: [1, 20],
    what: "an image leads the krun handler to files of the host",
    unreached: "the bundles name no handler, and a crun called krun is refused"
  },
  {
    id: "CVE-2021-29136",
    program: "umoci",
    fixed: [0, 4, 7],
    what: "an image whose root is a link is unpacked into the host"
  }
]

/** Numbers of a version, the first first; what is missing counts as 0. */
export const isBefore = (version: ReadonlyArray<number>, other: ReadonlyArray<number>): boolean => {
  for (let i = 0; i < Math.max(version.length, other.length); i++) {
    const difference = (version[i] ?? 0) - (other[i] ?? 0)
    if (difference !== 0) return difference < 0
  }
  return false
}

/** What the distribution says of its package, for its own file only: another one at another place is not its work. */
export const changelogOf = (program: Program, file: string): string => {
  try {
    if (realpathSync(file) !== `/usr/bin/${program}`) return ""
    return gunzipSync(readFileSync(`/usr/share/doc/${program}/changelog.Debian.gz`)).toString("utf8")
  } catch {
    return ""
  }
}

/** Those a version has and its package does not name as mended. */
export const holesOf = (
  program: Program,
  version: ReadonlyArray<number>,
  changelog: () => string
): ReadonlyArray<Advisory> => {
  const found = advisories.filter((advisory) => advisory.program === program && isBefore(version, advisory.fixed))
  if (found.length === 0) return []
  const text = changelog()
  return found.filter(({ id }) => !text.includes(id))
}

/** For people: why it is refused, or what is known and does no harm. */
export const describe = ({ fixed, id, unreached, what }: Advisory): string =>
  `${id} (${what}; fixed in ${fixed.join(".")}${unreached === undefined ? "" : `; out of reach: ${unreached}`})`
