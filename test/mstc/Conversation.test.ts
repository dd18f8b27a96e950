/**
 * The MSTC worker's own Python client against a real broker and a whole worker, whose container jobs run in oci sandboxes.
 * The cluster's side is in test/kubernetes.
 */
import { afterAll, afterEach, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Logger, Redacted, Scope } from "effect"
import { execFileSync, spawn } from "node:child_process"
import { request } from "node:http"
import { join } from "node:path"
import { ClassName } from "../../src/schemas/Ids.ts"
import { standardObjectStore } from "../../src/schemas/ObjectStoreConfig.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerMstcRest, layerWorker } from "../../src/wiring.ts"
import { StrictS3 } from "../objectstore/StrictS3.ts"
import { compiled, toolImage } from "../oci/ToolImage.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { Broker } from "../support/Broker.ts"
import { freePort } from "../support/Ports.ts"

interface Told {
  readonly result: string
  readonly status: string
  readonly outcome?: string
  readonly exitCode?: number
  readonly error?: string
}

const files = Jobs.stateDirectory()

/** Prints what it is told of buckets, then does what its argument says. */
const tool = compiled(
  files,
  `#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
  const char *names[] = {"INPUT_BUCKET_URL", "OUTPUT_BUCKET_URL", "INPUT_BUCKET", "OUTPUT_BUCKET", "FILE_PREFIX", "MSTC_JOB"};
  for (int i = 0; i < 6; i++) printf("%s=%s\\n", names[i], getenv(names[i]) ? getenv(names[i]) : "");
  fflush(stdout);
  if (argc > 1 && !strcmp(argv[1], "fail")) return 3;
  if (argc > 1 && !strcmp(argv[1], "hang")) sleep(1000);
  return 0;
}`
)

const image = (...cmd: ReadonlyArray<string>) =>
  toolImage(join(files, `image-${cmd.join("-")}`), tool, { entrypoint: ["/tool"], cmd })
const well = image()
const failing = image("fail")
const hanging = image("hang")

const place = ClassName.make("containers")

