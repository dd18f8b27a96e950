import { afterAll, assert, describe, it } from "@effect/vitest"
import { Stoker } from "./Stoker.ts"

const stoker = new Stoker()
afterAll(() => stoker.dispose())

describe("stoker demo", () => {
  it("runs three jobs with statuses, output, times and memory, and says what to try next", async () => {
    const { code, stderr, stdout } = await stoker.run(["demo", "--state", stoker.state])
    assert.match(stdout, /Hello from C[^]*prime 10 is 29[^]*network +lo/)
    assert.strictEqual(stderr.match(/received +demo-/g)?.length, 3)
    assert.strictEqual(stderr.match(/succeeded · wall .* peak memory /g)?.length, 3)
    assert.match(stderr, /compiled +in \d/)
    assert.match(stderr, /PEAK MEMORY[^]*Next:[^]*run -- ls/)
    assert.strictEqual(code, 0)
    assert.deepStrictEqual(await stoker.leftovers(), [])
    // The same program again.
    const again = await stoker.run(["demo", "--state", stoker.state])
    assert.match(again.stderr, /compiled +\(cached\) in \d/)
  })

  it("points to the doctor when there can be no sandbox", async () => {
    const { code, stderr } = await stoker.run(["demo", "--state", stoker.state], {
      env: { STOKER_CRUN: "/nonexistent" }
    })
    assert.match(stderr, /apt-get install crun[^]*stoker doctor/)
    assert.strictEqual(code, 1)
  })
})
