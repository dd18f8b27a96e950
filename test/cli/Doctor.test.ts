import { afterAll, assert, describe, it } from "@effect/vitest"
import { Stoker } from "./Stoker.ts"

const stoker = new Stoker()
afterAll(() => stoker.dispose())

describe("stoker doctor", () => {
  it("proves each driver with a sandbox, on one screen", async () => {
    const { code, stderr, stdout } = await stoker.run(["doctor"])
    assert.match(stdout, /driver oci[^]*self-test +a sandbox in [^]*driver process[^]*self-test +a sandbox in /)
    assert.match(stdout, /languages[^]*gcc[^]*python3/)
    assert.isAtMost(stdout.split("\n").length, 45)
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
  })

  it("ends with 1 and names the fix when the default driver cannot work", async () => {
    const { code, stderr, stdout } = await stoker.run(["doctor", "--json"], { env: { STOKER_CRUN: "/nonexistent" } })
    const { sections, works } = JSON.parse(stdout)
    const checks: ReadonlyArray<{ name: string; status: string; remedy?: string }> = sections.flatMap(
      (section: { checks: ReadonlyArray<unknown> }) => section.checks
    )
    const crun = checks.find(({ name }) => name === "crun")
    assert.strictEqual(crun?.status, "missing")
    assert.include(crun?.remedy, "apt-get install crun")
    assert.deepStrictEqual({ code, stderr, works }, { code: 1, stderr: "", works: false })
  })

  it("tells of a broker that does not answer, without a stack", async () => {
    const { stdout } = await stoker.run(["doctor"], { env: { AMQP_URL: "amqp://me:secret@127.0.0.1:1" } })
    assert.match(stdout, /RabbitMQ\n +✘[^]*127\.0\.0\.1:1/)
    assert.notInclude(stdout, "secret")
    assert.notMatch(stdout, /^\s+at /m)
  })

  it("leaves no sandbox behind", async () => {
    await stoker.run(["run", "--", "true"])
    assert.deepStrictEqual(await stoker.leftovers(), [])
  })
})
