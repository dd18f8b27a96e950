/** What a worker has outside itself and its broker, over the world's state: host, ledger, journal, logs. */
import { Clock, Effect, Layer } from "effect"
import { Artefacts } from "../../src/layers/artefacts/Artefacts.ts"
import { Host, HostError } from "../../src/layers/host/Host.ts"
import { Journal, JournalError } from "../../src/layers/journal/Journal.ts"
import * as JournalBackend from "../../src/layers/journal/JournalBackend.ts"
import { type Answer, type Operation, type OperationName, reads } from "../../src/layers/journal/Operation.ts"
import * as Rules from "../../src/layers/journal/Rules.ts"
import { Ledger, type LedgerRow } from "../../src/layers/ledger/Ledger.ts"
import { letGo } from "../../src/layers/ledger/LedgerHold.ts"
import { Log } from "../../src/layers/log/Log.ts"
import { SandboxId } from "../../src/schemas/Ids.ts"
import type { Mortal, World } from "./World.ts"

const layerHost = (world: World, worker: Mortal) =>
  Layer.effect(
    Host,
    Effect.gen(function*() {
      const { instance } = worker
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          // As a real one: the directory stays for the janitor while something is in it.
          worker.isListed = [...world.ledger.values()].some((row) => row.instance === instance)
          worker.isAlive = false
        })
      )
      return Host.of({
        instance,
        paths: { state: "", journal: "", logs: "", artefacts: "", ledger: "", instance: () => "" },
        isAlive: (other) => Effect.sync(() => world.workers.get(other)?.isAlive === true),
        others: Effect.sync(() =>
          [...world.workers.values()].filter((other) => other.isListed && other !== worker).map((other) =>
            other.instance
          )
        ),
        cgroupsOf: () => Effect.succeed([]),
        forget: (other) =>
          world.step(
            worker,
            `forgetting ${other}`,
            Effect.suspend(() => {
              const dead = world.workers.get(other)
              if (dead?.isAlive === true) {
                return Effect.fail(new HostError({ operation: "forget", reason: `${other} is alive`, remedy: "none" }))
              }
              if (dead !== undefined) dead.isListed = false
              return Effect.void
            })
          )
      })
    })
  )

const layerLedger = (world: World, worker: Mortal) => {
  const strike = (row: LedgerRow) =>
    world.step(worker, `striking ${row.id}`, Effect.sync(() => void world.ledger.delete(row.id)))
  const write = Effect.map(Clock.currentTimeMillis, (madeAtMs) => {
    const id = SandboxId.make(`s${world.serial()}`)
    const row: LedgerRow = { id, instance: worker.instance, driver: "oci", madeAtMs: Math.floor(madeAtMs) }
    world.ledger.set(id, row)
    return row
  })
  return Layer.succeed(
    Ledger,
    Ledger.of({
      hold: (_driver, isGone) =>
        Effect.acquireRelease(world.step(worker, "a row", write), (row) => letGo(row, isGone, strike)),
      rows: (instance) =>
        Effect.sync(() =>
          [...world.ledger.values()].filter((row) => instance === undefined || row.instance === instance)
        ),
      strike
    })
  )
}

const away = (operation: string) =>
  new JournalError({ operation, reason: "the disk is full", remedy: "Free some space." })

const note = ({ givenBack }: World, operation: Operation) => {
  if (operation.name === "release") {
    const { key } = operation.input.claim
    givenBack.set(key, (givenBack.get(key) ?? 0) + 1)
  }
}

/** As the SQLite thread does: what has gone there happens, whether or not anybody still waits for the answer. */
const layerJournal = (world: World, worker: Mortal) => {
  const { dice, faults, store, time } = world
  const policy = JournalBackend.policyOf()
  let lastMs = 0

  const perform = <N extends OperationName>(doing: string, operation: Operation<N>) =>
    Effect.callback<Answer<N>, JournalError>((resume) => {
      const { name } = operation
      const isRead = reads.has(name)
      lastMs = Math.max(lastMs, time.now() + (isRead ? 0 : dice.below(4)))
      const isFailing = !isRead && dice.chance(faults().journal)
      let isTakenBack = false
      time.after(worker, lastMs - time.now(), () => {
        if (isTakenBack) return
        if (isFailing || time.now() < world.journalAwayUntilMs) return resume(Effect.fail(away(doing)))
        const answer = Rules.applySync(store, policy, operation)
        note(world, operation as Operation)
        if (!isRead && name !== "renew") {
          const said = JSON.stringify(answer) ?? ""
          world.say(worker, `journal: ${doing}: ${said.slice(0, 120)}`)
        }
        if (isRead) return resume(Effect.succeed(answer))
        time.after(worker, dice.below(3), () => resume(Effect.succeed(answer)))
      })
      return Effect.sync(() => {
        isTakenBack = true
      })
    })
  return Layer.succeed(
    Journal,
    Journal.of(JournalBackend.make((doing, operation) =>
      reads.has(operation.name)
        ? Effect.suspend(() => worker.isAlive ? perform(doing, operation) : Effect.never)
        : world.step(worker, `journal's ${operation.name}`, perform(doing, operation))
    ))
  )
}

const layerLog = (world: World, worker: Mortal) =>
  Layer.succeed(
    Log,
    Log.of({
      open: (key, options) => world.step(worker, "opening a log", world.log.open(key, options)),
      read: world.log.read,
      text: world.log.text,
      remove: world.log.remove,
      prune: world.log.prune
    })
  )

/** What was kept is there for the next worker, as files are; a dead one keeps nothing more. */
const layerArtefacts = (world: World, worker: Mortal) =>
  Layer.succeed(
    Artefacts,
    Artefacts.of({
      ...world.artefacts,
      open: (key) =>
        Effect.map(world.artefacts.open(key), (writer) => ({
          add: (path, content) => world.step(worker, "writing an artefact", writer.add(path, content)),
          keep: world.step(worker, "keeping artefacts", writer.keep)
        }))
    })
  )

export const layer = (world: World, worker: Mortal) =>
  Layer.mergeAll(
    layerLedger(world, worker),
    layerJournal(world, worker),
    layerLog(world, worker),
    layerArtefacts(world, worker)
  ).pipe(
    Layer.provideMerge(layerHost(world, worker))
  )
