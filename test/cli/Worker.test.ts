import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { Broker } from "../support/Broker.ts"
import { projectRoot } from "../support/Tree.ts"
import { type Started, Stoker } from "./Stoker.ts"

const stoker = new Stoker()
afterAll(() => stoker.dispose())

const example = (name: string) => join(projectRoot, "examples", name)

const startWorker = async (args: ReadonlyArray<string> = [], env: NodeJS.ProcessEnv = {}) => {
  const worker = stoker.start(["worker", ...args], { env })
  await worker.said("stderr", "\"consuming\"")
  return worker
}

const drained = async (worker: Started) => {
  worker.kill("SIGTERM")
  return (await worker.ended).code
}

const childrenOf = (pid: number | undefined) =>
  readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap((child) => {
    try {
      const parent = /\) \S (\d+)/.exec(readFileSync(`/proc/${child}/stat`, "utf8"))?.[1]
      const program = readFileSync(`/proc/${child}/cmdline`, "utf8").split("\0")[0] ?? ""
      return Number(parent) === pid ? [{ pid: Number(child), program }] : []
    } catch {
      return []
    }
  })

describe("stoker worker and submit", () => {
  it("says when it is ready, with queues, state and slots, as JSON where nobody looks", async () => {
    const worker = await startWorker(["--slots", "3"])
    const line = worker.stderr.split("\n").find((text) => text.includes("\"consuming\""))
    const { annotations, level, message } = JSON.parse(line ?? "")
    assert.deepInclude(annotations, { queues: "embedded", state: stoker.state, slots: 3, classes: "oci" })
    assert.deepStrictEqual({ level, message }, { level: "INFO", message: "consuming" })
    assert.strictEqual(await drained(worker), 0)
  })

  it("runs what was submitted before it started, whose id submit printed", async () => {
    const { code, stderr, stdout } = await stoker.run(["submit", example("hello.c")])
    assert.match(stdout, /^job-[a-z0-9]{10}\n$/)
    assert.include(stderr, "no worker is running")
    assert.strictEqual(code, 0)
    const id = stdout.trim()
    assert.match((await stoker.run(["status", id])).stdout, /state +queued/)
    assert.match((await stoker.run(["logs", id])).stderr, /has no output[^]*-f/)

    const worker = await startWorker()
    const followed = await stoker.run(["logs", "-f", id])
    assert.match(followed.stdout, /^Hello from C/)
    assert.match((await stoker.run(["status", id])).stdout, /state +succeeded[^]*stdout +\d+ B/)
    assert.strictEqual(await drained(worker), 0)
    assert.notInclude(worker.stderr, "printf")
    const later = await stoker.run(["logs", "--stream", "stdout", id])
    assert.strictEqual(later.stdout, followed.stdout)
  })

  it("lets submit --wait show the output and end with the program's code", async () => {
    const worker = await startWorker()
    const { code, stderr, stdout } = await stoker.run(["submit", "--wait", "--", "sh", "-c", "echo out; exit 5"])
    assert.strictEqual(stdout, "out\n")
    assert.match(stderr, /submitted job-[^]*exited with status 5/)
    assert.strictEqual(code, 5)
    assert.strictEqual(await drained(worker), 0)
  })

  it("lets a running job end after SIGTERM, and takes no other", async () => {
    const worker = await startWorker()
    const waiting = stoker.start(["submit", "--wait", "--", "sh", "-c", "echo up; sleep 1.5; echo down"])
    await waiting.said("stdout", "up")
    const ended = drained(worker)
    assert.strictEqual((await waiting.ended).stdout, "up\ndown\n")
    assert.strictEqual(await ended, 0)
  })

  it("gives back what does not end within --drain, and another worker runs it", async () => {
    const worker = await startWorker(["--drain", "200ms"])
    const { stdout } = await stoker.run(["submit", "--", "sh", "-c", "echo up; sleep 8; echo down"])
    const id = stdout.trim()
    const following = stoker.start(["logs", "-f", id])
    await following.said("stdout", "up")
    assert.strictEqual(await drained(worker), 0)
    assert.match((await stoker.run(["status", id])).stdout, /state +queued/)
    const next = await startWorker()
    assert.match((await following.ended).stdout, /up\ndown\n$/)
    assert.strictEqual(await drained(next), 0)
  })

  it("ends at once at the second signal, not with 0", async () => {
    const worker = await startWorker()
    const { stdout } = await stoker.run([
      "submit",
      "--",
      "sh",
      "-c",
      "trap '' TERM; echo up; while :; do sleep 1; done"
    ])
    const following = stoker.start(["logs", "-f", stdout.trim()])
    await following.said("stdout", "up")
    worker.kill("SIGTERM")
    await worker.said("stderr", "a second one")
    worker.kill("SIGTERM")
    assert.strictEqual((await worker.ended).code, 1)
    following.kill("SIGINT")
    await following.ended
  })

  it("ends with 1 and says why when its watchdog dies", async () => {
    const worker = await startWorker()
    const watchdog = childrenOf(worker.child.pid).find(({ program }) => program.endsWith("/watchdog"))
    assert.isDefined(watchdog)
    process.kill(watchdog?.pid ?? 0, "SIGKILL")
    const { code, stderr } = await worker.ended
    assert.match(stderr, /watchdog.*stoker doctor/)
    assert.notMatch(stderr, /^\s+at /m)
    assert.strictEqual(code, 1)
  })

  it("leaves nothing of its jobs but rows and logs", async () => {
    const swept = await startWorker()
    assert.strictEqual(await drained(swept), 0)
    assert.deepStrictEqual(await stoker.leftovers(), [])
  })
})

describe("stoker worker and submit with RabbitMQ", () => {
  let broker: Broker
  beforeAll(async () => {
    broker = await Broker.acquire()
  }, Broker.startMillis)
  afterAll(() => broker.release())

  it("serves CodeBench jobs, code and commands, and tells their senders", async () => {
    const env = { AMQP_URL: broker.url }
    const worker = await startWorker([], env)
    const code = await stoker.run(["submit", "--wait", example("hello.c")], { env })
    assert.match(code.stdout, /^Hello from C/)
    assert.match(code.stderr, /received\n[^]*running\n[^]*succeeded/)
    assert.strictEqual(code.code, 0)

    const command = await stoker.run(["submit", "--wait", "--json", "--", "sh", "-c", "echo 'it'\"'\"'s'; exit 7"], {
      env
    })
    assert.deepInclude(JSON.parse(command.stdout), { status: "failed", stdout: "it's\n", error: "exit status 7" })
    assert.strictEqual(command.code, 7)

    assert.strictEqual(await drained(worker), 0)
    assert.include(worker.stderr, "jobs_q")
    assert.notInclude(worker.stderr, "guest:guest")
    assert.notInclude(worker.stderr, "printf")
  })

  it("refuses what the dialect cannot say", async () => {
    const { code, stderr } = await stoker.run(["submit", "--memory", "64M", "--env", "A=b", example("hello.c")], {
      env: { AMQP_URL: broker.url }
    })
    assert.match(stderr, /cannot say --env, limits[^]*unset AMQP_URL/)
    assert.strictEqual(code, 1)
  })

  it("says what is wrong with the broker's address, without its password", async () => {
    const { code, stderr } = await stoker.run(["worker"], { env: { AMQP_URL: "http://me:secret@localhost" } })
    assert.match(stderr, /AMQP_URL|amqp:/)
    assert.notInclude(stderr, "secret")
    assert.strictEqual(code, 1)
  })
})
