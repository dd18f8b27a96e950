/** A day of a few workers: busy shifts and quiet hours, with everything that can go wrong, from one seed. */
import { deadTopology, defaultDeadQueue } from "../../src/layers/deadletters/Keeping.ts"
import { defaultTargets, exchangeTopology } from "../../src/layers/emitter/CodeBenchMessages.ts"
import { eventsTopology } from "../../src/layers/emitter/StokerMessages.ts"
import { controlTopology, jobsTopology, queueOf } from "../../src/layers/intake/StokerTopology.ts"
import { answerOf } from "../../src/layers/journal/Rules.ts"
import { standardPool } from "../../src/schemas/PoolConfig.ts"
import { priorities } from "../../src/schemas/Terms.ts"
import { standardClass, standardConfig, type WorkerConfig } from "../../src/schemas/WorkerConfig.ts"
import * as Clients from "./Clients.ts"
import type { Dice } from "./Dice.ts"
import * as Promises from "./Promises.ts"
import * as Worker from "./Worker.ts"
import { calm, type Faults, make as makeWorld, type World } from "./World.ts"

const SECOND = 1000
const HOUR = 3_600_000

/** Which troubles a day has, and how bad they are: most days have a few. */
const troubles = (dice: Dice): Faults => {
  const some = (part: number, most: number) => dice.chance(part) ? most * (dice.below(100) / 100) : 0
  return {
    journal: some(0.3, 0.1),
    nack: some(0.2, 0.1),
    channelClose: some(0.3, 0.05),
    consumerClose: some(0.3, 0.05),
    lateConfirm: some(0.5, 0.3),
    provisionFails: some(0.4, 0.3),
    provisionHangs: some(0.2, 0.1),
    diesWarm: some(0.3, 0.3),
    diesRunning: some(0.4, 0.2),
    deaf: some(0.2, 0.3),
    teardownFails: some(0.3, 0.3),
    teardownSlow: some(0.3, 0.3)
  }
}

const configOf = (dice: Dice, maxAttempts: number): WorkerConfig => {
  const slots = dice.between(1, 3)
  const pool = { ...standardPool, minimum: dice.below(2), maximum: dice.between(1, 3), maxAgeMs: 60_000 }
  return {
    ...standardConfig,
    slots,
    waiting: dice.below(5),
    maxAttempts,
    drainMs: dice.pick([0, 1000, 5000, 10_000]),
    leaseMs: dice.pick([6000, 30_000]),
    budget: { sandboxes: slots + dice.below(3) },
    classes: [dice.chance(0.7) ? { ...standardClass("oci", "oci"), pool } : standardClass("oci", "oci")]
  }
}

/** What clients of a broker find there before the first worker. */
const declareAll = ({ broker }: World) => {
  broker.declare({
    exchanges: [{ name: "jobs_ex", type: "direct" }],
    queues: [
      { name: "jobs_q" },
      { name: "jobs" },
      { name: "client.replies" },
      { name: "client.answers" },
      { name: "client.events" },
      { name: "client.statuses" }
    ],
    bindings: [{ exchange: "jobs_ex", queue: "jobs_q", routingKey: "jobs_rk" }]
  })
  for (const level of priorities) broker.declare(jobsTopology(queueOf(level)))
  for (const topology of [eventsTopology, controlTopology, exchangeTopology(defaultTargets)]) broker.declare(topology)
  broker.declare(deadTopology(defaultDeadQueue))
}

export interface DayOptions {
  /** Busy times of the day. */
  readonly shifts: number
  /** Milliseconds a shift takes at most. */
  readonly shiftMs: number
}

