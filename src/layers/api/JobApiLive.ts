/** The control plane over the worker's `Control`: rights, references, checks before a job is taken, views. */
import { Effect, Layer, Option, Schema, type Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import type { Caller, Method, Right } from "../../schemas/Access.ts"
import { type ApiReply } from "../../schemas/dialects/Api.ts"
import { type Definition, InvalidArguments, unmetNeed } from "../../schemas/Function.ts"
import { ClassName, type JobId, JobId as JobIdSchema, type JobKey, Owner } from "../../schemas/Ids.ts"
import type { Job } from "../../schemas/Job.ts"
import { resolve } from "../../schemas/Limits.ts"
import { nearest } from "../../schemas/Nearest.ts"
import { standardTerms } from "../../schemas/Terms.ts"
import { Settings } from "../config/Settings.ts"
import { Control } from "../control/Control.ts"
import { Functions } from "../functions/Functions.ts"
import { requestHash } from "../intake/RequestHash.ts"
import { JobCursor, type JobRecord } from "../journal/Journal.ts"
import type { ReadOptions } from "../log/Log.ts"
import { Access } from "./Access.ts"
import { follow } from "./Follow.ts"
import {
  Forbidden,
  IdTaken,
  type Inner,
  INTAKE,
  InvalidRequest,
  JobApi,
  type JobRef,
  NotEnded,
  type StartRequest,
  Unavailable,
  UnknownJob
} from "./JobApi.ts"
import * as JobNews from "./JobNews.ts"
import { newId } from "./NewId.ts"
import { functionViewOf, viewOf } from "./Views.ts"

export interface JobApiOptions {
  /** Whether the operator lets outcomes be posted there. Absent: nowhere. */
  readonly mayPost?: (url: string) => boolean
}

/** What is read at once at most. */
const mostBytes = 4 * 1024 * 1024
/** Milliseconds one read waits at most, and how long a start may wait. */
const longestRead = 30_000
const longestStart = 600_000
const standardGrace = 2000
const longestGrace = 3_600_000
const standardPage = 100
const mostPage = 1000

const decodeId = Schema.decodeUnknownOption(JobIdSchema)
const decodeOwner = Schema.decodeUnknownOption(Owner)
const decodeClass = Schema.decodeUnknownOption(ClassName)
const decodeCursor = Schema.decodeUnknownOption(JobCursor)
const isJson = Schema.is(Schema.Json)

const unavailable = ({ reason, remedy }: Inner) => new Unavailable({ reason, remedy })
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
    const news = yield* JobNews.make
    const byName = new Map<string, Definition>(definitions.map((definition) => [definition.name, definition]))
    const offered = definitions.map(functionViewOf)

    /** The caller's right, which is not `none`. */
    const entitled = Effect.fnUntraced(function*(caller: Caller, method: Method) {
      const right = yield* access.right(caller, method)
      return right === "none" ? yield* new Forbidden({ caller: caller.name, method }) : right
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
          JournalError: (error) => Effect.fail(unavailable(error))
        })
      )

    /** Jobs of the control plane are found by their key; those of other doors by looking. */
    const find = Effect.fnUntraced(function*(caller: Caller, right: Right, ref: JobRef) {
      const id = yield* idOf(ref.id)
      const named = ref.owner === undefined ? undefined : yield* ownerOf(ref.owner)
      const unknown = new UnknownJob({ id })
      if (right !== "super" && named !== undefined && named !== caller.name) return yield* unknown
      const owner = named ?? (right === "super" ? undefined : caller.name)
      const own = yield* statusOf({ intake: INTAKE, owner: owner ?? caller.name, id }).pipe(
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

    const allowed = Effect.fnUntraced(function*(caller: Caller, method: Method, ref: JobRef) {
      return yield* find(caller, yield* entitled(caller, method), ref)
    })

    const view = (record: JobRecord) => viewOf(record, { args: true })

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
      if (request.webhook !== undefined && options.mayPost?.(request.webhook) !== true) {
        return yield* invalid(
          `outcomes are not posted to ${shown(request.webhook)}`,
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

    const start = Effect.fn("JobApi.start")(function*(caller: Caller, request: StartRequest) {
      const right = yield* entitled(caller, "start")
      const owner = request.owner === undefined ? caller.name : yield* ownerOf(request.owner)
      if (owner !== caller.name && right !== "super") {
        return yield* new Forbidden({ caller: caller.name, method: `start jobs of ${owner}` })
      }
      const { waitMs = 0 } = request
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
        ...(request.traceparent === undefined ? {} : { traceparent: request.traceparent })
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
        JournalError: (error) => Effect.fail(unavailable(error))
      }))
      return view(waitMs === 0 || record.state !== "queued" ? record : yield* awaiting(keyOfRecord(record), waitMs))
    })

    const readOf = (key: JobKey) => (options: ReadOptions) =>
      control.read(key, options).pipe(
        Effect.catchTag("LogError", (error) => Effect.fail(unavailable(error)))
      )

    return JobApi.of({
      start,
      stop: Effect.fn("JobApi.stop")(function*(caller, { graceMs = standardGrace, reason, ...ref }) {
        yield* within("the grace, in milliseconds,", graceMs, 0, longestGrace)
        const record = yield* allowed(caller, "stop", ref)
        const asked = { reason: reason ?? `stopped by ${caller.name}`, graceMs }
        return view(
          yield* control.stop(keyOfRecord(record), asked).pipe(Effect.catchTags({
            JobNotFound: () => Effect.fail(new UnknownJob({ id: ref.id })),
            JournalError: (error) => Effect.fail(unavailable(error))
          }))
        )
      }),
      status: Effect.fn("JobApi.status")(function*(caller, ref) {
        return view(yield* allowed(caller, "status", ref))
      }),
      list: Effect.fn("JobApi.list")(function*(caller, { cursor, function: name, limit = standardPage, owner, state }) {
        yield* within("the limit", limit, 1, mostPage)
        const right = yield* entitled(caller, "list")
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
      }),
      read: Effect.fn("JobApi.read")(function*(caller, { maxBytes, offset, run, stream = "all", waitMs = 0, ...ref }) {
        yield* within("the offset", offset, 0, Number.MAX_SAFE_INTEGER)
        yield* within("the number of bytes", maxBytes, 1, Number.MAX_SAFE_INTEGER)
        yield* within("the time to wait, in milliseconds,", waitMs, 0, longestRead)
        const record = yield* allowed(caller, "output", ref)
        const wanted = { stream, offset, maxBytes: Math.min(maxBytes, mostBytes), waitMs }
        return yield* readOf(keyOfRecord(record))({ ...wanted, ...(run === undefined ? {} : { run }) }).pipe(
          // It has not begun, or nothing of it is kept: nothing is there to be read, which is no error.
          Effect.catchTag("LogNotFound", () =>
            Effect.succeed({
              entries: [],
              next: offset,
              available: 0,
              run: "",
              ...(record.settlement === undefined
                ? {}
                : { end: { summaries: record.settlement.output, complete: record.settlement.output.length === 0 } })
            }))
        )
      }),
      follow: Effect.fn("JobApi.follow")(
        function*(caller, { from = { offset: 0 }, run, stream = "all", wait = true, ...ref }) {
          if ("offset" in from) yield* within("the offset", from.offset, 0, Number.MAX_SAFE_INTEGER)
          if ("lastLines" in from) yield* within("the number of lines", from.lastLines, 0, 1_000_000)
          const record = yield* allowed(caller, "output", ref)
          const key = keyOfRecord(record)
          return follow(
            { key, news, status: statusOf(key), read: readOf(key), view },
            { from, stream, wait, ...(run === undefined ? {} : { run }) }
          )
        }
      ),
      artefact: Effect.fn("JobApi.artefact")(function*(caller, ref, path, range) {
        const record = yield* allowed(caller, "output", ref)
        return yield* control.artefact(keyOfRecord(record), path, range).pipe(Effect.catchTags({
          JobNotFound: () => Effect.fail(new UnknownJob({ id: ref.id })),
          JournalError: (error) => Effect.fail(unavailable(error)),
          ArtefactError: (error) => Effect.fail(unavailable(error))
        }))
      }),
      functions: Effect.fn("JobApi.functions")(function*(caller) {
        yield* entitled(caller, "functions")
        return offered
      }),
      remove: Effect.fn("JobApi.remove")(function*(caller, ref) {
        const record = yield* allowed(caller, "delete", ref)
        yield* control.remove(keyOfRecord(record)).pipe(Effect.catchTags({
          JobNotFound: () => Effect.fail(new UnknownJob({ id: ref.id })),
          JobNotEnded: () => Effect.fail(new NotEnded({ id: ref.id })),
          JournalError: (error) => Effect.fail(unavailable(error)),
          LogError: (error) => Effect.fail(unavailable(error)),
          ArtefactError: (error) => Effect.fail(unavailable(error))
        }))
      })
    })
  })

export const layer = (options: JobApiOptions = {}): Layer.Layer<
  JobApi,
  never,
  Access | Control | Functions | SecureRandom.SecureRandom | Settings
> => Layer.effect(JobApi, make(options))
