/** The control plane over the worker's `Control`: rights, references, checks before a job is taken, views. */
import { Cause, Effect, Exit, Layer, Option, Schema, type Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import type { Caller, Method, Right } from "../../schemas/Access.ts"
import { type ApiReply } from "../../schemas/dialects/Api.ts"
import { type Definition, InvalidArguments, unmetNeed } from "../../schemas/Function.ts"
import { ClassName, type InstanceId, type JobId, JobId as JobIdSchema, type JobKey, Owner } from "../../schemas/Ids.ts"
import type { Job } from "../../schemas/Job.ts"
import type { JobView } from "../../schemas/JobView.ts"
import { resolve } from "../../schemas/Limits.ts"
import { nearest } from "../../schemas/Nearest.ts"
import { standardTerms } from "../../schemas/Terms.ts"
import { parse as parseTrace } from "../../schemas/TraceParent.ts"
import type { ArtefactError, ArtefactNotFound } from "../artefacts/Artefacts.ts"
import { Settings } from "../config/Settings.ts"
import { Control, type WorkerAway } from "../control/Control.ts"
import { Functions } from "../functions/Functions.ts"
import { requestHash } from "../intake/RequestHash.ts"
import { JobCursor, type JobRecord, type JournalError } from "../journal/Journal.ts"
import type { LogError, LogSlice, ReadOptions } from "../log/Log.ts"
import { Access } from "./Access.ts"
import * as AuditTrail from "./AuditTrail.ts"
import { internal, kinds } from "./Fault.ts"
import { follow } from "./Follow.ts"
import {
  type ApiError,
  Forbidden,
  IdTaken,
  type Inner,
  INTAKE,
  InvalidRequest,
  JobApi,
  type JobPage,
  type JobRef,
  type ListRequest,
  NotEnded,
  type StartRequest,
  Unavailable,
  UnknownJob
} from "./JobApi.ts"
import * as JobNews from "./JobNews.ts"
import { newId } from "./NewId.ts"
import * as RecentJobs from "./RecentJobs.ts"
import { functionViewOf, viewOf } from "./Views.ts"

export interface JobApiOptions {
  /** Whether the operator lets outcomes be posted there. Absent: nowhere. */
  readonly mayPost?: (url: string) => boolean
  /** This worker, whose own jobs are known without asking the journal each time. */
  readonly instance?: InstanceId
}

/** What is read at once at most. */
const mostBytes = 4 * 1024 * 1024
/** Milliseconds one read waits at most, and how long a start may wait. */
const longestRead = 30_000
const longestStart = 3_600_000
const standardGrace = 2000
const longestGrace = 3_600_000
/** Characters. A reason is kept with its job, and told wherever that is. */
const longestReason = 500
/** Characters. */
const longestWebhook = 2048
const standardPage = 100
const mostPage = 1000

const decodeId = Schema.decodeUnknownOption(JobIdSchema)
const decodeOwner = Schema.decodeUnknownOption(Owner)
const decodeClass = Schema.decodeUnknownOption(ClassName)
const decodeCursor = Schema.decodeUnknownOption(JobCursor)
const isJson = Schema.is(Schema.Json)

const unavailable = ({ reason, remedy }: Inner) => new Unavailable({ reason, remedy })
/** All that is no fault of the caller's. */
const inner = {
  ArtefactError: (error: ArtefactError) => Effect.fail(unavailable(error)),
  JournalError: (error: JournalError) => Effect.fail(unavailable(error)),
  LogError: (error: LogError) => Effect.fail(unavailable(error)),
  WorkerAway: (error: WorkerAway) => Effect.fail(unavailable(error))
}
const invalid = (reason: string, remedy: string) => new InvalidRequest({ reason, remedy })

const within = (what: string, value: number, minimum: number, maximum: number) =>
  Number.isSafeInteger(value) && value >= minimum && value <= maximum
    ? Effect.void
    : Effect.fail(invalid(`${what} is ${value}`, `Give a whole number from ${minimum} to ${maximum}.`))

const shown = (text: string) => JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text)

