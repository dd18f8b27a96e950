/**
 * A worker's `Control` that also knows of the other workers at its broker: status, stop and output of a job that one of
 * them has are asked there. For doors; who answers the others' questions keeps the worker's own `Control`, or they would
 * ask each other in a circle. Whose job it may be is for the door to say: keys name owners, and the worker's broker user
 * may name any.
 */
import { Effect, Layer, Option } from "effect"
import type { StokerJobView } from "../../schemas/dialects/StokerControl.ts"
import { FunctionName, type InstanceId, JobId, type JobKey, keyText, Owner } from "../../schemas/Ids.ts"
import { keyOf } from "../../schemas/Job.ts"
import { StokerAmqpClient } from "../amqpclient/StokerAmqpClient.ts"
import { JobCursor, type JobRecord, type JobsWanted, type JournalError, type ListedJob } from "../journal/Journal.ts"
import { LogNotFound, type LogSlice, type ReadOptions } from "../log/Log.ts"
import { monotonicMs } from "../Now.ts"
import { Control, type JobNotFound, WorkerAway } from "./Control.ts"

export interface ControlBrokeredOptions {
  /** Our own, whose jobs need not be asked for. */
  readonly instance: InstanceId
  /** Whether others at the broker have journals of their own, whose jobs belong into a list. */
  readonly listsOthers: boolean
}

/** How long others may take to say what they have. */
const LIST_WITHIN = "500 millis"
/** A worker that dies while a reader waits there is missed after this and twice the client's time to answer. */
const LONGEST_WAIT_MS = 2000
/** Between two questions that were answered at once, although they were to wait. */
const PAUSE_MS = 200
/** Most bytes one question may ask for. */
const MOST_BYTES = 4 * 1024 * 1024
/** Jobs whose workers are remembered. */
const REMEMBERED = 10_000
/** How often a job may have moved to another worker while it is being stopped. */
const MOVES = 5
/** Behind no job at all. */
const FIRST = JobCursor.make("zzzzzzzzzz")

/** Where to ask for what a job left. */
interface Whereabouts {
  /** Absent: it is not known which one. */
  readonly worker: InstanceId | undefined
  /** Absent: it is not written down here. */
  readonly record: JobRecord | undefined
}

/** What another worker tells of a job. */
const recordOf = (view: StokerJobView): JobRecord => {
  const { attempt, class: className, id, instance, intake, owner, receivedAtMs, settlement, startedAtMs, state } = view
  return {
    request: {
      job: {
        id,
        owner,
        intake,
        function: view.function,
        args: null,
        limits: {},
        ...(className === undefined ? {} : { class: className })
      },
      hash: "",
      reply: null
    },
    state,
    attempt,
    receivedAtMs,
    ...(instance === undefined ? {} : { instance }),
    ...(startedAtMs === undefined ? {} : { startedAtMs }),
    ...(settlement === undefined ? {} : { settlement }),
    isTold: true
  }
}

/** Newest first, ours before theirs of the same time; what is ours is not taken twice. */
const merge = (
  ours: ReadonlyArray<ListedJob>,
  theirs: ReadonlyArray<StokerJobView>,
  limit: number
): ReadonlyArray<ListedJob> => {
  const known = new Set(ours.map(({ request: { job } }) => keyText(keyOf(job))))
  const others = theirs.filter((view) => !known.has(keyText(view))).map((view) => ({
    ...recordOf(view),
    cursor: FIRST
  }))
  let cursor = FIRST
  const merged: Array<ListedJob> = []
  const [left, right] = [[...ours], [...others]]
  while (merged.length < limit) {
    const [our] = left
    const [their] = right
    if (our === undefined && their === undefined) break
    if (our !== undefined && (their === undefined || our.receivedAtMs >= their.receivedAtMs)) {
      left.shift()
      cursor = our.cursor
      merged.push(our)
    } else if (their !== undefined) {
      right.shift()
      // What follows it in our own list.
      merged.push({ ...their, cursor })
    }
  }
  return merged
}

