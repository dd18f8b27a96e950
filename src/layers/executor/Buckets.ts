/**
 * Carries the files of a container job between its buckets and its sandbox, and its log to the output bucket: for executors
 * whose runs have no access of their own. A file is never whole in memory.
 */
import { Deferred, Effect, Option, Schema, Stream } from "effect"
import type { Buckets, Container } from "../../schemas/Container.ts"
import type { Job } from "../../schemas/Job.ts"
import { keyOf } from "../../schemas/Job.ts"
import { isSuccess, Outcome } from "../../schemas/Outcome.ts"
import { type Program, WorkPath } from "../../schemas/Program.ts"
import { Log } from "../log/Log.ts"
import { ObjectStore, type ObjectStoreError } from "../objectstore/ObjectStore.ts"
import type { Sandbox, SandboxLost, SandboxRefused } from "../sandbox/Sandbox.ts"
import { whyMissing } from "./Collect.ts"
import type { RunEvent, StopRequest } from "./Executor.ts"

/** What outcomes call this part of a run that failed. */
const driver = "objectstore"

/** Objects on their way into one sandbox at once: small ones would wait for each other's answers. */
const AT_ONCE = 4
const LOG_BYTES = 256 * 1024

const ENOSPC = 28

type Store = ObjectStore["Service"]

const rejected = (reason: string, remedy: string): Outcome => Outcome.cases.Rejected.make({ reason, remedy })
const failed = (reason: string, remedy: string): Outcome => Outcome.cases.SandboxFailed.make({ driver, reason, remedy })

const bucketsOf = ({ container }: Program): Buckets | undefined => container?.buckets

const outputOf = ({ input, output = input }: Buckets) => output
const nameIn = ({ prefix }: Buckets, name: string) => prefix === undefined ? name : `${prefix}-${name}`

/** A request that names what is not there is its sender's affair; all else is the operator's. */
const ofStore = (error: ObjectStoreError): Outcome =>
  error.code === "NoSuchBucket"
    ? rejected(`there is no bucket ${error.bucket}`, error.remedy)
    : failed(
      `${error.operation} ${error.bucket}${error.key === undefined ? "" : `/${error.key}`}: ${error.reason}`,
      error.remedy
    )

/** Told before a sandbox is taken. */
export const refusal = (program: Program, store: Option.Option<Store>): Outcome | undefined =>
  bucketsOf(program) === undefined || Option.isSome(store) ? undefined : rejected(
    "the job's files are in buckets, and this worker knows no object store",
    "Its operator sets `objectStore` in the configuration file; or send the job to a class of driver kubernetes."
  )

/** Ends early when the job is to be stopped, with `Stopped`; what was asked for before does not count. */
const unlessStopped = (stop: Deferred.Deferred<StopRequest>) => <A, R>(effect: Effect.Effect<A, Outcome, R>) =>
  Deferred.isDoneUnsafe(stop) ? effect : Effect.raceFirst(
    effect,
    Effect.flatMap(Deferred.await(stop), ({ reason }) => Effect.fail<Outcome>(Outcome.cases.Stopped.make({ reason })))
  )

const isWorkPath = Schema.is(WorkPath)

/** What is to be brought, once it is known that there is room for it. */
const contents = Effect.fnUntraced(function*(store: Store, buckets: Buckets, { phases }: Program) {
  const { input } = buckets
  const prefix = nameIn(buckets, "")
  const room = Math.max(...phases.map(({ limits }) => limits.diskBytes))
  const places = Math.max(...phases.map(({ limits }) => limits.diskInodes))
  const found: Array<{ readonly key: string; readonly path: WorkPath }> = []
  let sum = 0
  yield* store.list(input, prefix).pipe(
    Stream.mapError(ofStore),
    Stream.runForEach(({ bytes, key }) => {
      // What browsers of stores make to show a folder.
      if (key.endsWith("/") && bytes === 0) return Effect.void
      const path = key.slice(prefix.length)
      sum += bytes
      if (!isWorkPath(path)) {
        return Effect.fail(rejected(
          `object ${key} of bucket ${input} cannot be a file: '${path}' is no path inside a workspace`,
          "Name it otherwise, or give the job a prefix that leaves it out."
        ))
      }
      found.push({ key, path })
      if (sum > room || found.length > places) {
        const [what, limit] = sum > room ? [`${sum} bytes`, "diskBytes"] : [`${found.length} objects`, "diskInodes"]
        return Effect.fail(rejected(
          `bucket ${input} has more for this job than its workspace holds: ${what} or more`,
          `Ask for more with the limit ${limit}, or give the job a prefix.`
        ))
      }
      return Effect.void
    })
  )
  return found
})

/** Puts the input bucket's objects into the workspace, by their names without the prefix. Fails with how the job ends. */
export const bringIn = Effect.fnUntraced(function*(
  program: Program,
  store: Option.Option<Store>,
  sandbox: Sandbox,
  stop: Deferred.Deferred<StopRequest>,
  ofSandbox: (error: SandboxLost) => Outcome
): Effect.fn.Return<void, Outcome> {
  const buckets = bucketsOf(program)
  if (buckets === undefined || Option.isNone(store)) return
  const { putStream } = sandbox
  if (putStream === undefined) {
    return yield* Effect.fail(rejected(
      `driver ${sandbox.driver} cannot be brought files as they come`,
      "Use a class of driver oci."
    ))
  }
  const { input } = buckets
  const told = (key: string) => (error: ObjectStoreError | SandboxLost | SandboxRefused): Outcome => {
    if (error._tag === "ObjectStoreError") return ofStore(error)
    if (error._tag === "SandboxLost") return ofSandbox(error)
    return rejected(
      `object ${key} of bucket ${input} could not be put into the workspace: ${error.reason}`,
      error.errno === ENOSPC
        ? "Ask for more with the limits diskBytes and diskInodes."
        : "Rename it: a file and a directory cannot have one name."
    )
  }
  const carrying = Effect.flatMap(contents(store.value, buckets, program), (objects) =>
    Effect.forEach(
      objects,
      ({ key, path }) => Effect.mapError(putStream(path, store.value.get(input, key)), told(key)),
      { concurrency: AT_ONCE, discard: true }
    ))
  yield* unlessStopped(stop)(carrying)
})

