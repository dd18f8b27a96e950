import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schedule, Schema, SubscriptionRef } from "effect"
import { readdirSync } from "node:fs"
import { Tls } from "../../src/layers/api/Tls.ts"
import type { TlsMaterial } from "../../src/layers/api/TlsMaterial.ts"
import * as JobApiMemory from "../api/JobApiMemory.ts"
import { certificates } from "../support/Certs.ts"
import { pythonRun, withDoor } from "./Door.ts"

type Told = Record<string, unknown>

const descriptors = () => readdirSync("/proc/self/fd").length

class NotYet extends Schema.TaggedError<NotYet>()("NotYet", { what: Schema.String, is: Schema.Unknown }) {}

/** Waits until it is so, within a time that a busy machine has. */
const becomes = <A>(what: string, look: Effect.Effect<A>, isSo: (value: A) => boolean) =>
  look.pipe(
    Effect.filterOrFail(isSo, (value) => new NotYet({ what, is: value })),
    Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 400 })
  )

const services = [
  "JobWorker.Worker",
  "grpc.health.v1.Health",
  "grpc.reflection.v1.ServerReflection",
  "grpc.reflection.v1alpha.ServerReflection",
  "seanhagen.pb.Service",
  "seanhagen.workernator.Service",
  "stoker.v1.JobService"
]

