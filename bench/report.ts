/** Numbers as this project publishes them: with machine and commit, ratios to a floor of the same run first. */
import { execFileSync } from "node:child_process"
import { mkdirSync, writeFileSync } from "node:fs"
import { cpus, loadavg, release, totalmem } from "node:os"
import { join } from "node:path"

export interface Claim {
  /** What is promised, in the words of the README. */
  readonly claim: string
  readonly measured: number
  readonly bound: number
  readonly unit: string
}

export interface Report {
  readonly name: string
  /** Every distribution measured, in milliseconds unless the name says otherwise. */
  readonly figures: Readonly<Record<string, number>>
  readonly claims: ReadonlyArray<Claim>
}

/** The value below which the share `p` of the values lies. */
export const percentile = (values: ReadonlyArray<number>, p: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN
}

export const spread = (name: string, values: ReadonlyArray<number>): Record<string, number> => ({
  [`${name} p50`]: round(percentile(values, 0.5)),
  [`${name} p99`]: round(percentile(values, 0.99)),
  [`${name} min`]: round(percentile(values, 0))
})

export const round = (value: number): number => Math.round(value * 100) / 100

const git = (...args: ReadonlyArray<string>) => {
  try {
    return execFileSync("git", [...args], { encoding: "utf8" }).trim()
  } catch {
    return "unknown"
  }
}

const machine = () => ({
  cpu: cpus()[0]?.model ?? "unknown",
  cores: cpus().length,
  memoryGiB: Math.round(totalmem() / 1024 ** 3),
  kernel: release(),
  node: process.version,
  loadAtStart: round(loadavg()[0] ?? 0)
})

const host = machine()

/** Prints the figures and the claims, writes them beside the others, and says whether all claims held. */
export const publish = (report: Report): boolean => {
  const kept = {
    ...report,
    commit: git("rev-parse", "--short", "HEAD"),
    changed: git("status", "--porcelain", "--untracked-files=no", "--", ":!bench/results") !== "",
    at: new Date().toISOString(),
    machine: host
  }
  const directory = join(import.meta.dirname, "results")
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, `${report.name}.json`), `${JSON.stringify(kept, null, 2)}\n`)
  process.stdout.write(`\n${report.name} (${host.cores} × ${host.cpu}, load ${host.loadAtStart}, ${kept.commit})\n`)
  for (const [name, value] of Object.entries(report.figures)) {
    process.stdout.write(`  ${name.padEnd(52)} ${String(value).padStart(10)}\n`)
  }
  let held = true
  for (const { bound, claim, measured, unit } of report.claims) {
    const holds = measured <= bound
    held &&= holds
    process.stdout.write(
      `  ${holds ? "held  " : "MISSED"} ${claim}: ${round(measured)} ${unit} (bound ${bound} ${unit})\n`
    )
  }
  return held
}
