/**
 * Jobs in emulated machines with a way out, while their workers, VMMs and network plugins are killed at random: each job ends once,
 * and at the end the host has what it had before. JOBS=n (200), SEED=n.
 *
 * What a kill may do. A worker: its jobs are given to the next one, as often as it takes. A VMM with a job in it: this job has failed,
 * and is not tried again, since these jobs ask for one try; without one, its pool makes another. A plugin: the machine that it was
 * run for is given up, and made anew; no job hears of it.
 */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { NAME } from "../../src/layers/intake/Embedded.ts"
import { requestHash } from "../../src/layers/intake/RequestHash.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import { ClassName, FunctionName, JobId, Owner } from "../../src/schemas/Ids.ts"
import { standardRetry, standardTerms } from "../../src/schemas/Terms.ts"
import * as Rig from "../microvm/Rig.ts"
import * as World from "../network/World.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { Instances, more } from "../storm/Holdings.ts"
import { descendants, killFound } from "../storm/Processes.ts"
import { projectEnv } from "../support/Run.ts"
import { patience } from "../support/Slowness.ts"
import { until } from "../worker/until.ts"
import * as Notes from "./Notes.ts"

const JOBS = Number(process.env["JOBS"] ?? 200)
const SEED = Number(process.env["SEED"] ?? Date.now() % 1_000_000)
/** Programs that make and remove networks. */
const PLUGINS = ["ptp", "host-local", "nft", "ip"]