/**
 * Puts the job's artefacts into the output bucket, `[prefix-]name`, and tells of each where it went or why it did not. Gives
 * the outcome: the run's own, unless that was a success and something of it could not be stored.
 */
export const takeOut = Effect.fnUntraced(function*(
  program: Program,
  store: Option.Option<Store>,
  sandbox: Sandbox,
  outcome: Outcome,
  stop: Deferred.Deferred<StopRequest>,
  emit: (event: RunEvent) => Effect.Effect<unknown>
) {
  const buckets = bucketsOf(program)
  const { getStream } = sandbox
  if (buckets === undefined || Option.isNone(store) || getStream === undefined) return undefined
  const bucket = outputOf(buckets)
  let ended = outcome
  for (const path of program.artefacts) {
    const key = nameIn(buckets, path)
    const tell = (reason: string): RunEvent => ({ _tag: "ArtefactMissing", path, reason })
    const putting = store.value.put(bucket, key, getStream(path)).pipe(
      Effect.map(({ bytes }): RunEvent => ({ _tag: "ArtefactStored", path, bucket, key, bytes })),
      // A file that is not there is none of the store's failures; the run's outcome stands.
      Effect.catchTag("SandboxRefused", (error) => Effect.succeed(tell(whyMissing(error)))),
      Effect.catchTag("SandboxLost", ({ reason }) => Effect.succeed(tell(`its sandbox is gone: ${reason}`))),
      Effect.mapError((error) => unstored(outcome, `${path} could not be stored as ${bucket}/${key}`, error))
    )
    const put = yield* Effect.result(unlessStopped(stop)(putting))
    if (put._tag === "Success") {
      yield* emit(put.success)
      continue
    }
    yield* emit(tell(reasonOf(put.failure)))
    if (isSuccess(ended)) ended = put.failure
    if (put.failure._tag === "Stopped") break
  }
  return ended
})

const reasonOf = (outcome: Outcome) => "reason" in outcome ? outcome.reason : outcome._tag

/** A success whose products are nowhere is none; the code stays in the words. */
const unstored = (
  outcome: Outcome,
  what: string,
  error: { readonly reason: string; readonly remedy: string }
): Outcome =>
  failed(
    `${
      outcome._tag === "Exited" ? `the program exited with status ${outcome.code}, but ` : ""
    }${what}: ${error.reason}`,
    error.remedy
  )

/** The worker's log of one job, from its beginning to its end; of what was not kept, how much that was. */
const logBytes = (log: Log["Service"], job: Job) =>
  Stream.paginate({ offset: 0, run: undefined as string | undefined }, ({ offset, run }) =>
    Effect.map(
      log.read(keyOf(job), {
        stream: "all",
        offset,
        maxBytes: LOG_BYTES,
        waitMs: 0,
        ...(run === undefined ? {} : { run })
      }),
      (slice) => {
        const pieces = slice.entries.map((entry) =>
          entry._tag === "Bytes"
            ? entry.bytes
            : Buffer.from(`\n[stoker: ${entry.to - entry.from} bytes of ${entry.stream} were not kept]\n`)
        )
        const isOver = slice.end !== undefined || slice.next <= offset
        return [pieces, isOver ? Option.none() : Option.some({ offset: slice.next, run: slice.run })] as const
      }
    ))

/** Workers that have been told that they keep no logs in buckets. */
const warned = new WeakSet<object>()

/** The name of a container job's log in its output bucket. */
export const logName = (buckets: Buckets, { name }: Container, { id }: Job): string =>
  nameIn(buckets, `${name}-${id}.log`)

/**
 * Puts the log of a container job with buckets into its output bucket, whoever ran it: to be called when the log has ended,
 * before anybody is told how the job did. Gives the outcome: the run's own, unless that was a success and the log could not
 * be stored.
 */
export const storeLog = Effect.fnUntraced(function*(
  job: Job,
  { container }: Program,
  outcome: Outcome,
  stop: Deferred.Deferred<StopRequest>
) {
  const buckets = container?.buckets
  // What was refused has not run.
  if (container === undefined || buckets === undefined || outcome._tag === "Rejected") return outcome
  const log = yield* Log
  const store = Option.getOrUndefined(yield* Effect.serviceOption(ObjectStore))
  if (store === undefined) {
    if (!warned.has(log)) {
      warned.add(log)
      yield* Effect.logWarning("no object store is configured: logs of container jobs are not put into their buckets")
    }
    return outcome
  }
  const key = logName(buckets, container, job)
  const bucket = outputOf(buckets)
  const put = yield* store.put(bucket, key, logBytes(log, job), "text/plain; charset=utf-8").pipe(
    Effect.catchTag("LogNotFound", (error) => Effect.fail({ reason: error.message, remedy: "See the worker's log." })),
    Effect.mapError((error) => unstored(outcome, `its log could not be stored as ${bucket}/${key}`, error)),
    unlessStopped(stop),
    Effect.result
  )
  if (put._tag === "Success") return outcome
  yield* Effect.logWarning(`job ${job.id}: ${reasonOf(put.failure)}`)
  return isSuccess(outcome) ? put.failure : outcome
})
