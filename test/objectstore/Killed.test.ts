/** Workers that are killed while they store what a job left: one outcome, told, with whole objects and no rest of an upload. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { randomBytes } from "node:crypto"
import { namespace, world } from "../kubernetes/World.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { acquireRaw, ask } from "../stokeramqp/Place.ts"
import { Broker } from "../support/Broker.ts"
import { patience } from "../support/Slowness.ts"
import { WorkerProcess } from "../worker/WorkerProcess.ts"
import { type Seen, StrictS3 } from "./StrictS3.ts"
import { makeImage } from "./Tool.ts"

const MiB = 1024 * 1024
const files = Jobs.stateDirectory()
const image = makeImage(files)
const server = new StrictS3()
let broker: Broker

beforeAll(async () => {
  broker = await Broker.acquire()
  await server.start()
  for (const name of ["in-put", "out-put"]) server.bucket(name)
}, Broker.startMillis)
afterAll(async () => {
  await server.stop()
  await broker.release()
  Jobs.remove(files)
})

const until = Effect.fnUntraced(function*(what: string, is: () => boolean) {
  for (let round = 0; round < patience(1600); round++) {
    if (is()) return
    yield* Effect.sleep(25)
  }
  assert.fail(`${what} never came`)
})

/** A place for workers, one after the other. */
const place = Effect.fnUntraced(function*(more: Readonly<Record<string, string>> = {}) {
  const state = yield* Effect.acquireRelease(
    Effect.sync(() => Jobs.stateDirectory()),
    (path) => Effect.sync(() => Jobs.remove(path))
  )
  const { accessKey, endpoint, secretKey } = server
  const env = { TEST_STORE: JSON.stringify({ endpoint, accessKey, secretKey, images: `oci:${files}/` }), ...more }
  // What a killed one holds of the host goes with the next, and that one is drained.
  return Effect.acquireRelease(
    ask(() => WorkerProcess.start({ state, amqpUrl: broker.url, env })),
    (worker) => ask(() => worker.drain())
  )
})

/** A client that sends one job, and hears of it. */
const client = Effect.fnUntraced(function*(id: string, args: object) {
  const raw = yield* acquireRaw(broker)
  const replyTo = yield* ask(() => raw.listen())
  raw.send({ id, function: "container", args }, { replyTo, correlationId: id })
  const ends = () => raw.events().filter(({ event }) => event === "ended")
  const ended = Effect.gen(function*() {
    yield* until("the end", () => ends().length > 0)
    const [end = {}] = ends()
    return end
  })
  return { ends, ended, heard: () => raw.events().map(({ event }) => event) }
})

const exited = (code: number) => ({ _tag: "Exited", phase: "run", code })

/** Answers no request of that kind, which begins with the next one; says when one is there. */
const holdUp = (is: (seen: Seen) => boolean) => {
  let isHeld = false
  server.fault = (seen) => {
    if (!is(seen)) return undefined
    isHeld = true
    return { kind: "silent" }
  }
  return { held: until("the upload", () => isHeld), letGo: () => void (server.fault = () => undefined) }
}

describe("a worker that is killed while it stores", { timeout: patience(120_000) }, () => {
  it.live("an artefact: its successor runs the job again, stores it whole, and aborts the upload that was left", () =>
    Effect.gen(function*() {
      const workers = yield* place()
      const content = randomBytes(21 * MiB + 3)
      server.put("in-put", "a-source", content)
      const { held, letGo } = holdUp(({ key, method, query }) =>
        method === "PUT" && key === "a-made" && query.get("partNumber") === "2"
      )
      const first = yield* workers
      const job = yield* client("killed-artefact", {
        image,
        name: "tool",
        args: ["copy", "source", "made"],
        buckets: { input: "in-put", output: "out-put", prefix: "a" },
        artefacts: ["made"]
      })
      yield* held
      assert.deepStrictEqual([...server.uploads.values()].map(({ key }) => key), ["a-made"])
      yield* ask(() => first.kill())
      letGo()
      assert.strictEqual(server.uploads.size, 1)
      assert.isUndefined(server.content("out-put", "a-made"))
      const second = yield* workers
      const end = yield* job.ended
      assert.deepStrictEqual(end["outcome"], exited(0), second.output)
      assert.strictEqual(end["attempt"], 2)
      assert.deepStrictEqual(end["artefactsStored"], [
        { path: "made", bucket: "out-put", key: "a-made", bytes: content.length }
      ])
      assert.isTrue(server.content("out-put", "a-made")?.equals(content))
      assert.match(
        server.content("out-put", "a-tool-killed-artefact.log")?.toString() ?? "",
        /^copied \d+ bytes of in-put\n$/
      )
      yield* until("the end of the upload that was left", () => server.uploads.size === 0)
      assert.strictEqual(job.ends().length, 1, job.heard().join(" "))
      assert.isTrue(server.content("out-put", "a-made")?.equals(content))
    }).pipe(Effect.scoped))

  it.live("a cluster's log: its successor finds the same Job, and stores its log whole", () =>
    Effect.gen(function*() {
      const { kubeconfig, kubelet } = yield* world
      const workers = yield* place({ TEST_CLUSTER: kubeconfig })
      const run = (id: string, script: string) =>
        client(id, {
          image: "debian:12",
          name: "pod",
          command: ["/bin/sh", "-c", script],
          buckets: { input: "in-put", output: "out-put", prefix: "k" }
        })
      const logOf = (id: string) => server.content("out-put", `k-pod-${id}.log`)?.toString()
      const { held, letGo } = holdUp(({ key, method }) => method === "PUT" && key.endsWith("killed-log.log"))
      const first = yield* workers
      const job = yield* run("killed-log", "seq 20000; exit 4")
      yield* held
      yield* ask(() => first.kill())
      letGo()
      assert.isUndefined(logOf("killed-log"))
      const second = yield* workers
      const end = yield* job.ended
      assert.deepStrictEqual(end["outcome"], exited(4), second.output)
      const whole = Array.from({ length: 20_000 }, (_, index) => `${index + 1}\n`).join("")
      assert.isTrue(logOf("killed-log") === whole, `${logOf("killed-log")?.length} of ${whole.length}`)
      assert.strictEqual(job.ends().length, 1, job.heard().join(" "))
      const { items } = yield* ask(() => kubelet.list(`/apis/batch/v1/namespaces/${namespace}/jobs`))
      assert.lengthOf(items, 1)
      assert.deepStrictEqual([...kubelet.starts.values()], [1])

      const well = yield* run("well", "echo one; echo two")
      assert.deepStrictEqual((yield* well.ended)["outcome"], exited(0))
      assert.strictEqual(logOf("well"), "one\ntwo\n")

      server.fault = ({ key, method }) =>
        method === "PUT" && key.endsWith("denied.log")
          ? { kind: "status", status: 403, code: "AccessDenied" }
          : undefined
      const denied = yield* run("denied", "echo one")
      const outcome = (yield* denied.ended)["outcome"]
      assert.deepInclude(outcome, { _tag: "SandboxFailed", driver: "objectstore" })
      assert.match(
        JSON.stringify(outcome),
        /exited with status 0, but its log could not be stored as out-put\/k-pod-denied/
      )
      server.fault = () => undefined
    }).pipe(Effect.scoped))
})
