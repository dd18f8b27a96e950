import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema, Stream } from "effect"
import { Access } from "../../src/layers/api/Access.ts"
import { faultOf } from "../../src/layers/api/Fault.ts"
import { type ApiError, JobApi } from "../../src/layers/api/JobApi.ts"
import * as JobApiLive from "../../src/layers/api/JobApiLive.ts"
import * as ArtefactsMemory from "../../src/layers/artefacts/ArtefactsMemory.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import type { Control } from "../../src/layers/control/Control.ts"
import * as ControlTest from "../../src/layers/control/ControlTest.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import * as LogMemory from "../../src/layers/log/LogMemory.ts"
import { type Caller, rightOf, type RolesFile } from "../../src/schemas/Access.ts"
import * as Function from "../../src/schemas/Function.ts"
import { Owner } from "../../src/schemas/Ids.ts"
import { ofRun } from "../../src/schemas/Program.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { say } from "../support/Say.ts"

const roles: RolesFile = {
  users: { admin: "super", alice: "own", bob: "own", charlie: { status: "super", start: "none" } }
}
const access = Layer.succeed(Access, {
  right: (caller, method) => Effect.succeed(rightOf(roles, caller.name, method))
})

const online = Function.make({
  name: "online",
  title: "Online",
  description: "needs a network.",
  args: Schema.Struct({ times: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 3 })) }),
  positional: { times: "times" },
  needs: { network: true },
  program: (_, { run }) => Effect.succeed(ofRun({ argv: ["true"], limits: run }))
})

const layer = JobApiLive.layer({ mayPost: (url) => url.startsWith("https://hooks.example/") }).pipe(
  Layer.provideMerge(ControlTest.layerTest),
  Layer.provideMerge(Layer.mergeAll(
    access,
    Functions.layer([say, online]),
    Settings.layer(standardConfig),
    LogMemory.layerMemory,
    ArtefactsMemory.layerMemory,
    layerSecureRandom
  ))
)

const caller = (name: string): Caller => ({ name: Owner.make(name), via: "certificate" })
const [admin, alice, bob, charlie, nobody] = ["admin", "alice", "bob", "charlie", "nobody"].map(caller) as [
  Caller,
  Caller,
  Caller,
  Caller,
  Caller
]

const promise = (title: string, effect: Effect.Effect<unknown, unknown, Control | JobApi>) =>
  it.live(title, () => effect.pipe(Effect.provide(layer), Effect.timeout("20 seconds")))

const hello = { function: "say", args: { word: "hello" } }

/** What a caller is told of an error. */
const trouble = <A>(effect: Effect.Effect<A, ApiError>) =>
  Effect.map(Effect.flip(effect), (error) => {
    const { kind, reason, remedy } = faultOf(error)
    return `${kind.name}: ${reason}. ${remedy}`
  })

