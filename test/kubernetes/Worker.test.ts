/** Whole workers, as processes, whose only class is a cluster: what becomes of jobs when they are killed or drained. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { NAME } from "../../src/layers/intake/Embedded.ts"
import { requestHash } from "../../src/layers/intake/RequestHash.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import { Log } from "../../src/layers/log/Log.ts"
import * as LogFiles from "../../src/layers/log/LogFiles.ts"
import { FunctionName, IntakeName, JobId, Owner } from "../../src/schemas/Ids.ts"
import { type Job, keyOf } from "../../src/schemas/Job.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { layerHost } from "../../src/wiring.ts"
import { projectEnv } from "../support/Run.ts"
import { patience } from "../support/Slowness.ts"
import { namespace, type World, world as makeWorld } from "./World.ts"

/** A worker process; only ever signalled by the one who started it. */
class Process {
  readonly #child: ChildProcess
  said = ""

  constructor(state: string, kubeconfig: string, slots: number, flags: ReadonlyArray<string> = []) {
    // As a user who may nothing on this host, where the tests are root: a pod is no more.
    const args = [...flags, join(import.meta.dirname, "program.ts"), state, kubeconfig, String(slots)]
    this.#child = spawn("node", args, { env: projectEnv, stdio: ["pipe", "pipe", "pipe"] })
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.on("data", (bytes: Buffer) => this.said += bytes.toString())
    }
  }

  async sees(what: RegExp): Promise<RegExpMatchArray> {
    for (let round = 0; round < patience(1200); round++) {
      const found = what.exec(this.said)
      if (found !== null) return found
      if (this.#child.exitCode !== null) break
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
    throw new Error(`never said ${String(what)}:\n${this.said.slice(-3000)}`)
  }

  async memory(): Promise<{ readonly rss: number; readonly heapUsed: number }> {
    this.said = ""
    this.#child.stdin?.write("sample\n")
    return JSON.parse((await this.sees(/memory (\{.*\})\n/))[1] ?? "") as { rss: number; heapUsed: number }
  }

  async end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = once(this.#child, "exit")
    this.#child.kill(signal)
    await ended
  }
}

const started = (world: World, slots = 4, flags: ReadonlyArray<string> = []) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const own = new Process(join(world.folder, "state"), world.kubeconfig, slots, flags)
      await own.sees(/^up$/m)
      return own
    }),
    (own) => Effect.promise(() => own.end("SIGKILL"))
  )

let number = 0
const jobOf = (script: string, more: object = {}): Job => ({
  id: JobId.make(`w-${process.pid}-${number++}`),
  owner: Owner.make("local"),
  intake: IntakeName.make(NAME),
  function: FunctionName.make("container"),
  args: { image: "debian:12", command: ["/bin/sh", "-c", script], ...more },
  limits: { wallMs: 60_000 }
})

/** The worker's journal and logs, from this process. */
const opened = Effect.gen(function*() {
  const world = yield* makeWorld
  const layer = Layer.merge(JournalSqlite.layerHost(), LogFiles.layer).pipe(
    Layer.provideMerge(layerHost(join(world.folder, "state")))
  )
  const context = yield* Layer.build(Layer.fresh(layer))
  const journal = yield* Effect.provideContext(Journal, context)
  const log = yield* Effect.provideContext(Log, context)
  const submit = (job: Job) => journal.submit({ job, hash: requestHash(job), reply: null }, { maximum: 10_000 })
  const settled = Effect.fnUntraced(function*(job: Job) {
    for (let round = 0; round < patience(3000); round++) {
      const record = yield* journal.get(keyOf(job))
      if (record?.settlement !== undefined) return record.settlement
      yield* Effect.sleep(40)
    }
    return assert.fail(`${job.id} has no outcome`)
  })
  const jobs = Effect.promise(async () =>
    (await world.kubelet.list(`/apis/batch/v1/namespaces/${namespace}/jobs`)).items
  )
  return { world, journal, log, submit, settled, jobs }
})

const exited = (code: number) => Outcome.cases.Exited.make({ phase: "run", code })

