import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { formatBytes, formatMicros } from "../../src/cli/Units.ts"
import { parseBytes, parseDuration, parseNumber, writeBytes, writeDuration } from "../../src/schemas/Units.ts"

const value = <A>(result: Result.Result<A, string>) => Result.getOrUndefined(result)

describe("units", () => {
  it("reads times with their unit, and none without", () => {
    const times: ReadonlyArray<readonly [string, number | undefined]> = [
      ["500ms", 500],
      ["10s", 10_000],
      ["1.5s", 1500],
      ["2m", 120_000],
      ["1h", 3_600_000],
      ["2 s", 2000],
      ["10", undefined],
      ["-1s", undefined],
      ["s", undefined],
      ["1y", undefined],
      ["", undefined]
    ]
    for (const [text, ms] of times) assert.strictEqual(value(parseDuration(text)), ms, text)
  })

  it("reads sizes: M is MiB, MB is decimal", () => {
    const sizes: ReadonlyArray<readonly [string, number | undefined]> = [
      ["4096", 4096],
      ["64K", 65_536],
      ["128M", 134_217_728],
      ["128MiB", 134_217_728],
      ["128mib", 134_217_728],
      ["1.5G", 1_610_612_736],
      ["100MB", 100_000_000],
      ["1X", undefined],
      ["-1", undefined],
      ["1e3", undefined]
    ]
    for (const [text, bytes] of sizes) assert.strictEqual(value(parseBytes(text)), bytes, text)
  })

  it("reads numbers, not words", () => {
    assert.strictEqual(value(parseNumber("0.5")), 0.5)
    assert.strictEqual(value(parseNumber("two")), undefined)
    assert.strictEqual(value(parseNumber("1.")), undefined)
  })

  it("writes back what it reads, without loss", () => {
    const times = ["1ms", "1500ms", "30s", "90s", "2m", "36h", "7d"]
    assert.deepStrictEqual(times.map((text) => value(parseDuration(text)) ?? -1).map(writeDuration), times)
    const sizes = ["1", "1000", "64K", "1536K", "256M", "1G", "3T"]
    assert.deepStrictEqual(sizes.map((text) => value(parseBytes(text)) ?? -1).map(writeBytes), sizes)
    assert.deepStrictEqual([writeDuration(0), writeBytes(0)], ["0ms", "0"])
  })

  it("writes them so that three digits count", () => {
    assert.deepStrictEqual(
      [870, 12_345, 1_240_000, 59_960_000, 125_000_000, 86_400_000_000].map(formatMicros),
      ["870 µs", "12.3 ms", "1.24 s", "1 m 00 s", "2 m 05 s", "1 d"]
    )
    assert.deepStrictEqual(
      [312, 4096, 1_572_864, 4 * 1024 ** 4].map(formatBytes),
      ["312 B", "4.00 KiB", "1.50 MiB", "4.00 TiB"]
    )
  })
})
