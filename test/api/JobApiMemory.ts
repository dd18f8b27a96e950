/**
 * The control plane without a worker, for tests of doors: jobs live in memory, everybody sees their own and `admin` all.
 * `command` understands some words: `echo TEXT`, `err TEXT`, `exit CODE`, `sleep`, `lines N`, `flood` (as fast as it is
 * read), `drip MS` (a line now and then), `pace BYTES MS` (the same with so many bytes), `gap` (with bytes that are not kept), `bytes N` (all values, no newline at the
 * end), `queued` (never begins), `nope` (no such program), `defect`.
 */
import { Clock, Context, Deferred, Effect, Layer, Option, Ref, Schema, Stream, SubscriptionRef } from "effect"
import {
  type FollowEvent,
  Forbidden,
  IdTaken,
  INTAKE,
  InvalidRequest,
  JobApi,
  NotEnded,
  type StartRequest,
  UnknownJob
} from "../../src/layers/api/JobApi.ts"
import { ArtefactNotFound } from "../../src/layers/artefacts/Artefacts.ts"
import type { Caller } from "../../src/schemas/Access.ts"
import { InvalidArguments } from "../../src/schemas/Function.ts"
import { FunctionName, InstanceId, JobId, Owner } from "../../src/schemas/Ids.ts"
import type { FunctionView, JobView } from "../../src/schemas/JobView.ts"
import { Outcome, type StreamName } from "../../src/schemas/Outcome.ts"

/** One piece of a job's output. */
interface Piece {
  readonly stream: StreamName
  readonly offset: number
  readonly bytes: Uint8Array
}

interface MemoryJob {
  view: JobView
  readonly pieces: Array<Piece>
  readonly request: StartRequest
  produced: number
  /** Rises with each change. */
  readonly version: SubscriptionRef.SubscriptionRef<number>
  readonly stopped: Deferred.Deferred<string>
  /** Pieces as they are asked for, without end. */
  readonly flood: boolean
}

/** What a test may look at. */
export class Memory extends Context.Service<Memory, {
  /** Followers and waits there are now. */
  readonly waiting: Effect.Effect<number>
  /** All requests to start, in order. */
  readonly started: Effect.Effect<ReadonlyArray<{ readonly caller: Caller; readonly request: StartRequest }>>
}>()("test/api/Memory") {}

const isJobId = Schema.is(JobId)
const bytesOf = (text: string) => new TextEncoder().encode(text)

const view = (name: string, title: string, description: string): FunctionView => ({
  name: FunctionName.make(name),
  title,
  description,
  args: { type: "object" },
  positional: name === "fib" ? [{ field: "number", word: "position" }] : [],
  needsNetwork: name === "wait"
})

const functions = [
  view("noop", "Noop", "does nothing."),
  view("fib", "Fibonacci", "calculates."),
  view("command", "command", "runs a program.")
]

const floodBytes = new Uint8Array(65_536).fill(97)
const artefactText = bytesOf("what it left")

