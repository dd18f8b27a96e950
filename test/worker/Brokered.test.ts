/**
 * A door's worker in this process and the worker that runs the jobs in another one, as on two hosts: state directories of
 * their own, a real broker between them, journals of their own or one in PostgreSQL.
 */
import { Context, Effect, Exit, Layer, Logger, Redacted, Scope } from "effect"
import { randomBytes } from "node:crypto"
import { join } from "node:path"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { Control } from "../../src/layers/control/Control.ts"
import { NAME } from "../../src/layers/intake/Embedded.ts"
import { requestHash } from "../../src/layers/intake/RequestHash.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalPostgres from "../../src/layers/journal/JournalPostgres.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import { FunctionName, JobId, type JobKey, Owner } from "../../src/schemas/Ids.ts"
import { keyOf } from "../../src/schemas/Job.ts"
import { standardPool } from "../../src/schemas/PoolConfig.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerControlOfAll, layerPostgres, layerWorker } from "../../src/wiring.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { Broker } from "../support/Broker.ts"
import { PostgresServer } from "../support/PostgresServer.ts"
import { randomOf } from "../support/Random.ts"
import { until } from "./until.ts"
import { WorkerProcess } from "./WorkerProcess.ts"

const size = 300_000

describe("a door of one worker, and the jobs of another", () => {
  let broker: Broker
  let server: PostgresServer
  const states: Array<string> = []
  const workers: Array<WorkerProcess> = []
  const scopes: Array<Scope.Closeable> = []
  const stateDirectory = () => {
    const state = Jobs.stateDirectory()
    states.push(state)
    return state
  }

  beforeAll(async () => {
    broker = await Broker.acquire()
    server = await PostgresServer.start()
  }, Broker.startMillis)
  afterEach(async () => {
    for (const scope of scopes.splice(0)) await Effect.runPromise(Scope.close(scope, Exit.void))
    for (const worker of workers.splice(0)) await worker.kill()
  })
  afterAll(async () => {
    for (const state of states) {
      await WorkerProcess.sweep(state)
      Jobs.remove(state)
    }
    await broker.release()
    server.dispose()
  })

  /** Runs none of the embedded queue's jobs. */
  const startDoor = async (journal: string | undefined) => {
    const amqp = { url: Redacted.make(broker.url) }
    const worker = layerWorker({
      stateDirectory: stateDirectory(),
      config: {
        ...standardConfig,
        slots: 1,
        classes: [{ ...standardClass("oci", "oci"), pool: { ...standardPool, minimum: 0, maximum: 1 } }]
      },
      embedded: false,
      amqp,
      ...(journal === undefined ? {} : { journal: layerPostgres({ postgres: Redacted.make(journal) }) })
    })
    const scope = Effect.runSync(Scope.make())
    scopes.push(scope)
    const door = Layer.provide(layerControlOfAll(amqp), worker).pipe(Layer.provide(Logger.layer([])))
    return Context.get(await Effect.runPromise(Layer.buildWithScope(door, scope)), Control)
  }

  const startRunner = async (state: string, journal: string | undefined) => {
    const env = journal === undefined ? {} : { STOKER_JOURNAL: journal }
    const worker = await WorkerProcess.start({ state, amqpUrl: broker.url, leaseMs: 5000, env })
    workers.push(worker)
    return worker
  }

  /** Into the journal of whoever runs it: writes all of the bytes, then goes on for a minute. */
  const submit = async (state: string, journal: string | undefined, id: string, bytes: Buffer): Promise<JobKey> => {
    const script = `import base64, sys, time
data = base64.b64decode(open("data").read())
for at in range(0, len(data), 7001):
    sys.stdout.buffer.write(data[at:at + 7001]); sys.stdout.buffer.flush()
    time.sleep(0.002)
time.sleep(60)`
    const files = [{ path: "main.py", content: script }, { path: "data", content: bytes.toString("base64") }]
    const job = {
      id: JobId.make(id),
      owner: Owner.make("ann"),
      intake: NAME,
      function: FunctionName.make("command"),
      args: { argv: ["python3", "main.py"], files },
      limits: {}
    }
    const layer = journal === undefined
      ? JournalSqlite.layer({ filename: join(state, "journal.sqlite") })
      : JournalPostgres.layer({ url: Redacted.make(journal) })
    const submitted = Journal.use((one) => one.submit({ job, hash: requestHash(job), reply: null }))
    await Effect.runPromise(submitted.pipe(Effect.provide(layer)))
    return keyOf(job)
  }

  const runs = (door: Control["Service"], key: JobKey) =>
    until("it runs", async () => {
      const found = await Effect.runPromise(Effect.option(door.status(key)))
      return found._tag === "Some" && found.value.state === "running"
    }, 30_000)

  /** Reads of random sizes and waits, to the end; the error that ended it, if one did. */
  const follow = async (door: Control["Service"], key: JobKey, seed: number, onBytes: (total: number) => void) => {
    const random = randomOf(seed)
    const pieces: Array<Uint8Array> = []
    let offset = 0
    let run: string | undefined
    for (;;) {
      const read = door.read(key, {
        stream: "stdout",
        offset,
        maxBytes: 1 + random(random(2) === 0 ? 5000 : 100_000),
        waitMs: random(3000),
        ...(run === undefined ? {} : { run })
      })
      const answer = await Effect.runPromise(Effect.result(read))
      if (answer._tag === "Failure") {
        // Its log is made a moment after it began to run.
        if (answer.failure._tag === "LogNotFound" && run === undefined) continue
        return { bytes: Buffer.concat(pieces), error: answer.failure, run }
      }
      for (const entry of answer.success.entries) if (entry._tag === "Bytes") pieces.push(entry.bytes)
      offset = answer.success.next
      run = answer.success.run
      onBytes(offset)
      if (answer.success.end !== undefined) return { bytes: Buffer.concat(pieces), end: answer.success.end, run }
    }
  }

  for (const kind of ["journals of their own", "one journal in PostgreSQL"] as const) {
    it(`with ${kind}: seen, followed by three, stopped, and read after the end`, async () => {
      const journal = kind === "journals of their own" ? undefined : server.url()
      const state = stateDirectory()
      await startRunner(state, journal)
      const door = await startDoor(journal)
      const bytes = randomBytes(size)
      const key = await submit(state, journal, `stopped-${states.length}`, bytes)
      await runs(door, key)
      const done: Array<Promise<void>> = []
      const following = [1, 2, 3].map((seed) => {
        const all = Promise.withResolvers<void>()
        done.push(all.promise)
        return follow(door, key, seed, (total) => total === size && all.resolve())
      })
      await Promise.race([Promise.all(done), Promise.all(following)])
      const stopped = await Effect.runPromise(door.stop(key, { reason: "enough", graceMs: 500 }))
      assert.strictEqual(stopped.settlement?.outcome._tag, "Stopped")
      for (const { bytes: heard, end, error } of await Promise.all(following)) {
        assert.isUndefined(error)
        assert.isTrue(heard.equals(bytes), `${heard.length} bytes`)
        assert.strictEqual(end?.complete, true)
      }
      const again = await follow(door, key, 4, () => undefined)
      assert.isTrue(again.bytes.equals(bytes))
      const listed = await Effect.runPromise(door.list({ owner: "ann", limit: 100 }))
      assert.include(listed.map(({ request: { job } }) => `${job.id}`), `${key.id}`)
      assert.strictEqual((await Effect.runPromise(door.stop(key, { reason: "x", graceMs: 0 }))).state, "ended")
    }, 120_000)

    it(`with ${kind}: its worker is killed in mid-follow, and its name is told`, async () => {
      const journal = kind === "journals of their own" ? undefined : server.url()
      const state = stateDirectory()
      const runner = await startRunner(state, journal)
      const door = await startDoor(journal)
      const bytes = randomBytes(size)
      const key = await submit(state, journal, `killed-${states.length}`, bytes)
      await runs(door, key)
      const { instance } = await Effect.runPromise(door.status(key))
      const all = Promise.withResolvers<void>()
      const following = follow(door, key, 5, (total) => total === size && all.resolve())
      await Promise.race([all.promise, following])
      await runner.kill()
      const { bytes: heard, error } = await following
      assert.isTrue(heard.equals(bytes))
      assert.strictEqual(error?._tag, "WorkerAway", error?.message)
      assert.include(error?.message ?? "", `lies on the host of worker ${instance}, which does not answer`)
    }, 120_000)
  }
})
