/**
 * One random job: limits, a program that keeps them or breaks just one of them, and perhaps somebody who ends it. What it
 * does is well below a limit or well above it, so that what must come of it is known on a slow machine too.
 */
import { type LimitsRequest, standardCeiling } from "../../../src/schemas/Limits.ts"
import type { Outcome } from "../../../src/schemas/Outcome.ts"
import type { Dice } from "../../simulation/Dice.ts"
import { slowness } from "../../support/Slowness.ts"

/** Who ends it before its time. Milliseconds from its start. */
export type Cancellation =
  | { readonly how: "stop"; readonly afterMs: number; readonly graceMs: number }
  /** Its scope closes: there is no outcome. */
  | { readonly how: "abandon"; readonly afterMs: number }

export interface Bundle {
  readonly limits: LimitsRequest
  /** Arguments of `actor.c`. */
  readonly steps: ReadonlyArray<string>
  readonly class: "cold" | "warm"
  readonly cancel: Cancellation | undefined
  /** How it ends if nobody cancels it. */
  readonly expected: Outcome["_tag"]
  /** Exit code or signal, where it is known. */
  readonly detail: number | undefined
}

const MiB = 2 ** 20

type Break = "memory" | "cpu" | "wall" | "output" | "fileSize"

const breaks: readonly [Break, ...ReadonlyArray<Break>] = ["memory", "cpu", "wall", "output", "fileSize"]

const ofBreak: Readonly<Record<Break, Outcome["_tag"]>> = {
  memory: "OutOfMemory",
  cpu: "TimedOut",
  wall: "TimedOut",
  output: "OutputExceeded",
  fileSize: "Signalled"
}

/** Signals that end a program and that nobody of ours sends. */
const deadly = [4, 6, 8, 11, 14, 31] as const
const SIGXFSZ = 25

/** What warm sandboxes have, so that some bundles find one ready. */
export const warmDisk = { bytes: 2 * MiB, inodes: 1024 }

/** `isV2`: limits that only cgroup v2 holds are rolled too. */
export const roll = (dice: Dice, isV2: boolean): Bundle => {
  const kind = dice.pick<Bundle["class"]>(["cold", "warm"])
  const broken = dice.chance(0.4) ? dice.pick(breaks) : undefined
  const memoryMiB = dice.pick([16, 32, 64, 96])
  const pids = dice.pick([1, 4, 16, 64])
  const limits: LimitsRequest = {
    memoryBytes: memoryMiB * MiB,
    pids,
    cpus: dice.pick([0.5, 1, 2]),
    // The class gives no more.
    wallMs: Math.min(standardCeiling.wallMs, (broken === "wall" ? 300 : 20_000) * slowness),
    cpuMs: Math.min(standardCeiling.cpuMs, (broken === "cpu" ? 100 : 20_000) * slowness),
    outputBytes: 65_536,
    outputPolicy: broken === "output" ? "kill" : dice.pick(["truncate", "kill"]),
    fileBytes: broken === "fileSize" ? 64 * 1024 : 4 * MiB,
    diskBytes: kind === "warm" ? warmDisk.bytes : dice.pick([1, 2, 8]) * MiB,
    // With few of them the file that is to be too large might not even be there.
    diskInodes: kind === "warm" || broken === "fileSize" ? warmDisk.inodes : dice.pick([32, 1024]),
    ...(isV2 && dice.chance(0.3) ? { oomGroup: true } : {}),
    ...(isV2 && dice.chance(0.3) ? { memoryHighBytes: memoryMiB * MiB * 4 } : {}),
    ...(dice.chance(0.3) ? { cpuWeight: dice.between(1, 100) } : {})
  }
  const kept = limits.outputPolicy === "truncate" ? 400_000 : 16_000
  const harmless: ReadonlyArray<() => ReadonlyArray<string>> = [
    () => ["out", `${dice.below(kept)}`],
    () => ["err", `${dice.below(kept)}`],
    () => ["cpu", `${dice.below(30)}`],
    () => ["sleep", `${dice.below(80)}`],
    () => ["mem", `${dice.below(memoryMiB * 128)}`],
    () => ["file", `${dice.below(broken === "fileSize" ? 60 : 900)}`],
    () => ["inodes", `${dice.below(60)}`],
    // Each of them keeps a few pages; more than there may be is refused.
    () => ["forks", `${dice.below(24)}`],
    () => ["daemon"],
    () => ["deaf"]
  ]
  const few = (most: number) =>
    Array.from({ length: dice.below(most + 1) }, () => harmless[dice.below(harmless.length)]?.() ?? []).flat()
  // One of each that adds up: two would no longer be well below.
  const once = (steps: ReadonlyArray<string>) => {
    const seen = new Set<string>()
    const left: Array<string> = []
    for (let at = 0; at < steps.length;) {
      const word = steps[at] ?? ""
      const length = word === "daemon" || word === "deaf" ? 1 : 2
      const adding = word === "mem" || word === "file" || word === "out" || word === "err" || word === "forks"
      if (!(adding && seen.has(word))) left.push(...steps.slice(at, at + length))
      seen.add(word)
      at += length
    }
    return left
  }
  const fatal: Readonly<Record<Break, () => ReadonlyArray<string>>> = {
    memory: () => ["mem", `${memoryMiB * 2048}`, "sleep", "60000"],
    cpu: () => ["cpu", `${60_000 * slowness}`],
    wall: () => ["sleep", `${60_000 * slowness}`],
    output: () => ["out", `${dice.between(200_000, 4_000_000)}`, "sleep", `${60_000 * slowness}`],
    fileSize: () => ["file", `${dice.between(200, 900)}`]
  }
  const end = dice.chance(0.15) ? ["signal", `${dice.pick(deadly)}`] : ["exit", `${dice.pick([0, 0, 0, 1, 42, 255])}`]
  const steps = [...once(few(4)), ...(broken === undefined ? [] : fatal[broken]()), ...end]
  const afterMs = dice.below(300)
  const cancel: Cancellation | undefined = dice.chance(0.25)
    ? { how: "stop", afterMs, graceMs: dice.pick([0, 30, 200]) }
    : dice.chance(0.1)
    ? { how: "abandon", afterMs }
    : undefined
  return {
    limits,
    steps,
    class: kind,
    cancel,
    expected: broken !== undefined ? ofBreak[broken] : end[0] === "signal" ? "Signalled" : "Exited",
    detail: broken === "fileSize" ? SIGXFSZ : broken === undefined ? Number(end[1]) : undefined
  }
}

/** What is wrong with an outcome; undefined for nothing. */
export const judge = ({ cancel, detail, expected }: Bundle, outcome: Outcome): string | undefined => {
  if (outcome._tag === "Stopped" && cancel?.how === "stop") return undefined
  if (outcome._tag !== expected) return `${expected} was expected`
  if (detail === undefined) return undefined
  const got = outcome._tag === "Exited" ? outcome.code : outcome._tag === "Signalled" ? outcome.signal : undefined
  return got === detail ? undefined : `${detail} was expected`
}