const make = Effect.gen(function*() {
  const jobs = new Map<string, MemoryJob>()
  const waiting = yield* Ref.make(0)
  const started: Array<{ readonly caller: Caller; readonly request: StartRequest }> = []
  const scope = yield* Effect.scope
  let counter = 0

  const counted = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.acquireUseRelease(
      Ref.update(waiting, (n) => n + 1),
      () => effect,
      () => Ref.update(waiting, (n) => n - 1)
    )

  const find = (caller: Caller, { id, owner }: { readonly id: string; readonly owner?: string }) =>
    Effect.suspend((): Effect.Effect<MemoryJob, InvalidRequest | UnknownJob> => {
      if (!isJobId(id)) return Effect.fail(new InvalidRequest({ reason: `${id} is no job id`, remedy: "Check it." }))
      const job = jobs.get(id)
      const mine = job !== undefined && (caller.name === "admin" || job.view.owner === caller.name)
      const wanted = owner === undefined || job?.view.owner === owner
      return job !== undefined && mine && wanted ? Effect.succeed(job) : Effect.fail(new UnknownJob({ id }))
    })

  const changed = (job: MemoryJob) => SubscriptionRef.update(job.version, (n) => n + 1)
  const write = (job: MemoryJob, stream: StreamName, bytes: Uint8Array) =>
    Effect.suspend(() => {
      job.pieces.push({ stream, offset: job.produced, bytes })
      job.produced += bytes.length
      return changed(job)
    })
  const end = (job: MemoryJob, outcome: Outcome) =>
    Effect.gen(function*() {
      const endedAtMs = yield* Clock.currentTimeMillis
      job.view = {
        ...job.view,
        state: "ended",
        endedAtMs,
        outcome,
        usage: { phases: [{ phase: "run", wallMicros: 5 }] }
      }
      yield* changed(job)
    })

  const exited = (code: number) => Outcome.cases.Exited.make({ phase: "run", code })
  const act = (job: MemoryJob, argv: ReadonlyArray<string>): Effect.Effect<Outcome> => {
    const [word, ...rest] = argv
    switch (word) {
      case "echo":
        return Effect.as(write(job, "stdout", bytesOf(`${rest.join(" ")}\n`)), exited(0))
      case "err":
        return Effect.as(write(job, "stderr", bytesOf(`${rest.join(" ")}\n`)), exited(0))
      case "exit":
        return Effect.succeed(exited(Number(rest[0])))
      case "lines":
        return Effect.as(
          Effect.forEach(
            Array.from({ length: Number(rest[0]) }, (_, n) => n),
            (n) => write(job, n % 2 === 0 ? "stdout" : "stderr", bytesOf(`line ${n}\n`))
          ),
          exited(0)
        )
      case "bytes": {
        const bytes = Uint8Array.from({ length: Number(rest[0]) }, (_, n) => n % 256)
        return Effect.as(write(job, "stdout", bytes), exited(0))
      }
      case "gap":
        return write(job, "stdout", bytesOf("before")).pipe(
          Effect.andThen(Effect.sync(() => void (job.produced += 1000))),
          Effect.andThen(write(job, "stdout", bytesOf("after\n"))),
          Effect.as(exited(1))
        )
      case "drip":
        return Effect.forever(Effect.andThen(write(job, "stdout", bytesOf("drip\n")), Effect.sleep(Number(rest[0]))))
      case "pace": {
        const bytes = new Uint8Array(Number(rest[0])).fill(97)
        return Effect.forever(Effect.andThen(write(job, "stdout", bytes), Effect.sleep(Number(rest[1]))))
      }
      case "sleep":
      case "flood":
        return Effect.never
      default:
        return Effect.succeed(exited(0))
    }
  }

  const run = (job: MemoryJob, argv: ReadonlyArray<string>) =>
    Effect.gen(function*() {
      job.view = { ...job.view, state: "running", startedAtMs: yield* Clock.currentTimeMillis, attempt: 1 }
      yield* changed(job)
      const stopped = Effect.map(Deferred.await(job.stopped), (reason) => Outcome.cases.Stopped.make({ reason }))
      yield* end(job, yield* Effect.raceFirst(act(job, argv), stopped))
    })

  /** Waits until it holds. */
  const until = (job: MemoryJob, holds: (job: MemoryJob) => boolean) =>
    counted(
      SubscriptionRef.changes(job.version).pipe(
        Stream.takeUntil(() => holds(job)),
        Stream.runDrain
      )
    )

  const hasEnded = (job: MemoryJob) => job.view.state === "ended"

  return Context.make(
    JobApi,
    JobApi.of({
      start: Effect.fnUntraced(function*(caller, request) {
        if (caller.name === "nobody") return yield* new Forbidden({ caller: caller.name, method: "start" })
        if (request.owner !== undefined && request.owner !== caller.name && caller.name !== "admin") {
          return yield* new Forbidden({ caller: caller.name, method: "start for others" })
        }
        if (request.id !== undefined && !isJobId(request.id)) {
          return yield* new InvalidRequest({ reason: `${request.id} is no job id`, remedy: "Leave it out." })
        }
        const args = (request.args ?? {}) as { readonly argv?: ReadonlyArray<string>; readonly number?: number }
        if (request.function === "fib" && !(Number.isInteger(args.number) && (args.number ?? 0) >= 1)) {
          return yield* new InvalidArguments({ function: "fib", reason: "a position from 1", remedy: "fib position" })
        }
        if (request.function === "command" && args.argv?.[0] === "defect") return yield* Effect.die(new Error("a bug"))
        const id = request.id ?? `job-${++counter}`
        started.push({ caller, request })
        const known = jobs.get(id)
        if (known !== undefined) {
          if (JSON.stringify(known.request) !== JSON.stringify(request)) return yield* new IdTaken({ id })
          return known.view
        }
        const argv = request.function === "fib" ? ["echo", "[RESULT] 1"] : args.argv ?? []
        const job: MemoryJob = {
          view: {
            id: JobId.make(id),
            owner: Owner.make(request.owner ?? caller.name),
            intake: INTAKE,
            function: FunctionName.make(request.function),
            args: JSON.parse(JSON.stringify(request.args ?? {})),
            state: "queued",
            attempt: 0,
            instance: InstanceId.make("w1"),
            receivedAtMs: yield* Clock.currentTimeMillis
          },
          pieces: [],
          request,
          produced: 0,
          version: yield* SubscriptionRef.make(0),
          stopped: yield* Deferred.make<string>(),
          flood: argv[0] === "flood"
        }
        jobs.set(id, job)
        if (argv[0] === "nope") {
          yield* end(
            job,
            Outcome.cases.Rejected.make({ reason: "there is no program nope", remedy: "Check its name." })
          )
        } else if (argv[0] !== "queued") {
          yield* Effect.forkIn(run(job, argv), scope)
        }
        if (request.waitMs !== undefined) {
          yield* until(job, ({ view }) => view.state !== "queued").pipe(Effect.timeoutOption(request.waitMs))
        }
        return job.view
      }),
      stop: Effect.fnUntraced(function*(caller, { reason, ...ref }) {
        const job = yield* find(caller, ref)
        yield* Deferred.succeed(job.stopped, reason ?? `by ${caller.name}`)
        if (job.view.state === "queued") yield* end(job, Outcome.cases.Stopped.make({ reason: reason ?? "" }))
        yield* until(job, hasEnded)
        return job.view
      }),
      status: (caller, ref) => Effect.map(find(caller, ref), (job) => job.view),
      list: (caller, { cursor, limit = 100, state }) =>
        Effect.sync(() => {
          const all = [...jobs.values()].toReversed().map(({ view }) => view)
            .filter(({ owner }) => caller.name === "admin" || owner === caller.name)
            .filter((view) => state === undefined || view.state === state)
          const from = cursor === undefined ? 0 : Number(cursor)
          const page = { jobs: all.slice(from, from + limit) }
          return from + limit < all.length ? { ...page, next: String(from + limit) } : page
        }),
      read: Effect.fnUntraced(function*(caller, { maxBytes, offset, stream = "all", ...ref }) {
        const job = yield* find(caller, ref)
        const whole = job.pieces.filter((piece) => stream === "all" || piece.stream === stream)
        const entries = whole.filter((piece) => piece.offset >= offset && piece.offset < offset + maxBytes)
          .map((piece) => ({ _tag: "Bytes" as const, ...piece }))
        const last = entries.at(-1)
        const next = last === undefined ? offset : last.offset + last.bytes.length
        return {
          entries,
          next,
          available: Math.max(next, job.produced),
          run: "run-1",
          ...(hasEnded(job) && next >= job.produced ? { end: { summaries: [], complete: true } } : {})
        }
      }),
      follow: Effect.fnUntraced(function*(caller, { from, stream = "all", wait = true, ...ref }) {
        const job = yield* find(caller, ref)
        const begin = from === undefined
          ? 0
          : "offset" in from
          ? from.offset
          : "newOnly" in from
          ? job.produced
          : job.pieces.at(-from.lastLines)?.offset ?? 0
        const pull = Effect.fnUntraced(function*(
          at: number
        ): Effect.fn.Return<readonly [ReadonlyArray<FollowEvent>, Option.Option<number>]> {
          if (job.flood) {
            const bytes = floodBytes
            return [[{ _tag: "Bytes", stream: "stdout", offset: at, bytes }], Option.some(at + bytes.length)]
          }
          if (wait) yield* until(job, (job) => hasEnded(job) || job.produced > at)
          const pieces = job.pieces.filter((piece) =>
            piece.offset >= at && (stream === "all" || piece.stream === stream)
          )
          const entries = pieces.flatMap((piece, index): ReadonlyArray<FollowEvent> => {
            const bytes = { _tag: "Bytes" as const, ...piece }
            const former = pieces[index - 1]
            const from = former === undefined ? piece.offset : former.offset + former.bytes.length
            return stream !== "all" || from === piece.offset
              ? [bytes]
              : [{ _tag: "Gap", stream: piece.stream, from, to: piece.offset }, bytes]
          })
          const { produced } = job
          if (hasEnded(job)) {
            return [
              [...entries, { _tag: "Ended", job: job.view, end: { summaries: [], complete: true } }],
              Option.none()
            ]
          }
          if (!wait) return [[...entries, { _tag: "Paused", job: job.view, next: produced }], Option.none()]
          return [entries, Option.some(produced)]
        })
        const begun: FollowEvent = { _tag: "Begun", run: "run-1", attempt: 1, offset: begin }
        const events = Stream.concat(Stream.make(begun), Stream.paginate(begin, pull))
        return Stream.unwrap(
          Effect.as(
            Effect.acquireRelease(Ref.update(waiting, (n) => n + 1), () => Ref.update(waiting, (n) => n - 1)),
            events
          )
        )
      }),
      artefact: Effect.fnUntraced(function*(caller, ref, path, { maxBytes, offset }) {
        const { view } = yield* find(caller, ref)
        if (path !== "left.txt") {
          return yield* new ArtefactNotFound({ key: { intake: view.intake, owner: view.owner, id: view.id }, path })
        }
        const artefact = { path, bytes: artefactText.length, sha256: "0".repeat(64) }
        return { artefact, offset, bytes: artefactText.subarray(offset, offset + Math.min(maxBytes, 5)) }
      }),
      functions: () => Effect.succeed(functions),
      remove: Effect.fnUntraced(function*(caller, ref) {
        const job = yield* find(caller, ref)
        if (!hasEnded(job)) return yield* new NotEnded({ id: ref.id })
        jobs.delete(ref.id)
      })
    })
  ).pipe(Context.add(Memory, { waiting: Ref.get(waiting), started: Effect.sync(() => [...started]) }))
})

/** JobApi, and what a test may look at. */
export const layer: Layer.Layer<JobApi | Memory> = Layer.effectContext(make)