describe("clients of the MSTC worker", { timeout: 60_000 }, () => {
  let broker: Broker
  const store = new StrictS3()
  const scopes: Array<Scope.Closeable> = []
  const states: Array<string> = []

  beforeAll(async () => {
    broker = await Broker.acquire()
    store.bucket("in-put")
    await store.start()
  }, Broker.startMillis)
  afterEach(async () => {
    for (const scope of scopes.splice(0)) await Effect.runPromise(Scope.close(scope, Exit.void))
  })
  afterAll(async () => {
    for (const state of states) Jobs.remove(state)
    await store.stop()
    await broker.release()
  })

  const startWorker = async (wallMs = 60_000) => {
    const state = Jobs.stateDirectory()
    states.push(state)
    const usual = standardClass("containers", "oci")
    const limits = { ...usual.ceiling, wallMs: 3_600_000 }
    const port = await freePort()
    const worker = layerWorker({
      stateDirectory: state,
      amqp: { url: Redacted.make(broker.url) },
      objectStore: { accessKey: Redacted.make(store.accessKey), secretKey: Redacted.make(store.secretKey) },
      config: {
        ...standardConfig,
        slots: 2,
        classes: [{ ...usual, ceiling: { ...limits, wallMs }, images: { allow: [`oci:${files}/`] } }],
        defaultClass: place,
        objectStore: { ...standardObjectStore, endpoint: store.endpoint },
        mstc: { class: place }
      }
    })
    const scope = Effect.runSync(Scope.make())
    scopes.push(scope)
    const whole = layerMstcRest({ class: place, listen: `127.0.0.1:${port}` }).pipe(
      Layer.provideMerge(worker),
      Layer.provide(Logger.layer([]))
    )
    await Effect.runPromise(Layer.buildWithScope(whole, scope))
    return { port }
  }

  /** What the old client prints, which waits for the answer. */
  const send = (body: object | string, { exchange = "mstc.exchange", seconds = 40 } = {}) =>
    new Promise<Told | null>((resolve, reject) => {
      const text = typeof body === "string" ? body : JSON.stringify(body)
      const script = join(import.meta.dirname, "old_client.py")
      const child = spawn("/usr/bin/python3", [script, broker.url, exchange, text, `${seconds}`])
      let out = ""
      let err = ""
      child.stdout.on("data", (chunk: Buffer) => out += chunk.toString())
      child.stderr.on("data", (chunk: Buffer) => err += chunk.toString())
      child.on("close", (code) => code === 0 ? resolve(JSON.parse(out) as Told) : reject(new Error(err)))
    })

  const buckets = { jobName: "test-job", inputBucket: "in-put", timeOut: 1 }
  const urls = { jobName: "test-job", inputBucketUrl: "http://store:9000/in", timeOut: 1 }

  it("worker first: told that it is complete, by bucket; told the output, by address", async () => {
    await startWorker()
    const complete = await send({ ...buckets, image: well, prefix: "run1" })
    assert.match(complete?.result ?? "", /^Job test-job-[0-9a-f-]{36} complete\.$/)
    assert.deepInclude(complete, { status: "complete", exitCode: 0 })
    const [, id] = /^Job (test-job-\S+) complete/.exec(complete?.result ?? "") ?? []
    assert.include(store.content("in-put", `run1-${id}.log`)?.toString() ?? "", "FILE_PREFIX=run1")
    const output = await send({ ...urls, image: well })
    assert.strictEqual(
      output?.result,
      "INPUT_BUCKET_URL=http://store:9000/in\nOUTPUT_BUCKET_URL=http://store:9000/in\n"
        + "INPUT_BUCKET=\nOUTPUT_BUCKET=\nFILE_PREFIX=\nMSTC_JOB=true\n"
    )
  })

  it("client first: its queue is used as it declared it", async () => {
    const answer = send({ ...urls, image: well }, { exchange: "" })
    await Broker.until(() => broker.queue("mstc.queue.work"), (queue) => queue?.ready === 1)
    await startWorker()
    assert.include((await answer)?.result, "MSTC_JOB=true")
  })

  it("failures are told: of the program, of the image, of the time, of the request", async () => {
    await startWorker()
    const [failed, missing, refused, invalid] = await Promise.all([
      send({ ...buckets, image: failing }),
      send({ ...buckets, image: `oci:${files}/none:latest` }),
      send({ ...buckets, image: "debian:12" }),
      send({ ...buckets })
    ])
    assert.deepInclude(failed, { status: "failed", outcome: "Exited", exitCode: 3 })
    assert.match(failed?.result ?? "", /^Job test-job-\S+ exited with status 3$/)
    assert.deepInclude(missing, { status: "failed", outcome: "SandboxFailed" })
    assert.deepInclude(refused, { status: "failed", outcome: "Rejected" })
    assert.include(refused?.result, "the class takes no image debian:12")
    assert.strictEqual(invalid?.status, "invalid")
    assert.match(invalid?.result ?? "", /^Invalid request .*image/s)
  })

  // A minute is the least that a request can say: with what takes long.
  it.skipIf(process.env["STOKER_TEST_LONG"] !== "1")("a job that hangs is ended at its time, and told so", async () => {
    await startWorker(120_000)
    const late = await send({ ...buckets, image: hanging }, { seconds: 100 })
    assert.deepInclude(late, { status: "failed", outcome: "TimedOut" })
    assert.match(late?.result ?? "", /^Job test-job-\S+ run exceeded its wall time limit of 60000 ms$/)
  }, 150_000)

  it("more time than the class gives is refused, and told so", async () => {
    await startWorker(5000)
    const late = await send({ ...buckets, image: hanging })
    assert.deepInclude(late, { status: "failed", outcome: "Rejected" })
    assert.include(late?.result, "wall")
  })

  it("nobody to answer is no reason to run it again", async () => {
    await startWorker()
    await Broker.until(() => broker.queue("mstc.queue.work"), (queue) => (queue?.consumers ?? 0) > 0)
    const body = JSON.stringify({ ...urls, image: well })
    execFileSync("/usr/bin/python3", [
      "-c",
      "import pika, sys\nc = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))\n"
      + "c.channel().basic_publish('mstc.exchange', 'mstc.queue.work', sys.argv[2])\nc.close()",
      broker.url,
      body
    ])
    await Broker.until(() => broker.queue("mstc.queue.work"), (queue) => queue?.ready === 0 && queue.unacked === 0)
  })

  const ask = (port: number, method: string, path: string, body?: string) =>
    new Promise<{ readonly status: number; readonly text: string; readonly warning: string | undefined }>(
      (resolve, reject) => {
        const asked = request({
          host: "127.0.0.1",
          port,
          method,
          path,
          headers: { "content-type": "application/json" }
        })
        asked.on("error", reject)
        asked.on("response", (response) => {
          let text = ""
          response.on("data", (chunk: Buffer) => text += chunk.toString())
          response.on("end", () => {
            const { warning } = response.headers
            resolve({
              status: response.statusCode ?? 0,
              text,
              warning: typeof warning === "string" ? warning : undefined
            })
          })
        })
        asked.end(body)
      }
    )

  it("REST: says hello, runs and answers when it has ended", async () => {
    const { port } = await startWorker()
    assert.deepInclude(await ask(port, "GET", "/mstc/worker"), { status: 200 })
    const run = (body: object | string) =>
      ask(port, "POST", "/mstc/worker/execute", typeof body === "string" ? body : JSON.stringify(body))
    const done = await run({ ...urls, image: well })
    assert.deepInclude(done, { status: 200, warning: undefined })
    assert.include(done.text, "MSTC_JOB=true")
    const failed = await run({ ...buckets, image: failing })
    assert.strictEqual(failed.status, 500)
    assert.match(failed.warning ?? "", /^199 stoker "Job test-job-\S+ exited with status 3"$/)
    assert.deepInclude(await run("null"), { status: 400 })
    assert.deepInclude(await run(""), { status: 400 })
  })
})
