/**
 * A storm: real workers, real sandboxes, a real broker, thousands of jobs of both dialects, and at random times something
 * is killed. At its end every job has exactly one outcome, none ran twice at once, and nothing is left of anybody.
 *
 *     STORM_SECONDS=600 STORM_JOBS=2000 STORM_SEED=7 STORM_WORKERS=3 STORM_GAP_MS=4000 npm run storm
 *
 * STORM_APART=1 gives each worker a state directory of its own, as on hosts of their own.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { setTimeout as pause } from "node:timers/promises"
import { BrokerProcess } from "../support/BrokerProcess.ts"
import { pick, type Random, randomOf } from "../support/Random.ts"
import { Instances, more } from "./Holdings.ts"
import { descendants, type Found, killFound } from "./Processes.ts"
import { Statuses } from "./Statuses.ts"
import { makeJobs, type StormJob } from "./StormJobs.ts"
import { StormWorker } from "./StormWorkers.ts"

const setting = (name: string, otherwise: number): number => {
  const value = Number(process.env[name] ?? otherwise)
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`${name} is no whole number`)
  return value
}

const seconds = setting("STORM_SECONDS", 600)
const count = setting("STORM_JOBS", 2000)
const places = setting("STORM_WORKERS", 3)
const seed = setting("STORM_SEED", 1 + Math.floor(Math.random() * 1_000_000))
/** Milliseconds between two acts, at most: half of it in the mean. */
const gapMs = setting("STORM_GAP_MS", 4000)
/** Each worker has a state directory of its own, as on hosts of their own. */
const apart = setting("STORM_APART", 0) === 1
/** After the storm: leases of 30 s, tries again, and what waits in queues. */
const calmLimitMs = 180_000
const noteLimit = 200

/** The last things that happened, for whoever asks what went wrong. */
class Ring {
  private readonly began = performance.now()
  private readonly lines: Array<string> = []

  readonly note = (text: string): void => {
    this.lines.push(`${((performance.now() - this.began) / 1000).toFixed(3).padStart(8)} s  ${text}`)
    if (this.lines.length > noteLimit) this.lines.shift()
  }

  get text(): string {
    return this.lines.join("\n")
  }
}

const acts = ["worker", "replace", "launcher", "watchdog", "crun", "guest", "connection"] as const
type Act = (typeof acts)[number]

interface Field {
  readonly workers: ReadonlyArray<StormWorker>
  readonly broker: BrokerProcess
  readonly random: Random
}

const names: Partial<Record<Act, string>> = { launcher: "launch", watchdog: "watchdog", crun: "crun", guest: "guest" }

/** Something of that name among a worker's own processes; of sandboxes mostly one with a program in it. */
const victim = ({ random, workers }: Field, act: Act): Found | undefined => {
  const roots = new Set(workers.flatMap(({ pid }) => (pid === 0 ? [] : [pid])))
  if (act === "worker") return pick(random, descendants(new Set([process.pid])).filter(({ pid }) => roots.has(pid)))
  const all = descendants(roots)
  const parents = new Set(all.map(({ parent }) => parent))
  const busy = new Set(
    all.flatMap(({ name, parent, pid }) => name === "guest" && parents.has(pid) ? [pid, parent] : [])
  )
  const named = all.filter(({ name }) => name === names[act])
  const preferred = named.filter(({ pid }) => busy.has(pid))
  return pick(random, preferred.length > 0 && random(4) > 0 ? preferred : named)
}

/** Cuts one of the workers' connections without a word. The storm's own has no name. */
const cut = async ({ broker, random }: Field): Promise<string> =>
  broker.eval(
    `Workers = [Pid || Pid <- rabbit_networking:connections(),
                       Info <- [catch rabbit_networking:connection_info(Pid, [client_properties])], is_list(Info),
                       lists:keymember(<<"connection_name">>, 1, proplists:get_value(client_properties, Info))],
     case Workers of
       [] -> <<"nobody's">>;
       _ -> Pid = lists:nth(1 + ${random(1000)} rem length(Workers), lists:sort(Workers)),
            exit(Pid, kill), list_to_binary(pid_to_list(Pid))
     end.`
  ).catch(String)

const perform = async (field: Field, act: Act): Promise<string> => {
  if (act === "connection") return `cut connection ${await cut(field)}`
  if (act === "replace") {
    const worker = pick(field.random, field.workers)
    worker?.replace()
    return `asked ${worker?.options.name} (${worker?.pid}) to end`
  }
  const found = victim(field, act)
  if (found === undefined) return `no ${act} to kill`
  return `${killFound(found) ? "killed" : "missed"} ${act} ${found.pid} (child of ${found.parent})`
}

/** Rows of a journal that say something is still to be done. */
const unfinished = (state: string): ReadonlyArray<string> => {
  const database = new DatabaseSync(join(state, "journal.sqlite"), { readOnly: true })
  try {
    const jobs = database.prepare("select id, state, instance from jobs where state <> 'ended'").all()
    const owed = database.prepare("select count(*) as owed from outbox").get()
    return [
      ...jobs.map((row) => `${state}: the journal has ${JSON.stringify(row)}`),
      ...Number(owed?.["owed"]) > 0 ? [`${state}: the outbox has ${String(owed?.["owed"])} messages`] : []
    ]
  } finally {
    database.close()
  }
}

