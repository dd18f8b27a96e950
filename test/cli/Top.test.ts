import { afterAll, assert, describe, it } from "@effect/vitest"
import { existsSync } from "node:fs"
import { Stoker } from "./Stoker.ts"

const stoker = new Stoker()
afterAll(() => stoker.dispose())

const LIMIT_MS = 90_000

describe("what running jobs use", () => {
  it("top and status show it with the cgroup, and neither does when they have ended", async () => {
    const worker = stoker.start(["worker", "--warm", "0"])
    await worker.said("stderr", "\"consuming\"")
    const hog =
      "b = bytearray(64 * 2**20)\nprint('up', flush=True)\nimport sys, time\nwhile time.sleep(0.1) is None: pass"
    const id = (await stoker.run(["submit", "--wall", "2m", "--", "python3", "-c", hog])).stdout.trim()
    await stoker.start(["logs", "-f", id]).said("stdout", "up")

    const [job, ...others] = JSON.parse((await stoker.run(["top", "--json"])).stdout)
    assert.deepStrictEqual(others, [])
    assert.strictEqual(job.key.id, id)
    assert.strictEqual(job.phase, "run")
    assert.strictEqual(job.now.pids, 1)
    assert.isAbove(job.now.memoryAnonBytes, 64 * 2 ** 20)
    assert.isBelow(job.now.memoryAnonBytes, 80 * 2 ** 20)
    assert.isAbove(job.now.cpuMicros, 0)
    assert.isTrue(existsSync(job.place), job.place)

    const shown = (await stoker.run(["top"])).stdout
    assert.match(shown, /^JOB +PHASE +UP +CORES[^]*CGROUP\n/)
    assert.include(shown, job.place)
    const status = (await stoker.run(["status", id])).stdout
    assert.include(status, `cgroup    ${job.place}`)
    assert.match(status, /now +in its run phase, cpu .*, memory .*, its own 6\d\.\d MiB/)
    assert.strictEqual(JSON.parse((await stoker.run(["status", "--json", id])).stdout).now.place, job.place)

    assert.strictEqual((await stoker.run(["stop", "--grace", "0s", id])).code, 0)
    assert.match((await stoker.run(["top", "--once"])).stdout, /no job is running/)
    const ended = (await stoker.run(["status", id])).stdout
    assert.notInclude(ended, "cgroup")
    assert.match(ended, /waited +for a slot .*, for its claim .*, for its sandbox /)
    assert.match(ended, /peak memory .* \(its own 6\d\.\d MiB, files .*\), processes 1\n/)
    worker.kill("SIGTERM")
    assert.strictEqual((await worker.ended).code, 0)
  }, LIMIT_MS)

  it("says who was killed for want of memory", async () => {
    const ended = await stoker.run(["run", "--memory", "20M", "--", "python3", "-c", "b = bytearray(100 * 2**20)"])
    assert.strictEqual(ended.code, 137)
    assert.match(ended.stderr, /exceeded its memory limit.*python3 was killed/)
  }, LIMIT_MS)

  it.each([
    [["--memory", "1K"], "--memory: \"1K\". Expected: 4.00 MiB to 4.00 TiB"],
    [["--memory", "-5M"], "--memory"],
    [["--memory", "10 furlongs"], "a size such as"],
    [["--wall", "5"], "a time with its unit"],
    [["--wall", "90d"], "10.0 ms to 30 d"],
    [["--cpu-weight", "10001"], "1 to 10000"],
    [["--io-write", "0"], "1 B a second to 1024 TiB a second"],
    [["--pids", "0"], "1 to 1000000"],
    [["--cpus", "0"], "0.01 to 1024"]
  ])("a limit that cannot be is refused before anything starts: %j", async (flags, words) => {
    const { code, stderr } = await stoker.run(["run", ...flags, "--", "true"])
    assert.strictEqual(code, 1)
    assert.include(stderr, words)
  }, LIMIT_MS)
})