describe("the control plane", () => {
  promise(
    "starts a job once, whoever repeats the request, and gives it an id that sorts by time",
    Effect.gen(function*() {
      const api = yield* JobApi
      const job = yield* api.start(alice, hello)
      assert.match(job.id, /^[0-9a-v]{20}$/)
      assert.strictEqual(job.owner, "alice")
      assert.strictEqual(job.intake, "api")
      assert.deepStrictEqual(job.args, { word: "hello" })
      const named = yield* api.start(alice, { ...hello, id: "mine" })
      assert.deepStrictEqual(yield* api.start(alice, { ...hello, id: "mine" }), named)
      assert.strictEqual(
        yield* trouble(api.start(alice, { ...hello, args: { word: "other" }, id: "mine" })),
        "id-taken: job id mine is already taken by another request. Choose a new id, or leave it out."
      )
      // The same id of somebody else is another job.
      assert.strictEqual((yield* api.start(bob, { ...hello, args: { word: "other" }, id: "mine" })).owner, "bob")
    })
  )

  promise(
    "refuses what could never run before it takes it, and says what would be right",
    Effect.gen(function*() {
      const api = yield* JobApi
      const refused = (request: object) => trouble(api.start(alice, { ...hello, ...request }))
      assert.match(
        yield* refused({ function: "sya" }),
        /^invalid-request: there is no function "sya"\. Did you mean say\?/
      )
      assert.match(yield* refused({ args: {} }), /^invalid-arguments: .*word/)
      assert.match(yield* refused({ args: { word: "x", extra: 1 } }), /^invalid-arguments: .*extra/)
      assert.match(yield* refused({ args: { word: 7 } }), /^invalid-arguments: .*word/)
      assert.match(yield* refused({ args: undefined }), /^invalid-arguments/)
      assert.match(yield* refused({ args: () => 1 }), /^invalid-arguments: the arguments are no JSON/)
      assert.match(yield* refused({ id: "../etc" }), /^invalid-request: "\.\.\/etc" is no job id/)
      assert.match(
        yield* refused({ class: "huge" }),
        /^invalid-request: there is no sandbox class "huge"\. Use one of: oci/
      )
      assert.match(yield* refused({ limits: { memoryBytes: 2 ** 50 } }), /^invalid-request: .*memoryBytes/)
      assert.match(yield* refused({ waitMs: -1 }), /^invalid-request: the time to wait/)
      assert.match(yield* refused({ waitMs: 3_600_001 }), /^invalid-request: the time to wait/)
      // An hour, as the service has promised.
      assert.match(yield* refused({ function: "sya", waitMs: 3_600_000 }), /^invalid-request: there is no function/)
      assert.match(
        yield* refused({ function: "online", args: { times: 1 } }),
        /^invalid-request: online needs a network/
      )
      assert.match(
        yield* refused({ webhook: "http://169.254.169.254/" }),
        /^invalid-request: outcomes are not posted to/
      )
      assert.match(
        yield* refused({ webhook: `https://hooks.example/${"a".repeat(2048)}` }),
        /^invalid-request: outcomes are not posted to/
      )
      assert.strictEqual((yield* api.list(alice, {})).jobs.length, 0)
      yield* api.start(alice, { ...hello, webhook: "https://hooks.example/a" })
      // No trace is no reason to refuse a job, as the standard has it.
      yield* api.start(alice, { ...hello, traceparent: "0".repeat(3000) })
    })
  )

  promise(
    "answers about others' jobs as about none, unless the caller is super",
    Effect.gen(function*() {
      const api = yield* JobApi
      yield* api.start(alice, { ...hello, id: "a" })
      const none = "unknown-job: there is no job a. Check the id; `list` shows your jobs."
      assert.strictEqual(yield* trouble(api.status(bob, { id: "a" })), none)
      assert.strictEqual(yield* trouble(api.status(bob, { id: "a", owner: "alice" })), none)
      assert.strictEqual(yield* trouble(api.stop(bob, { id: "a" })), none)
      assert.strictEqual(yield* trouble(api.remove(bob, { id: "a" })), none)
      assert.strictEqual(yield* trouble(api.follow(bob, { id: "a" })), none)
      assert.strictEqual(yield* trouble(api.read(bob, { id: "a", offset: 0, maxBytes: 1 })), none)
      assert.deepStrictEqual((yield* api.list(bob, {})).jobs, [])
      assert.deepStrictEqual((yield* api.list(bob, { owner: "alice" })).jobs, [])
      assert.strictEqual((yield* api.status(admin, { id: "a" })).owner, "alice")
      assert.strictEqual((yield* api.status(admin, { id: "a", owner: "alice" })).owner, "alice")
      assert.strictEqual((yield* api.status(charlie, { id: "a" })).owner, "alice")
      assert.strictEqual((yield* api.list(admin, {})).jobs.length, 1)
    })
  )

  promise(
    "lets nobody do what their rights do not say",
    Effect.gen(function*() {
      const api = yield* JobApi
      assert.match(yield* trouble(api.start(charlie, hello)), /^forbidden: charlie may not start/)
      assert.match(
        yield* trouble(api.functions(charlie)),
        /^forbidden: charlie may not see which functions there are.*\(functions\)/
      )
      assert.match(yield* trouble(api.list(nobody, {})), /^forbidden: nobody may not list/)
      assert.match(
        yield* trouble(api.start(alice, { ...hello, owner: "bob" })),
        /^forbidden: alice may not start jobs of bob/
      )
      assert.strictEqual((yield* api.start(admin, { ...hello, owner: "bob" })).owner, "bob")
    })
  )

  promise(
    "gives a list in pages, newest first, without arguments",
    Effect.gen(function*() {
      const api = yield* JobApi
      for (const id of ["a", "b", "c", "d", "e"]) yield* api.start(alice, { ...hello, id })
      const first = yield* api.list(alice, { limit: 2 })
      assert.deepStrictEqual(first.jobs.map(({ id }) => id), ["e", "d"] as never)
      assert.isUndefined(first.jobs[0]?.args)
      yield* api.start(alice, { ...hello, id: "f" })
      const second = yield* api.list(alice, { limit: 2, cursor: first.next ?? "" })
      assert.deepStrictEqual(second.jobs.map(({ id }) => id), ["c", "b"] as never)
      const third = yield* api.list(alice, { limit: 2, cursor: second.next ?? "" })
      assert.deepStrictEqual(third.jobs.map(({ id }) => id), ["a"] as never)
      assert.isUndefined(third.next)
      assert.match(yield* trouble(api.list(alice, { cursor: "!" })), /^invalid-request: "!" is no cursor/)
      assert.match(yield* trouble(api.list(alice, { limit: 0 })), /^invalid-request: the limit is 0/)
    })
  )

  promise(
    "stops a job, again and again with the same answer, and forgets it once it has ended",
    Effect.gen(function*() {
      const api = yield* JobApi
      yield* api.start(alice, { ...hello, id: "a" })
      assert.match(yield* trouble(api.remove(alice, { id: "a" })), /^not-ended/)
      // It would be kept with the job, and told in every list.
      assert.match(
        yield* trouble(api.stop(alice, { id: "a", reason: "x".repeat(501) })),
        /^invalid-request: the reason has 501 characters/
      )
      // It is told in the log and on terminals as it is: a line of its own there would be anybody's.
      for (const reason of ["x\n[12:00:00] INFO admin delete: allowed", "\u001b[2J", "x\r", "\u009b2J"]) {
        assert.match(
          yield* trouble(api.stop(alice, { id: "a", reason })),
          /^invalid-request: the reason has control characters/
        )
      }
      const stopped = yield* api.stop(alice, { id: "a" })
      assert.deepStrictEqual(stopped.outcome, { _tag: "Stopped", reason: "stopped by alice" })
      assert.deepStrictEqual(yield* api.stop(alice, { id: "a" }), stopped)
      const [end] = yield* Effect.flatMap(
        api.follow(alice, { id: "a" }),
        (stream) => Effect.map(Stream.runCollect(stream), (events) => events.slice(-1))
      )
      assert.strictEqual(end?._tag, "Ended")
      yield* api.remove(alice, { id: "a" })
      assert.match(yield* trouble(api.status(alice, { id: "a" })), /^unknown-job/)
    })
  )

  promise(
    "offers functions with their arguments' schema, closed against what they do not know",
    Effect.gen(function*() {
      const [, found] = yield* (yield* JobApi).functions(alice)
      assert.deepStrictEqual([found?.name, found?.title, found?.needsNetwork], ["online", "Online", true] as never)
      assert.deepStrictEqual(found?.positional, [{ field: "times", word: "times" }])
      const args = JSON.stringify(found?.args)
      assert.match(args, /"additionalProperties":false/)
      assert.match(args, /"minimum":1/)
    })
  )
})
