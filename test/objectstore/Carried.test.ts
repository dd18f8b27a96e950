/** Container jobs with buckets in oci sandboxes, through whole workers: files in, artefacts and the log out. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Logger, Redacted, Scope } from "effect"
import { randomBytes } from "node:crypto"
import { Control, Direct, Ids, type Job, Outcome, requestHash, type WorkerServices } from "../../src/index.ts"
import type { LimitsRequest } from "../../src/schemas/Limits.ts"
import { standardObjectStore } from "../../src/schemas/ObjectStoreConfig.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerWorker } from "../../src/wiring.ts"
import { Stoker } from "../cli/Stoker.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { type Seen, StrictS3 } from "./StrictS3.ts"
import { listed, other } from "./suite.ts"
import { makeImage } from "./Tool.ts"

const files = Jobs.stateDirectory()
const MiB = 1024 * 1024

const image = makeImage(files)
const server = new StrictS3()
const stoker = new Stoker()
const state = Jobs.stateDirectory()
const bare = Jobs.stateDirectory()

const workerOf = (stateDirectory: string, hasStore: boolean) =>
  layerWorker({
    stateDirectory,
    embedded: false,
    config: {
      ...standardConfig,
      slots: 2,
      classes: [{ ...standardClass("oci", "oci"), images: { allow: [`oci:${files}/`] } }],
      ...(hasStore
        ? { objectStore: { ...standardObjectStore, endpoint: server.endpoint, timeoutMs: 2000, patienceMs: 2000 } }
        : {})
    },
    ...(hasStore
      ? { objectStore: { accessKey: Redacted.make(server.accessKey), secretKey: Redacted.make(server.secretKey) } }
      : {})
  }).pipe(Layer.provide(Logger.layer([])))

let jobs = 0
interface Wanted {
  readonly args: ReadonlyArray<string>
  readonly buckets: { readonly input: string; readonly output?: string; readonly prefix?: string }
  readonly artefacts?: ReadonlyArray<string>
  readonly limits?: LimitsRequest
}
const jobOf = ({ args, artefacts = [], buckets, limits = {} }: Wanted): Job.Job => ({
  intake: Ids.IntakeName.make("direct"),
  owner: Ids.Owner.make("local"),
  id: Ids.JobId.make(`carried-${++jobs}`),
  function: Ids.FunctionName.make("container"),
  args: { image, name: "tool", args: [...args], buckets, artefacts: [...artefacts] },
  limits
})
const ran = Effect.fnUntraced(function*(job: Job.Job) {
  const parted = yield* (yield* Direct).submit({ job, hash: requestHash(job), reply: null })
  yield* parted
  const { settlement } = yield* (yield* Control).status(job)
  const { artefactsMissing = [], artefactsStored = [], outcome } = settlement ??
    (yield* Effect.die("it is not settled"))
  return { outcome, stored: artefactsStored, said: new Map(artefactsMissing.map(({ path, reason }) => [path, reason])) }
})

describe("container jobs with buckets", { timeout: 60_000 }, () => {
  const scope = Scope.makeUnsafe()
  let context: Effect.Success<ReturnType<typeof built>> | undefined
  const built = () => Layer.buildWithScope(workerOf(state, true), scope)
  const test = (name: string, body: Effect.Effect<unknown, unknown, WorkerServices>) =>
    it.live(
      name,
      () => context === undefined ? Effect.die("there is no worker") : Effect.provideContext(body, context),
      60_000
    )

  beforeAll(async () => {
    await server.start()
    for (const name of ["in-put", "out-put"]) server.bucket(name)
    context = await Effect.runPromise(built())
  }, 60_000)
  afterAll(async () => {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await server.stop()
    await stoker.dispose()
    for (const path of [state, bare, files]) Jobs.remove(path)
  }, 60_000)

  const exited = (code: number) => ({ _tag: "Exited" as const, phase: "run" as const, code })

  test(
    "find their input, leave their artefacts and their log, with and without a prefix",
    Effect.gen(function*() {
      const content = randomBytes(9 * MiB + 5)
      yield* Effect.promise(() => other(server, ["put", "in-put", "run1-data/in put.bin"], content))
      server.put("in-put", "other-thing", "of another run")
      server.put("in-put", "run1-empty", "")
      const job = jobOf({
        args: ["copy", "data/in put.bin", "made"],
        buckets: { input: "in-put", output: "out-put", prefix: "run1" },
        artefacts: ["made", "none"]
      })
      const { outcome, said, stored } = yield* ran(job)
      assert.deepStrictEqual(outcome, exited(0))
      const made = yield* Effect.promise(() => other(server, ["get", "out-put", "run1-made"]))
      assert.isTrue(made.equals(content))
      assert.deepStrictEqual(stored, [{ path: "made", bucket: "out-put", key: "run1-made", bytes: content.length }])
      assert.deepStrictEqual([...said], [["none", "there is no such file"]])
      const told = yield* Effect.promise(() =>
        Promise.all(
          [["status", job.id], ["artefacts", job.id], ["artefacts", job.id, "made"]].map((words) =>
            stoker.run([...words, "--state", state])
          )
        )
      )
      assert.match(told[0]?.stdout ?? "", /artefact +made, .*, in bucket out-put as run1-made\n.*no artefact +none/)
      assert.match(
        told[1]?.stdout ?? "",
        /made .* it is in bucket out-put as run1-made\nnone +- +there is no such file/
      )
      assert.match(told[2]?.stderr ?? "", /made is not kept here: it is in bucket out-put as run1-made[^]*object store/)
      const log = yield* Effect.promise(() => other(server, ["get", "out-put", `run1-tool-${job.id}.log`]))
      assert.strictEqual(log.toString(), `copied ${content.length} bytes of in-put\n`)

      const second = jobOf({
        args: ["copy", "other-thing", "again"],
        buckets: { input: "in-put" },
        artefacts: ["again"]
      })
      assert.deepStrictEqual((yield* ran(second)).outcome, exited(0))
      assert.strictEqual(server.content("in-put", "again")?.toString(), "of another run")
      const names = (yield* Effect.promise(() => listed(server, "in-put"))).map(({ key }) => key)
      assert.deepStrictEqual(names.toSorted(), [
        "again",
        "other-thing",
        "run1-data/in put.bin",
        "run1-empty",
        `tool-${second.id}.log`
      ])
    })
  )

  test(
    "leave a log also when they fail or are out of time; the outcome is theirs",
    Effect.gen(function*() {
      const job = jobOf({ args: ["say", "7"], buckets: { input: "out-put" } })
      assert.deepStrictEqual((yield* ran(job)).outcome, exited(7))
      const log = server.content("out-put", `tool-${job.id}.log`)?.toString() ?? ""
      assert.include(log, "said\n")
      assert.include(log, "and complained\n")
      const late = jobOf({ args: ["wait", "0"], buckets: { input: "out-put" }, limits: { wallMs: 2000 } })
      assert.strictEqual((yield* ran(late)).outcome._tag, "TimedOut")
      assert.strictEqual(server.content("out-put", `tool-${late.id}.log`)?.toString(), "waiting\n")
    })
  )

  test(
    "what could not be stored makes a success none, and says so with the exit code",
    Effect.gen(function*() {
      const isOut = ({ key, method }: Seen) => method === "PUT" && key.startsWith("gone-")
      server.fault = (seen) => isOut(seen) ? { kind: "status", status: 507, code: "QuotaExceeded" } : undefined
      const buckets = { input: "in-put", output: "out-put", prefix: "gone" }
      server.put("in-put", "gone-a", "a")
      const { outcome, said } = yield* ran(jobOf({ args: ["copy", "a", "made"], buckets, artefacts: ["made"] }))
      assert.deepInclude(outcome, { _tag: "SandboxFailed", driver: "objectstore" })
      const told = Outcome.describe(outcome)
      assert.include(told, "the program exited with status 0, but made could not be stored as out-put/gone-made")
      assert.include(said.get("made") ?? "", "QuotaExceeded")
      const failing = yield* ran(jobOf({ args: ["say", "7"], buckets }))
      assert.deepStrictEqual(failing.outcome, exited(7))

      server.fault = ({ key, method }) =>
        method === "PUT" && key.endsWith(".log") ? { kind: "status", status: 403, code: "AccessDenied" } : undefined
      const logless = yield* ran(jobOf({ args: ["say", "0"], buckets }))
      assert.deepInclude(logless.outcome, { _tag: "SandboxFailed", driver: "objectstore" })
      assert.include(Outcome.describe(logless.outcome), "its log could not be stored")
      server.fault = () => undefined
    })
  )

  test(
    "are refused with the reason: no bucket, too much, names that are no files",
    Effect.gen(function*() {
      const refused = Effect.fnUntraced(function*(wanted: Wanted) {
        const { outcome } = yield* ran(jobOf(wanted))
        assert.strictEqual(outcome._tag, "Rejected", JSON.stringify(outcome))
        return Outcome.describe(outcome)
      })
      assert.include(yield* refused({ args: ["say"], buckets: { input: "no-such" } }), "there is no bucket no-such")
      server.put("in-put", "much-a", Buffer.alloc(3 * MiB))
      server.put("in-put", "much-b", Buffer.alloc(3 * MiB))
      const much = { input: "in-put", prefix: "much" }
      assert.include(
        yield* refused({ args: ["say"], buckets: much, limits: { diskBytes: 4 * MiB } }),
        "more for this job than its workspace holds"
      )
      // Each takes a page.
      for (let index = 0; index < 300; index++) server.put("in-put", `many-${index}`, "a")
      assert.include(
        yield* refused({
          args: ["say"],
          buckets: { input: "in-put", prefix: "many" },
          limits: { diskBytes: MiB }
        }),
        "could not be put into the workspace"
      )
      server.put("in-put", "odd-../a", "a")
      assert.include(yield* refused({ args: ["say"], buckets: { input: "in-put", prefix: "odd" } }), "no path inside")
      server.put("in-put", "both-a", "a")
      server.put("in-put", "both-a/b", "b")
      assert.include(
        yield* refused({ args: ["say"], buckets: { input: "in-put", prefix: "both" } }),
        "a file and a directory"
      )
    })
  )

  test(
    "a store that fails while files are brought is the operator's affair; a stop ends the wait",
    Effect.gen(function*() {
      server.put("in-put", "slow-a", Buffer.alloc(MiB))
      const buckets = { input: "in-put", prefix: "slow" }
      const isIn = ({ key, method }: Seen) => method === "GET" && key === "slow-a"
      server.fault = (seen) => isIn(seen) ? { kind: "status", status: 403, code: "AccessDenied" } : undefined
      const denied = yield* ran(jobOf({ args: ["say"], buckets }))
      assert.deepInclude(denied.outcome, { _tag: "SandboxFailed", driver: "objectstore" })
      server.fault = (seen) => isIn(seen) ? { kind: "trickle", bytes: 10_000 } : undefined
      const job = jobOf({ args: ["say"], buckets })
      const asked = server.seen.length
      const parted = yield* (yield* Direct).submit({ job, hash: requestHash(job), reply: null })
      while (!server.seen.slice(asked).some(isIn)) yield* Effect.sleep("20 millis")
      yield* (yield* Control).stop(job, { reason: "enough", graceMs: 0 })
      yield* parted
      assert.strictEqual((yield* (yield* Control).status(job)).settlement?.outcome._tag, "Stopped")
      server.fault = () => undefined
    })
  )

  it.live("are refused where no store is known, with the remedy", () =>
    Effect.gen(function*() {
      const { outcome } = yield* ran(jobOf({ args: ["say"], buckets: { input: "in-put" } }))
      assert.strictEqual(outcome._tag, "Rejected")
      assert.include(Outcome.describe(outcome), "no object store")
    }).pipe(Effect.provide(workerOf(bare, false))), 60_000)
})
