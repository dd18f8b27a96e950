/**
 * What a control plane does by itself: Jobs make pods and end with them, owners go with or before what they own, ended Jobs
 * go after their TTL, pods of nodes that are gone go too. As Kubernetes 1.31 does it, for Jobs of one pod.
 */
import { kinds, stamp, type Store, type Thing } from "./Store.ts"

const kindOf = (plural: string) => {
  const found = kinds.find((kind) => kind.plural === plural)
  if (found === undefined) throw new Error(`no kind ${plural}`)
  return found
}
export const jobsKind = kindOf("jobs")
export const podsKind = kindOf("pods")
const nodesKind = kindOf("nodes")

const TRACKING = "batch.kubernetes.io/job-tracking"
const FOREGROUND = "foregroundDeletion"
const ORPHAN = "orphan"

interface Condition {
  type: string
  status: string
  reason?: string
  message?: string
  lastProbeTime?: string
  lastTransitionTime?: string
}

export interface DeleteOptions {
  readonly propagationPolicy?: string
  readonly gracePeriodSeconds?: number
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string }
}

const conditionsOf = ({ status }: Thing): Array<Condition> => (status?.["conditions"] as Array<Condition>) ?? []
const has = (object: Thing, type: string) =>
  conditionsOf(object).some((condition) => condition.type === type && condition.status === "True")
export const isFinished = (job: Thing) => has(job, "Complete") || has(job, "Failed")
const phaseOf = (pod: Thing) => String(pod.status?.["phase"] ?? "Pending")
const isTerminal = (pod: Thing) => ["Succeeded", "Failed"].includes(phaseOf(pod))

const condition = (object: Thing, type: string, reason?: string, message?: string) => {
  if (has(object, type)) return
  object.status = {
    ...object.status,
    conditions: [...conditionsOf(object), {
      type,
      status: "True",
      lastProbeTime: stamp(),
      lastTransitionTime: stamp(),
      ...(reason === undefined ? {} : { reason }),
      ...(message === undefined ? {} : { message })
    }]
  }
}

export class Controllers {
  readonly #store: Store
  readonly #timers = new Map<string, NodeJS.Timeout>()
  #isBusy = false
  #isAgain = false
  #isStopped = false
  readonly #unlisten: () => void

  constructor(store: Store) {
    this.#store = store
    this.#unlisten = store.onChange(() => this.#soon())
  }

