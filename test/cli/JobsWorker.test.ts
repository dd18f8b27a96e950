/** `stoker jobs` against a worker with both doors, whose certificates `stoker certs` has made. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Client, credentials } from "@grpc/grpc-js"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { freePort } from "../support/Ports.ts"
import { patience } from "../support/Slowness.ts"
import { type Started, Stoker } from "./Stoker.ts"

const stoker = new Stoker()
afterAll(() => stoker.dispose())

const certs = join(stoker.folder, "certs")
const at = (name: string) => join(certs, name)
const urls = { grpc: "", https: "" }
let worker: Started

beforeAll(async () => {
  const certificate = async (...args: ReadonlyArray<string>) => {
    const { code, stderr } = await stoker.run(["certs", ...args, "--dir", certs])
    assert.strictEqual(code, 0, stderr)
  }
  await certificate("init")
  await certificate("issue", "server", "--host", "localhost")
  await certificate("issue", "client", "alice")
  const [grpc, https] = [await freePort(), await freePort()]
  urls.grpc = `grpc://localhost:${grpc}`
  urls.https = `https://localhost:${https}`
  worker = stoker.start(["worker", "--grpc", `localhost:${grpc}`, "--api", `localhost:${https}`, "--tls", certs])
  await worker.said("stderr", "consuming")
}, patience(120_000))

const jobs = (protocol: keyof typeof urls, ...args: ReadonlyArray<string>) =>
  stoker.run(["jobs", ...args], {
    env: {
      STOKER_SERVER: urls[protocol],
      STOKER_CA: at("ca.crt"),
      STOKER_CERT: at("alice.crt"),
      STOKER_KEY: at("alice.key"),
      TZ: "UTC"
    }
  })

const protocols = ["grpc", "https"] as const

for (const protocol of protocols) {
  describe(`stoker jobs over ${protocol}`, () => {
    it("starts, follows and tells of a job as the RFD's transcripts do", async () => {
      const started = await jobs(protocol, "start", "fib", "3", "--id", `fib-${protocol}`)
      assert.deepStrictEqual(
        started,
        {
          code: 0,
          stdout: `Started 'Fibonacci' job, ID: fib-${protocol}
Use 'stoker jobs tail fib-${protocol}' to see the output of this job,
'stoker jobs stop fib-${protocol}' to stop the job.
`,
          stderr: ""
        }
      )
      const tail = await jobs(protocol, "tail", `fib-${protocol}`)
      assert.deepStrictEqual(tail, {
        code: 0,
        stdout: `[JOB] Starting job 'Fibonacci'
[FIB] Calculating the value of the 3rd value in the Fibonacci sequence
[FIB] Using lookup; value is '1'.
[RESULT] 1
[JOB] Complete

Job finished, no more output, exiting tail!
`,
        stderr: ""
      })
      const { stdout } = await jobs(protocol, "status", `fib-${protocol}`)
      const time = "\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d"
      assert.match(
        stdout,
        new RegExp(
          `^Getting info for job fib-${protocol}\\.\\.\\. DONE!\\n\\nJob fib-${protocol}: Fibonacci\\nArguments:\\n` +
            `  Number:   3\\nStatus:     Complete\\nStarted:    ${time}\\nFinished:   ${time}\\nDuration:   \\d+ \\w+\\n$`
        )
      )
    }, patience(60_000))

    it("keeps a program's streams apart, and ends with its code", async () => {
      const script = "printf '\\000\\377\\n'; echo oops >&2; exit 4"
      const { code, stdout } = await jobs(protocol, "start", "command", "--json", "--wait", "--", "sh", "-c", script)
      assert.strictEqual(code, 0)
      const { id } = JSON.parse(stdout) as { readonly id: string }
      const env = { STOKER_SERVER: urls[protocol], STOKER_CA: at("ca.crt"), STOKER_CERT: at("alice.crt") }
      const tail = stoker.start(["jobs", "tail", id, "--raw", "--exit-code"], {
        env: { ...env, STOKER_KEY: at("alice.key") }
      })
      const ended = await tail.ended
      assert.deepStrictEqual(
        { code: ended.code, stdout: tail.stdout, stderr: ended.stderr },
        { code: 4, stdout: "\u0000\u00ff\n", stderr: "oops\n" }
      )
      const only = await jobs(protocol, "tail", id, "--stream", "stderr", "--raw")
      assert.deepStrictEqual([only.stdout, only.stderr], ["", "oops\n"])
      assert.strictEqual((await jobs(protocol, "delete", id)).stdout, `Deleted job ${id}\n`)
      assert.match((await jobs(protocol, "status", id)).stderr, /there is no job/)
    }, patience(60_000))

    it("stops a job, whose follower then comes to its end", async () => {
      const id = `sleeper-${protocol}`
      const words = ["--id", id, "--wait", "--wall", "1m", "--", "sh", "-c", "echo up; sleep 50"]
      const started = await jobs(protocol, "start", "command", ...words)
      assert.strictEqual(started.code, 0, started.stderr)
      const following = jobs(protocol, "tail", id, "--new")
      const { stdout } = await jobs(protocol, "stop", id, "--reason", "enough", "--grace", "0s")
      assert.match(stdout, /^Stopping job [^]*Status: {5}Stopped \(enough\)\n/)
      assert.match((await following).stdout, /\[JOB\] Stopped: enough\n\nJob finished/)
    }, patience(60_000))
  })
}

/** What `grpc.health.v1.Health` says of the whole: 1 is SERVING, 2 NOT_SERVING. */
const health = async () => {
  const [ca, key, cert] = ["ca.crt", "alice.key", "alice.crt"].map((name) => readFileSync(at(name)))
  const client = new Client(urls.grpc.slice("grpc://".length), credentials.createSsl(ca, key, cert))
  try {
    return await new Promise<number | undefined>((resolve, reject) =>
      client.makeUnaryRequest(
        "/grpc.health.v1.Health/Check",
        (bytes: Buffer) => bytes,
        // Its only field, as a varint.
        (bytes: Buffer) => bytes[1],
        Buffer.alloc(0),
        (error, status) => error === null ? resolve(status) : reject(error)
      )
    )
  } finally {
    client.close()
  }
}

describe("gRPC's health", () => {
  it("is the worker's: one that drains is not serving, and still answers", async () => {
    const { code } = await jobs(
      "grpc",
      "start",
      "command",
      "--id",
      "slow",
      "--wait",
      "--wall",
      "1m",
      "--",
      "sleep",
      "50"
    )
    assert.strictEqual(code, 0)
    assert.strictEqual(await health(), 1)
    worker.kill("SIGTERM")
    await worker.said("stderr", "draining")
    let told = await health()
    for (let look = 0; look < 100 && told === 1; look++) {
      await new Promise((resolve) => setTimeout(resolve, 50))
      told = await health()
    }
    assert.strictEqual(told, 2)
    assert.strictEqual((await jobs("grpc", "stop", "slow", "--grace", "0s")).code, 0)
    assert.strictEqual((await worker.ended).code, 0)
  }, patience(60_000))
})
