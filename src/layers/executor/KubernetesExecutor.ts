/**
 * Runs container jobs as batch/v1 Jobs of a cluster. A Job outlives its worker: who closes a run's scope without an outcome
 * leaves it to be adopted; stop, limits and failures remove it; what ended by itself stays until its outcome is written
 * down, and then for its TTL.
 */
import { Cause, Deferred, Effect, Exit, Fiber, Layer, Queue, Stream } from "effect"
import type { Container } from "../../schemas/Container.ts"
import { imageRefusal } from "../../schemas/ImagePolicy.ts"
import { keyOf } from "../../schemas/Job.ts"
import { needsOf } from "../../schemas/Limits.ts"
import { isSuccess, Outcome } from "../../schemas/Outcome.ts"
import { secretRefusal } from "../../schemas/SecretPolicy.ts"
import type { PhaseUsage, Usage } from "../../schemas/Usage.ts"
import { requestHash } from "../intake/RequestHash.ts"
import { follow } from "../kubernetes/Follow.ts"
import { type Cluster, isPassing, Kubernetes, KubernetesError, type Tracking } from "../kubernetes/Kubernetes.ts"
import { pauseAfter } from "../kubernetes/Logs.ts"
import {
  ACCOUNTED_ANNOTATION,
  ATTEMPT_LABEL,
  isOf,
  jobName,
  labelsOf,
  manifestOf,
  ttlOf,
  unschedulableMsOf
} from "../kubernetes/Manifest.ts"
import { type Job, trueCondition } from "../kubernetes/Objects.ts"
import { type Standing, standingOf } from "../kubernetes/Standing.ts"
import { monotonicMs, nowMs } from "../Now.ts"
import { within } from "../Release.ts"
import { type Assignment, Executor, type Run, type RunEvent, type StopRequest } from "./Executor.ts"

const driver = "kubernetes"

/** How long an API server may be away before a run that needs it is given up. */
const PATIENCE_MS = 300_000
/** How long what was told to go may take beyond its grace. */
const REMOVAL_MS = 30_000
/** How long the rest of the output may take once the program has ended and the API server is there. */
const LOG_MS = 300_000
/** Between an outcome and the word that it is accounted for: it is written down meanwhile. */
const SETTLE_MS = 2000

/** Limits a pod can be held to; a job that asks for others is told so. */
const unheld = ["cpuMs", "pids", "fileBytes", "diskInodes", "openFiles"] as const

type Emit = (event: RunEvent) => Effect.Effect<unknown>

/** Why a run is ended by us. The first reason stands. */
interface Verdict {
  readonly outcome: Outcome
  readonly graceSeconds: number
}

const failed = (reason: string, remedy: string): Outcome => Outcome.cases.SandboxFailed.make({ driver, reason, remedy })

const ofError = (error: KubernetesError): Outcome =>
  error.trouble === "invalid"
    ? Outcome.cases.Rejected.make({ reason: `the cluster does not take it: ${error.reason}`, remedy: error.remedy })
    : failed(`cannot ${error.operation}: ${error.reason}`, error.remedy)

const utf8 = new TextEncoder()

/** Why it could never run in a cluster as it is. */
const refusal = ({ class: sandboxClass, job, program }: Assignment): Outcome | undefined => {
  const { container, files, phases: [phase, ...others] } = program
  const no = (reason: string, remedy: string) => Outcome.cases.Rejected.make({ reason, remedy })
  if (container === undefined || others.length > 0) {
    return no(
      `${job.function} is no container, and class ${sandboxClass.name} runs nothing else`,
      "Send it to a class of another driver, or use the function `container`."
    )
  }
  if (files.length > 0 || phase.stdin.length > 0) {
    return no("files and stdin cannot be brought to a cluster's pod", "Put them into the image, or into a bucket.")
  }
  if (sandboxClass.network !== "host") {
    return no(
      `class ${sandboxClass.name} says network ${JSON.stringify(sandboxClass.network)}, which no pod is held to`,
      "Leave the class's network out: what pods reach is the cluster's affair (NetworkPolicy)."
    )
  }
  const refused = imageRefusal(sandboxClass.images, container.image)
  if (refused !== undefined) return no(refused.reason, refused.remedy)
  const { secrets, storeSecret } = sandboxClass.cluster ?? {}
  const secret = secretRefusal(secrets, storeSecret, container)
  if (secret !== undefined) return no(secret.reason, secret.remedy)
  const [need] = needsOf(phase.limits).values()
  const limit = need ?? unheld.find((name) => job.limits[name] !== undefined)
  return limit === undefined
    ? undefined
    : no(`${limit} cannot be held: pods have no such limit`, "Leave it out, or use a class of another driver.")
}

