/** The words of teleport-jobworker's service: its options as limits, its status of a job. */
import { Result } from "effect"
import type { JobView } from "../JobView.ts"
import type { LimitsRequest } from "../Limits.ts"

/** `JobOpts`: 0 and empty are the class's default. */
export interface JobOptions {
  readonly cpuWeight: number
  readonly memLimit: string
  readonly ioWeight: number
}

/** Why options cannot be meant. */
export interface BadOption {
  readonly reason: string
  readonly remedy: string
}

const units: Readonly<Record<string, number>> = { "": 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 }

/** `100M`: bytes. The old parser took `100MB`, negative numbers and 0 as well, for something nobody meant. */
const bytesOf = (text: string): Result.Result<number, BadOption> => {
  const [, digits, unit] = /^(\d{1,15})([KMG]?)$/.exec(text) ?? []
  const bytes = Number(digits) * (units[unit ?? ""] ?? Number.NaN)
  return Number.isSafeInteger(bytes) && bytes > 0
    ? Result.succeed(bytes)
    : Result.fail({
      reason: `mem_limit ${JSON.stringify(text)} is no number of bytes`,
      remedy: "Give digits, then nothing, K, M or G: 100M."
    })
}

const weightOf = (name: string, weight: number): Result.Result<number | undefined, BadOption> =>
  weight === 0
    ? Result.succeed(undefined)
    : weight >= 1 && weight <= 10_000
    ? Result.succeed(weight)
    : Result.fail({ reason: `${name} is ${weight}`, remedy: "Give a weight from 1 to 10000, or 0 for the usual one." })

/**
 * As limits. `mem_limit` is one that is held (`memoryBytes`); the old worker wrote it into memory.high, which holds nothing.
 * Weights are asked for as they are: the class or the host refuses what it cannot hold, and none is dropped.
 */
export const limitsOf = (options: JobOptions | undefined): Result.Result<LimitsRequest, BadOption> =>
  Result.gen(function*() {
    if (options === undefined) return {}
    const cpuWeight = yield* weightOf("cpu_weight", options.cpuWeight)
    const ioWeight = yield* weightOf("io_weight", options.ioWeight)
    return {
      ...(cpuWeight === undefined ? {} : { cpuWeight }),
      ...(ioWeight === undefined ? {} : { ioWeight }),
      ...(options.memLimit === "" ? {} : { memoryBytes: yield* bytesOf(options.memLimit) })
    }
  })

/** `exitCode`: 0 while it runs, -1 for an end that was no exit of its own. */
export const exitCode = ({ outcome, state }: Pick<JobView, "outcome" | "state">): number =>
  state !== "ended" ? 0 : outcome?._tag === "Exited" && outcome.phase === "run" ? outcome.code : -1
