import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { existsSync, readdirSync, statSync, writeFileSync } from "node:fs"
import { request } from "node:http"
import { connect, createServer, type Server, type Socket } from "node:net"
import { join } from "node:path"
import { Broker } from "../support/Broker.ts"
import { freePort } from "../support/Ports.ts"
import { until } from "../worker/until.ts"
import { type Started, Stoker } from "./Stoker.ts"

const stoker = new Stoker()
afterAll(() => stoker.dispose())

// Each command is a process that starts from source, which takes seconds while others test too.
const LIMIT_MS = 90_000

let files = 0
const writeConfig = (content: unknown, name = `config-${files++}.json`) => {
  const path = join(stoker.folder, name)
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content))
  return path
}

interface Worker {
  readonly started: Started
  readonly instance: string
  readonly socket: string
}

const startWorker = async (args: ReadonlyArray<string> = [], env: NodeJS.ProcessEnv = {}): Promise<Worker> => {
  const started = stoker.start(["worker", "--warm", "0", ...args], { env })
  await started.said("stderr", "\"consuming\"")
  const line = started.stderr.split("\n").find((text) => text.includes("\"consuming\"")) ?? ""
  const instance: string = JSON.parse(line).instance
  return { started, instance, socket: join(stoker.state, "instances", instance, "admin.sock") }
}

const drained = async ({ started }: Worker) => {
  started.kill("SIGTERM")
  return (await started.ended).code
}

const http = (
  place: { readonly socketPath: string } | { readonly port: number },
  method: string,
  path: string,
  body = ""
) =>
  new Promise<{ readonly code: number; readonly body: string }>((resolve, reject) => {
    const asking = request({ ...place, host: "127.0.0.1", method, path }, (response) => {
      let text = ""
      response.on("data", (chunk: Buffer) => text += chunk.toString())
      response.on("end", () => resolve({ code: response.statusCode ?? 0, body: text }))
    })
    asking.on("error", reject)
    asking.end(body)
  })

const submit = async (...command: ReadonlyArray<string>) =>
  (await stoker.run(["submit", "--wall", "2m", "--", ...command])).stdout.trim()

const stateOf = async (id: string) => (await stoker.list()).find((job) => job.id === id)?.state

/** Ends a job by the socket, which takes no time to start. */
const stop = ({ socket }: Worker, id: string) => {
  const body = { key: { intake: "embedded", owner: "local", id }, reason: "by the test", graceMs: 0 }
  return http({ socketPath: socket }, "POST", "/jobs/stop", JSON.stringify(body))
}

/** Submits it and returns once it says "up". */
const running = async (script: string) => {
  const id = await submit("sh", "-c", `echo up; ${script}`)
  const following = stoker.start(["logs", "-f", id])
  await following.said("stdout", "up")
  return { id, following }
}

