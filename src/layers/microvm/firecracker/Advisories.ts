/** Known holes of Firecracker and its jailer, by version: one that reaches our machines is refused with what to install. */
import { isBefore } from "./Version.ts"

export type Program = "firecracker" | "jailer"

export interface Advisory {
  readonly id: string
  readonly program: Program
  /** From the first version that has it to the first that has not, for each line of releases. */
  readonly ranges: ReadonlyArray<{ readonly since: ReadonlyArray<number>; readonly fixed: ReadonlyArray<number> }>
  readonly what: string
  /** Why no machine of ours is exposed to it; absent: a version that has it is refused. */
  readonly unreached?: string
}

/** Older ones lack `PUT /serial`, and get no mends any more. */
export const MINIMUM: ReadonlyArray<number> = [1, 14]

export const advisories: ReadonlyArray<Advisory> = [
  {
    id: "CVE-2026-1386",
    program: "jailer",
    ranges: [{ since: [0], fixed: [1, 13, 2] }, { since: [1, 14], fixed: [1, 14, 1] }],
    what: "a link in a jail that was prepared leads its copy of the program over a file of the host"
  },
  {
    id: "CVE-2026-5747",
    program: "firecracker",
    ranges: [{ since: [1, 13], fixed: [1, 14, 4] }, { since: [1, 15], fixed: [1, 15, 1] }],
    what: "a guest's root writes beyond its queues by the PCI transport",
    unreached: "machines have no PCI transport, which is there with --enable-pci only"
  },
  {
    id: "firecracker#5762",
    program: "firecracker",
    ranges: [{ since: [0], fixed: [1, 16] }],
    what: "a guest makes it allocate more memory than the guest has, by requests for random numbers",
    unreached: "the machine's cgroup bounds it"
  }
]

/** `Firecracker v1.16.1` and `Jailer v1.16.1`, and what a build between releases calls itself (`-dev` counts as its number). */
export const parseVersion = (program: Program, text: string): ReadonlyArray<number> | undefined => {
  const name = program === "firecracker" ? "Firecracker" : "Jailer"
  const match = new RegExp(`^${name} v(\\d{1,6})\\.(\\d{1,6})\\.(\\d{1,6})(?:[-+.][\\w.+-]*)?\\s*$`, "m").exec(text)
  return match === null ? undefined : match.slice(1).map(Number)
}

export const holesOf = (program: Program, version: ReadonlyArray<number>): ReadonlyArray<Advisory> =>
  advisories.filter((advisory) =>
    advisory.program === program &&
    advisory.ranges.some(({ fixed, since }) => !isBefore(version, since) && isBefore(version, fixed))
  )

/** For people: why it is refused, or what is known and does no harm. */
export const describe = ({ id, ranges, unreached, what }: Advisory): string => {
  const fixed = ranges.map((range) => range.fixed.join(".")).join(" and ")
  return `${id} (${what}; fixed in ${fixed}${unreached === undefined ? "" : `; out of reach: ${unreached}`})`
}

/** Why this version makes no machines; undefined: it may. */
export const refusal = (program: Program, version: ReadonlyArray<number>): string | undefined => {
  const name = `${program} ${version.join(".")}`
  const holes = holesOf(program, version).filter(({ unreached }) => unreached === undefined)
  if (holes.length > 0) return `${name} has ${holes.map(describe).join(", ")}`
  return isBefore(version, MINIMUM) ? `${name} is too old, ${MINIMUM.join(".")} is the least` : undefined
}

/** What is known against a version that is taken all the same; "" if nothing. */
export const remarks = (program: Program, version: ReadonlyArray<number>): string =>
  holesOf(program, version).map((hole) => `, ${describe(hole)}`).join("")
