import { assert, describe, it } from "@effect/vitest"
import { LogLines } from "../../src/layers/kubernetes/Logs.ts"

const utf8 = new TextEncoder()

interface Line {
  readonly time: string
  readonly text: string
}

/** What a server sends from a second on. */
const from = (lines: ReadonlyArray<Line>, since: string | undefined) =>
  lines.filter(({ time }) => since === undefined || time.slice(0, 19) >= since.slice(0, 19))
    .map(({ text, time }) => `${time} ${text}`).join("")

describe("a log over many connections", () => {
  it("comes whole however its bytes are cut and wherever connections break", () => {
    const lines: Array<Line> = []
    for (let index = 0; index < 60; index++) {
      // Five lines of each moment, times without, with short and with full fractions.
      const moment = Math.floor(index / 5)
      const fraction = ["", ".5", ".500000001", ".9"][moment % 4]
      lines.push({ time: `2026-01-01T00:00:0${Math.floor(moment / 4)}${fraction}Z`, text: `line ${index} \u00e9\n` })
    }
    lines.push({ time: "2026-01-01T00:00:03Z", text: "no newline at the end" })
    const expected = lines.map(({ text }) => text).join("")
    for (let seed = 1; seed <= 300; seed++) {
      let state = seed
      const random = (below: number) => (state = (state * 48_271) % 2_147_483_647) % below
      const log = new LogLines()
      const heard: Array<Uint8Array> = []
      for (let tries = 0; tries < 200; tries++) {
        const { since } = log
        log.reopen()
        const sent = utf8.encode(from(lines, since))
        const isLast = tries > 10 && random(3) === 0
        const end = isLast ? sent.length : random(sent.length + 1)
        for (let at = 0; at < end;) {
          const size = Math.min(1 + random(40), end - at)
          heard.push(log.take(sent.subarray(at, at + size)))
          at += size
        }
        if (isLast) break
      }
      assert.strictEqual(Buffer.concat(heard).toString(), expected, `seed ${seed}`)
    }
  })

  it("begins again at the second of the last line", () => {
    const log = new LogLines()
    assert.isUndefined(log.since)
    log.reopen()
    log.take(utf8.encode("2026-01-01T00:00:05.123456789Z hello\n"))
    assert.strictEqual(log.since, "2026-01-01T00:00:05Z")
  })

  it("takes times of another zone, and what rotation has left of a second", () => {
    const log = new LogLines()
    log.reopen()
    log.take(utf8.encode("2026-01-01T02:00:05.1+02:00 a\n2026-01-01T02:00:05.2+02:00 b\n"))
    assert.strictEqual(log.since, "2026-01-01T00:00:05Z")
    log.reopen()
    // The first line is gone.
    const fresh = log.take(utf8.encode("2026-01-01T02:00:05.2+02:00 b\n2026-01-01T02:00:05.3+02:00 c\n"))
    assert.strictEqual(Buffer.from(fresh).toString(), "c\n")
  })
})