const make = (options: JobApiOptions): Effect.Effect<
  JobApi["Service"],
  never,
  Access | Control | Functions | Scope.Scope | SecureRandom.SecureRandom | Settings
> =>
  Effect.gen(function*() {
    const access = yield* Access
    const control = yield* Control
    const { definitions } = yield* Functions
    const { classes, defaultClass } = yield* Settings
    const random = yield* SecureRandom.SecureRandom
    const recent = RecentJobs.make(options.instance)
    const news = yield* JobNews.make(recent.forget)
    const trail = yield* AuditTrail.make
    const byName = new Map<string, Definition>(definitions.map((definition) => [definition.name, definition]))
    const offered = definitions.map(functionViewOf)

    /**
     * Does what the caller asks, given the right to it, which is not `none`; and writes down what was decided and how it came
     * out. `job` is its id, which a start may only make.
     */
    const entitled = <A extends object | void, E extends ApiError | ArtefactNotFound>(
      caller: Caller,
      method: Method,
      job: string | undefined,
      act: (right: Right) => Effect.Effect<A, E>
    ): Effect.Effect<A, E | Forbidden> =>
      Effect.flatMap(access.right(caller, method), (right): Effect.Effect<A, E | Forbidden> => {
        const decision = { caller, method, right }
        const named = job === undefined ? {} : { job }
        if (right === "none") {
          const refused = new Forbidden({ caller: caller.name, method })
          return Effect.andThen(
            trail.record({ ...decision, ...named, allowed: false, outcome: kinds.Forbidden.name }),
            Effect.fail(refused)
          )
        }
        return Effect.onExit(act(right), (exit) => {
          if (Exit.isSuccess(exit)) {
            const made = job === undefined && exit.value !== undefined && "id" in exit.value
              ? { job: String(exit.value.id) }
              : named
            return trail.record({ ...decision, ...made, allowed: true, outcome: "ok" })
          }
          const error = Cause.findErrorOption(exit.cause)
          const outcome = Option.isSome(error) ? kinds[error.value._tag].name : internal.name
          return trail.record({ ...decision, ...named, allowed: outcome !== kinds.Forbidden.name, outcome })
        })
      })

    const idOf = (id: string): Effect.Effect<JobId, InvalidRequest> =>
      Option.match(decodeId(id), {
        onNone: () =>
          Effect.fail(invalid(
            `${shown(id)} is no job id`,
            "Ids have 1 to 128 letters, digits, '.', '_' and '-', and begin with a letter or digit."
          )),
        onSome: Effect.succeed
      })

    const ownerOf = (owner: string): Effect.Effect<Owner, InvalidRequest> =>
      Option.match(decodeOwner(owner), {
        onNone: () => Effect.fail(invalid(`${shown(owner)} is no owner`, "Give the name of a user.")),
        onSome: Effect.succeed
      })

    const cursorOf = (cursor: string): Effect.Effect<JobCursor, InvalidRequest> =>
      Option.match(decodeCursor(cursor), {
        onNone: () => Effect.fail(invalid(`${shown(cursor)} is no cursor`, "Give one that a page ended with.")),
        onSome: Effect.succeed
      })

    const statusOf = (key: JobKey) =>
      control.status(key).pipe(
        Effect.catchTags({
          JobNotFound: () => Effect.fail(new UnknownJob({ id: key.id })),
          JournalError: inner.JournalError,
          WorkerAway: inner.WorkerAway
        })
      )

    /** Jobs of the control plane are found by their key; those of other doors by looking. */
    const find = Effect.fnUntraced(function*(caller: Caller, right: Right, ref: JobRef, isLook = false) {
      const id = yield* idOf(ref.id)
      const named = ref.owner === undefined ? undefined : yield* ownerOf(ref.owner)
      // Made only when it is needed: an error looks at its stack, which costs each look some microseconds.
      const unknown = Effect.suspend(() => Effect.fail(new UnknownJob({ id })))
      if (right !== "super" && named !== undefined && named !== caller.name) return yield* unknown
      const owner = named ?? (right === "super" ? undefined : caller.name)
      const key: JobKey = { intake: INTAKE, owner: owner ?? caller.name, id }
      const own = yield* (isLook ? recent.get(key, statusOf(key)) : statusOf(key)).pipe(
        Effect.catchTag("UnknownJob", () => Effect.undefined)
      )
      if (own !== undefined) return own
      const [record] = yield* control.list({ id, limit: 1, ...(owner === undefined ? {} : { owner }) }).pipe(
        Effect.mapError(unavailable)
      )
      return record ?? (yield* unknown)
    })

    const keyOfRecord = ({ request: { job } }: JobRecord): JobKey => ({
      intake: job.intake,
      owner: job.owner,
      id: job.id
    })

    /** What is done with a job that the caller may see. */
    const withJob = <A extends object | void, E extends ApiError | ArtefactNotFound>(
      caller: Caller,
      method: Method,
      ref: JobRef,
      act: (record: JobRecord) => Effect.Effect<A, E>
    ) =>
      entitled(
        caller,
        method,
        ref.id,
        (right) => Effect.flatMap(find(caller, right, ref, method === "status"), act)
      )

    /** The same record is shown as the same view, which doors may have encoded already. */
    const views = new WeakMap<JobRecord, JobView>()
    const view = (record: JobRecord) => {
      const found = views.get(record) ?? viewOf(record, { args: true })
      views.set(record, found)
      return found
    }

    /** Looks at everything that would make its worker reject it, while the caller is still there to be told. */
    const checked = Effect.fnUntraced(function*(request: StartRequest) {
      const definition = byName.get(request.function)
      if (definition === undefined) {
        const meant = nearest(request.function, [...byName.keys()])
        return yield* invalid(
          `there is no function ${shown(request.function)}`,
          meant === undefined ? `Use one of: ${[...byName.keys()].join(", ")}.` : `Did you mean ${meant}?`
        )
      }
      const { args } = request
      if (!isJson(args)) {
        return yield* new InvalidArguments({
          function: definition.name,
          reason: "the arguments are no JSON",
          remedy: `${definition.name} ${definition.description}`
        })
      }
      yield* definition.check(args)
      const className = request.class === undefined ? defaultClass : Option.getOrUndefined(decodeClass(request.class))
      const sandboxClass = classes.find(({ name }) => name === className)
      if (sandboxClass === undefined) {
        return yield* invalid(
          `there is no sandbox class ${shown(request.class ?? defaultClass)}`,
          `Use one of: ${classes.map(({ name }) => name).join(", ")}.`
        )
      }
      const unmet = unmetNeed(definition, sandboxClass.network)
      if (unmet !== undefined) {
        const others = classes.filter(({ network }) => network !== "none").map(({ name }) => name)
        return yield* invalid(
          unmet,
          others.length === 0 ? "Ask the operator for a class with a network." : `Use one of: ${others.join(", ")}.`
        )
      }
      yield* resolve(sandboxClass.ceiling, sandboxClass.defaults, request.limits ?? {}).pipe(
        Effect.mapError(({ message }) => invalid(message, "Ask for less, or for another class."))
      )
      const { webhook } = request
      const isPostable = webhook === undefined
        || (webhook.length <= longestWebhook && options.mayPost?.(webhook) === true)
      if (!isPostable) {
        return yield* invalid(
          `outcomes are not posted to ${shown(webhook)}`,
          "The operator says in the worker's configuration (webhooks) where to."
        )
      }
      return {
        function: definition.name,
        args,
        limits: request.limits ?? {},
        ...(request.class === undefined ? {} : { class: sandboxClass.name })
      }
    })

    /** Waits for a state; whatever it is then is the answer. */
    const awaiting = (key: JobKey, waitMs: number) =>
      Effect.gen(function*() {
        while (true) {
          const heard = yield* news.subscribe(key)
          if ((yield* statusOf(key)).state !== "queued") return
          yield* heard
        }
      }).pipe(Effect.timeoutOption(waitMs), Effect.andThen(statusOf(key)))

    const start = Effect.fnUntraced(function*(caller: Caller, request: StartRequest, right: Right) {
      const owner = request.owner === undefined ? caller.name : yield* ownerOf(request.owner)
      if (owner !== caller.name && right !== "super") {
        return yield* new Forbidden({ caller: caller.name, method: `start jobs of ${owner}` })
      }
      const { traceparent, waitMs = 0 } = request
      yield* within("the time to wait, in milliseconds,", waitMs, 0, longestStart)
      const what = yield* checked(request)
      const id = yield* idOf(
        request.id ?? (yield* newId.pipe(Effect.provideService(SecureRandom.SecureRandom, random)))
      )
      const job: Job = {
        id,
        owner,
        intake: INTAKE,
        ...what,
        // One that is none is passed over, as the standard has it.
        ...(Option.isNone(parseTrace(traceparent)) || traceparent === undefined ? {} : { traceparent })
      }
      const reply: ApiReply = {
        dialect: "api",
        ...(request.webhook === undefined ? {} : { webhook: request.webhook })
      }
      const record = yield* control.submit(
        { job, hash: requestHash(job), reply: { ...reply } },
        { ...standardTerms, ...request.terms }
      ).pipe(Effect.catchTags({
        IdConflict: () => Effect.fail(new IdTaken({ id })),
        JournalError: inner.JournalError
      }))
      return view(waitMs === 0 || record.state !== "queued" ? record : yield* awaiting(keyOfRecord(record), waitMs))
    })

    const list = Effect.fnUntraced(function*(
      caller: Caller,
      { cursor, function: name, limit = standardPage, owner, state }: ListRequest,
      right: Right
    ): Effect.fn.Return<JobPage, ApiError> {
      yield* within("the limit", limit, 1, mostPage)
      const wanted = owner === undefined ? undefined : yield* ownerOf(owner)
      // Another's jobs are none, as if there were not any.
      if (right !== "super" && wanted !== undefined && wanted !== caller.name) return { jobs: [] }
      const whose = wanted ?? (right === "super" ? undefined : caller.name)
      const records = yield* control.list({
        limit,
        ...(state === undefined ? {} : { state }),
        ...(name === undefined ? {} : { function: name }),
        ...(whose === undefined ? {} : { owner: whose }),
        ...(cursor === undefined ? {} : { before: yield* cursorOf(cursor) })
      }).pipe(Effect.mapError(unavailable))
      const jobs = records.map((record) => viewOf(record, { args: false }))
      const last = records.at(-1)
      return records.length < limit || last === undefined ? { jobs } : { jobs, next: last.cursor }
    })

    /** What there is of a job of which no output is kept. */
    const nothing = ({ settlement }: JobRecord, offset: number): LogSlice => ({
      entries: [],
      next: offset,
      available: 0,
      run: "",
      ...(settlement === undefined
        ? {}
        : { end: { summaries: settlement.output, complete: settlement.output.length === 0 } })
    })

    const readOf = (key: JobKey) => (options: ReadOptions) =>
      control.read(key, options).pipe(
        Effect.catchTags({ LogError: inner.LogError, WorkerAway: inner.WorkerAway })
      )

    return JobApi.of({
      start: Effect.fn("JobApi.start")((caller, request) =>
        entitled(caller, "start", request.id, (right) => start(caller, request, right))
      ),
      stop: Effect.fn("JobApi.stop")((caller, { graceMs = standardGrace, reason, ...ref }) =>
        withJob(caller, "stop", ref, (record) =>
          Effect.gen(function*() {
            yield* within("the grace, in milliseconds,", graceMs, 0, longestGrace)
            if (reason !== undefined && reason.length > longestReason) {
              return yield* invalid(
                `the reason has ${reason.length} characters`,
                `Give one of at most ${longestReason}, or leave it out.`
              )
            }
            if (reason !== undefined && /\p{Cc}/u.test(reason)) {
              return yield* invalid(
                "the reason has control characters",
                "Give one line of plain text, or leave it out."
              )
            }
            const asked = { reason: reason ?? `stopped by ${caller.name}`, graceMs }
            return view(
              yield* control.stop(keyOfRecord(record), asked).pipe(Effect.catchTags({
                JobNotFound: () => Effect.fail(new UnknownJob({ id: ref.id })),
                JournalError: inner.JournalError,
                WorkerAway: inner.WorkerAway
              }))
            )
          }))
      ),
      status: (caller, ref) => withJob(caller, "status", ref, (record) => Effect.succeed(view(record))),
      list: Effect.fn("JobApi.list")((caller, request) =>
        entitled(caller, "list", undefined, (right) => list(caller, request, right))
      ),
      read: (caller, { maxBytes, offset, run, stream = "all", waitMs = 0, ...ref }) =>
        withJob(caller, "output", ref, (record) =>
          Effect.gen(function*() {
            yield* within("the offset", offset, 0, Number.MAX_SAFE_INTEGER)
            yield* within("the number of bytes", maxBytes, 1, Number.MAX_SAFE_INTEGER)
            yield* within("the time to wait, in milliseconds,", waitMs, 0, longestRead)
            const wanted = { stream, offset, maxBytes: Math.min(maxBytes, mostBytes), waitMs }
            return yield* readOf(keyOfRecord(record))({ ...wanted, ...(run === undefined ? {} : { run }) }).pipe(
              // It has not begun, or nothing of it is kept: nothing is there to be read, which is no error.
              Effect.catchTag("LogNotFound", () => Effect.succeed(nothing(record, offset)))
            )
          })),
      follow: Effect.fn("JobApi.follow")((caller, { from = { offset: 0 }, run, stream = "all", wait = true, ...ref }) =>
        withJob(caller, "output", ref, (record) =>
          Effect.gen(function*() {
            if ("offset" in from) yield* within("the offset", from.offset, 0, Number.MAX_SAFE_INTEGER)
            if ("lastLines" in from) yield* within("the number of lines", from.lastLines, 0, 1_000_000)
            const key = keyOfRecord(record)
            return follow(
              { key, news, status: statusOf(key), read: readOf(key), view },
              { from, stream, wait, ...(run === undefined ? {} : { run }) }
            )
          }))
      ),
      artefact: Effect.fn("JobApi.artefact")((caller, ref, path, range) =>
        withJob(caller, "output", ref, (record) =>
          control.artefact(keyOfRecord(record), path, range).pipe(Effect.catchTags({
            JobNotFound: () =>
              Effect.fail(new UnknownJob({ id: ref.id })),
            ArtefactError: inner.ArtefactError,
            JournalError: inner.JournalError,
            WorkerAway: inner.WorkerAway
          })))
      ),
      functions: (caller) =>
        entitled(caller, "functions", undefined, () =>
          Effect.succeed(offered)),
      remove: Effect.fn("JobApi.remove")((caller, ref) =>
        withJob(caller, "delete", ref, (record) =>
          Effect.andThen(
            Effect.sync(() =>
              recent.forget(keyOfRecord(record))
            ),
            control.remove(keyOfRecord(record))
          ).pipe(Effect.catchTags({
            JobNotFound: () => Effect.fail(new UnknownJob({ id: ref.id })),
            JobNotEnded: () => Effect.fail(new NotEnded({ id: ref.id })),
            ArtefactError: inner.ArtefactError,
            JournalError: inner.JournalError,
            LogError: inner.LogError
          })))
      )
    })
  })

export const layer = (options: JobApiOptions = {}): Layer.Layer<
  JobApi,
  never,
  Access | Control | Functions | SecureRandom.SecureRandom | Settings
> => Layer.effect(JobApi, make(options))
