/** What becomes of a container job in a cluster. The same on the stand-in and, with STOKER_TEST_KUBECONFIG, on a real control plane. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { RunEvent } from "../../src/layers/executor/Executor.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { patience } from "../support/Slowness.ts"
import { assignmentOf, begin, follow, type Ran, runs, worker } from "./Runs.ts"
import { classOf, containerOf, makeJob, namespace, realKubeconfig, type World } from "./World.ts"

const jobsPath = `/apis/batch/v1/namespaces/${namespace}/jobs`

const listed = (world: World, path: string) => Effect.promise(async () => (await world.kubelet.list(path)).items)
const jobsOf = (world: World, selector = "") => listed(world, `${jobsPath}?labelSelector=${selector}`)
const podsOf = (world: World, job: string) =>
  listed(world, `/api/v1/namespaces/${namespace}/pods?labelSelector=job-name%3D${job}`)
const jobNames = (world: World) => Effect.map(jobsOf(world), (jobs) => jobs.map(({ metadata }) => metadata.name))

/** Until it is so. */
const eventually = Effect.fnUntraced(function*(what: string, is: Effect.Effect<boolean>) {
  for (let round = 0; round < patience(400); round++) {
    if (yield* is) return
    yield* Effect.sleep(25)
  }
  assert.fail(`never: ${what}`)
})

const tags = (events: ReadonlyArray<RunEvent>) =>
  events.map(({ _tag }) => _tag).filter((tag, index, all) => tag !== all[index - 1])

const exited = (code: number) => Outcome.cases.Exited.make({ phase: "run", code })

/** Says what it is, not by whom. */
const reasonOf = ({ outcome }: Ran) =>
  outcome._tag === "SandboxFailed" || outcome._tag === "Rejected" ? `${outcome._tag}: ${outcome.reason}` : outcome._tag

/** What `onEvent` does once, when the program has said that it is up. */
const whenUp = (act: () => Effect.Effect<unknown>) => {
  let isUp = false
  return (event: RunEvent) => {
    if (event._tag !== "Output" || isUp) return Effect.void
    isUp = true
    return act()
  }
}

