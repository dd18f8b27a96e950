/**
 * Jobs in emulated machines while their workers, VMMs and network plugins are killed at random: each job ends once, and at the end
 * the host has what it had before. JOBS=n (200), SEED=n.
 */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { NAME } from "../../src/layers/intake/Embedded.ts"
import { requestHash } from "../../src/layers/intake/RequestHash.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import { ClassName, FunctionName, JobId, Owner } from "../../src/schemas/Ids.ts"
import { standardTerms } from "../../src/schemas/Terms.ts"
import * as Rig from "../microvm/Rig.ts"
import * as World from "../network/World.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { Instances, more } from "../storm/Holdings.ts"
import { descendants, killFound } from "../storm/Processes.ts"
import { projectEnv } from "../support/Run.ts"
import { patience } from "../support/Slowness.ts"
import { until } from "../worker/until.ts"

const JOBS = Number(process.env["JOBS"] ?? 200)
const SEED = Number(process.env["SEED"] ?? Date.now() % 1_000_000)
/** Programs that make networks. */
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
  })
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
    return [...Rig.left(state, [...ids]), ...taken, ...netns, ...tables, ...veths]
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
        return journal.submit({ job, hash: requestHash(job), reply: null }, { terms: standardTerms })
      })
    )
    const endedJobs = async () => {
      const all = await withJournal((journal) => journal.list({ limit: JOBS + 1 }))
      return all.filter((record) => record.state === "ended")
    }
    let next = performance.now() + patience(4000)
    while ((await endedJobs()).length < JOBS) {
      for (const id of Rig.rows(state)) seen.add(id)
      if (performance.now() < next) {
        await new Promise((resolve) => setTimeout(resolve, 50))
        continue
      }
      const found = descendants(new Set([worker.child.pid ?? 0]))
      const choice = random()
      if (choice < 0.35) {
        const gone = once(worker.child, "exit")
        worker.child.kill("SIGKILL")
        await gone
        killed.worker += 1
        worker = await start()
      } else if (choice < 0.7) {
        // Not the worker's children: the launcher made them.
        const pids = Rig.vmms(Rig.rows(state))
        const pid = pids[Math.floor(random() * pids.length)]
        if (pid !== undefined) {
          process.kill(pid, "SIGKILL")
          killed.VMM += 1
        }
      } else {
        const plugins = found.filter(({ name }) => PLUGINS.includes(name))
        const plugin = plugins[Math.floor(random() * plugins.length)]
        if (plugin === undefined) {
          await new Promise((resolve) => setTimeout(resolve, 3))
          continue
        }
        if (killFound(plugin)) killed.plugin += 1
      }
      next = performance.now() + patience(1000 + 4000 * random())
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
    console.log(
      `leaks: ${JOBS} jobs ${JSON.stringify(counts)}, killed ${JSON.stringify(killed)}, ${seen.size} machines, ` +
        `nothing left after ${Math.round(took)} ms, seed ${SEED}`
    )
    assert.strictEqual(new Set(ended.map(({ request }) => request.job.id)).size, JOBS)
    assert.isUndefined(counts["none"])
    const failures = new Set(
      ended.flatMap(({ settlement }) => settlement?.outcome._tag === "SandboxFailed" ? [settlement.outcome.reason] : [])
    )
    assert.isAbove(counts["Exited"] ?? 0, JOBS / 2, [...failures].join("\n"))
  }, patience(3_600_000))
})