const isEnded = ({ status }: Job) => trueCondition(status?.conditions, "Complete", "Failed") !== undefined

/** What is asked for again until it is answered, for as long as an API server may be away. */
const patiently = <A>(effect: Effect.Effect<A, KubernetesError>): Effect.Effect<A, KubernetesError> =>
  Effect.gen(function*() {
    const began = yield* monotonicMs
    for (let failures = 0;; failures += 1) {
      const done = yield* Effect.result(effect)
      if (done._tag === "Success") return done.success
      if (!isPassing(done.failure) || (yield* monotonicMs) - began > PATIENCE_MS) return yield* done.failure
      yield* pauseAfter(failures)
    }
  })

/** One run, from finding or making its Job to its outcome. */
const carry = Effect.fnUntraced(function*(
  kubernetes: Kubernetes["Service"],
  assignment: Assignment,
  stop: Deferred.Deferred<StopRequest>,
  emit: Emit,
  account: (cluster: Cluster, job: Job, ttlSeconds: number) => Effect.Effect<void>,
  isAccounted: (job: Job) => boolean
) {
  const { attempt, class: sandboxClass, job: request, program } = assignment
  const [phase] = program.phases
  const { limits } = phase
  const setup = sandboxClass.cluster ?? {}
  const key = keyOf(request)
  const began = yield* monotonicMs
  const used: Array<PhaseUsage> = []
  const provision: { provisionMicros?: number } = {}

  const finish = Effect.fnUntraced(function*(outcome: Outcome) {
    const reason = program.container?.buckets === undefined
      ? "pods bring no files back: name a bucket for them"
      : "pods bring no files back: its program has to put them into the bucket"
    for (const path of program.artefacts) {
      yield* emit({ _tag: "ArtefactMissing", path, reason })
    }
    const usage: Usage = { ...provision, phases: used }
    yield* emit({ _tag: "Finished", outcome, usage })
  })

  const refused = refusal(assignment)
  if (refused !== undefined || program.container === undefined) {
    return yield* finish(refused ?? failed("there is no container", "This is a defect of Stoker; please report it."))
  }
  const container: Container = program.container
  const opened = yield* Effect.result(kubernetes.cluster(setup))
  if (opened._tag === "Failure") return yield* finish(ofError(opened.failure))
  const cluster = opened.success
  const hash = requestHash(request)
  const name = jobName(container, key, attempt)
  const manifest = manifestOf({
    container,
    key,
    requestHash: hash,
    attempt,
    limits,
    setup,
    namespace: cluster.namespace
  })

  const verdict = yield* Deferred.make<Verdict>()
  const decide = (what: Verdict) => Deferred.succeed(verdict, what)
  yield* Effect.forkScoped(
    Effect.flatMap(
      Deferred.await(stop),
      ({ graceMs, reason }) => decide({ outcome: Outcome.cases.Stopped.make({ reason }), graceSeconds: graceMs / 1000 })
    )
  )

  const isOurs = (job: Job) => isOf(job.metadata.labels, key) && !isAccounted(job)
  const isLeaving = ({ metadata }: Job) => (metadata.deletionTimestamp ?? undefined) !== undefined

  const attemptOf = ({ metadata }: Job) => Number(metadata.labels?.[ATTEMPT_LABEL] ?? 0)

  /**
   * What an earlier attempt began and nobody has accounted for; waits for what is being removed. What ended in an earlier
   * try has most often been told by a worker that is about to say so; if it does not, it died first.
   */
  const find = Effect.fnUntraced(function*() {
    const asked = yield* monotonicMs
    while (true) {
      const found = (yield* patiently(cluster.listJobs(labelsOf(key)))).filter(isOurs)
      const mayBeTold = (yield* monotonicMs) - asked > 3 * SETTLE_MS
        ? () => false
        : (job: Job) => isEnded(job) && attemptOf(job) < (assignment.firstAttempt ?? 1)
      const staying = found.filter((job) => !isLeaving(job) && !mayBeTold(job))
      if (staying.length > 0 || found.length === 0) return staying.toSorted((a, b) => attemptOf(b) - attemptOf(a))[0]
      yield* Effect.sleep(500)
    }
  })

  /** Asked once; `undefined`: to be asked again. Its name is taken by what we began and do not know of, or by what is over. */
  const create = Effect.fnUntraced(function*() {
    const made = yield* Effect.result(cluster.createJob(manifest))
    if (made._tag === "Success") return made.success
    if (made.failure.trouble !== "conflict") return yield* made.failure
    const there = yield* cluster.getJob(name)
    if (there === undefined || isLeaving(there)) return undefined
    const isSame = there.metadata.annotations?.["stoker.dev/request"] === hash
    if (isOurs(there) && isSame) return there
    if (!isOf(there.metadata.labels, key) || !(isEnded(there) || isAccounted(there))) {
      return yield* new KubernetesError({
        trouble: "forbidden",
        operation: `create jobs in namespace ${cluster.namespace}`,
        reason: `there is another Job ${name}`,
        remedy: "Delete it, or give Stoker a namespace of its own."
      })
    }
    yield* cluster.deleteJob(name, there.metadata.uid, "Background")
    return undefined
  })

  const obtain = Effect.gen(function*() {
    const found = attempt > 1 ? yield* find() : undefined
    if (found !== undefined) return found
    for (let failures = 0;; failures += 1) {
      const made = yield* Effect.result(create())
      if (made._tag === "Success" && made.success !== undefined) return made.success
      if (made._tag === "Failure" && !isPassing(made.failure)) return yield* made.failure
      if ((yield* monotonicMs) - began > PATIENCE_MS) {
        return yield* made._tag === "Failure" ? made.failure : new KubernetesError({
          trouble: "conflict",
          operation: `create jobs in namespace ${cluster.namespace}`,
          reason: `the Job ${name} of an earlier attempt does not go away`,
          remedy: "Find out what keeps it: `kubectl get job -o yaml` shows its finalizers."
        })
      }
      yield* pauseAfter(failures)
    }
  })

  /** Removes a Job and waits until nothing of it runs: `false`, if that could not be seen. */
  const remove = Effect.fnUntraced(function*(job: Job, tracking: Tracking, graceSeconds: number) {
    const { name, uid } = job.metadata
    // The Job first: whoever loses a pod of a Job that stays may make another one.
    const asked = yield* Effect.result(patiently(cluster.deleteJob(name, uid, "Foreground")))
    if (asked._tag === "Failure") {
      yield* Effect.logWarning(`the Job ${name} could not be removed: ${asked.failure.message}`)
      return false
    }
    const { pods } = yield* tracking.seen
    yield* Effect.forEach(
      pods.filter(({ isGone }) => !isGone),
      ({ pod }) => Effect.ignore(cluster.deletePod(pod.metadata.name, pod.metadata.uid, graceSeconds)),
      { concurrency: 4, discard: true }
    )
    const limitMs = Math.max(1, graceSeconds) * 1000 + REMOVAL_MS
    const gone = Effect.gen(function*() {
      for (let round = 0;; round += 1) {
        const { isJobGone, pods } = yield* tracking.seen
        if (isJobGone && pods.every(({ isGone }) => isGone)) return
        yield* tracking.changed.pipe(Effect.timeoutOption("2 seconds"))
        if (round > 0) yield* Effect.ignore(tracking.refresh)
      }
    })
    return yield* gone.pipe(
      Effect.as(true),
      Effect.timeoutOrElse({ duration: limitMs, orElse: () => Effect.succeed(false) })
    )
  })

  /** A stop that comes before there is a Job, or while it is being made. */
  const abandon = Effect.fnUntraced(function*(outcome: Outcome) {
    const there = yield* Effect.result(patiently(cluster.getJob(name)))
    if (there._tag === "Success" && there.success !== undefined && isOurs(there.success)) {
      const tracking = yield* cluster.track(there.success)
      yield* remove(there.success, tracking, 0)
    }
    return yield* finish(outcome)
  })

  // Not broken off in the middle of a request, which may have been heard.
  const obtaining = yield* Effect.forkScoped(obtain, { startImmediately: true })
  const first = yield* Effect.raceFirst(
    Effect.map(Fiber.await(obtaining), (exit) => ({ exit })),
    Effect.map(Deferred.await(verdict), ({ outcome }) => ({ outcome }))
  )
  if ("outcome" in first) {
    yield* Fiber.interrupt(obtaining)
    return yield* abandon(first.outcome)
  }
  if (Exit.isFailure(first.exit)) {
    const error = Cause.findErrorOption(first.exit.cause)
    return error._tag === "Some"
      ? yield* finish(ofError(error.value))
      : yield* Effect.failCause(first.exit.cause as Cause.Cause<never>)
  }
  const job = first.exit.value
  const place = `${cluster.namespace}/job/${job.metadata.name}`
  const tracking = yield* cluster.track(job)
  if (attempt > 1 || isEnded(job)) yield* Effect.ignore(tracking.refresh)
  const unschedulableMs = unschedulableMsOf(setup)
  const look = Effect.map(tracking.seen, (seen) => standingOf(seen, phase, container.image, unschedulableMs))

  let isOver = false
  let written = 0
  let logging: Fiber.Fiber<void, KubernetesError> | undefined
  let readyMs = 0

  /** The container has begun, or had when we came. */
  const ready = Effect.fnUntraced(function*(pod: string, { startedMs }: Standing) {
    readyMs = yield* monotonicMs
    const provisionMicros = Math.round((readyMs - began) * 1000)
    provision.provisionMicros = provisionMicros
    yield* emit({ _tag: "Ready", place, provisionMicros })
    yield* emit({ _tag: "PhaseStarted", phase: phase.name })
    const hear = (bytes: Uint8Array) => {
      written += bytes.length
      const output = emit({ _tag: "Output", stream: "stdout", bytes })
      if (limits.outputPolicy === "truncate" || written <= limits.outputBytes) return output
      const limitBytes = limits.outputBytes
      const outcome = Outcome.cases.OutputExceeded.make({ phase: phase.name, stream: "stdout", limitBytes })
      return Effect.andThen(output, decide({ outcome, graceSeconds: 0 }))
    }
    logging = yield* follow(cluster, pod, () => isOver, hear).pipe(
      Effect.tapError((error) =>
        error.trouble === "forbidden" ? decide({ outcome: ofError(error), graceSeconds: 0 }) : Effect.void
      ),
      Effect.forkScoped({ startImmediately: true })
    )
    // What an earlier attempt has used up, by the node's clock, as far as ours agrees with it.
    const spentMs = attempt > 1 && startedMs !== undefined ? Math.max(0, (yield* nowMs) - startedMs) : 0
    yield* Effect.forkScoped(overtime(Math.max(0, limits.wallMs - spentMs)))
  })

  /** Its time is up; it may have ended before, while nobody could tell us. */
  const overtime = Effect.fnUntraced(function*(leftMs: number) {
    yield* Effect.sleep(leftMs)
    yield* Effect.ignore(patiently(tracking.refresh))
    if ((yield* look).isOver) return
    const outcome = Outcome.cases.TimedOut.make({ phase: phase.name, limit: "wall", limitMs: limits.wallMs })
    yield* decide({ outcome, graceSeconds: 0 })
  })

  let trouble: { readonly name: string; readonly sinceMs: number } | undefined
  let ended: Outcome | undefined
  while (ended === undefined && !Deferred.isDoneUnsafe(verdict)) {
    const standing = yield* look
    if (logging === undefined && standing.pod !== undefined) yield* ready(standing.pod, standing)
    const { end } = standing
    const now = yield* monotonicMs
    if (end === undefined) trouble = undefined
    else if (trouble?.name !== end.trouble) trouble = { name: end.trouble, sinceMs: now }
    const leftMs = end === undefined || trouble === undefined ? undefined : trouble.sinceMs + end.afterMs - now
    if (end !== undefined && leftMs !== undefined && leftMs <= 0) {
      // Before a Job is given up for what was not seen, it is asked for once more.
      if (end.afterMs > 0 && (yield* Effect.result(tracking.refresh))._tag === "Success") {
        const again = (yield* look).end
        if (again?.trouble !== end.trouble) continue
      }
      ended = end.outcome
      break
    }
    yield* Effect.raceAllFirst([
      tracking.changed,
      Effect.asVoid(Deferred.await(verdict)),
      leftMs === undefined ? Effect.never : Effect.sleep(leftMs)
    ])
  }

  const decided = ended === undefined ? yield* Deferred.await(verdict) : undefined
  let outcome = decided?.outcome ?? ended ??
    failed("there is no outcome", "This is a defect of Stoker; please report it.")
  const standing = yield* look
  const isLeft = decided === undefined && standing.isOver && !(yield* tracking.seen).isJobGone
  const endedMs = yield* monotonicMs
  if (decided !== undefined || !isLeft) {
    const isRemoved = yield* remove(job, tracking, decided?.graceSeconds ?? 0)
    if (!isRemoved && decided !== undefined) {
      yield* Effect.logWarning(`nobody saw the end of ${place}: its pod may run on until its node answers`)
    }
  }
  isOver = true
  if (logging !== undefined) {
    const read = yield* Fiber.await(logging).pipe(
      Effect.timeoutOption(isLeft ? LOG_MS : 5000),
      Effect.onInterrupt(() => logging === undefined ? Effect.void : Fiber.interrupt(logging))
    )
    const broken = read._tag === "None"
      ? "it took too long"
      : Exit.isFailure(read.value)
      ? String(Cause.squash(read.value.cause))
      : undefined
    let noteBytes = 0
    if (broken !== undefined && decided === undefined) {
      const bytes = utf8.encode(`stoker: the end of the output could not be read: ${broken}\n`)
      noteBytes = bytes.length
      yield* emit({ _tag: "Output", stream: "stderr", bytes })
    }
    const { finishedMs, startedMs } = standing
    const byNode = finishedMs === undefined || startedMs === undefined ? undefined : finishedMs - startedMs
    const seenMs = endedMs - readyMs
    // Ours is finer, the node's is right where we came late.
    const wallMs = byNode !== undefined && (attempt > 1 || byNode > seenMs + 1000) ? byNode : seenMs
    const usage: PhaseUsage = {
      phase: phase.name,
      wallMicros: Math.max(0, Math.round(wallMs * 1000)),
      stdoutBytes: written,
      stderrBytes: noteBytes
    }
    used.push(usage)
    yield* emit({ _tag: "PhaseEnded", phase: phase.name, usage })
    // What was read at the very end may have been too much.
    if (decided === undefined && Deferred.isDoneUnsafe(verdict) && outcome._tag !== "SandboxFailed") {
      outcome = (yield* Deferred.await(verdict)).outcome
    }
  }
  if (isLeft) yield* account(cluster, job, ttlOf(container, isSuccess(outcome)))
  return yield* finish(outcome)
}, Effect.scoped)

