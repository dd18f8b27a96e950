/** Times and sizes as people write them, on the command line and in the configuration file. */
import { Result } from "effect"

const milliseconds: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000
}

const KiB = 1024

const bytes: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: KiB,
  kib: KiB,
  m: KiB ** 2,
  mib: KiB ** 2,
  g: KiB ** 3,
  gib: KiB ** 3,
  t: KiB ** 4,
  tib: KiB ** 4,
  kb: 1000,
  mb: 1000 ** 2,
  gb: 1000 ** 3,
  tb: 1000 ** 4
}

const scaled = (units: Readonly<Record<string, number>>, text: string): number | undefined => {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim())
  const factor = units[match?.[2]?.toLowerCase() ?? "?"]
  return match === null || factor === undefined ? undefined : Math.round(Number(match[1]) * factor)
}

/** "500ms", "10s", "1.5m", "2h", "1d" in milliseconds. The failure is what would be right. */
export const parseDuration = (text: string): Result.Result<number, string> => {
  const value = scaled(milliseconds, text)
  return value === undefined ? Result.fail("a time with its unit, such as 500ms, 10s, 2m or 1h") : Result.succeed(value)
}

/** "4096", "64K", "128M" and "128MiB" (both 1024 x 1024), "1.5G", "100MB" (decimal) in bytes. */
export const parseBytes = (text: string): Result.Result<number, string> => {
  const value = scaled(bytes, text)
  return value === undefined ? Result.fail("a size such as 64K, 128M, 128MiB or 1G") : Result.succeed(value)
}

/** A decimal number, not negative. */
export const parseNumber = (text: string): Result.Result<number, string> =>
  /^\d+(?:\.\d+)?$/.test(text.trim()) ? Result.succeed(Number(text)) : Result.fail("a number")

/** In the largest of these units that holds it exactly. */
const exactly = (units: ReadonlyArray<readonly [unit: string, factor: number]>, value: number): string => {
  const [unit, factor] = units.find(([, factor]) => value >= factor && value % factor === 0) ?? units.at(-1) ?? ["", 1]
  return `${value / factor}${unit}`
}

const timeUnits = [["d", 86_400_000], ["h", 3_600_000], ["m", 60_000], ["s", 1000], ["ms", 1]] as const
const sizeUnits = [["T", KiB ** 4], ["G", KiB ** 3], ["M", KiB ** 2], ["K", KiB], ["", 1]] as const

/** Milliseconds as `parseDuration` reads them, without loss: "30s", "1500ms", "7d". */
export const writeDuration = (ms: number): string => exactly(timeUnits, ms)

/** Bytes as `parseBytes` reads them, without loss: "256M", "1G", "1000". */
export const writeBytes = (count: number): string => exactly(sizeUnits, count)