describe("stoker config", () => {
  it("check says ok and what was understood, with the host's own checks", async () => {
    const path = writeConfig("{ // mine\n \"slots\": 3, \"classes\": [{ \"name\": \"small\", \"driver\": \"oci\" }] }")
    const { code, stderr, stdout } = await stoker.run(["config", "check", path])
    assert.match(stdout, /^ok: .*\n +state .*\n +slots +3\n +classes +small \(oci\)\n +broker +none\n$/)
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
  })

  it("check tells which limits of a class this host would not hold", async () => {
    const isV2 = existsSync("/sys/fs/cgroup/cgroup.controllers")
    const path = writeConfig({
      classes: [
        { name: "may", driver: "process", network: "host", ceiling: { memoryHigh: "100M" } },
        {
          name: "has",
          driver: "process",
          network: "host",
          ceiling: { memoryHigh: "9M" },
          defaults: { memoryHigh: "8M" }
        }
      ]
    })
    const { code, stderr } = await stoker.run(["config", "check", path])
    assert.strictEqual(code, isV2 ? 0 : 1, stderr)
    if (isV2) return assert.notInclude(stderr, "memoryHigh")
    assert.match(stderr, /warning: host: limits of may: memoryHigh: cgroup v1 does not have it\n +boot with cgroup v2/)
    assert.match(stderr, /stoker: host: limits of has: memoryHigh/)
  })

  it("check tells of classes of machines what keeps a worker from its start, or the host from having them", async () => {
    const machine = { driver: "qemu", machine: { accelerator: "tcg" } }
    const path = writeConfig({
      classes: [
        { name: "swaps", ...machine, ceiling: { swap: "1G" }, defaults: { swap: "1G" } },
        { name: "huge", ...machine, ceiling: { memory: "4T" } }
      ]
    })
    const { code, stderr } = await stoker.run(["config", "check", path])
    assert.strictEqual(code, 1)
    assert.match(stderr, /limits of swaps: its defaults: swapBytes cannot be held: .*\n +Leave it out/)
    assert.match(
      stderr,
      /memory: class huge: a machine takes up to \d{7} MiB .* this host has \d+ MiB\n +Lower the class/
    )
    assert.notInclude(stderr, "class swaps: a machine takes")
  })

  it("check tells everything that is wrong, and ends with 1", async () => {
    const path = writeConfig({ slot: 3, drain: "soon" })
    const { code, stderr, stdout } = await stoker.run(["config", "check", path])
    assert.match(stderr, /slot is 3: no such field; did you mean slots\?\n +drain is "soon": expected a time/)
    assert.deepStrictEqual({ code, stdout }, { code: 1, stdout: "" })
  })

  it("check tells what the host lacks for it, and what cannot be reached", async () => {
    const path = writeConfig({ amqp: { urlEnv: "MY_BROKER" } })
    const env = { STOKER_CRUN: "/nonexistent", MY_BROKER: "amqp://me:hidden@127.0.0.1:1" }
    const { code, stderr } = await stoker.run(["config", "check", "--connect", path], { env })
    assert.match(stderr, /driver oci[^]*crun[^]*apt-get install[^]*RabbitMQ: connection[^]*127\.0\.0\.1:1/)
    assert.notInclude(stderr, "hidden")
    assert.strictEqual(code, 1)
    const unset = await stoker.run(["config", "check", path])
    assert.match(unset.stderr, /amqp\.urlEnv: the environment variable MY_BROKER is not set/)
    assert.strictEqual(unset.code, 1)
  })

  it(
    "check tells of files it names that a worker could not start with, and of schedules that would never run",
    async () => {
      const api = { grpc: "127.0.0.1:0", ca: "ca.crt", cert: "server.crt", key: "server.key", roles: "roles.json" }
      const cron = { cron: "0 0 * * *", function: "fib" }
      const own = `import { Effect, Schema } from "effect"
import { Function } from "stoker"
export default Function.make({ name: "own", description: "is ours.", args: Schema.Struct({}), handler: () => Effect.void })
`
      writeFileSync(join(stoker.folder, "own.ts"), own)
      const bad = await stoker.run(["config", "check", writeConfig({ functions: ["gone.ts"], api })])
      assert.match(
        bad.stderr,
        /ca\.crt: it cannot be read[^]*roles\.json: it cannot be read[^]*gone\.ts: there is no such file/
      )
      assert.deepStrictEqual({ code: bad.code, stdout: bad.stdout }, { code: 1, stdout: "" })
      const late = writeConfig({
        functions: ["own.ts"],
        cron: [
          { ...cron, name: "good", function: "own" },
          { ...cron, name: "far", args: { number: -1 } },
          { ...cron, name: "lost", function: "gone" }
        ]
      })
      const { code, stderr } = await stoker.run(["config", "check", late])
      assert.match(
        stderr,
        /schedule far: fib: [^]*from 1 to[^]*schedule lost: there is no function gone\n +There are .*own/
      )
      assert.notInclude(stderr, "schedule good")
      assert.strictEqual(code, 1)
      const good = await stoker.run(["config", "check", writeConfig({ functions: ["own.ts"] })])
      assert.match(good.stdout, / +functions +.*own\.ts\n$/)
      assert.deepStrictEqual({ code: good.code, stderr: good.stderr }, { code: 0, stderr: "" })
    },
    60_000
  )

  it("check wants a file, and says where there is none", async () => {
    assert.match((await stoker.run(["config", "check"])).stderr, /no configuration file is named/)
    assert.match((await stoker.run(["config", "check", "nowhere.json"])).stderr, /cannot be read[^]*nowhere\.json/)
  })

  it("show prints what a worker would run with, without passwords; its output is a file again", async () => {
    writeConfig("amqp://me:hidden@broker.example/jobs\n", "url")
    const path = writeConfig({ slots: 3, stateDirectory: "here", amqp: { urlFile: "url" } })
    const { code, stdout } = await stoker.run(["config", "show", "--config", path], { env: { STOKER_STATE: "" } })
    assert.strictEqual(code, 0)
    assert.deepInclude(JSON.parse(stdout), {
      stateDirectory: join(stoker.folder, "here"),
      slots: 3,
      drain: "30s",
      amqp: { url: "amqp://me:****@broker.example/jobs" }
    })
    const again = await stoker.run(["config", "show", "--config", writeConfig(stdout)], { env: { STOKER_STATE: "" } })
    assert.strictEqual(again.stdout, stdout)
  })

  it("example prints a file that checks", async () => {
    const { stdout } = await stoker.run(["config", "example"])
    const shown = await stoker.run(["config", "show"], { env: { STOKER_CONFIG: writeConfig(stdout) } })
    assert.strictEqual(JSON.parse(shown.stdout).classes[0].ceiling.memory, "1G")
  })
})

