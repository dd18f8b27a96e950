/** How a job went, in words: what `run`, `submit --wait`, `status` and `demo` show of an ended job. */
import type { BroughtBack, StreamSummary } from "../schemas/JobEvent.ts"
import { describe, isSuccess, type Outcome } from "../schemas/Outcome.ts"
import type { PhaseUsage, Usage } from "../schemas/Usage.ts"
import type { Style } from "./Style.ts"
import { formatBytes, formatMicros } from "./Units.ts"

export interface Report extends BroughtBack {
  readonly id: string
  /** Absent where it is not known: a job that another worker ran. */
  readonly driver?: string
  readonly outcome: Outcome
  readonly usage: Usage
  readonly output: ReadonlyArray<StreamSummary>
}

/** The phase people ask about: the run, or the compile it did not get beyond. */
export const mainPhase = ({ phases }: Usage): PhaseUsage | undefined => phases.at(-1)

/** Wall, CPU, peak memory of the main phase; what was not measured is left out. */
export const usageParts = (usage: Usage): ReadonlyArray<string> => {
  const phase = mainPhase(usage)
  if (phase === undefined) return []
  const { cpuMicros, memoryPeakBytes, wallMicros } = phase
  return [
    `wall ${formatMicros(wallMicros)}`,
    ...(cpuMicros === undefined ? [] : [`cpu ${formatMicros(cpuMicros)}`]),
    ...(memoryPeakBytes === undefined ? [] : [`peak memory ${formatBytes(memoryPeakBytes)}`])
  ]
}

const sandboxPart = ({ driver, usage: { provisionMicros } }: Report): ReadonlyArray<string> =>
  provisionMicros === undefined || driver === undefined ? [] : [`${driver} sandbox in ${formatMicros(provisionMicros)}`]

/** `✔ succeeded · wall 12.3 ms · cpu 8.10 ms · peak memory 3.10 MiB · oci sandbox in 18.1 ms` */
export const summary = (report: Report, { bold, dim, green, red }: Style): string => {
  const good = isSuccess(report.outcome)
  const head = (good ? green : red)(bold(`${good ? "✔" : "✘"} ${describe(report.outcome)}`))
  return [head, ...[...usageParts(report.usage), ...sandboxPart(report)].map(dim)].join(dim(" · "))
}
