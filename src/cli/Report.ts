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
    ...(memoryPeakBytes === undefined ? [] : [`peak memory ${formatBytes(memoryPeakBytes)}`]),
    ...(phase.oomVictim === undefined ? [] : [`${phase.oomVictim} was killed`])
  ]
}

/** Everything that was measured of a phase, a line for each kind. */
export const phaseDetails = (phase: PhaseUsage): ReadonlyArray<string> => {
  const { cpuMicros, cpuSystemMicros, cpuUserMicros, memoryAnonPeakBytes, memoryFilePeakBytes, memoryPeakBytes } = phase
  const { ioReadBytes, ioWriteBytes, oomKills = 0, oomVictim, pidsPeak, pidsRefused = 0, pressure } = phase
  const { throttledMicros = 0, wallMicros } = phase
  const part = (name: string, value: number | undefined, format: (value: number) => string) =>
    value === undefined ? [] : [`${name} ${format(value)}`]
  const bracket = (parts: ReadonlyArray<string>) => parts.length === 0 ? "" : ` (${parts.join(", ")})`
  const list = (...lines: ReadonlyArray<ReadonlyArray<string>>) =>
    lines.flatMap((parts) => parts.length === 0 ? [] : [parts.join(", ")])
  const cpu = bracket([
    ...part("user", cpuUserMicros, formatMicros),
    ...part("system", cpuSystemMicros, formatMicros),
    ...(throttledMicros > 0 ? [`held back ${formatMicros(throttledMicros)}`] : [])
  ])
  const memory = bracket([
    ...part("its own", memoryAnonPeakBytes, formatBytes),
    ...part("files", memoryFilePeakBytes, formatBytes)
  ])
  return list(
    [
      `wall ${formatMicros(wallMicros)}`,
      ...part("cpu", cpuMicros, formatMicros).map((text) => `${text}${cpu}`),
      ...(phase.cached === true ? ["out of the compile cache"] : [])
    ],
    [
      ...part("peak memory", memoryPeakBytes, formatBytes).map((text) => `${text}${memory}`),
      ...part("processes", pidsPeak, String).map((text) => pidsRefused > 0 ? `${text} (${pidsRefused} refused)` : text)
    ],
    [...part("read", ioReadBytes, formatBytes), ...part("written", ioWriteBytes, formatBytes)],
    pressure === undefined ? [] : [
      ...part("waited for cpu", pressure.cpuMicros, formatMicros),
      ...part("memory", pressure.memoryMicros, formatMicros),
      ...part("I/O", pressure.ioMicros, formatMicros)
    ],
    oomKills === 0
      ? []
      : [`out of memory: ${oomVictim ?? "a process"} was killed${oomKills > 1 ? `, ${oomKills} in all` : ""}`]
  )
}

const sandboxPart = ({ driver, usage: { provisionMicros } }: Report): ReadonlyArray<string> =>
  provisionMicros === undefined || driver === undefined ? [] : [`${driver} sandbox in ${formatMicros(provisionMicros)}`]

/** `✔ succeeded · wall 12.3 ms · cpu 8.10 ms · peak memory 3.10 MiB · oci sandbox in 18.1 ms` */
export const summary = (report: Report, { bold, dim, green, red }: Style): string => {
  const good = isSuccess(report.outcome)
  const head = (good ? green : red)(bold(`${good ? "✔" : "✘"} ${describe(report.outcome)}`))
  return [head, ...[...usageParts(report.usage), ...sandboxPart(report)].map(dim)].join(dim(" · "))
}
