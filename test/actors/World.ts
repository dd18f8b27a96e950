/**
 * A small world for the job actor: what survives a worker's death (journal, broker, what was told) and what does not.
 * A worker can be made to die at any named step; what it was doing then never goes on.
 */
import { Context, Deferred, Effect, Exit, Layer, Scope, Stream } from "effect"
import * as Desk from "../../src/actors/Desk.ts"
import * as Dispatcher from "../../src/actors/Dispatcher.ts"
import * as Keeper from "../../src/actors/Keeper.ts"
import * as Outbox from "../../src/actors/Outbox.ts"
import { ArtefactError, Artefacts } from "../../src/layers/artefacts/Artefacts.ts"
import * as ArtefactsMemory from "../../src/layers/artefacts/ArtefactsMemory.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import { Emitters } from "../../src/layers/emitter/Emitter.ts"
import * as EmitterTest from "../../src/layers/emitter/EmitterTest.ts"
import { Executor, type RunEvent } from "../../src/layers/executor/Executor.ts"
import * as ExecutorTest from "../../src/layers/executor/ExecutorTest.ts"
import { finished, printing, type Script } from "../../src/layers/executor/ExecutorTest.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import { Host } from "../../src/layers/host/Host.ts"
import type { Delivery } from "../../src/layers/intake/Intake.ts"
import { Journal, JournalError } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import * as LedgerMemory from "../../src/layers/ledger/LedgerMemory.ts"
import { Log, LogError, type LogWriter } from "../../src/layers/log/Log.ts"
import { FunctionName, InstanceId, IntakeName, JobId, keyText, Owner } from "../../src/schemas/Ids.ts"
import { type Job, keyOf } from "../../src/schemas/Job.ts"
import type { JobEvent } from "../../src/schemas/JobEvent.ts"
import type { LimitsRequest } from "../../src/schemas/Limits.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import type { WorkerConfig } from "../../src/schemas/WorkerConfig.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { say } from "../support/Say.ts"

export { finished, type Script } from "../../src/layers/executor/ExecutorTest.ts"

export const exited = (code: number) => Outcome.cases.Exited.make({ phase: "run", code })

export const ready: RunEvent = { _tag: "Ready", place: "/fake", provisionMicros: 1000 }

export const output = (text: string): RunEvent => ({
  _tag: "Output",
  stream: "stdout",
  bytes: new TextEncoder().encode(text)
})

/** Prints a line and exits with 0. */
export const hello = printing("hello\n")

/** Runs until it is stopped, and then for the grace. */
export const endless: Script = (_assignment, stop) =>
  Stream.concat(
    Stream.make(ready),
    Stream.fromEffect(Effect.gen(function*() {
      const request = yield* Deferred.await(stop)
      yield* Effect.sleep(request.graceMs)
      return finished(Outcome.cases.Stopped.make({ reason: request.reason }))
    }))
  )

/** The steps at which a worker can be made to die. */
export interface World {
  readonly journal: JournalMemory.JournalState
  /** What was kept, by whichever worker. */
  readonly artefacts: Artefacts["Service"]
  /** Everything the outside has been told, in order, by job. */
  readonly told: Array<{ readonly id: string; readonly event: JobEvent }>
  /** Messages the broker still holds. */
  readonly unacked: Map<string, Job>
  readonly dead: Array<{ readonly job: Job; readonly reason: string }>
  /** Names of the steps passed, in order. */
  readonly steps: Array<string>
  /** Runs begun; runs under way now; the most that were under way for one job at once. */
  readonly begun: Array<string>
  readonly running: Map<string, number>
  overlap: number
  /** Scopes of runs that are open: sandboxes held. */
  held: number
}

export const makeWorld = (): World => ({
  journal: JournalMemory.makeState(),
  artefacts: Context.get(
    Effect.runSync(Effect.scoped(Layer.build(Layer.fresh(ArtefactsMemory.layerMemory)))),
    Artefacts
  ),
  told: [],
  unacked: new Map(),
  dead: [],
  steps: [],
  begun: [],
  running: new Map(),
  overlap: 0,
  held: 0
})

