/** Clusters over HTTP. Loaded only where a class has the driver `kubernetes`. */
import { Effect, Layer, Option, Queue, Schema, Scope, Semaphore, Stream } from "effect"
import type { ClusterSetup } from "../../schemas/SandboxClass.ts"
import * as Api from "./Api.ts"
import * as ApiAccess from "./ApiAccess.ts"
import { type Cluster, Kubernetes, type KubernetesError, type Right, type Seen, type Tracking } from "./Kubernetes.ts"
import { managedBy } from "./Manifest.ts"
import { Job, List, ownerOf, Pod, Review } from "./Objects.ts"
import * as Watched from "./Watched.ts"

const decodeJob = Schema.decodeUnknownOption(Job)
const decodePod = Schema.decodeUnknownOption(Pod)
const decodeList = Schema.decodeUnknownOption(List)
const decodeReview = Schema.decodeUnknownOption(Review)
const decodeVersion = Schema.decodeUnknownOption(Schema.Struct({ gitVersion: Schema.String }))

/** One who follows a Job. Changed by the watches, read by its fiber. */
class Tracked {
  readonly pods = new Map<string, { pod: Pod; isGone: boolean }>()
  readonly bell: Queue.Queue<void>
  job: Job
  isJobGone = false

  constructor(job: Job, bell: Queue.Queue<void>) {
    this.job = job
    this.bell = bell
  }

  ring(): void {
    Queue.offerUnsafe(this.bell, undefined)
  }
}

