/** What a Job and its pods amount to: whether the program runs, and how it ended. Pure; the executor has the clock. */
import { Outcome, signalNames } from "../../schemas/Outcome.ts"
import type { Phase } from "../../schemas/Program.ts"
import type { Seen } from "./Kubernetes.ts"
import { millisOf, type Pod, stateOf, type Terminated, trueCondition } from "./Objects.ts"

/** An end that stands: at once, or if nothing else is seen for so long. */
export interface End {
  readonly outcome: Outcome
  readonly afterMs: number
  /** The same for as long as it is the same trouble. */
  readonly trouble: string
}

export interface Standing {
  /** The pod whose output is the job's, once its container has begun. */
  readonly pod: string | undefined
  /** Milliseconds since 1970, by the node's clock, in whole seconds. */
  readonly startedMs: number | undefined
  readonly finishedMs: number | undefined
  /** Its container has ended: nothing of it runs any more. */
  readonly isOver: boolean
  readonly end: End | undefined
}

/** Pulling is tried again by the node; a registry may come back in this time. */
const PULL_MS = 60_000
/** What a node reports while it gets ready may pass: secrets that are not yet there, a busy runtime. */
const PREPARE_MS = 30_000
/** What one watch says may be explained by the other a moment later. */
const OTHER_WATCH_MS = 3000
/** A pod that is to go and does not: its node answers nobody. */
const SILENT_NODE_MS = 60_000

const driver = "kubernetes"

const failed = (reason: string, remedy: string): Outcome => Outcome.cases.SandboxFailed.make({ driver, reason, remedy })
const rejected = (reason: string, remedy: string): Outcome => Outcome.cases.Rejected.make({ reason, remedy })

const at = (trouble: string, outcome: Outcome, afterMs = 0): End => ({ trouble, outcome, afterMs })

const said = (...parts: ReadonlyArray<string | null | undefined>): string =>
  parts.filter((part) => part !== null && part !== undefined && part !== "").join(": ")

const AGAIN = "Send it again; `kubectl describe` of the node tells more."
const DELETED = "Find out who deletes Jobs and pods of Stoker in its namespace; stop jobs through Stoker."

const isNoProgram = (message: string) =>
  /executable file not found|no such file or directory|permission denied|exec format error/i.test(message)

const cannotStart = (reason: string) =>
  rejected(
    `the program cannot be started: ${reason}`,
    "Check `command` and the image: whether the program is in it, and whether a user who is not root may run it."
  )

/** Statuses above 128 are how container runtimes report a death by signal; a program may also have said so itself. */
const ofExit = (phase: Phase, { exitCode, signal }: Terminated): Outcome => {
  const died = signal !== null && signal !== undefined && signal > 0 ? signal : exitCode - 128
  return exitCode !== 0 && signalNames[died] !== undefined
    ? Outcome.cases.Signalled.make({ phase: phase.name, signal: died })
    : Outcome.cases.Exited.make({ phase: phase.name, code: exitCode })
}

const timedOut = (phase: Phase) =>
  Outcome.cases.TimedOut.make({ phase: phase.name, limit: "wall", limitMs: phase.limits.wallMs })

const ofTerminated = (phase: Phase, ended: Terminated): Outcome => {
  switch (ended.reason) {
    case "OOMKilled":
      return Outcome.cases.OutOfMemory.make({ phase: phase.name, limitBytes: phase.limits.memoryBytes })
    case "ContainerCannotRun":
    case "StartError":
      return cannotStart(said(ended.message) || `${ended.reason}, exit status ${ended.exitCode}`)
    case "ContainerStatusUnknown":
      return failed(said("its node lost sight of the container", ended.message), AGAIN)
    default:
      return ofExit(phase, ended)
  }
}