describe("the admin socket of a worker", () => {
  let worker: Worker
  let port: number
  beforeAll(async () => {
    port = await freePort()
    worker = await startWorker(["--http", `127.0.0.1:${port}`])
  })
  afterAll(() => drained(worker))

  it("is the worker's user's alone", () => {
    assert.strictEqual(statSync(worker.socket).mode & 0o777, 0o600)
  })

  it("says that the worker lives and can take jobs, and how it is", async () => {
    const ask = (path: string) => http({ socketPath: worker.socket }, "GET", path)
    assert.deepStrictEqual(await ask("/livez"), { code: 200, body: "{\"ok\":true,\"reasons\":[]}\n" })
    assert.deepStrictEqual(await ask("/readyz"), { code: 200, body: "{\"ok\":true,\"reasons\":[]}\n" })
    assert.strictEqual((await ask("/metrics")).code, 200)
    const status = JSON.parse((await ask("/status")).body)
    assert.deepInclude(status, { instance: worker.instance, slots: 2, inHand: 0, draining: false })
    assert.includeDeepMembers(status.parts, [{ name: "intake embedded", state: "running" }])
    assert.strictEqual(status.pools[0].class, "oci")
  })

  it("serves probes and metrics over TCP, and nothing that acts", async () => {
    for (const path of ["/livez", "/readyz", "/metrics"]) {
      assert.strictEqual((await http({ port }, "GET", path)).code, 200)
    }
    for (const path of ["/drain", "/reload", "/jobs/stop"]) {
      assert.strictEqual((await http({ port }, "POST", path)).code, 404, path)
    }
    assert.strictEqual((await http({ port }, "GET", "/status")).code, 404)
    assert.strictEqual((await http({ port }, "POST", "/livez")).code, 405)
    assert.strictEqual(JSON.parse((await http({ socketPath: worker.socket }, "GET", "/readyz")).body).ok, true)
  })

  it("refuses what it cannot read, and what is not there, in words", async () => {
    const ask = (body: string) => http({ socketPath: worker.socket }, "POST", "/jobs/stop", body)
    const job = { intake: "embedded", owner: "local", id: "no-such" }
    assert.strictEqual((await ask("{")).code, 400)
    assert.strictEqual((await ask("x".repeat(100_000))).code, 400)
    const missing = await ask(JSON.stringify({ key: job, reason: "r", graceMs: 0 }))
    assert.strictEqual(missing.code, 404)
    assert.match(JSON.parse(missing.body).reason, /no job no-such/)
  })

  it("keeps a second worker from the same port, which names port and remedy", async () => {
    const { code, stderr } = await stoker.run(["worker", "--http", `127.0.0.1:${port}`])
    assert.match(stderr, new RegExp(`listen on 127\\.0\\.0\\.1:${port}[^]*EADDRINUSE[^]*another one`))
    assert.strictEqual(code, 1)
  })

  it("lists itself among the workers, and no command", async () => {
    const { stdout } = await stoker.run(["workers"])
    assert.match(stdout, new RegExp(`^INSTANCE.*\n${worker.instance} .* working\n$`))
    assert.deepStrictEqual(
      JSON.parse((await stoker.run(["workers", "--json"])).stdout).map((one: { instance: string }) => one.instance),
      [worker.instance]
    )
  })
})