const make = Effect.fnUntraced(function*(setup: ClusterSetup, accountFolder: string | undefined) {
  const access = yield* ApiAccess.load(setup, accountFolder)
  const scope = yield* Effect.scope
  const api = yield* Api.make(access)
  const { namespace } = access
  const jobsPath = `/apis/batch/v1/namespaces/${namespace}/jobs`
  const podsPath = `/api/v1/namespaces/${namespace}/pods`
  const one = (path: string, name: string) => `${path}/${encodeURIComponent(name)}`

  const tracked = new Map<string, Set<Tracked>>()
  const eachOf = (uid: string | undefined, what: (one: Tracked) => void) => {
    if (uid === undefined) return
    for (const one of tracked.get(uid) ?? []) {
      what(one)
      one.ring()
    }
  }
  const jobs = Watched.make({
    api,
    path: jobsPath,
    resource: "jobs",
    labels: managedBy,
    schema: Job,
    expected: () =>
      [...tracked.values()].flatMap((those) => [...those].filter((one) => !one.isJobGone).map(({ job }) => job)),
    listener: {
      changed: (job) => eachOf(job.metadata.uid, (one) => void (one.job = job)),
      gone: (job) =>
        eachOf(job.metadata.uid, (one) => {
          one.job = job
          one.isJobGone = true
        })
    }
  })
  const podSeen = (pod: Pod, isGone: boolean) =>
    eachOf(ownerOf(pod)?.uid, (one) => void one.pods.set(pod.metadata.uid, { pod, isGone }))
  const pods = Watched.make({
    api,
    path: podsPath,
    resource: "pods",
    labels: managedBy,
    schema: Pod,
    expected: () => [],
    listener: { changed: (pod) => podSeen(pod, false), gone: (pod) => podSeen(pod, true) }
  })

  // Who only asks (`stoker doctor`) watches nothing.
  let isWatching = false
  const watching = Effect.suspend(() => {
    if (isWatching) return Effect.void
    isWatching = true
    return Effect.asVoid(Effect.all([Effect.forkIn(jobs.run, scope), Effect.forkIn(pods.run, scope)]))
  })

  const request = (
    method: Api.Ask["method"],
    path: string,
    verb: string,
    resource: string,
    body?: object
  ): Api.Ask => ({
    method,
    path,
    verb,
    resource,
    ...(body === undefined ? {} : { body })
  })

  const asked = Effect.fnUntraced(function*<A>(
    ask: Api.Ask,
    decode: (value: unknown) => Option.Option<A>
  ): Effect.fn.Return<A, KubernetesError> {
    const answer = decode(yield* api.ask(ask))
    return Option.isSome(answer) ? answer.value : yield* api.odd(ask, "its answer is not what it should be")
  })

  const remove = (path: string, resource: string, body: object) =>
    api.ask(request("DELETE", path, "delete", resource, { kind: "DeleteOptions", apiVersion: "v1", ...body })).pipe(
      Effect.as(true),
      // Absent, or another one of the same name.
      Effect.catchTag(
        "KubernetesError",
        (error) => error.trouble === "absent" || error.trouble === "conflict" ? Effect.succeed(false) : error
      )
    )

  const listJobs = Effect.fnUntraced(function*(labels: string) {
    const found: Array<Job> = []
    let next = ""
    do {
      const query = new URLSearchParams({
        labelSelector: labels,
        limit: "100",
        ...(next === "" ? {} : { continue: next })
      })
      const page: typeof List.Type = yield* asked(request("GET", `${jobsPath}?${query}`, "list", "jobs"), decodeList)
      found.push(...(page.items ?? []).flatMap((item) => Option.toArray(decodeJob(item))))
      next = page.metadata.continue ?? ""
    } while (next !== "")
    return found
  })

  const track = Effect.fnUntraced(function*(job: Job) {
    const { uid } = job.metadata
    const bell = yield* Queue.sliding<void>(1)
    const known = jobs.objects.get(uid)
    const here = new Tracked(known ?? job, bell)
    for (const pod of pods.objects.values()) {
      if (ownerOf(pod)?.uid === uid) here.pods.set(pod.metadata.uid, { pod, isGone: false })
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const those = tracked.get(uid) ?? new Set()
        tracked.set(uid, those.add(here))
      }),
      () =>
        Effect.sync(() => {
          const those = tracked.get(uid)
          those?.delete(here)
          if (those?.size === 0) tracked.delete(uid)
        })
    )
    yield* watching
    const tracking: Tracking = {
      seen: Effect.sync((): Seen => ({ job: here.job, isJobGone: here.isJobGone, pods: [...here.pods.values()] })),
      changed: Queue.take(bell),
      refresh: Effect.gen(function*() {
        const query = new URLSearchParams({ labelSelector: `controller-uid=${uid}` })
        const [now, page] = yield* Effect.all([
          cluster.getJob(job.metadata.name),
          asked(request("GET", `${podsPath}?${query}`, "list", "pods"), decodeList)
        ], { concurrency: 2 })
        if (now?.metadata.uid === uid) here.job = now
        else here.isJobGone = true
        const found = (page.items ?? []).flatMap((item) => Option.toArray(decodePod(item)))
        for (const pod of found) here.pods.set(pod.metadata.uid, { pod, isGone: false })
        for (const [id, { pod }] of here.pods) {
          if (!found.some(({ metadata }) => metadata.uid === id)) here.pods.set(id, { pod, isGone: true })
        }
      })
    }
    return tracking
  })

  const cluster: Cluster = {
    namespace,
    server: access.server.href,
    account: access.account,
    version: Effect.map(
      asked(request("GET", "/version", "get", "/version"), decodeVersion),
      ({ gitVersion }) => gitVersion
    ),
    createJob: (job) =>
      // The watch is on its way before there is anything to see.
      Effect.andThen(watching, asked(request("POST", jobsPath, "create", "jobs", job), decodeJob)),
    getJob: (name) =>
      asked(request("GET", one(jobsPath, name), "get", "jobs"), decodeJob).pipe(
        Effect.catchTag("KubernetesError", (error) => error.trouble === "absent" ? Effect.undefined : error)
      ),
    listJobs,
    patchJob: (name, patch) =>
      Effect.asVoid(api.ask({
        ...request("PATCH", one(jobsPath, name), "patch", "jobs", patch),
        contentType: "application/merge-patch+json"
      })),
    deleteJob: (name, uid, propagationPolicy) =>
      remove(one(jobsPath, name), "jobs", { propagationPolicy, preconditions: { uid } }),
    deletePod: (name, uid, graceSeconds) =>
      remove(one(podsPath, name), "pods", {
        gracePeriodSeconds: Math.max(1, Math.ceil(graceSeconds)),
        preconditions: { uid }
      }),
    log: ({ container, follow, pod, since }) => {
      const query = new URLSearchParams({
        container,
        timestamps: "true",
        ...(follow ? { follow: "true" } : {}),
        ...(since === undefined ? {} : { sinceTime: since })
      })
      const ask = request("GET", `${one(podsPath, pod)}/log?${query}`, "get", "pods/log")
      return Stream.unwrap(api.open({ ...ask }))
    },
    may: ({ group, resource, verb }: Right) => {
      const [kind = resource, subresource] = resource.split("/")
      const resourceAttributes = {
        namespace,
        verb,
        group,
        resource: kind,
        ...(subresource === undefined ? {} : { subresource })
      }
      const path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
      const body = {
        apiVersion: "authorization.k8s.io/v1",
        kind: "SelfSubjectAccessReview",
        spec: { resourceAttributes }
      }
      const ask = request("POST", path, "create", "selfsubjectaccessreviews", body)
      return Effect.map(asked(ask, decodeReview), ({ status }) => status.allowed)
    },
    track
  }
  return cluster
})

/** `accountFolder`: where a pod finds its account, for tests. */
export const layer = (accountFolder?: string): Layer.Layer<Kubernetes> =>
  Layer.effect(
    Kubernetes,
    Effect.gen(function*() {
      const scope = yield* Effect.scope
      const open = new Map<string, Cluster>()
      const turn = yield* Semaphore.make(1)
      return Kubernetes.of({
        cluster: ({ context, kubeconfig, namespace, ...setup }) =>
          Semaphore.withPermits(turn, 1)(Effect.gen(function*() {
            const key = JSON.stringify([kubeconfig, context, namespace])
            const known = open.get(key)
            if (known !== undefined) return known
            const place = {
              ...setup,
              ...(context === undefined ? {} : { context }),
              ...(kubeconfig === undefined ? {} : { kubeconfig }),
              ...(namespace === undefined ? {} : { namespace })
            }
            const made = yield* make(place, accountFolder).pipe(Scope.provide(scope))
            open.set(key, made)
            return made
          }))
      })
    })
  )