const make = Effect.fnUntraced(function*({ instance: self, listsOthers }: ControlBrokeredOptions) {
  const local = yield* Control
  const client = yield* StokerAmqpClient
  /** Workers that jobs were found at of which no record is here. */
  const seen = new Map<string, InstanceId>()

  const remember = (key: JobKey, instance: InstanceId | undefined) => {
    const name = keyText(key)
    seen.delete(name)
    if (instance === undefined) return
    if (seen.size >= REMEMBERED) seen.delete(seen.keys().next().value ?? "")
    seen.set(name, instance)
  }

  const askedOf = ({ id, intake, owner }: JobKey, worker?: InstanceId) => ({
    id,
    intake,
    owner,
    ...(worker === undefined ? {} : { worker })
  })

  /** Nobody could be asked, or who was asked is in trouble. */
  const unasked = (key: JobKey, instance: InstanceId | undefined) => (error: { readonly message: string }) =>
    new WorkerAway({
      key,
      ...(instance === undefined ? {} : { instance }),
      reason: `job ${key.id} may be at another worker, which could not be asked: ${error.message}`,
      remedy: "Try again when the broker is up"
    })

  /** Asks, with what stands between us and an answer as one error. */
  const asking = <A, E extends { readonly _tag: string; readonly message: string }>(
    key: JobKey,
    instance: InstanceId | undefined,
    question: Effect.Effect<A, E>
  ) =>
    Effect.mapError(
      question,
      (error) =>
        error._tag === "AmqpError" || error._tag === "StokerClientError"
          ? unasked(key, instance)(error)
          : error as Exclude<E, { readonly _tag: "AmqpError" | "StokerClientError" }>
    )

  const lies = (key: JobKey, instance: InstanceId) =>
    new WorkerAway({
      key,
      instance,
      reason: `its output lies on the host of worker ${instance}, which does not answer`,
      remedy: "Ask again when that worker, or another one of its host, is up"
    })

  /** Of a job that is not written down here. */
  const elsewhere = Effect.fnUntraced(function*(key: JobKey) {
    const view = yield* asking(key, undefined, client.status(askedOf(key)))
    remember(key, view.instance)
    return view
  })

  /** Awaits its redelivery, as far as we know: it may have come to another worker, with a journal of its own. */
  const isLost = ({ instance, state }: JobRecord) => state === "running" && instance === undefined

  const status: Control["Service"]["status"] = Effect.fn("ControlBrokered.status")(function*(key) {
    const record = yield* local.status(key).pipe(Effect.catchTag("JobNotFound", () => Effect.undefined))
    if (record === undefined) return recordOf(yield* elsewhere(key))
    if (!isLost(record)) return record
    const view = yield* Effect.option(elsewhere(key))
    if (Option.isNone(view)) return record
    return view.value.instance === undefined ? record : { ...recordOf(view.value), request: record.request }
  })

  /** Done once the job has ended by our own journal, which others may write too. */
  const endedHere = (key: JobKey) =>
    local.status(key).pipe(
      Effect.map(({ state }) => state === "ended"),
      Effect.orElseSucceed(() => false),
      Effect.delay("500 millis"),
      Effect.repeat({ until: (ended) => ended }),
      Effect.asVoid
    )

  const stop: Control["Service"]["stop"] = Effect.fn("ControlBrokered.stop")(function*(key, options) {
    for (let move = 0; move < MOVES; move += 1) {
      const here = yield* local.stop(key, options).pipe(Effect.catchTag("JobNotFound", () => Effect.undefined))
      if (here?.state === "ended") return here
      const ask = asking(key, here?.instance, client.stop(askedOf(key, here?.instance), options))
      if (here === undefined) return recordOf(yield* ask)
      const told = yield* Effect.raceFirst(
        ask.pipe(Effect.catchTag("JobNotFound", () => Effect.undefined)),
        Effect.andThen(endedHere(key), Effect.undefined)
      )
      const now = yield* local.status(key)
      if (now.state === "ended") return now
      if (told?.state === "ended") return { ...recordOf(told), request: here.request }
      // It may have gone on at another worker, or wait for one now.
      if (now.state === "running" && now.instance === here.instance && now.attempt === here.attempt) break
    }
    const record = yield* local.status(key)
    if (record.state === "ended") return record
    const by = record.instance
    return yield* new WorkerAway({
      key,
      ...(by === undefined ? {} : { instance: by }),
      reason: by === undefined
        ? `job ${key.id} waits for a worker to take it again`
        : `job ${key.id} runs on worker ${by}, which does not answer`,
      remedy: "Try again: when that worker is gone for good another one takes the job"
    })
  })

  /** The worker that has what a job left, if it is not this host. None: there is nothing to ask for. */
  const whereabouts = Effect.fnUntraced(function*(
    key: JobKey
  ): Effect.fn.Return<Option.Option<Whereabouts>, JobNotFound | JournalError | WorkerAway> {
    const record = yield* local.status(key).pipe(Effect.catchTag("JobNotFound", () => Effect.undefined))
    if (record !== undefined && !isLost(record)) {
      // Not begun, or ended before it was.
      const isUnrun = record.state === "queued" || record.settlement?.output.length === 0
      if (isUnrun || record.instance === self) return Option.none()
      return Option.some({ worker: record.instance, record })
    }
    const known = seen.get(keyText(key))
    return Option.some({ worker: known ?? (yield* elsewhere(key)).instance, record: undefined })
  })

  /** Nobody gave it: says why, as far as can be known. */
  const absent = Effect.fnUntraced(function*<E>(key: JobKey, worker: InstanceId | undefined, error: E) {
    if (worker === undefined || (yield* asking(key, worker, client.hears(worker)))) return yield* Effect.fail(error)
    return yield* lies(key, worker)
  })

  const remoteRead = Effect.fnUntraced(function*(key: JobKey, options: ReadOptions) {
    const until = (yield* monotonicMs) + options.waitMs
    const found = yield* whereabouts(key).pipe(
      Effect.catchTag("JobNotFound", () => Effect.succeedNone),
      Effect.catchTag("JournalError", (error) => Effect.fail(unasked(key, undefined)(error)))
    )
    if (Option.isNone(found)) return yield* new LogNotFound({ key })
    const { worker } = found.value
    while (true) {
      const begun = yield* monotonicMs
      const waitMs = Math.floor(Math.min(Math.max(0, until - begun), LONGEST_WAIT_MS))
      const question = { ...options, maxBytes: Math.min(Math.max(1, options.maxBytes), MOST_BYTES), waitMs }
      const slice: LogSlice | undefined = yield* asking(key, worker, client.read(askedOf(key, worker), question)).pipe(
        Effect.catchTag("LogNotFound", (error) => absent(key, worker, error))
      )
      const now = yield* monotonicMs
      if (slice.entries.length > 0 || slice.end !== undefined || now >= until) return slice
      if (now - begun < Math.min(waitMs, PAUSE_MS)) yield* Effect.sleep(PAUSE_MS)
    }
  })

  const list = Effect.fn("ControlBrokered.list")(function*(filter: JobsWanted) {
    const { before, function: name, id, limit, owner, state } = filter
    const ours = local.list(filter)
    if (!listsOthers || before !== undefined) return yield* ours
    const asked = Option.all({
      id: id === undefined ? Option.some({}) : Option.map(JobId.makeOption(id), (id) => ({ id })),
      owner: owner === undefined ? Option.some({}) : Option.map(Owner.makeOption(owner), (owner) => ({ owner })),
      name: name === undefined
        ? Option.some({})
        : Option.map(FunctionName.makeOption(name), (name) => ({ function: name }))
    })
    if (Option.isNone(asked)) return yield* ours
    const theirs = client.list({
      ...asked.value.id,
      ...asked.value.owner,
      ...asked.value.name,
      ...(state === undefined ? {} : { state }),
      // Some of them may be of jobs that are here too.
      limit: Math.min(Math.max(2 * limit, 1), 10_000),
      within: LIST_WITHIN
    }).pipe(
      // A list says what can be known now: who is silent is left out of it anyhow.
      Effect.timeoutOrElse({ duration: "2 seconds", orElse: () => Effect.succeed([]) }),
      Effect.catch(({ message }) =>
        Effect.as(Effect.logWarning(`jobs of other workers are not listed: ${message}`), [])
      )
    )
    const [here, there] = yield* Effect.all([ours, theirs], { concurrency: 2 })
    // Workers of an older version know fewer filters.
    const wanted = there.filter((view) =>
      (id === undefined || view.id === id) && (name === undefined || view.function === name) &&
      (owner === undefined || view.owner === owner) && (state === undefined || view.state === state)
    )
    return merge(here, wanted, limit)
  })

  return Control.of({
    ...local,
    status,
    stop,
    list,
    read: (key, options) =>
      local.read(key, options).pipe(Effect.catchTag("LogNotFound", () => remoteRead(key, options))),
    artefact: Effect.fn("ControlBrokered.artefact")(function*(key, path, range) {
      const remote = Effect.gen(function*() {
        const found = yield* whereabouts(key)
        if (Option.isNone(found)) return yield* local.artefact(key, path, range)
        const { record, worker } = found.value
        const isNamed = record === undefined || record.settlement?.artefacts?.some((one) => one.path === path) === true
        if (!isNamed) return yield* local.artefact(key, path, range)
        return yield* asking(key, worker, client.artefact(askedOf(key, worker), path, range)).pipe(
          Effect.catchTag("ArtefactNotFound", (error) => absent(key, worker, error))
        )
      })
      return yield* local.artefact(key, path, range).pipe(
        Effect.catchTags({ ArtefactNotFound: () => remote, JobNotFound: () => remote })
      )
    })
  })
})

/**
 * Over the `Control` and the client that are given. Of others a list has what they tell within half a second, on its first
 * page only: cursors are of this worker's journal. A job is removed where it is written down.
 */
export const layer = (
  options: ControlBrokeredOptions
): Layer.Layer<Control, never, Control | StokerAmqpClient> => Layer.effect(Control, make(options))