export interface WorkerOptions {
  readonly name: string
  readonly script?: Script
  /** The worker dies at this many steps. */
  readonly diesAt?: number
  readonly config?: Partial<WorkerConfig>
  /** Closing a run's scope does this. */
  readonly release?: Effect.Effect<void>
  /** How many times each operation fails before it works. */
  readonly journalFails?: number
  readonly logFails?: boolean
  /** Where artefacts cannot be written. */
  readonly artefactsFail?: "artefact" | "keep"
  /** Other workers of this host whose locks are held. */
  readonly alive?: ReadonlyArray<string>
  /** Happens while the outcome is being written down. */
  readonly settling?: Effect.Effect<unknown>
  /** Happens when it has been written down and before anybody knows. */
  readonly settled?: Effect.Effect<unknown>
  /** A failing emitter's confirmation never comes while this is open. */
  readonly confirm?: Effect.Effect<void>
  /** Whether no job waits for the emitter. */
  readonly detached?: boolean
}

export const makeJob = (id: string, limits: LimitsRequest = {}): Job => ({
  id: JobId.make(id),
  owner: Owner.make("tester"),
  intake: IntakeName.make("test"),
  function: FunctionName.make("say"),
  args: { word: "hello" },
  limits
})

/** A worker in that world. `died` is done when it has reached its last step; nothing of it moves from then on. */
export const makeWorker = Effect.fnUntraced(function*(world: World, options: WorkerOptions) {
  const died = yield* Deferred.make<void>()
  const instance = InstanceId.make(options.name)
  let left = options.diesAt ?? Number.POSITIVE_INFINITY
  let over = false

  /** A place where the worker may die: what follows is never reached, and nobody else of it goes on either. */
  const step = (name: string): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (over) return Effect.never
      world.steps.push(name)
      left -= 1
      if (left > 0) return Effect.void
      over = true
      return Effect.andThen(Deferred.succeed(died, undefined), Effect.never)
    })
  const around = <A, E, R>(name: string, effect: Effect.Effect<A, E, R>) =>
    Effect.andThen(step(`before ${name}`), Effect.tap(effect, () => step(`after ${name}`)))

  let failures = options.journalFails ?? 0
  const journal = Layer.effect(
    Journal,
    Effect.map(Journal, (real) => {
      const flaky = <A, E>(name: string, effect: Effect.Effect<A, E>): Effect.Effect<A, E | JournalError> =>
        Effect.suspend((): Effect.Effect<A, E | JournalError> =>
          failures-- > 0
            ? Effect.fail(new JournalError({ operation: name, reason: "the disk is full", remedy: "Free some space." }))
            : around(name, effect)
        )
      return Journal.of({
        ...real,
        claim: (request, claim) => flaky("claim", real.claim(request, claim)),
        settle: (claim, settlement, messages) =>
          flaky(
            "settle",
            (options.settling ?? Effect.void).pipe(
              Effect.andThen(real.settle(claim, settlement, messages)),
              Effect.tap(() => options.settled ?? Effect.void)
            )
          ),
        told: (rows) => flaky("told", real.told(rows))
      })
    })
  ).pipe(Layer.provide(JournalMemory.layer(world.journal)))

  const emitter = EmitterTest.make({
    ...(options.detached === undefined ? {} : { detached: options.detached }),
    tells: (event) => event._tag !== "PhaseStarted" && event._tag !== "PhaseEnded",
    beforeSend: (event) => step(`before send ${event._tag}`),
    onSent: ({ id }, event) => void world.told.push({ id, event }),
    confirm: (event) => options.confirm ?? step(`before confirm ${event._tag}`)
  })

  const scripted: Script = (assignment, stop) => {
    const key = keyText(keyOf(assignment.job))
    const begin = Effect.gen(function*() {
      yield* step("before start")
      world.begun.push(key)
      world.running.set(key, (world.running.get(key) ?? 0) + 1)
      world.overlap = Math.max(world.overlap, world.running.get(key) ?? 0)
    })
    return Stream.concat(
      Stream.fromEffectDrain(begin),
      Stream.tap((options.script ?? hello)(assignment, stop), (event) => step(`before ${event._tag}`))
    )
  }
  const executor = Layer.effect(
    Executor,
    Effect.map(Executor, (fake) =>
      Executor.of({
        ...fake,
        start: Effect.fnUntraced(function*(assignment) {
          const key = keyText(keyOf(assignment.job))
          yield* Effect.acquireRelease(
            Effect.sync(() => world.held += 1),
            () =>
              Effect.sync(() => {
                // A dead worker runs no finalizers.
                if (over) return
                world.held -= 1
                world.running.set(key, (world.running.get(key) ?? 1) - 1)
              })
          )
          if (options.release !== undefined) yield* Effect.addFinalizer(() => options.release ?? Effect.void)
          return yield* fake.start(assignment)
        })
      }))
  ).pipe(Layer.provide(ExecutorTest.layerTest(scripted)))

  const logError = new LogError({ operation: "append", reason: "the disk is full", remedy: "Free some space." })
  const log = Log.of({
    open: () =>
      Effect.as(
        step("before log open"),
        {
          append: () => options.logFails === true ? Effect.fail(logError) : Effect.void,
          produced: () => 0,
          end: around("log end", Effect.succeed([]))
        } satisfies LogWriter
      ),
    read: () => Effect.die("not read here"),
    text: () => Effect.die("not read here"),
    remove: () => Effect.void,
    prune: () => Effect.succeed(0)
  })

  const noRoom = new ArtefactError({ operation: "write", reason: "the disk is full", remedy: "Free some space." })
  const artefacts = Artefacts.of({
    ...world.artefacts,
    open: (key) =>
      Effect.map(world.artefacts.open(key), (writer) => ({
        add: (path, content) =>
          options.artefactsFail === "artefact" && path === "fails"
            ? Effect.fail(noRoom)
            : around("artefact", writer.add(path, content)),
        keep: options.artefactsFail === "keep" ? Effect.fail(noRoom) : around("keep", writer.keep)
      }))
  })

  const host = Host.of({
    instance,
    paths: { state: "", journal: "", logs: "", artefacts: "", ledger: "", instance: () => "" },
    isAlive: (other) => Effect.succeed(options.alive?.includes(other) ?? false),
    others: Effect.succeed([]),
    cgroupsOf: () => Effect.succeed([]),
    forget: () => Effect.void
  })

  const layers = Dispatcher.layer.pipe(
    Layer.provideMerge(Layer.mergeAll(Outbox.layer, Desk.layer)),
    Layer.provideMerge(Layer.mergeAll(
      journal,
      Settings.layer({ ...standardConfig, ...options.config }),
      Functions.layer([say]),
      Layer.succeed(Emitters, [emitter]),
      executor,
      Layer.succeed(Log, log),
      Layer.succeed(Artefacts, artefacts),
      Layer.provideMerge(LedgerMemory.layerMemory, Layer.succeed(Host, host))
    ))
  )
  // Not closed when it dies: a dead worker runs no finalizers.
  const scope = yield* Scope.make()
  const context = yield* Layer.buildWithScope(layers, scope)
  const dispatcher = yield* Effect.provideContext(Dispatcher.Dispatcher, context)
  const outbox = yield* Effect.provideContext(Outbox.Outbox, context)

  /** Hands over a message of the broker; acking it takes it from the broker. */
  const deliver = (job: Job, hash = "one", more: Partial<Delivery> = {}) => {
    const key = keyText(keyOf(job))
    world.unacked.set(key, job)
    const settled = (name: string, act: () => void) => Effect.andThen(step(`before ${name}`), Effect.sync(act))
    const delivery: Delivery = {
      job,
      hash,
      reply: null,
      redelivered: false,
      ack: settled("ack", () => world.unacked.delete(key)),
      reject: (reason) =>
        settled("reject", () => {
          world.dead.push({ job, reason })
          world.unacked.delete(key)
        }),
      giveBack: Effect.void,
      ...more
    }
    return dispatcher.deliver(delivery)
  }
  return {
    deliver,
    died: Deferred.await(died),
    stop: (job: Job, graceMs = 0) => dispatcher.stop(keyOf(job), { reason: "enough", graceMs }),
    // The outbox strikes off what was told a moment later.
    idle: Effect.andThen(dispatcher.idle, Effect.repeat(Effect.yieldNow, { times: 20 })),
    abort: dispatcher.abort,
    sweep: outbox.sweep,
    /** Renews claims for ever. */
    keep: Effect.provideContext(Keeper.rounds, context),
    journal: yield* Effect.provideContext(Journal, context),
    desk: yield* Effect.provideContext(Desk.Desk, context),
    close: Scope.close(scope, Exit.void)
  }
})

/** Names of what was told of a job, first occurrences only: what a receiver that drops repeats sees. */
export const toldOnce = (world: World, job: Job): ReadonlyArray<string> => {
  const seen = new Set<string>()
  return world.told
    .filter(({ event }) => keyText(event.key) === keyText(keyOf(job)))
    .filter(({ id }) => !seen.has(id) && seen.add(id))
    .map(({ event }) => event._tag)
}

export const outcomes = (world: World, job: Job): ReadonlyArray<string> => [
  ...new Set(
    world.told.flatMap(({ event }) =>
      event._tag === "Ended" && keyText(event.key) === keyText(keyOf(job)) ? [JSON.stringify(event.outcome)] : []
    )
  )
]
