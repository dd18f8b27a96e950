/** Times and sizes as people read them. What they write is read by `schemas/Units.ts`. */

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