export const run = (seed: number, options: DayOptions): World => {
  const world = makeWorld(seed)
  const { broker, dice, outside, time } = world
  const all: Array<Worker.SimulatedWorker> = []
  const alive = () => all.filter(({ mortal }) => mortal.isAlive)
  const clients = Clients.make(world, alive)
  const maxAttempts = dice.between(2, 3)
  const isBroken = () => world.broken() !== undefined
  const pass = (ms: number) => time.pass(ms, isBroken)

  const isServed = () => alive().some(({ drainedAtMs, embedded }) => embedded && drainedAtMs === undefined)
  const begin = (steps = Infinity) => {
    const embedded = !isServed() || dice.chance(0.5)
    all.push(Worker.start(world, { config: configOf(dice, maxAttempts), embedded, steps }))
  }
  /** Some die at a random step of theirs. */
  const beginMortal = () => begin(dice.chance(0.5) ? dice.between(1, 400) : Infinity)

  const someone = () => {
    const now = alive()
    return now.length === 0 ? undefined : now[dice.below(now.length)]
  }
  const restartBroker = () => {
    world.say(outside, "the broker stops")
    broker.stop()
    time.after(outside, dice.between(50, 4000), () => {
      world.say(outside, "the broker is back")
      broker.start()
    })
  }
  const block = () => {
    world.say(outside, "the broker has an alarm")
    broker.block(true)
    time.after(outside, dice.between(100, 6000), () => broker.block(false))
  }
  const cut = () => {
    const connections = broker.connections()
    const connection = connections[dice.below(connections.length)]
    if (connection === undefined) return
    world.say(outside, `the connection ${connection.name} is cut`)
    broker.cut(connection)
  }
  const event = () => {
    const what = dice.below(100)
    if (what < 20) {
      const victim = someone()
      if (victim !== undefined) world.die(victim.mortal, "at any time")
    } else if (what < 45) someone()?.drain()
    else if (what < 65) cut()
    else if (what < 75) restartBroker()
    else if (what < 85) block()
    else if (what < 90) world.journalAwayUntilMs = time.now() + dice.between(100, 3000)
    else if (what < 95) {
      const victim = someone()
      // Often beyond its leases.
      if (victim !== undefined) world.stall(victim.mortal, dice.between(100, 3 * victim.config.leaseMs))
    }
    if (alive().length < 3 && dice.chance(0.6)) beginMortal()
  }

  const shift = () => {
    world.setFaults(troubles(dice))
    for (let n = dice.between(1, 3); n > 0; n--) beginMortal()
    const lengthMs = dice.between(Math.floor(options.shiftMs / 4), options.shiftMs)
    const burstMs = dice.between(1, lengthMs)
    for (let n = dice.between(4, 16); n > 0; n--) time.after(outside, dice.below(burstMs), clients.act)
    for (let n = dice.below(6); n > 0; n--) time.after(outside, dice.below(lengthMs), event)
    pass(lengthMs)
  }

  const drainAll = () => {
    for (const worker of all) worker.drain()
    time.pass(120 * SECOND, () => isBroken() || alive().length === 0)
    if (alive().length > 0) world.violate(`${alive().map(({ mortal }) => mortal.name).join(", ")} did not end`)
  }

  /** What is not done, for people. */
  const open = () => [
    ...broker.left().map(({ name, ready, unacked }) =>
      `${name} ${ready}+${unacked} (${broker.heldIn(name).join(" ")})`
    ),
    ...answerOf(world.store.list({ limit: 1_000_000 })).flatMap(({ key, state }) =>
      state === "ended" ? [] : [`${key} ${state}`]
    ),
    ...answerOf(world.store.owed(3)).map(({ id }) => `owed ${id}`)
  ]
  /** Work that only waits for its time lies in the wait queues. */
  const busy = () => {
    const queues = broker.left().map(({ name }) => name)
    const isDone = queues.every((name) => /^(client\.|job_status_|stoker\.(dead|wait\.))/.test(name)) &&
      answerOf(world.store.owed(1)).length === 0 &&
      answerOf(world.store.list({ limit: 1_000_000 })).every(({ state, instance }) =>
        state === "ended" || (state === "running" && instance === null)
      )
    return !isDone
  }
  const waiting = () => broker.left().some(({ name }) => name.startsWith("stoker.wait."))

  /** No more trouble: what is left is done now, however long it still has to wait. */
  const finish = () => {
    world.setFaults(calm)
    for (const { mortal } of all) mortal.steps = Infinity
    if (!broker.isUp()) broker.start()
    broker.block(false)
    world.journalAwayUntilMs = 0
    // Who stalls goes on within that.
    pass(90 * SECOND)
    // What clients could not publish while there was an alarm comes now.
    pass(2 * SECOND)
    for (let turn = 0; turn < 200 && !isBroken(); turn++) {
      if (!isServed()) begin()
      for (let step = 0; step < 240 && !isBroken() && busy(); step++) pass(SECOND)
      if (isBroken()) return
      if (busy()) return world.violate(`the work does not end: ${open().join(", ")}`)
      if (!waiting()) break
      drainAll()
      for (let hour = 0; hour < 1000 && !busy(); hour++) pass(60 * SECOND)
    }
    // A last janitor's round: what others could not remove is due now.
    drainAll()
    begin()
    pass(2 * SECOND)
    drainAll()
  }

  declareAll(world)
  for (let n = 0; n < options.shifts && !isBroken(); n++) {
    shift()
    if (dice.chance(0.5)) continue
    for (const worker of alive()) {
      if (dice.chance(0.7)) worker.drain()
      else world.die(worker.mortal, "at the end of a shift")
    }
    pass(60 * SECOND)
    if (alive().length === 0) pass(dice.between(1, Math.floor((24 * HOUR) / options.shifts)))
  }
  if (!isBroken()) finish()
  pass(5 * SECOND)
  if (!isBroken()) Promises.check(world, clients, maxAttempts)
  return world
}