const queued = async (broker: BrokerProcess): Promise<number> =>
  Number(
    await broker.eval(
      `lists:sum([begin
         Info = rabbit_amqqueue:info(Queue, [messages]), proplists:get_value(messages, Info)
       end || Queue <- rabbit_amqqueue:list(),
              element(4, amqqueue:get_name(Queue)) =/= <<"stoker.dead">>]).`
    )
  )

/** Until it holds; false when the time is over. */
const holds = async (limitMs: number, check: () => boolean | Promise<boolean>): Promise<boolean> => {
  const end = performance.now() + limitMs
  while (!(await check())) {
    if (performance.now() > end) return false
    await pause(50)
  }
  return true
}

const send = async (statuses: Statuses, jobs: ReadonlyArray<StormJob>): Promise<void> => {
  const began = performance.now()
  for (const job of jobs.toSorted((a, b) => a.atMs - b.atMs)) {
    const early = job.atMs - (performance.now() - began)
    if (early > 0) await pause(early)
    statuses.send(job)
  }
}

const blow = async (field: Field, ring: Ring): Promise<ReadonlyMap<Act, number>> => {
  const done = new Map<Act, number>()
  const end = performance.now() + seconds * 1000
  for (;;) {
    await pause(200 + field.random(gapMs))
    if (performance.now() > end) return done
    const act = pick(field.random, acts) ?? "worker"
    ring.note(await perform(field, act))
    done.set(act, (done.get(act) ?? 0) + 1)
  }
}

const storm = async (folder: string, ring: Ring, broker: BrokerProcess): Promise<ReadonlyArray<string>> => {
  const random = randomOf(seed)
  const url = `amqp://guest:guest@127.0.0.1:${broker.port}`
  const statuses = await Statuses.connect(url)
  // One journal keeps a job from running twice at once: workers of a host share it unless told otherwise.
  const states = Array.from({ length: apart ? places : 1 }, (_, n) => join(folder, `state-${n + 1}`))
  for (const state of states) mkdirSync(state, { mode: 0o700 })
  const instances = new Instances(states, broker.port)
  const before = instances.holdings()
  const workers = Array.from({ length: places }, (_, n) =>
    new StormWorker({
      name: `worker ${n + 1}`,
      state: states[n % states.length] ?? "",
      url,
      logPath: join(folder, `worker-${n + 1}.log`),
      slots: 3,
      note: ring.note
    }))
  try {
    if (!(await holds(60_000, () => workers.every(({ isReady }) => isReady)))) {
      throw new Error("the workers did not start")
    }
    const jobs = makeJobs(count, seconds * 1000, random, `s${seed}`)
    const [done] = await Promise.all([blow({ workers, broker, random }, ring), send(statuses, jobs)])
    ring.note("the storm is over")
    const isTold = await holds(
      calmLimitMs,
      async () => jobs.every(({ id }) => statuses.endings.has(id)) && (await queued(broker)) === 0
    )
    ring.note(isTold ? "every job was told" : `not every job was told within ${calmLimitMs} ms`)
    const codes = await Promise.all(workers.map((worker) => worker.end()))
    let left = more(before, instances.holdings())
    await holds(10_000, () => (left = more(before, instances.holdings())).length === 0)
    const { ours, own } = statuses.tally(jobs)
    const tally = [...done].map(([act, times]) => `${act} ${times}`).join(", ")
    console.log(
      `storm: ${count} jobs, ${own} ended by themselves, ${ours} by our kills; ${instances.seen} workers lived`
    )
    console.log(`storm: ${tally}`)
    // Without a common journal nobody knows that another worker has a job, or had it: at least once is what holds then.
    const rivals = [...statuses.rivals(jobs), ...states.flatMap(unfinished)]
    if (apart) console.log(`storm: without a common journal, ${rivals.length} times:\n  ${rivals.join("\n  ")}`)
    return [
      ...statuses.faults(jobs),
      ...apart ? [] : rivals,
      ...await queued(broker) === 0 ? [] : [`${await queued(broker)} messages are left at the broker`],
      ...codes.every((code) => code === 0) ? [] : [`the last workers ended with ${codes.join(", ")}`],
      ...left.map((line) => `left behind: ${line}`)
    ]
  } finally {
    for (const worker of workers) worker.abandon()
    instances.close()
    await statuses.close()
  }
}

const folder = mkdtempSync(join(tmpdir(), "stoker-storm-"))
const ring = new Ring()
console.log(`storm: ${count} jobs in ${seconds} s on ${places} workers, STORM_SEED=${seed}`)
const broker = await BrokerProcess.start()
let faults: ReadonlyArray<string> = []
try {
  faults = await storm(folder, ring, broker)
} catch (error) {
  faults = [`the storm itself broke: ${error instanceof Error ? error.stack ?? error.message : String(error)}`]
} finally {
  broker.dispose()
}
if (faults.length === 0) {
  rmSync(folder, { recursive: true, force: true })
  console.log("storm: passed")
} else {
  console.log(`storm: what happened, the last ${noteLimit}:\n${ring.text}`)
  console.log(`storm: FAILED, STORM_SEED=${seed}, the workers' logs and state are in ${folder}:`)
  for (const fault of faults.slice(0, 50)) console.log(`  ${fault}`)
}
process.exit(faults.length === 0 ? 0 : 1)