describe("readiness of a worker whose broker is away", () => {
  it("is 503 with the reason and what to do; it lives", async () => {
    const started = stoker.start(["worker", "--warm", "0"], { env: { AMQP_URL: "amqp://me:hidden@127.0.0.1:1" } })
    const instances = join(stoker.state, "instances")
    const socketOf = () =>
      (existsSync(instances) ? readdirSync(instances) : []).map((name) => join(instances, name, "admin.sock")).find(
        existsSync
      )
    await until("a socket", () => socketOf() !== undefined)
    const socketPath = socketOf() ?? ""
    const { body, code } = await http({ socketPath }, "GET", "/readyz")
    const [reason] = JSON.parse(body).reasons
    assert.deepInclude(reason, { part: "broker" })
    assert.isNotEmpty(reason.remedy)
    assert.notInclude(body, "hidden")
    assert.strictEqual(code, 503)
    assert.strictEqual((await http({ socketPath }, "GET", "/livez")).code, 200)
    started.kill("SIGTERM")
    assert.strictEqual((await started.ended).code, 0)
  })
})

describe("reloading", () => {
  it("applies what can be applied, names what needs a restart, and refuses a wrong file whole", async () => {
    const path = writeConfig({ drain: "20s", waiting: 10 })
    const worker = await startWorker(["--config", path])
    const reload = async () => JSON.parse((await http({ socketPath: worker.socket }, "POST", "/reload")).body)
    assert.deepStrictEqual(await reload(), { file: path, changes: [] })

    writeFileSync(path, JSON.stringify({ drain: "300ms", waiting: 20, log: { level: "Error" } }))
    const { code, stdout } = await stoker.run(["reload"])
    assert.match(stdout, /waiting: needs a restart\n +drain: applied\n +log\.level: applied\n$/)
    assert.strictEqual(code, 0)
    assert.deepStrictEqual((await reload()).changes, [{ field: "waiting", applied: false }])

    writeFileSync(path, JSON.stringify({ drain: "1h", wating: 20 }))
    const wrong = await stoker.run(["reload"])
    assert.match(wrong.stderr, /wating is 20: no such field; did you mean waiting\?/)
    assert.strictEqual(wrong.code, 1)

    // By signal, said in the log, whose level is Error by now.
    assert.notInclude(worker.started.stderr, "wating")
    worker.started.kill("SIGHUP")
    await worker.started.said("stderr", "wating is 20")

    // The drain is the one that was applied, not the hour that was refused.
    const { following, id } = await running("sleep 60")
    assert.strictEqual(await drained(worker), 0)
    assert.strictEqual(await stateOf(id), "queued")
    assert.notInclude(worker.started.stderr, "\"ended\"")
    following.kill("SIGINT")
    assert.match((await stoker.run(["stop", id])).stdout, /was stopped/)
  }, LIMIT_MS)
})