describe("a worker whose only class is a cluster", () => {
  it.live(
    "killed in the middle, or drained: its successor ends the same Job once, with all of its output",
    () =>
      Effect.gen(function*() {
        const { journal, jobs, log, settled, submit, world } = yield* opened
        const script = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done; exit 6"
        const job = jobOf(script, { ttlSeconds: 60 })
        const first = yield* started(world)
        yield* submit(job)
        const running = Effect.gen(function*() {
          for (let round = 0; round < patience(400); round++) {
            if (world.kubelet.running > 0) return
            yield* Effect.sleep(25)
          }
          assert.fail("nothing runs")
        })
        yield* running
        yield* Effect.sleep(600)
        yield* Effect.promise(() => first.end("SIGKILL"))
        const second = yield* started(world)
        yield* Effect.sleep(1200)
        // Given back unrun, its Job left alone.
        yield* Effect.promise(() => second.end("SIGTERM"))
        const third = yield* started(world)
        const settlement = yield* settled(job)
        assert.deepStrictEqual(settlement.outcome, exited(6), third.said)
        const record = yield* journal.get(keyOf(job))
        const output = yield* log.text(keyOf(job), "stdout", 10_000)
        assert.strictEqual(Buffer.from(output).toString(), "1\n2\n3\n4\n5\n6\n7\n8\n", JSON.stringify(record))
        assert.strictEqual((yield* jobs).length, 1)
        assert.deepStrictEqual([...world.kubelet.starts.values()], [1])
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("killed at any moment, again and again: each job has one outcome and one Job", () =>
    Effect.gen(function*() {
      const { jobs, settled, submit, world } = yield* opened
      const all = Array.from({ length: 24 }, (_, index) =>
        jobOf(`echo ${index}; sleep ${(index % 6) / 5}; exit ${index}`, { ttlSeconds: 600 }))
      yield* Effect.forEach(all, submit)
      for (let round = 0; round < 6; round++) {
        const worker = yield* started(world, 6)
        yield* Effect.sleep(200 + round * 170)
        yield* Effect.promise(() =>
          worker.end("SIGKILL")
        )
      }
      yield* started(world, 6)
      const ends = yield* Effect.forEach(all, settled, { concurrency: "unbounded" })
      // Whose attempts all ended with their workers is lost, which is an outcome too.
      const told = ends.map(({ outcome }, index) => outcome._tag === "Lost" ? exited(index) : outcome)
      assert.deepStrictEqual(told, all.map((_, index) => exited(index)))
      assert.isTrue(ends.some(({ attempt }) => attempt > 1))
      assert.isTrue([...world.kubelet.starts.values()].every((times) => times === 1))
      assert.isAtMost((yield* jobs).length, all.length)
      assert.isAtMost(world.kubelet.starts.size, all.length)
    }).pipe(Effect.scoped), 180_000)

  it.live("carries 200 at once in memory that does not grow", () =>
    Effect.gen(function*() {
      const { settled, submit, world } = yield* opened
      const worker = yield* started(world, 200, ["--expose-gc"])
      const wave = Effect.gen(function*() {
        const all = Array.from({ length: 200 }, (_, index) => jobOf(`seq 200; sleep 2; exit ${index % 3}`))
        yield* Effect.forEach(all, submit, { concurrency: 4 })
        const ends = yield* Effect.forEach(all, settled, { concurrency: "unbounded" })
        ends.forEach(({ outcome }, index) => assert.deepStrictEqual(outcome, exited(index % 3)))
        yield* Effect.sleep(1000)
        return yield* Effect.promise(() => worker.memory())
      })
      const first = yield* wave
      const second = yield* wave
      const third = yield* wave
      const MiB = 1024 * 1024
      const shown = [first, second, third].map(({ heapUsed, rss }) =>
        `${Math.round(heapUsed / MiB)}/${Math.round(rss / MiB)}`
      )
      assert.isBelow(third.heapUsed, first.heapUsed + 15 * MiB, shown.join(" "))
      assert.isBelow(third.rss, first.rss + 60 * MiB, shown.join(" "))
      process.stderr.write(`heap/resident after each 200 jobs, MiB: ${shown.join(" ")}\n`)
    }).pipe(Effect.scoped), 150_000)
})
