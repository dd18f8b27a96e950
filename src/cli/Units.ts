/** Times and sizes as people type and read them. */
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

/** Three significant digits: 9.99, 10.5, 128. */
const short = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)

/** "870 µs", "12.3 ms", "1.24 s", "2 m 05 s", "30 d". */
export const formatMicros = (micros: number): string => {
  if (micros < 1000) return `${micros} µs`
  if (micros < 999_500) return `${short(micros / 1000)} ms`
  if (micros < 59_950_000) return `${short(micros / 1_000_000)} s`
  const seconds = Math.round(micros / 1_000_000)
  if (seconds >= 86_400 && seconds % 3600 === 0) {
    return `${(seconds / 86_400).toFixed(seconds % 86_400 === 0 ? 0 : 1)} d`
  }
  return `${Math.floor(seconds / 60)} m ${String(seconds % 60).padStart(2, "0")} s`
}

/** "312 B", "4.00 KiB", "1.50 MiB". */
export const formatBytes = (count: number): string => {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"]
  let value = count
  let index = 0
  while (value >= 1024 && index < names.length - 1) {
    value /= 1024
    index += 1
  }
  return `${index === 0 ? value : short(value)} ${names[index]}`
}