  stop(): void {
    this.#isStopped = true
    this.#unlisten()
    for (const timer of this.#timers.values()) clearTimeout(timer)
  }

  #soon() {
    if (this.#isBusy) {
      this.#isAgain = true
      return
    }
    this.#isBusy = true
    setImmediate(() => {
      this.#isBusy = false
      if (!this.#isStopped) this.#work()
      if (this.#isAgain) {
        this.#isAgain = false
        this.#soon()
      }
    })
  }

  #at(key: string, atMs: number, what: () => void) {
    if (this.#timers.has(key)) return
    const left = Math.max(0, atMs - Date.now())
    if (left > 2_000_000_000) return
    this.#timers.set(
      key,
      setTimeout(() => {
        this.#timers.delete(key)
        if (!this.#isStopped) what()
      }, left)
    )
  }

  /** Level-triggered: looks at all there is, and does what is to be done. */
  #work() {
    const pods = this.#store.list(podsKind, undefined)
    const byOwner = new Map<string, Array<Thing>>()
    for (const pod of pods) {
      for (const { uid } of pod.metadata.ownerReferences ?? []) byOwner.set(uid, [...byOwner.get(uid) ?? [], pod])
    }
    const jobs = this.#store.list(jobsKind, undefined)
    const jobUids = new Set(jobs.map(({ metadata }) => metadata.uid))
    for (const job of jobs) this.#job(job, byOwner.get(job.metadata.uid) ?? [])
    const nodes = new Set(this.#store.list(nodesKind, undefined).map(({ metadata }) => metadata.name))
    for (const pod of pods) {
      const owner = pod.metadata.ownerReferences?.[0]
      // Its owner is gone: so is it.
      if (owner !== undefined && !jobUids.has(owner.uid)) {
        this.#untrack(pod)
        if (pod.metadata.deletionTimestamp === undefined) this.remove(podsKind, pod, {})
      }
      const node = pod.spec?.["nodeName"]
      if (typeof node === "string" && !nodes.has(node)) this.#lost(pod)
    }
  }

  #untrack(pod: Thing) {
    if (!(pod.metadata.finalizers ?? []).includes(TRACKING)) return
    this.#store.change(podsKind, pod.metadata.namespace ?? "", pod.metadata.name, ({ metadata }) => {
      metadata.finalizers = (metadata.finalizers ?? []).filter((name) => name !== TRACKING)
    })
  }

  /** The pod garbage collector, for nodes that are gone. */
  #lost(pod: Thing) {
    if (!isTerminal(pod)) {
      this.#store.change(podsKind, pod.metadata.namespace ?? "", pod.metadata.name, (object) => {
        condition(object, "DisruptionTarget", "DeletionByPodGC", "PodGC: node no longer exists")
        object.status = { ...object.status, phase: "Failed" }
      })
    }
    this.remove(podsKind, pod, { gracePeriodSeconds: 0 })
  }

  #job(job: Thing, pods: ReadonlyArray<Thing>) {
    const { deletionTimestamp, finalizers = [], name, namespace = "", uid } = job.metadata
    const change = (how: (object: Thing) => void) => this.#store.change(jobsKind, namespace, name, how)
    if (deletionTimestamp !== undefined) {
      if (finalizers.includes(FOREGROUND)) {
        for (const pod of pods) {
          this.#untrack(pod)
          if (pod.metadata.deletionTimestamp === undefined) this.remove(podsKind, pod, {})
        }
        if (pods.length === 0) {
          change(({ metadata }) => {
            metadata.finalizers = (metadata.finalizers ?? []).filter((each) => each !== FOREGROUND)
          })
        }
      }
      if (finalizers.includes(ORPHAN)) {
        for (const pod of pods) {
          this.#store.change(podsKind, namespace, pod.metadata.name, ({ metadata }) => {
            metadata.ownerReferences = []
            metadata.finalizers = (metadata.finalizers ?? []).filter((each) => each !== TRACKING)
          })
        }
        change(({ metadata }) => {
          metadata.finalizers = (metadata.finalizers ?? []).filter((each) => each !== ORPHAN)
        })
      }
      return
    }
    if (isFinished(job)) {
      for (const pod of pods) this.#untrack(pod)
      const ttl = job.spec?.["ttlSecondsAfterFinished"]
      if (typeof ttl !== "number") return
      const ended = conditionsOf(job).find(({ type }) => type === "Complete" || type === "Failed")
      const at = Date.parse(ended?.lastTransitionTime ?? stamp()) + ttl * 1000
      if (at <= Date.now()) this.remove(jobsKind, job, { propagationPolicy: "Foreground" })
      else this.#at(`ttl ${uid} ${ttl}`, at, () => this.#soon())
      return
    }
    if (job.spec?.["suspend"] === true) return

    const started = job.status?.["startTime"]
    const deadline = job.spec?.["activeDeadlineSeconds"]
    const isLate = typeof started === "string" && typeof deadline === "number" &&
      Date.parse(started) + deadline * 1000 <= Date.now()
    if (typeof started === "string" && typeof deadline === "number" && !isLate) {
      this.#at(`deadline ${uid}`, Date.parse(started) + deadline * 1000 + 1, () => this.#soon())
    }
    const fail = (reason: string, message: string) => {
      change((object) => condition(object, "FailureTarget", reason, message))
      for (const pod of pods) {
        if (!isTerminal(pod) && pod.metadata.deletionTimestamp === undefined) this.remove(podsKind, pod, {})
        if (isTerminal(pod)) this.#untrack(pod)
      }
      if (pods.every((pod) => isTerminal(pod))) {
        change((object) => {
          condition(object, "Failed", reason, message)
          object.status = { ...object.status, active: 0, failed: 1 }
        })
      }
    }
    const target = conditionsOf(job).find(({ type }) => type === "FailureTarget")
    if (target !== undefined) return fail(target.reason ?? "", target.message ?? "")
    if (isLate) return fail("DeadlineExceeded", "Job was active longer than specified deadline")
    const failed = pods.filter((pod) => phaseOf(pod) === "Failed")
    const succeeded = pods.filter((pod) => phaseOf(pod) === "Succeeded")
    if (succeeded.length > 0) {
      change((object) =>
        condition(object, "SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods")
      )
      for (const pod of pods) this.#untrack(pod)
      change((object) => {
        condition(object, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
        object.status = {
          ...object.status,
          active: 0,
          succeeded: 1,
          completionTime: stamp(),
          uncountedTerminatedPods: {}
        }
      })
      return
    }
    // A pod that was taken away counts as failed once it is gone.
    const lost = job.status?.["active"] === 1 && pods.length === 0
    if (failed.length > 0 || lost) {
      return fail("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    }
    for (const pod of pods) if (pod.metadata.deletionTimestamp !== undefined && isTerminal(pod)) this.#untrack(pod)
    if (pods.length > 0) return
    const template = job.spec?.["template"] as { metadata?: { labels?: object; annotations?: object }; spec: object }
    const generated = {
      "controller-uid": uid,
      "job-name": name,
      "batch.kubernetes.io/controller-uid": uid,
      "batch.kubernetes.io/job-name": name
    }
    this.#store.create(podsKind, namespace, {
      apiVersion: "v1",
      kind: "Pod",
      metadata: {
        generateName: `${name}-`,
        labels: { ...template.metadata?.labels, ...generated },
        annotations: { ...template.metadata?.annotations },
        finalizers: [TRACKING],
        ownerReferences: [{
          apiVersion: "batch/v1",
          kind: "Job",
          name,
          uid,
          controller: true,
          blockOwnerDeletion: true
        }]
      },
      spec: { dnsPolicy: "ClusterFirst", schedulerName: "default-scheduler", ...template.spec },
      status: { phase: "Pending", qosClass: "Guaranteed" }
    })
    change((object) => {
      object.status = { startTime: stamp(), ...object.status, active: 1, ready: 0, uncountedTerminatedPods: {} }
    })
  }

  /** A DELETE, as the API server carries it out. */
  remove(kind: typeof jobsKind, { metadata }: Thing, options: DeleteOptions): Thing | undefined {
    const { name, namespace = "" } = metadata
    return this.#store.change(kind, namespace, name, (object) => {
      const meta = object.metadata
      const finalizers = new Set(meta.finalizers ?? [])
      if (kind.plural === "jobs") {
        // Jobs of batch/v1 take what they own with them when nothing is said.
        if (options.propagationPolicy === "Foreground") finalizers.add(FOREGROUND)
        if (options.propagationPolicy === "Orphan") finalizers.add(ORPHAN)
        meta.deletionGracePeriodSeconds = 0
        meta.deletionTimestamp ??= stamp()
      } else if (kind.plural === "pods") {
        const usual = object.spec?.["terminationGracePeriodSeconds"]
        const isIdle = (object.spec?.["nodeName"] ?? "") === "" || isTerminal(object)
        const wanted = options.gracePeriodSeconds ?? (typeof usual === "number" ? usual : 30)
        const grace = isIdle ? 0 : Math.min(wanted, meta.deletionGracePeriodSeconds ?? wanted)
        meta.deletionGracePeriodSeconds = grace
        meta.deletionTimestamp = stamp(Date.now() + grace * 1000)
        // The Job controller hears of it in any case; here it is asked at once.
        if (grace === 0 && options.gracePeriodSeconds === 0) finalizers.delete(TRACKING)
        if (isIdle) finalizers.delete(TRACKING)
      } else {
        meta.deletionTimestamp ??= stamp()
      }
      meta.finalizers = [...finalizers]
    })
  }
}