/** Why a pod that had not begun cannot, if it says so. */
const ofWaiting = (reason: string, message: string, image: string): End | undefined => {
  const text = said(reason, message)
  switch (reason) {
    case "ErrImagePull":
    case "ImagePullBackOff": {
      const isAbsent = /not found|manifest unknown|does not exist|name unknown|repository .* not/i.test(message)
      const isDenied = /unauthorized|denied|forbidden|no basic auth/i.test(message)
      return isAbsent || isDenied
        ? at(
          "pull",
          rejected(
            `the image ${image} cannot be pulled: ${text}`,
            isDenied
              ? "Give the job a pullSecret that may read it, or check the image's name."
              : "Check the image's name and tag, and that its registry has it."
          ),
          // Word of why comes first, and the back-off only repeats it.
          0
        )
        : at(
          "pull",
          failed(
            `the image ${image} could not be pulled in ${PULL_MS / 1000} s: ${text}`,
            "Check that the cluster's nodes reach its registry."
          ),
          PULL_MS
        )
    }
    case "InvalidImageName":
    case "ErrImageNeverPull":
    case "ImageInspectError":
      return at("image", rejected(`the image ${image} cannot be used: ${text}`, "Check the image's name."))
    case "CreateContainerConfigError":
      return at(
        "config",
        rejected(
          `the container cannot be set up: ${text}`,
          "Check that the secrets it names, and their keys, are in the namespace."
        ),
        PREPARE_MS
      )
    case "CreateContainerError":
    case "RunContainerError":
    case "PostStartHookError":
      return at(
        "create",
        isNoProgram(message)
          ? cannotStart(text)
          : failed(`the node could not make the container: ${text}`, AGAIN),
        PREPARE_MS
      )
    default:
      return undefined
  }
}

/** A pod that failed as a whole, with a reason of its node or the cluster. */
const ofFailedPod = (pod: Pod, phase: Phase): Outcome | undefined => {
  const { conditions, message, reason } = pod.status ?? {}
  const disrupted = trueCondition(conditions, "DisruptionTarget")
  if (reason === "DeadlineExceeded") return timedOut(phase)
  if (reason === "Evicted") {
    return failed(
      said("the pod was evicted", message),
      /storage|emptydir/i.test(message ?? "")
        ? "Write less, or ask for more with the limit diskBytes."
        : "Send it again; the node was short of something (`kubectl describe node`)."
    )
  }
  if (reason !== null && reason !== undefined && reason !== "") {
    const what = reason === "NodeLost" ? "the pod's node is lost" : `the pod failed (${reason})`
    return failed(said(what, message), AGAIN)
  }
  return disrupted === undefined
    ? undefined
    : failed(said(`the pod was taken away (${disrupted.reason ?? "disruption"})`, disrupted.message), AGAIN)
}

const startOf = (pod: Pod) => {
  const state = stateOf(pod)
  return state?.running ?? state?.terminated
}

/**
 * The pod that counts: the first that has begun; clusters before 1.26 make another in place of one that was deleted, which
 * would be a second run. Before any has begun the newest of those that are there.
 */
const chosen = ({ pods }: Seen) => {
  const beganMs = ({ pod }: Seen["pods"][number]) => {
    const start = startOf(pod) ?? undefined
    return start === undefined ? Number.POSITIVE_INFINITY : millisOf(start.startedAt) ?? 0
  }
  const begun = pods.filter((one) => beganMs(one) < Number.POSITIVE_INFINITY)
  const [first] = begun.toSorted((one, other) => beganMs(one) - beganMs(other))
  return first ?? pods.findLast(({ isGone }) => !isGone) ?? pods.at(-1)
}

const jobGone = (name: string) => at("job gone", failed(`the Job ${name} was deleted by somebody else`, DELETED))

/** What ended the Job as a whole, by its own conditions. */
const ofJob = ({ isJobGone, job, pods }: Seen, phase: Phase, hasBegun: boolean): End | undefined => {
  const { metadata, status } = job
  if (isJobGone || (metadata.deletionTimestamp ?? undefined) !== undefined) return jobGone(metadata.name)
  const bad = trueCondition(status?.conditions, "Failed", "FailureTarget")
  if (bad?.reason === "DeadlineExceeded") {
    return at(
      "deadline",
      hasBegun
        ? timedOut(phase)
        : failed(
          "the pod did not begin before the Job's deadline",
          "Check that nodes have room for its limits, and how long its image takes to pull."
        )
    )
  }
  if (bad !== undefined) {
    return at(
      "job failed",
      failed(said("the Job failed, and its pod does not say why", bad.reason, bad.message), AGAIN),
      OTHER_WATCH_MS
    )
  }
  return trueCondition(status?.conditions, "Complete", "SuccessCriteriaMet") === undefined || pods.length > 0
    ? undefined
    // Its pod came and went while nobody could see.
    : at("job complete", Outcome.cases.Exited.make({ phase: phase.name, code: 0 }), OTHER_WATCH_MS)
}