describe("stoker stop", () => {
  it("ends a running job with TERM and KILL, one that waits for a slot, and tells one that has ended", async () => {
    const worker = await startWorker(["--slots", "1"])
    const { following, id } = await running("trap '' TERM; while :; do sleep 1; done")
    const waits = await submit("true")
    const later = (await stoker.run(["submit", "--delay", "1h", "--", "true"])).stdout.trim()
    assert.match((await stoker.run(["stop", later])).stdout, /was stopped: by the operator/)
    const stopped = await stoker.run(["stop", "--reason", "not wanted", waits])
    assert.deepStrictEqual([stopped.stdout, stopped.code], [`${waits} was stopped: not wanted\n`, 0])

    const loud = await stoker.run(["stop", "--grace", "100ms", id])
    assert.deepStrictEqual([loud.stdout, loud.code], [`${id} was stopped: by the operator\n`, 0])
    await following.ended
    assert.match((await stoker.run(["stop", id])).stdout, /had ended before: was stopped: by the operator/)
    assert.strictEqual(await drained(worker), 0)
  }, LIMIT_MS)

  it("ends those no worker has in hand, beyond those that may wait; the queue goes on behind them", async () => {
    const worker = await startWorker(["--slots", "1", "--config", writeConfig({ waiting: 0 })])
    const { following, id } = await running("sleep 60")
    const waits = await Promise.all([1, 2].map(() => submit("true")))
    for (const each of waits) {
      assert.match((await stop(worker, each)).body, /"ended","outcome":"was stopped: by the test"/)
    }
    assert.strictEqual((await stop(worker, id)).code, 200)
    await following.ended
    assert.strictEqual((await stoker.run(["submit", "--wait", "--", "true"])).code, 0)
    assert.strictEqual(await drained(worker), 0)
  }, LIMIT_MS)

  it("ends one that waits for a worker to come, and says of others that there is none", async () => {
    const id = await submit("true")
    const { code, stdout } = await stoker.run(["stop", id])
    assert.deepStrictEqual([stdout, code], [`${id} was stopped: by the operator\n`, 0])
    const worker = await startWorker()
    assert.match((await stoker.run(["status", id])).stdout, /was stopped/)
    assert.strictEqual(await drained(worker), 0)
    assert.strictEqual((await stoker.run(["stop", "job-none"])).code, 1)
  }, LIMIT_MS)
})