/** Numbers from 0 to 1 that a seed repeats (mulberry32). */
const randomOf = (seed: number) => {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

describe("machines in a storm", () => {
  const state = Jobs.stateDirectory()
  const { env, leases } = World.places(state)
  let world: World.World
  beforeAll(async () => {
    world = await World.World.make()
  }, World.TURN)
  afterAll(async () => {
    Jobs.remove(state)
    await world.end()
  })

  const start = async () => {
    const child = spawn(process.execPath, [join(import.meta.dirname, "worker.ts"), state], {
      env: { ...projectEnv, ...env },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let said = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes: Buffer) => said += bytes.toString())
    await until("the worker up", () => {
      if (child.exitCode !== null) throw new Error(said)
      return said.includes("up\n")
    }, 60_000)
    return { child, said: () => said }
  }
  const withJournal = <A, E>(use: (journal: Journal["Service"]) => Effect.Effect<A, E>): Promise<A> =>
    Effect.runPromise(
      Journal.use(use).pipe(Effect.provide(JournalSqlite.layer({ filename: join(state, "journal.sqlite") })))
    )
  const held = (ids: ReadonlySet<string>) => {
    const { leases: taken, netns, tables, veths } = World.held(leases, [...ids])
    return [...Rig.left(state, [...ids]), ...taken, ...netns, ...tables, ...veths, ...World.chains()]
  }

  it(`${JOBS} jobs, seed ${SEED}`, async () => {
    const random = randomOf(SEED)
    const instances = new Instances([state], 1)
    const before = instances.holdings()
    const seen = new Set<string>()
    let worker = await start()
    const killed = { worker: 0, VMM: 0, plugin: 0 }
    await withJournal((journal) =>
      Effect.forEach(Array.from({ length: JOBS }, (_, index) => index), (index) => {
        const job = {
          id: JobId.make(`job-${index}`),
          owner: Owner.make("local"),
          intake: NAME,
          function: FunctionName.make("command"),
          args: { argv: ["sh", "-c", `echo ${index}; sleep 0.${index % 5}`] },
          limits: {},
          class: ClassName.make("vm")
        }
        const terms = { ...standardTerms, retry: { ...standardRetry, maxAttempts: 1 } }
        return journal.submit({ job, hash: requestHash(job), reply: null }, { terms })
      })
    )
    const endedJobs = async () => {
      const all = await withJournal((journal) => journal.list({ limit: JOBS + 1 }))
      return all.filter((record) => record.state === "ended")
    }
    const kill: Record<keyof typeof killed, () => Promise<boolean>> = {
      worker: async () => {
        const gone = once(worker.child, "exit")
        worker.child.kill("SIGKILL")
        await gone
        worker = await start()
        return true
      },
      // Not the worker's children: the launcher made them.
      VMM: () => {
        const pids = Rig.vmms(Rig.rows(state))
        const pid = pids[Math.floor(random() * pids.length)]
        return Promise.resolve(pid !== undefined && process.kill(pid, "SIGKILL"))
      },
      // In the middle of what it does, which is not long.
      plugin: async () => {
        const roots = new Set([worker.child.pid ?? 0])
        const plugin = descendants(roots).find(({ name }) => PLUGINS.includes(name))
        if (plugin === undefined) return false
        await sleep(30 * random())
        return killFound(plugin)
      }
    }
    const choose = () => {
      const choice = random()
      return choice < 0.25 ? "worker" : choice < 0.6 ? "VMM" : "plugin"
    }
    let victim: keyof typeof killed = choose()
    let nextAt = performance.now() + patience(4000)
    let lookAt = 0
    for (let ended = 0; ended < JOBS;) {
      const now = performance.now()
      if (now >= lookAt) {
        ended = (await endedJobs()).length
        lookAt = performance.now() + 1000
      }
      for (const id of Rig.rows(state)) seen.add(id)
      if (now < nextAt) {
        await sleep(50)
      } else if (await kill[victim]()) {
        killed[victim] += 1
        victim = choose()
        nextAt = performance.now() + patience(2000 + 5000 * random())
      } else {
        // None is there at this moment.
        await sleep(2)
      }
    }
    const gone = once(worker.child, "exit")
    worker.child.kill("SIGTERM")
    await gone
    assert.strictEqual(worker.child.exitCode, 0, worker.said())
    // Restart, janitor: what is left has ten seconds.
    const last = await start()
    const startedAt = performance.now()
    await until("other workers' leavings gone", () => readdirSync(join(state, "instances")).length <= 1, 10_000)
    const sweeping = once(last.child, "exit")
    last.child.kill("SIGTERM")
    await sweeping
    await until(
      "nothing left",
      () => held(seen).length === 0 && more(before, instances.holdings()).length === 0,
      10_000
    )
      .catch((error: unknown) => {
        throw new Error(`${String(error)}: ${[...held(seen), ...more(before, instances.holdings())].join("\n")}`)
      })
    const took = performance.now() - startedAt
    instances.close()
    const ended = await endedJobs()
    const outcomes = Object.groupBy(ended, ({ settlement }) => settlement?.outcome._tag ?? "none")
    const counts = Object.fromEntries(Object.entries(outcomes).map(([name, list]) => [name, list?.length ?? 0]))
    const result = `${JOBS} jobs ${JSON.stringify(counts)}, killed ${JSON.stringify(killed)}, ${seen.size} machines, ` +
      `nothing left after ${Math.round(took)} ms, seed ${SEED}`
    process.stdout.write(`leaks: ${result}\n`)
    assert.strictEqual(new Set(ended.map(({ request }) => request.job.id)).size, JOBS)
    assert.deepStrictEqual(Object.keys(counts).filter((name) => name !== "Exited" && name !== "SandboxFailed"), [])
    const failures = ended.flatMap(({ settlement }) =>
      settlement?.outcome._tag === "SandboxFailed" ? [settlement.outcome.reason] : []
    )
    // A VMM has one job at most.
    assert.isAtMost(failures.length, killed.VMM, [...new Set(failures)].join("\n"))
    for (const reason of failures) assert.match(reason, /its VMM ended/)
    assert.isAbove(counts["Exited"] ?? 0, JOBS / 2)
    for (const { settlement } of ended) {
      if (settlement?.outcome._tag === "Exited") assert.strictEqual(settlement.outcome.code, 0)
    }
    if (JOBS >= 20) { for (const [name, count] of Object.entries(killed)) assert.isAbove(count, 0, name) }
    Notes.add("test/microvmlong/Leaks.test.ts", result)
  }, patience(3_600_000))
})