describe("gRPC's transport, from Python", () => {
  it.live(
    "lets in good client certificates over TLS 1.3, and nobody else",
    () =>
      withDoor(({ load, port }) =>
        Effect.gen(function*() {
          const told = yield* pythonRun<Told>("transport.py", port, "certificates")
          assert.strictEqual(told["good"], "NOT_FOUND")
          for (const name of ["no certificate", "expired", "rogue", "plain"]) {
            assert.strictEqual(told[name], "UNAVAILABLE", name)
          }
          // Signed by the right authority, but for a server: whoever has it is nobody's user.
          assert.include(["UNAVAILABLE", "UNAUTHENTICATED"], told["server"])
          assert.isTrue(told["TLSv1_3"])
          for (const name of ["TLSv1_2", "http/1.1", "no protocol"]) assert.notStrictEqual(told[name], true, name)
          yield* becomes("connections", load, ({ connections }) => connections === 0)
        })
      ),
    60_000
  )

  it.live(
    "ends what nobody waits for: deadlines, cancels, connections that go; all is given back",
    () =>
      withDoor(({ load, port }) =>
        Effect.gen(function*() {
          const { waiting } = yield* JobApiMemory.Memory
          const before = descriptors()
          const told = yield* pythonRun<Told>("transport.py", port, "calls")
          assert.strictEqual(told["deadline"], "DEADLINE_EXCEEDED")
          assert.isTrue(told["deadline took"])
          assert.strictEqual(told["stream deadline"], "DEADLINE_EXCEEDED")
          assert.deepStrictEqual(told["cancelled"], [true, "CANCELLED"])
          assert.strictEqual(told["large"], "RESOURCE_EXHAUSTED")
          assert.strictEqual(told["still there"], "alice")
          assert.strictEqual(told["unknown method"], "UNIMPLEMENTED")
          assert.strictEqual(told["unknown service"], "UNIMPLEMENTED")
          assert.strictEqual(told["garbage"], "INTERNAL")
          yield* becomes("followers", waiting, (count) => count === 0)
          yield* becomes("calls", load, ({ calls, connections }) => calls === 0 && connections === 0)
          yield* becomes("descriptors", Effect.sync(descriptors), (now) => now <= before)
        }), { limits: { keepAliveMs: 1000, keepAliveAnswerMs: 5000 } }),
    90_000
  )

  it.live("tells its health and describes itself", () =>
    withDoor(({ port }) =>
      Effect.gen(function*() {
        const health = yield* pythonRun<Told>("transport.py", port, "health")
        assert.deepStrictEqual(health["health"], [1, 1, "NOT_FOUND", 1, 3])
        const told = yield* pythonRun<Told>("transport.py", port, "reflection")
        for (const version of ["v1", "v1alpha"]) {
          assert.deepStrictEqual(told[`services ${version}`], services)
          assert.deepStrictEqual(told[`described ${version}`], [
            "stoker.v1.FollowRequest",
            5,
            5,
            "stoker.v1.Job",
            3,
            "stoker.v1.JobService.Follow"
          ])
        }
      })
    ), 60_000)

  it.live("says that it is not ready", () =>
    withDoor(
      ({ port }) =>
        Effect.gen(function*() {
          const health = yield* pythonRun<Told>("transport.py", port, "health")
          assert.deepStrictEqual(health["health"], [2, 2, "NOT_FOUND", 2, 3])
        }),
      { ready: Effect.succeed(false) }
    ), 60_000)

  it.live(
    "answers others while a thousand connections are idle and hundreds never finish their handshake",
    () =>
      withDoor(
        ({ load, port }) =>
          Effect.gen(function*() {
            const told = yield* pythonRun<Told>("transport.py", port, "crowd", "1000", "600")
            assert.strictEqual(told["answered among them"], "NOT_FOUND")
            assert.strictEqual(told["half"], "answered")
            assert.isTrue(told["mute ones are closed"])
            yield* becomes("connections", load, ({ connections }) => connections === 0)
          }),
        { limits: { handshakeMs: 5000, requestMs: 1000 } }
      ),
    120_000
  )

  it.live("lets one caller have so many connections, and those who say nothing make room", () =>
    withDoor(
      ({ load, port }) =>
        Effect.gen(function*() {
          const told = yield* pythonRun<Told>("transport.py", port, "too_many")
          assert.isTrue(told["one more of mine"])
          assert.strictEqual(told["somebody else's"], "NOT_FOUND")
          assert.strictEqual(told["in a silent one's place"], "NOT_FOUND")
          assert.isTrue(told["silent"])
          yield* becomes("connections", load, ({ connections }) => connections === 0)
        }),
      { limits: { connections: { all: 9, ofOne: 4, shaking: 3 }, handshakeMs: 20_000 } }
    ), 60_000)

  it.live("stays whatever frames are sent", () =>
    withDoor(
      ({ load, port }) =>
        Effect.gen(function*() {
          const told = yield* pythonRun<Told>("transport.py", port, "oddities")
          assert.strictEqual(told["after"], "NOT_FOUND")
          // A word in a status of thousands of characters is cut, since clients refuse such headers.
          assert.strictEqual(told["long id"], "INVALID_ARGUMENT")
          assert.strictEqual(told["surrogate"], "OK")
          for (const [name, answer] of Object.entries(told["odd"] as Told)) {
            assert.include(["answered", "closed"], answer, name)
          }
          yield* becomes("connections", load, ({ connections }) => connections === 0)
        }),
      { limits: { requestMs: 1000 } }
    ), 60_000)

  it.live("ends in time although somebody follows, who is told to try elsewhere", () =>
    Effect.gen(function*() {
      let told: Fiber.Fiber<ReadonlyArray<string>> | undefined
      yield* withDoor(({ port }) =>
        Effect.gen(function*() {
          const { waiting } = yield* JobApiMemory.Memory
          told = yield* Effect.forkDetach(pythonRun<ReadonlyArray<string>>("ending.py", port))
          yield* becomes("followers", waiting, (count) => count > 0)
        }), { limits: { graceMs: 200 } })
      if (told === undefined) return assert.fail("nobody followed")
      assert.deepStrictEqual(yield* Fiber.join(told), ["UNAVAILABLE", "the worker goes away. Try again in a moment."])
    }), 60_000)

  it.live("shows a new certificate and keeps the streams there are", () =>
    Effect.gen(function*() {
      const { nextServer, server } = yield* Effect.promise(certificates)
      const materials = yield* SubscriptionRef.make<TlsMaterial>(server)
      const tls = Layer.succeed(Tls, {
        material: SubscriptionRef.get(materials),
        changes: SubscriptionRef.changes(materials)
      })
      yield* withDoor(
        ({ port }) =>
          Effect.gen(function*() {
            const { waiting } = yield* JobApiMemory.Memory
            const told = yield* Effect.forkChild(pythonRun<Told>("reload.py", port))
            yield* becomes("followers", waiting, (count) => count > 0)
            yield* SubscriptionRef.set(materials, nextServer)
            const { after, before, lines } = yield* Fiber.join(told)
            assert.notStrictEqual(before, after)
            assert.isTrue(lines)
          }),
        {},
        tls
      )
    }), 60_000)
})