describe("draining", () => {
  it("stoker drain follows all workers to their end", async () => {
    const workers = [await startWorker(), await startWorker()]
    const { following, id } = await running("sleep 60")
    const draining = stoker.start(["drain", "--wait", "--timeout", "1m"])
    await draining.said("stderr", "1 job in hand")
    const holder = (await stoker.list()).find((job) => job.id === id)?.instance
    for (const worker of workers) if (worker.instance === holder) await stop(worker, id)
    const { code, stderr } = await draining.ended
    for (const { instance } of workers) assert.match(stderr, new RegExp(`${instance}: draining[^]*${instance}: ended`))
    assert.strictEqual(code, 0)
    await following.ended
    for (const { started } of workers) assert.strictEqual((await started.ended).code, 0)
  }, LIMIT_MS)

  it("is told as not ready by the worker, and --timeout gives up waiting for it", async () => {
    const worker = await startWorker()
    const { following, id } = await running("sleep 60")
    const { code, stderr } = await stoker.run(["drain", "--instance", worker.instance, "--timeout", "100ms"])
    assert.match(stderr, /not all workers had ended after 100 ms[^]*go on draining/)
    assert.strictEqual(code, 1)
    const { body, code: readiness } = await http({ socketPath: worker.socket }, "GET", "/readyz")
    assert.deepInclude(JSON.parse(body).reasons[0], { part: "worker" })
    assert.strictEqual(readiness, 503)
    await stop(worker, id)
    await following.ended
    assert.strictEqual((await worker.started.ended).code, 0)
  }, LIMIT_MS)

  it("ends with 1 when the worker dies instead, or there is none", async () => {
    const worker = await startWorker()
    const { following, id } = await running("sleep 60")
    const draining = stoker.start(["drain", "--wait"])
    await draining.said("stderr", "1 job in hand")
    worker.started.kill("SIGKILL")
    const { code, stderr } = await draining.ended
    assert.match(stderr, /died before it had ended/)
    assert.strictEqual(code, 1)
    following.kill("SIGINT")
    assert.match((await stoker.run(["drain"])).stderr, /no worker is running/)
    // Clears up after the dead one, whose job is its own now.
    const next = await startWorker()
    assert.match((await stop(next, id)).body, /was stopped/)
    assert.strictEqual(await drained(next), 0)
  }, LIMIT_MS)

  it("SIGTERM ends a worker that is still starting, well and with nothing left", async () => {
    const before = readdirSync(join(stoker.state, "instances"))
    const started = stoker.start(["worker"])
    const own = () => readdirSync(join(stoker.state, "instances")).filter((name) => !before.includes(name))
    await until("its directory", () => own().length > 0)
    started.kill("SIGTERM")
    assert.strictEqual((await started.ended).code, 0)
    assert.deepStrictEqual(own(), [])
  })

  it("gives back a job that ignores TERM, and its try does not count", async () => {
    const worker = await startWorker(["--drain", "300ms"])
    const { following, id } = await running("trap '' TERM; while :; do sleep 1; done")
    const began = performance.now()
    assert.strictEqual(await drained(worker), 0)
    assert.isBelow(performance.now() - began, 10_000)
    assert.match((await stoker.run(["status", id])).stdout, /state +queued[^]*attempt +0/)
    following.kill("SIGINT")
    assert.strictEqual((await stoker.run(["stop", id])).code, 0)
  }, LIMIT_MS)

  it("does not wait for clients of the admin socket that say nothing", async () => {
    const worker = await startWorker()
    const silent = connect({ path: worker.socket })
    const closed = new Promise((resolve) => silent.once("close", resolve))
    await new Promise((resolve) => silent.once("connect", resolve))
    assert.strictEqual((await http({ socketPath: worker.socket }, "POST", "/drain")).code, 202)
    assert.strictEqual((await worker.started.ended).code, 0)
    await closed
  })

  it("leaves nothing of its workers but rows and logs", async () => {
    assert.deepStrictEqual(await stoker.leftovers(), [])
    assert.deepStrictEqual(readdirSync(join(stoker.state, "instances")), [])
  })
})

describe("draining while the broker is away", () => {
  let broker: Broker
  beforeAll(async () => {
    broker = await Broker.acquire()
  }, Broker.startMillis)
  afterAll(() => broker.release())

  it("ends within its time, and the broker delivers the job again", async () => {
    const url = new URL(broker.url)
    const sockets = new Set<Socket>()
    const wire = (port: number) =>
      new Promise<Server>((resolve) => {
        const server = createServer((near) => {
          const far = connect({ host: url.hostname, port: Number(url.port) })
          for (const socket of [near, far]) {
            sockets.add(socket)
            socket.on("error", () => socket.destroy())
          }
          near.pipe(far)
          far.pipe(near)
        })
        server.listen(port, "127.0.0.1", () => resolve(server))
      })
    const port = await freePort()
    const line = await wire(port)
    const through = new URL(broker.url)
    through.host = `127.0.0.1:${port}`
    const worker = await startWorker(["--drain", "1s"], { AMQP_URL: through.href })

    const waiting = stoker.start(["submit", "--wait", "--", "sh", "-c", "sleep 2; echo done"], {
      env: { AMQP_URL: broker.url }
    })
    await waiting.said("stderr", "running")
    line.close()
    for (const socket of sockets) socket.destroy()

    const began = performance.now()
    assert.strictEqual(await drained(worker), 0)
    assert.isBelow(performance.now() - began, 8000)

    const next = await startWorker([], { AMQP_URL: broker.url })
    assert.strictEqual((await waiting.ended).stdout, "done\n")
    assert.strictEqual(await drained(next), 0)
  }, LIMIT_MS)
})
