/**
 * Container jobs beside a bare client on the same control plane, by turns: submit → pod running (bound: 1.3 times a raw POST and
 * watch), a line in the pod → its follower (bound: 50 ms p99), 200 at once. The stand-in of test/kubernetes (`npm run bench -- kubernetes`), or a
 * real control plane (`npm run test:kubernetes -- --bench`).
 */
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { request } from "node:https"
import { parse } from "yaml"
import { manifestOf } from "../src/layers/kubernetes/Manifest.ts"
import { keyOf } from "../src/schemas/Job.ts"
import { runs } from "../test/kubernetes/Runs.ts"
import type { Thing } from "../test/kubernetes/Store.ts"
import { containerOf, makeJob, namespace, programOf, type World } from "../test/kubernetes/World.ts"
import { heldBytes } from "./held.ts"

const ROUNDS = Number(process.env["ROUNDS"] ?? 60)
const LINES = Number(process.env["LINES"] ?? 1000)

const quantile = (values: ReadonlyArray<number>, part: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))] ?? 0

const shown = (values: ReadonlyArray<number>) =>
  `p50 ${quantile(values, 0.5).toFixed(1)} ms, p99 ${quantile(values, 0.99).toFixed(1)} ms`

/** Every change of a pod, by the name of its Job, over one watch that stays open: the floor's, not ours. */
const watching = (world: World, tell: (job: string, phase: string) => void) =>
  Effect.acquireRelease(
    Effect.callback<() => void>((resume) => {
      const config = parse(readFileSync(world.kubeconfig, "utf8")) as {
        clusters: [{ cluster: { server: string; "certificate-authority-data": string } }]
        users: [{ user: { token: string } }]
      }
      const { "certificate-authority-data": ca, server } = config.clusters[0].cluster
      const asked = request(`${server}/api/v1/namespaces/${namespace}/pods?watch=true`, {
        ca: Buffer.from(ca, "base64"),
        headers: { authorization: `Bearer ${config.users[0].user.token}` },
        agent: false
      }, (response) => {
        let rest = ""
        response.setEncoding("utf8")
        response.on("error", () => undefined)
        response.on("data", (part: string) => {
          const lines = (rest + part).split("\n")
          rest = lines.pop() ?? ""
          for (const line of lines) {
            const { object } = JSON.parse(line) as { object: Thing }
            tell(object.metadata.labels?.["job-name"] ?? "", String(object.status?.["phase"]))
          }
        })
        resume(Effect.succeed(() => asked.destroy()))
      })
      asked.on("error", () => undefined)
      asked.end()
    }),
    (close) => Effect.sync(close)
  )

const program = Effect.gen(function*() {
  const { start, world } = yield* runs
  const waiting = new Map<string, () => void>()
  yield* watching(world, (job, phase) => {
    if (phase === "Pending") return
    waiting.get(job)?.()
    waiting.delete(job)
  })

  /** A POST, and the pod's status as the watch tells it. */
  const raw = Effect.gen(function*() {
    const job = makeJob()
    const container = containerOf("sleep 0.2")
    const manifest = manifestOf({
      container,
      key: keyOf(job),
      requestHash: "",
      attempt: 1,
      limits: programOf(container).phases[0].limits,
      setup: {},
      namespace
    })
    const began = performance.now()
    yield* Effect.promise(() =>
      new Promise<void>((resolve, reject) => {
        waiting.set(manifest.metadata?.name ?? "", resolve)
        world.kubelet.call("POST", `/apis/batch/v1/namespaces/${namespace}/jobs`, manifest).catch(reject)
      })
    )
    return performance.now() - began
  })

  const ours = Effect.gen(function*() {
    const began = performance.now()
    let ready = 0
    const { ended } = yield* start(containerOf("sleep 0.2"), {
      onEvent: ({ _tag }) => Effect.sync(() => void (_tag === "Ready" && (ready = performance.now() - began)))
    })
    yield* ended
    return ready
  })

  for (let round = 0; round < 5; round++) {
    yield* raw
    yield* ours
  }
  const [floor, own]: [Array<number>, Array<number>] = [[], []]
  for (let round = 0; round < ROUNDS; round++) {
    floor.push(yield* raw)
    own.push(yield* ours)
    // What ended takes no part in the next round.
    yield* Effect.sleep(250)
  }
  const ratio = quantile(own, 0.5) / quantile(floor, 0.5)
  console.log(`submit -> running   raw ${shown(floor)}; Stoker ${shown(own)}; ${ratio.toFixed(2)} times (bound 1.30)`)

  // The program says when it wrote; the same clock here.
  const script = `i=0; while [ $i -lt ${LINES} ]; do date +%s%N; sleep 0.01; i=$((i+1)); done`
  const delays: Array<number> = []
  let rest = ""
  const { ended } = yield* start(containerOf(script), {
    onEvent: (event) =>
      Effect.sync(() => {
        if (event._tag !== "Output") return
        const heard = performance.timeOrigin + performance.now()
        const lines = (rest + Buffer.from(event.bytes).toString()).split("\n")
        rest = lines.pop() ?? ""
        for (const line of lines) delays.push(heard - Number(BigInt(line) / 1000n) / 1000)
      })
  })
  yield* ended
  console.log(`line -> follower    ${shown(delays)} of ${delays.length} lines (bound p99 50 ms)`)

  // What is held of them, with the tests' node, which is in this process as well.
  const first = heldBytes()
  for (let round = 1; round <= 3; round++) {
    const before = heldBytes()
    let most = before
    const began = performance.now()
    const looking = setInterval(() => most = Math.max(most, heldBytes()), 1000)
    const ran = yield* Effect.forEach(
      Array.from({ length: 200 }, () => containerOf("seq 100; sleep 2")),
      (container) =>
        Effect.scoped(Effect.flatMap(start(container), ({ ended }) => Effect.map(ended, ({ outcome }) => outcome))),
      { concurrency: "unbounded" }
    )
    clearInterval(looking)
    const good = ran.filter((outcome) => outcome._tag === "Exited" && outcome.code === 0).length
    const seconds = ((performance.now() - began) / 1000).toFixed(1)
    const [up, after] = [most - before, heldBytes() - before].map((bytes) => (bytes / 1024 ** 2).toFixed(1))
    console.log(
      `200 at once, ${round}      ${good} succeeded in ${seconds} s; ${up} MiB more at most, ${after} after them`
    )
  }
  // Ended ones stay in the cluster, and in what is known of it, for half a minute.
  yield* Effect.sleep("45 seconds")
  console.log(`all of them gone    ${((heldBytes() - first) / 1024 ** 2).toFixed(1)} MiB more than before the 600`)
}).pipe(Effect.scoped)

await Effect.runPromise(program)