describe("a container job in a cluster", () => {
  it.live("runs once, and its output comes byte for byte", () =>
    Effect.gen(function*() {
      const { run, world } = yield* runs
      const ran = yield* run(containerOf("echo one; echo two; printf three; exit 7"))
      assert.deepStrictEqual(ran.outcome, exited(7))
      assert.strictEqual(ran.stdout, "one\ntwo\nthree")
      assert.deepStrictEqual(tags(ran.events), ["Ready", "PhaseStarted", "Output", "PhaseEnded", "Finished"])
      assert.match(ran.place ?? "", /^jobs\/job\/test-[0-9a-f]{12}-1$/)
      assert.strictEqual(world.kubelet.starts.get(ran.job), 1)
      assert.strictEqual(ran.usage.phases[0]?.stdoutBytes, 13)
    }).pipe(Effect.scoped))

  it.live("is a Job that asks for no more than it should", () =>
    Effect.gen(function*() {
      const { run, world } = yield* runs
      const script = "echo \"$A|$B\"; echo '$(A)' '$$'"
      yield* Effect.promise(() =>
        world.kubelet.call("POST", `/api/v1/namespaces/${namespace}/secrets`, {
          apiVersion: "v1",
          kind: "Secret",
          metadata: { name: "store" },
          data: { B: Buffer.from("secret").toString("base64") }
        }).catch(() => undefined)
      )
      const ran = yield* run(
        containerOf(script, { env: { A: "a $(B) $$" }, secrets: { B: { secret: "store", key: "B" } } }),
        { limits: { cpus: 0.5 }, class: classOf(world.kubeconfig, { cluster: { secrets: ["store"] } }) }
      )
      assert.strictEqual(ran.stdout, "a $(B) $$|secret\n$(A) $$\n")
      const [job] = (yield* jobsOf(world)).filter(({ metadata }) => metadata.name === ran.job)
      const spec = job?.spec as {
        backoffLimit: number
        podReplacementPolicy?: string
        activeDeadlineSeconds: number
        template: {
          metadata: { labels: object }
          spec: Record<string, unknown> & { containers: [Record<string, unknown>] }
        }
      }
      assert.strictEqual(spec.backoffLimit, 0)
      // A control plane that is older than the field leaves it out, and takes the Job.
      if (realKubeconfig === undefined) assert.strictEqual(spec.podReplacementPolicy, "Failed")
      assert.isAbove(spec.activeDeadlineSeconds, 60)
      const pod = spec.template.spec
      assert.strictEqual(pod["restartPolicy"], "Never")
      assert.strictEqual(pod["automountServiceAccountToken"], false)
      assert.deepInclude(pod["securityContext"], { runAsNonRoot: true, runAsUser: 65_532 })
      assert.deepStrictEqual(pod.containers[0]["securityContext"], {
        allowPrivilegeEscalation: false,
        capabilities: { drop: ["ALL"] },
        privileged: false
      })
      assert.strictEqual(pod.containers[0]["imagePullPolicy"], "IfNotPresent")
      assert.deepInclude(pod.containers[0]["resources"], {
        limits: { cpu: "500m", memory: String(256 * 1024 ** 2), "ephemeral-storage": String(512 * 1024 ** 2) }
      })
      assert.deepInclude(job?.metadata.labels, {
        "app.kubernetes.io/managed-by": "stoker",
        "app.kubernetes.io/part-of": "stoker",
        "app.kubernetes.io/name": "test",
        "app.kubernetes.io/instance": ran.job,
        "stoker.dev/attempt": "1"
      })
    }).pipe(Effect.scoped))

  it.live("names no secret that its class does not list, neither for a variable nor for its image", () =>
    Effect.gen(function*() {
      const { run, world } = yield* runs
      const listed = classOf(world.kubeconfig, { cluster: { secrets: ["mine", "absent"], storeSecret: "own" } })
      const token = { A: { secret: "default-token-abcde", key: "token" } }
      const own = { A: { secret: "own", key: "A" } }
      const [bare, variable, pull] = yield* Effect.all([
        run(containerOf("true", { secrets: token })),
        run(containerOf("true", { secrets: token }), { class: listed }),
        run(containerOf("true", { secrets: own, pullSecret: "theirs" }), { class: listed })
      ])
      assert.match(reasonOf(bare), /^Rejected: the class lets no job name the secret default-token-abcde/)
      assert.match(bare.outcome._tag === "Rejected" ? bare.outcome.remedy : "", /cluster\.secrets/)
      assert.match(reasonOf(variable), /^Rejected: .*default-token-abcde/)
      assert.match(variable.outcome._tag === "Rejected" ? variable.outcome.remedy : "", /^Use one of mine, absent/)
      assert.match(reasonOf(pull), /^Rejected: .*theirs/)
      assert.deepStrictEqual(yield* jobNames(world), [])
      const fine = yield* run(containerOf("true", { pullSecret: "mine" }), { class: listed })
      const any = yield* run(containerOf("true", { pullSecret: "x" }), {
        class: classOf(world.kubeconfig, { cluster: { secrets: "any" } })
      })
      assert.deepStrictEqual([fine.outcome, any.outcome], [exited(0), exited(0)])
    }).pipe(Effect.scoped))

  it.live("ends as its container did: statuses, signals, memory, a program that is not there", () =>
    Effect.gen(function*() {
      const { run, world } = yield* runs
      const [fine, died, segv, memory, absent] = yield* Effect.all([
        run(containerOf("true")),
        run(containerOf("kill -9 $$")),
        run(containerOf("kill -11 $$")),
        Effect.gen(function*() {
          const job = makeJob()
          return yield* run(containerOf("echo up; sleep 100"), {
            job,
            onEvent: whenUp(() =>
              Effect.gen(function*() {
                const names = yield* jobsOf(world, "")
                const mine = names.find(({ metadata }) => metadata.annotations?.["stoker.dev/key"]?.endsWith(job.id))
                yield* Effect.promise(() => world.kubelet.outOfMemory(mine?.metadata.name ?? ""))
              })
            )
          })
        }),
        run(containerOf("", { command: ["/no/such/program"] }))
      ], { concurrency: "unbounded" })
      assert.deepStrictEqual(fine.outcome, exited(0))
      assert.deepStrictEqual(died.outcome, Outcome.cases.Signalled.make({ phase: "run", signal: 9 }))
      assert.deepStrictEqual(segv.outcome, Outcome.cases.Signalled.make({ phase: "run", signal: 11 }))
      assert.deepStrictEqual(
        memory.outcome,
        Outcome.cases.OutOfMemory.make({ phase: "run", limitBytes: 256 * 1024 ** 2 })
      )
      assert.match(reasonOf(absent), /^Rejected: the program cannot be started: .*executable file not found/)
    }).pipe(Effect.scoped))

  it.live("says which image cannot be had, and leaves nothing that could still begin", () =>
    Effect.gen(function*() {
      const { run, world } = yield* runs
      const images = ["registry.test/missing:1", "registry.test/private:1", "Upper/case:1", "registry.test/never:1"]
      const ran = yield* Effect.forEach(images, (image) => run(containerOf("true", { image })), { concurrency: 4 })
      assert.deepStrictEqual(ran.map(({ outcome }) => outcome._tag), ["Rejected", "Rejected", "Rejected", "Rejected"])
      assert.match(
        reasonOf(ran[0] ?? assert.fail()),
        /registry\.test\/missing:1 cannot be pulled: ErrImagePull.*not found/
      )
      const denied = ran[1]?.outcome
      assert.match(denied?._tag === "Rejected" ? denied.remedy : "", /pullSecret/)
      assert.deepStrictEqual(yield* jobNames(world), [])
      assert.isTrue(ran.every(({ events }) => events.length === 1), "nothing began")
    }).pipe(Effect.scoped))

  it.live("is given up when no node takes it", () =>
    Effect.gen(function*() {
      const { run, world } = yield* runs
      const ran = yield* run(containerOf("true", { nodeSelector: { disk: "none-has-it" } }), {
        class: classOf(world.kubeconfig, { cluster: { unschedulableMs: 700 } })
      })
      assert.match(reasonOf(ran), /^SandboxFailed: no node took the pod in 1 s: 0\/1 nodes are available/)
      assert.deepStrictEqual(yield* jobNames(world), [])
    }).pipe(Effect.scoped))

  it.live("is held to its class: images, limits, network", () =>
    Effect.gen(function*() {
      const { run, world } = yield* runs
      const image = (name: string) =>
        run(containerOf("true", { image: name }), {
          class: classOf(world.kubeconfig, { images: { allow: ["registry.example/team"], digests: true } })
        })
      const digest = `@sha256:${"0".repeat(64)}`
      assert.match(reasonOf(yield* image(`registry.example/teammate/x${digest}`)), /takes no image/)
      assert.match(reasonOf(yield* image(`registry.example/team/../x${digest}`)), /no reference/)
      assert.match(reasonOf(yield* image("registry.example/team/x:1")), /by digest only/)
      assert.deepStrictEqual((yield* image(`registry.example/team/x${digest}`)).outcome, exited(0))
      const pids = yield* run(containerOf("true"), { job: { ...makeJob(), limits: { pids: 5 } } })
      assert.match(reasonOf(pids), /^Rejected: pids cannot be held/)
      const network = yield* run(containerOf("true"), { class: classOf(world.kubeconfig, { network: "none" }) })
      assert.match(reasonOf(network), /^Rejected: class cluster says network/)
    }).pipe(Effect.scoped))

  it.live("goes with its pod when it is stopped, runs too long or writes too much", () =>
    Effect.gen(function*() {
      const { run, world } = yield* runs
      const [stopped, late, loud] = yield* Effect.all([
        run(containerOf("echo up; sleep 100"), {
          onEvent: (event, run) => event._tag === "Output" ? run.stop({ reason: "enough", graceMs: 2000 }) : Effect.void
        }),
        run(containerOf("echo up; sleep 100"), { limits: { wallMs: 1500 } }),
        run(containerOf("yes"), { limits: { outputBytes: 100_000, outputPolicy: "kill" } })
      ], { concurrency: "unbounded" })
      assert.deepStrictEqual(stopped.outcome, Outcome.cases.Stopped.make({ reason: "enough" }))
      assert.strictEqual(stopped.stdout, "up\n")
      assert.deepStrictEqual(late.outcome, Outcome.cases.TimedOut.make({ phase: "run", limit: "wall", limitMs: 1500 }))
      assert.strictEqual(loud.outcome._tag, "OutputExceeded")
      assert.deepStrictEqual(yield* jobNames(world), [])
      assert.strictEqual(world.kubelet.running, 0)
      assert.deepStrictEqual(yield* podsOf(world, stopped.job), [])
    }).pipe(Effect.scoped))

  it.live("a stop before its pod begins leaves nothing", () =>
    Effect.gen(function*() {
      const { start, world } = yield* runs
      world.kubelet.delayMs = 3000
      const { ended, run } = yield* start(containerOf("true"))
      yield* run.stop({ reason: "never mind", graceMs: 0 })
      const ran = yield* ended
      assert.deepStrictEqual(ran.outcome, Outcome.cases.Stopped.make({ reason: "never mind" }))
      assert.deepStrictEqual(yield* jobNames(world), [])
      assert.strictEqual(world.kubelet.starts.size, 0)
    }).pipe(Effect.scoped))

  it.live("says that it was evicted, or deleted by somebody else, and is not run again", () =>
    Effect.gen(function*() {
      const { run, world } = yield* runs
      const nameOf = (id: string) =>
        Effect.map(jobsOf(world), (jobs) =>
          jobs.find(({ metadata }) =>
            metadata.annotations?.["stoker.dev/key"]?.endsWith(id)
          )?.metadata.name ?? "")
      const disturbed = (act: (name: string) => Promise<unknown>) => {
        const job = makeJob()
        return run(containerOf("echo up; sleep 100"), {
          job,
          onEvent: whenUp(() => Effect.flatMap(nameOf(job.id), (name) => Effect.promise(() => act(name))))
        })
      }
      const { kubelet } = world
      const [evicted, job, pod] = yield* Effect.all([
        disturbed((name) => kubelet.evict(name, "The node was low on resource: memory.")),
        disturbed((name) => kubelet.call("DELETE", `${jobsPath}/${name}`, { propagationPolicy: "Background" })),
        disturbed(async (name) => {
          const pods = `/api/v1/namespaces/${namespace}/pods`
          const { items: [found] } = await kubelet.list(`${pods}?labelSelector=job-name%3D${name}`)
          await kubelet.call("DELETE", `${pods}/${found?.metadata.name}`)
        })
      ], { concurrency: "unbounded" })
      assert.match(reasonOf(evicted), /^SandboxFailed: the pod was evicted: The node was low on resource: memory/)
      assert.match(reasonOf(job), /^SandboxFailed: the Job test-\S+ was deleted by somebody else/)
      assert.match(reasonOf(pod), /^SandboxFailed: the pod was deleted by somebody else/)
      // The lane's control plane is of a time when a deleted pod was replaced at once: that one may begin before it goes.
      const most = realKubeconfig === undefined ? 1 : 2
      assert.isTrue([...kubelet.starts.values()].every((times) => times <= most))
      yield* eventually("nothing runs", Effect.sync(() => kubelet.running === 0))
    }).pipe(Effect.scoped), patience(90_000))

  it.live("says that its node is gone", () =>
    Effect.gen(function*() {
      const { run, world } = yield* runs
      const ran = yield* run(containerOf("echo up; sleep 100"), {
        onEvent: whenUp(() =>
          Effect.promise(async () => {
            await world.kubelet.stop()
            await world.kubelet.call("DELETE", `/api/v1/nodes/${world.kubelet.node}`)
          })
        )
      })
      // A real control plane waits a minute before it takes such pods away, and says why from 1.26 on.
      assert.match(
        reasonOf(ran),
        realKubeconfig === undefined
          ? /^SandboxFailed: the pod was taken away \(DeletionByPodGC\): PodGC: node no longer exists/
          : /^SandboxFailed: the pod was (deleted by|taken away)/
      )
    }).pipe(Effect.scoped), patience(180_000))
})

