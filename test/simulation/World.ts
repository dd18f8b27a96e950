/** What outlives workers: the broker, the journal's rows, the host with its sandboxes, and what clients were told. */
import { Context, Effect, Layer } from "effect"
import type { AmqpMessage } from "../../src/layers/amqp/Amqp.ts"
import { Artefacts } from "../../src/layers/artefacts/Artefacts.ts"
import * as ArtefactsMemory from "../../src/layers/artefacts/ArtefactsMemory.ts"
import * as FakeKernel from "../../src/layers/cgroup/FakeKernel.ts"
import * as MemoryStore from "../../src/layers/journal/MemoryStore.ts"
import type { Store } from "../../src/layers/journal/Store.ts"
import type { LedgerRow } from "../../src/layers/ledger/Ledger.ts"
import { Log } from "../../src/layers/log/Log.ts"
import * as LogMemory from "../../src/layers/log/LogMemory.ts"
import type { InstanceId } from "../../src/schemas/Ids.ts"
import * as Broker from "./Broker.ts"
import * as Dice from "./Dice.ts"
import * as Sandboxes from "./Sandboxes.ts"
import * as Time from "./Time.ts"

/** A worker's process. It can be made to die at any of its steps: all its touches of the world. */
export interface Mortal extends Time.Party {
  readonly instance: InstanceId
  /** It dies when none are left. */
  steps: number
  /** Its lock is held, or its directory is still there. */
  isListed: boolean
  /** How long it has stalled since it drains, or in all. */
  stalledMs: number
}

/** A broker gives a client up that was silent for so long. */
const HEARTBEATS_MS = 20_000

/** How often what goes wrong: parts of one. */
export interface Faults {
  readonly journal: number
  readonly nack: number
  readonly channelClose: number
  readonly consumerClose: number
  readonly lateConfirm: number
  readonly provisionFails: number
  readonly provisionHangs: number
  readonly diesWarm: number
  readonly diesRunning: number
  readonly deaf: number
  readonly teardownFails: number
  readonly teardownSlow: number
}

export const calm: Faults = {
  journal: 0,
  nack: 0,
  channelClose: 0,
  consumerClose: 0,
  lateConfirm: 0,
  provisionFails: 0,
  provisionHangs: 0,
  diesWarm: 0,
  diesRunning: 0,
  deaf: 0,
  teardownFails: 0,
  teardownSlow: 0
}

export interface World {
  readonly seed: number
  readonly dice: Dice.Dice
  readonly time: Time.Time
  /** Whatever is no worker's. */
  readonly outside: Time.Party
  readonly broker: Broker.Broker
  readonly store: Store<never>
  readonly kernel: FakeKernel.FakeKernel
  readonly sandboxes: Sandboxes.Sandboxes
  readonly ledger: Map<string, LedgerRow>
  readonly workers: Map<InstanceId, Mortal>
  readonly told: Array<AmqpMessage>
  /** How often drained workers gave a claimed job back: these tries do not count. */
  readonly givenBack: Map<string, number>
  /** Until then the journal's disk is full. */
  journalAwayUntilMs: number
  readonly log: Log["Service"]
  readonly artefacts: Artefacts["Service"]
  /** Numbers for names, from 1. */
  readonly serial: () => number
  readonly faults: () => Faults
  setFaults: (faults: Faults) => void
  readonly say: (who: Time.Party, what: string) => void
  /** A promise was broken: the run ends. */
  readonly violate: (what: string) => void
  readonly broken: () => string | undefined
  readonly trace: () => ReadonlyArray<string>
  readonly die: (worker: Mortal, why: string) => void
  /** Its process does nothing for so long. The broker hangs up on it after a while; its sandboxes go on. */
  readonly stall: (worker: Mortal, ms: number) => void
  /** A touch of the world, before or after which the worker may die; the dead touch nothing. */
  readonly step: <A, E, R>(worker: Mortal, name: string, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export const make = (seed: number): World => {
  const dice = Dice.make(seed)
  const time = Time.make(dice)
  const outside: Time.Party = { name: "world", isAlive: true, stalledUntilMs: 0 }
  const lines: Array<readonly [atMs: number, who: string, what: string]> = []
  const told: Array<AmqpMessage> = []
  const workers = new Map<InstanceId, Mortal>()
  let faults = calm
  let serial = 0
  let broken: string | undefined

  const say: World["say"] = ({ name }, what) => void lines.push([time.now(), name, what])
  const violate: World["violate"] = (what) => {
    say(outside, `BROKEN: ${what}`)
    broken ??= what
  }
  const broker = Broker.make({
    time,
    outside,
    onTaken: (message) => {
      told.push(message)
      say(outside, `broker takes ${message.properties?.messageId ?? ""} for ${message.exchange}/${message.routingKey}`)
    },
    say: (what) => say(outside, what)
  })
  const sandboxes = Sandboxes.make({ time, outside, say, violate })

  const die: World["die"] = (worker, why) => {
    if (!worker.isAlive) return
    say(worker, `dies ${why}`)
    worker.isAlive = false
    // The kernel closes its sockets, the watchdog kills its sandboxes within the second.
    time.after(outside, dice.below(20), () => {
      for (const connection of broker.connections()) {
        if (connection.name.startsWith(`${worker.name}/`)) broker.close(connection)
      }
    })
    time.after(outside, dice.between(20, 1000), () => sandboxes.killAll(worker.instance))
  }

  const stall: World["stall"] = (worker, ms) => {
    if (!worker.isAlive || worker.stalledUntilMs > time.now()) return
    say(worker, `stalls for ${ms} ms`)
    worker.stalledUntilMs = time.now() + ms
    worker.stalledMs += ms
    if (ms < HEARTBEATS_MS) return
    time.after(outside, HEARTBEATS_MS, () => {
      for (const connection of broker.connections()) {
        if (connection.name.startsWith(`${worker.name}/`)) broker.cut(connection)
      }
    })
  }

  /** False: it is dead, perhaps just now. */
  const passes = (worker: Mortal, name: string) => {
    if (!worker.isAlive) return false
    worker.steps -= 1
    if (worker.steps <= 0) die(worker, name)
    return worker.isAlive
  }

  return {
    seed,
    dice,
    time,
    outside,
    broker,
    store: MemoryStore.make(),
    kernel: FakeKernel.make("v2"),
    sandboxes,
    ledger: new Map(),
    workers,
    told,
    givenBack: new Map(),
    journalAwayUntilMs: 0,
    // Kept on when its worker has died, as files are.
    log: Context.get(Effect.runSync(Effect.scoped(Layer.build(LogMemory.layerMemory))), Log),
    artefacts: Context.get(Effect.runSync(Effect.scoped(Layer.build(ArtefactsMemory.layerMemory))), Artefacts),
    serial: () => ++serial,
    faults: () => faults,
    setFaults: (next) => {
      faults = next
    },
    say,
    violate,
    broken: () => broken,
    trace: () => lines.map(([atMs, who, what]) => `${Time.clockTime(atMs)} ${who}: ${what}`),
    die,
    stall,
    step: (worker, name, effect) =>
      Effect.suspend(() => {
        if (!passes(worker, `before ${name}`)) return Effect.never
        return Effect.flatMap(
          effect,
          (answer) => passes(worker, `after ${name}`) ? Effect.succeed(answer) : Effect.never
        )
      })
  }
}