const unscheduled = (pod: Pod | undefined, afterMs: number): End => {
  const refused = pod?.status?.conditions?.find(({ status, type }) => type === "PodScheduled" && status === "False")
  const seconds = Math.round(afterMs / 1000)
  return at(
    "unscheduled",
    pod === undefined
      ? failed(
        `the cluster made no pod in ${seconds} s`,
        "`kubectl describe job` tells why: often a quota or a policy of the namespace."
      )
      : failed(
        said(`no node took the pod in ${seconds} s`, refused?.message),
        "Lower the job's limits, check its nodeSelector, or give the cluster more room."
      ),
    afterMs
  )
}

const ofPod = (seen: Seen, phase: Phase, image: string, unschedulableMs: number): End | undefined => {
  const { isGone, pod } = chosen(seen) ?? {}
  if (pod === undefined) return ofJob(seen, phase, false) ?? unscheduled(undefined, unschedulableMs)
  const { metadata: { deletionTimestamp }, status } = pod
  const state = stateOf(pod)
  const hasBegun = (startOf(pod) ?? undefined) !== undefined
  const isTakenAway = isGone === true || (deletionTimestamp ?? undefined) !== undefined
  const ended = state?.terminated ?? undefined
  // What it did by itself counts, whatever happened to it afterwards.
  if (ended?.exitCode === 0) return at("ended", ofTerminated(phase, ended))
  const whole = status?.phase === "Failed" ? ofFailedPod(pod, phase) : undefined
  if (whole !== undefined) return at("pod failed", whole)
  if (ended !== undefined && !isTakenAway) {
    const ofDeadline = ofJob(seen, phase, true)
    return ofDeadline?.trouble === "deadline" ? ofDeadline : at("ended", ofTerminated(phase, ended))
  }
  const ofWhole = ofJob(seen, phase, hasBegun)
  if (isTakenAway) {
    if (ofWhole?.afterMs === 0) return ofWhole
    const disrupted = trueCondition(status?.conditions, "DisruptionTarget")
    const why = disrupted === undefined
      ? "the pod was deleted by somebody else"
      : said(`the pod was taken away (${disrupted.reason ?? "disruption"})`, disrupted.message)
    const isReplaced = seen.pods.some((other) => !other.isGone && other.pod.metadata.uid !== pod.metadata.uid)
    const isOver = isGone === true || ended !== undefined || isReplaced
    return at(
      "taken away",
      isOver
        ? failed(why, disrupted === undefined ? DELETED : AGAIN)
        : failed(said(why, "its node does not answer"), AGAIN),
      // The one in its place must not run.
      isReplaced ? 0 : isOver ? OTHER_WATCH_MS : SILENT_NODE_MS
    )
  }
  if (status?.phase === "Failed") {
    return at("pod failed", failed("the pod failed, and nobody says why", AGAIN), OTHER_WATCH_MS)
  }
  if (status?.phase === "Succeeded") {
    return at("ended", Outcome.cases.Exited.make({ phase: phase.name, code: 0 }), OTHER_WATCH_MS)
  }
  if (ofWhole !== undefined) return ofWhole
  if (hasBegun) return undefined
  if ((pod.spec?.nodeName ?? "") === "") return unscheduled(pod, unschedulableMs)
  const waiting = state?.waiting ?? undefined
  return waiting === undefined ? undefined : ofWaiting(waiting.reason ?? "", waiting.message ?? "", image)
}

/** All that was seen, made out. */
export const standingOf = (
  seen: Seen,
  phase: Phase,
  image: string,
  unschedulableMs: number
): Standing => {
  const { pod } = chosen(seen) ?? {}
  const start = pod === undefined ? undefined : startOf(pod) ?? undefined
  const ended = pod === undefined ? undefined : stateOf(pod)?.terminated ?? undefined
  // One that could not be started has no output.
  const hasRun = ended === undefined || (ended.reason !== "ContainerCannotRun" && ended.reason !== "StartError")
  return {
    pod: start === undefined || !hasRun ? undefined : pod?.metadata.name,
    startedMs: millisOf(start?.startedAt),
    finishedMs: millisOf(ended?.finishedAt),
    isOver: seen.pods.every(({ isGone, pod }) =>
      isGone || (stateOf(pod)?.terminated ?? undefined) !== undefined ||
      pod.status?.phase === "Failed" || pod.status?.phase === "Succeeded"
    ),
    end: ofPod(seen, phase, image, unschedulableMs)
  }
}