describe("a worker that dies under a container job", () => {
  const steps: ReadonlyArray<readonly [string, (event: RunEvent | undefined) => boolean]> = [
    ["when its Job is made", (event) => event === undefined],
    ["when it runs", (event) => event?._tag === "Ready"],
    ["in the middle of its output", (event) => event?._tag === "Output"],
    ["when its outcome is known and not yet written down", (event) => event?._tag === "Finished"]
  ]
  for (const [when, is] of steps) {
    it.live(`${when}: the next one goes on with the same Job, to one outcome and all of its output`, () =>
      Effect.gen(function*() {
        const { executor, world } = yield* runs
        world.kubelet.delayMs = 300
        const container = containerOf("for i in 1 2 3 4 5 6; do echo line $i; sleep 0.2; done; exit 5")
        const first = assignmentOf(world.kubeconfig, container)
        const before = yield* follow(executor, first)
        yield* eventually(
          "the first worker got there",
          is(undefined)
            ? Effect.map(jobNames(world), ({ length }) => length === 1)
            : Effect.sync(() => before.events.some(is))
        )
        yield* before.leave
        const after = yield* follow(yield* worker, { ...first, attempt: 2 })
        const ran = yield* after.ended
        assert.deepStrictEqual(ran.outcome, exited(5))
        assert.strictEqual(ran.stdout, "line 1\nline 2\nline 3\nline 4\nline 5\nline 6\n")
        assert.strictEqual((yield* jobNames(world)).length, 1)
        assert.deepStrictEqual([...world.kubelet.starts.values()], [1])
      }).pipe(Effect.scoped))
  }

  it.live("drained, its attempt uncounted: the same attempt meets its own Job", () =>
    Effect.gen(function*() {
      const { executor, world } = yield* runs
      const assignment = assignmentOf(world.kubeconfig, containerOf("echo up; sleep 1; echo done"))
      const before = yield* follow(executor, assignment)
      yield* eventually("up", Effect.sync(() => before.events.some(({ _tag }) => _tag === "Output")))
      yield* before.leave
      const ran = yield* (yield* follow(yield* worker, assignment)).ended
      assert.deepStrictEqual(ran.outcome, exited(0))
      assert.strictEqual(ran.stdout, "up\ndone\n")
      assert.deepStrictEqual([...world.kubelet.starts.values()], [1])
    }).pipe(Effect.scoped))

  it.live("what an earlier try came to is not taken for the next one", () =>
    Effect.gen(function*() {
      const { executor, run, world } = yield* runs
      const job = makeJob()
      const container = containerOf("exit 1")
      assert.deepStrictEqual((yield* run(container, { job })).outcome, exited(1))
      // Another worker, which does not know that the first has written it down.
      const again = { ...assignmentOf(world.kubeconfig, container, { job }), attempt: 2, firstAttempt: 2 }
      assert.deepStrictEqual((yield* (yield* follow(yield* worker, again)).ended).outcome, exited(1))
      assert.deepStrictEqual([...world.kubelet.starts.values()], [1, 1])
      // The same worker knows it by itself.
      yield* begin(executor, { ...again, attempt: 3, firstAttempt: 3 }).pipe(Effect.scoped)
    }).pipe(Effect.scoped))

  it.live("an ended Job stays until it is accounted for, and then for its TTL", () =>
    Effect.gen(function*() {
      const { run, world } = yield* runs
      const ttl = (job: string) =>
        Effect.map(jobsOf(world), (jobs) => {
          const found = jobs.find(({ metadata }) => metadata.name === job)
          return [found?.spec?.["ttlSecondsAfterFinished"], found?.metadata.annotations?.["stoker.dev/accounted"]]
        })
      const [fine, bad, brief] = yield* Effect.all([
        run(containerOf("true")),
        run(containerOf("false")),
        run(containerOf("true", { ttlSeconds: 1 }))
      ], { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* ttl(fine.job), [86_400, undefined])
      yield* eventually("accounted", Effect.map(ttl(bad.job), ([, accounted]) => accounted === "true"))
      assert.deepStrictEqual(yield* ttl(fine.job), [30, "true"])
      assert.deepStrictEqual(yield* ttl(bad.job), [3600, "true"])
      yield* eventually("gone", Effect.map(jobNames(world), (names) => !names.includes(brief.job)))
    }).pipe(Effect.scoped))

  it.live("a worker that ends says at once what is accounted for", () =>
    Effect.gen(function*() {
      const { world } = yield* runs
      const ran = yield* Effect.scoped(Effect.gen(function*() {
        const own = yield* worker
        const following = yield* follow(own, assignmentOf(world.kubeconfig, containerOf("true")))
        return yield* following.ended
      }))
      assert.deepStrictEqual(ran.outcome, exited(0))
      const [job] = (yield* jobsOf(world)).filter(({ metadata }) => metadata.name === ran.job)
      assert.strictEqual(job?.spec?.["ttlSecondsAfterFinished"], 30)
    }).pipe(Effect.scoped))
})