const make = Effect.gen(function*() {
  const kubernetes = yield* Kubernetes
  const layerScope = yield* Effect.scope
  /** Ended here, and their outcome is being written down: uids. */
  const settling = new Set<string>()
  const isAccounted = ({ metadata }: Job) =>
    metadata.annotations?.[ACCOUNTED_ANNOTATION] !== undefined || settling.has(metadata.uid)

  /** Leaves an ended Job to its TTL, a moment after its outcome: until then whoever comes back finds it. */
  const account = Effect.fnUntraced(function*(cluster: Cluster, { metadata: { name, uid } }: Job, ttlSeconds: number) {
    settling.add(uid)
    const patch = {
      metadata: { uid, annotations: { [ACCOUNTED_ANNOTATION]: "true" } },
      spec: { ttlSecondsAfterFinished: ttlSeconds }
    }
    const say = patiently(cluster.patchJob(name, patch)).pipe(
      // Gone already, which is as good.
      Effect.catchTag("KubernetesError", (error) =>
        error.trouble === "absent" || error.trouble === "conflict"
          ? Effect.void
          : Effect.logWarning(`the ended Job ${name} stays for a day: ${error.message}`)),
      Effect.andThen(Effect.sync(() => settling.delete(uid)))
    )
    // A worker that ends says it at once: its jobs are settled by then.
    const last = within("the word that a Job is accounted for", "5 seconds")(say)
    yield* Effect.uninterruptibleMask((restore) =>
      restore(Effect.andThen(Effect.sleep(SETTLE_MS), say)).pipe(Effect.onInterrupt(() => last))
    ).pipe(Effect.forkIn(layerScope, { startImmediately: true }))
  })

  const begin = Effect.fnUntraced(function*(assignment: Assignment) {
    const events = yield* Queue.bounded<RunEvent, Cause.Done>(16)
    const stop = yield* Deferred.make<StopRequest>()
    const emit = (event: RunEvent) => Queue.offer(events, event)
    yield* carry(kubernetes, assignment, stop, emit, account, isAccounted).pipe(
      Effect.catchCause((cause) =>
        Effect.andThen(
          Effect.logError("a run ended in a defect", cause),
          emit({
            _tag: "Finished",
            outcome: failed(
              `internal error: ${String(Cause.squash(cause))}`,
              "This is a defect of Stoker; please report it with the worker's log."
            ),
            usage: { phases: [] }
          })
        )
      ),
      Effect.andThen(Queue.end(events)),
      Effect.forkScoped({ startImmediately: true })
    )
    const run: Run = {
      events: Stream.fromQueue(events),
      stop: (request) => Effect.asVoid(Deferred.succeed(stop, request))
    }
    return run
  })

  return Executor.of({
    start: Effect.fn("KubernetesExecutor.start")(begin),
    // A first attempt has nothing before it but what has its very name, which `start` meets. A later one finds out by itself,
    // so that it can be stopped while it does.
    adopt: Effect.fn("KubernetesExecutor.adopt")(function*(assignment: Assignment) {
      return assignment.attempt > 1 ? yield* begin(assignment) : undefined
    })
  })
})

/** Jobs of classes whose driver is `kubernetes`. */
export const layer = Layer.effect(Executor, make)
