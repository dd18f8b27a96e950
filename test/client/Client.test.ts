/** The client's promises, over both doors. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { createServer } from "node:http"
import { createServer as createTls } from "node:tls"
import { ClientError, ConnectionError, StokerClient } from "../../src/client/StokerClient.ts"
import type { FollowEvent } from "../../src/layers/api/JobApi.ts"
import * as JobApiMemory from "../api/JobApiMemory.ts"
import { certificates } from "../support/Certs.ts"
import { randomOf } from "../support/Random.ts"
import { patience } from "../support/Slowness.ts"
import { breaking, clientLayer, door, target, withClient } from "./Doors.ts"

const text = (events: ReadonlyArray<FollowEvent>) =>
  Buffer.concat(events.flatMap((event) => event._tag === "Bytes" ? [event.bytes] : [])).toString()

const lines = (count: number) => Array.from({ length: count }, (_, n) => `line ${n}\n`).join("")

const protocols = ["grpc", "https"] as const

for (const protocol of protocols) {
  describe(`the client over ${protocol}`, () => {
    it.live("starts, tells, lists, stops and forgets jobs", () =>
      withClient(protocol, () =>
        Effect.gen(function*() {
          const client = yield* StokerClient
          const started = yield* client.start({
            function: "command",
            args: { argv: ["sleep"] },
            id: "mine",
            waitMs: 5000
          })
          assert.deepStrictEqual(
            [started.id, started.owner, started.state, started.function],
            ["mine", "alice", "running", "command"]
          )
          assert.deepStrictEqual(started.args, { argv: ["sleep"] })
          assert.strictEqual((yield* client.list({ state: "running" })).jobs.length, 1)
          const stopped = yield* client.stop({ id: "mine", reason: "enough", graceMs: 10 })
          assert.deepStrictEqual(stopped.outcome, { _tag: "Stopped", reason: "enough" })
          assert.isNumber(stopped.endedAtMs)
          assert.deepStrictEqual(yield* client.status({ id: "mine", owner: "alice" }), stopped)
          for (let n = 0; n < 3; n++) yield* client.start({ function: "command", args: { argv: ["echo", "x"] } })
          const page = yield* client.list({ limit: 2 })
          assert.strictEqual(page.jobs.length, 2)
          const next = page.next ?? ""
          assert.strictEqual((yield* client.list({ limit: 2, cursor: next })).jobs.length, 2)
          yield* client.remove({ id: "mine" })
          assert.strictEqual((yield* Effect.flip(client.status({ id: "mine" }))).message.includes("mine"), true)
        })))

    it.live("tells of functions with their arguments' schema", () =>
      withClient(protocol, () =>
        Effect.gen(function*() {
          const functions = yield* (yield* StokerClient).functions
          const fib = functions.find(({ name }) => name === "fib")
          assert.deepStrictEqual(fib?.positional, [{ field: "number", word: "position" }])
          assert.isObject(fib?.args)
        })))

    it.live("says why the worker did not do it, by its kind, with the remedy", () =>
      withClient(protocol, (port) =>
        Effect.gen(function*() {
          const client = yield* StokerClient
          const kindOf = <A>(effect: Effect.Effect<A, ClientError | ConnectionError>) =>
            Effect.map(Effect.flip(effect), (error) => error instanceof ClientError ? error.kind : error.message)
          assert.strictEqual(yield* kindOf(client.status({ id: "nothing" })), "unknown-job")
          assert.strictEqual(
            yield* kindOf(client.start({ function: "fib", args: { number: -1 } })),
            "invalid-arguments"
          )
          assert.strictEqual(yield* kindOf(client.start({ function: "noop", args: {}, id: "../x" })), "invalid-request")
          assert.strictEqual(yield* kindOf(client.start({ function: "noop", args: {}, owner: "bob" })), "forbidden")
          yield* client.start({ function: "command", args: { argv: ["sleep"] }, id: "taken" })
          assert.strictEqual(
            yield* kindOf(client.start({ function: "command", args: { argv: ["echo"] }, id: "taken" })),
            "id-taken"
          )
          assert.strictEqual(yield* kindOf(client.remove({ id: "taken" })), "not-ended")
          assert.strictEqual(
            yield* kindOf(client.artefact({ id: "taken" }, "a.txt", { offset: 0, maxBytes: 10 })),
            "unknown-artefact"
          )
          assert.strictEqual(
            yield* kindOf(client.start({ function: "command", args: { argv: ["defect"] } })),
            "internal"
          )
          const unknown = yield* Effect.flip(client.status({ id: "nothing" }))
          assert.strictEqual(unknown.reason, "there is no job nothing")
          assert.match(unknown.remedy, /list/)
          assert.isAbove(port, 0)
        })))

    it.live("reads parts and follows to the end", () =>
      withClient(protocol, () =>
        Effect.gen(function*() {
          const client = yield* StokerClient
          const { id } = yield* client.start({ function: "command", args: { argv: ["lines", "50"] } })
          const events = yield* Stream.runCollect(client.follow({ id }))
          assert.strictEqual(events[0]?._tag, "Begun")
          assert.strictEqual(events.at(-1)?._tag, "Ended")
          assert.strictEqual(text(events), lines(50))
          const slice = yield* client.read({ id, offset: 7, maxBytes: 14 })
          const bytes = Buffer.concat(slice.entries.flatMap((entry) => entry._tag === "Bytes" ? [entry.bytes] : []))
          assert.strictEqual(bytes.toString(), lines(50).slice(7, 21))
          assert.strictEqual(slice.next, 21)
        })))

    it.live("follows over a way that breaks every few kilobytes, and has every byte once", () => {
      const below = randomOf(7)
      // The first one holds, so that there is something to resume.
      let connections = 0
      return withClient(protocol, (port) =>
        Effect.gen(function*() {
          const { alice } = yield* Effect.promise(certificates)
          const straight = clientLayer(target(protocol, port, alice))
          const { id } = yield* Effect.provide(
            Effect.flatMap(StokerClient, (client) =>
              client.start({ function: "command", args: { argv: ["lines", "3000"] } })),
            straight
          )
          let resumed = 0
          const client = yield* StokerClient
          const events = yield* Stream.runCollect(client.follow({
            id,
            onResume: () =>
              Effect.sync(() => void (resumed += 1))
          }))
          assert.strictEqual(text(events), lines(3000))
          assert.strictEqual(events.filter(({ _tag }) => _tag === "Begun").length, 1)
          assert.isAbove(resumed, 1)
        }), breaking(() => connections++ === 0 ? 12_000 : 8000 + below(40_000)))
    }, patience(60_000))

    it.live(
      "ends a follower's stream at the server when nobody takes it any more",
      () =>
        withClient(protocol, () =>
          Effect.gen(function*() {
            const client = yield* StokerClient
            const memory = yield* JobApiMemory.Memory
            const { id } = yield* client.start({ function: "command", args: { argv: ["drip", "10"] } })
            const fiber = yield* Effect.forkChild(Stream.runDrain(client.follow({ id })))
            while ((yield* memory.waiting) === 0) yield* Effect.sleep(5)
            yield* Fiber.interrupt(fiber)
            while ((yield* memory.waiting) > 0) yield* Effect.sleep(5)
          })),
      patience(20_000)
    )

    describe("says in words why there is no connection", () => {
      const problem = (port: number, credentials: Parameters<typeof target>[2]) =>
        Effect.flatMap(StokerClient, (client) => client.status({ id: "x" })).pipe(
          Effect.provide(clientLayer(target(protocol, port, credentials))),
          Effect.flip,
          Effect.map((error) => {
            assert.instanceOf(error, ConnectionError)
            assert.isAbove(error.remedy.length, 10)
            assert.notMatch(error.reason, /ERR_|::/)
            return `${error.problem}: ${error.reason}`
          })
        )

      it.live("to certificates that do not fit", () =>
        Effect.gen(function*() {
          const { alice, expired, rogue, rogueAuthority } = yield* Effect.promise(certificates)
          const port = yield* door(protocol)
          assert.strictEqual(
            yield* problem(port, { ...alice, ca: rogueAuthority.cert }),
            "server-certificate: the server's certificate is not signed by your CA"
          )
          assert.match(yield* problem(port, expired), /^client-certificate: your certificate expired on/)
          assert.strictEqual(
            yield* problem(port, rogue),
            "client-certificate: the server ends the connection when it has seen your certificate"
          )
          assert.match(yield* problem(port, { ...alice, key: rogue.key }), /^credentials: your key does not belong/)
          assert.match(
            yield* problem(port, { ca: alice.ca }),
            protocol === "grpc"
              ? /^credentials: gRPC needs a certificate/
              : /^client-certificate: the server wants a certificate, and you show none/
          )
        }).pipe(Effect.scoped, Effect.provide(JobApiMemory.layer)), patience(30_000))

      it.live("to where nobody listens, or somebody else", () =>
        Effect.gen(function*() {
          const { alice, server } = yield* Effect.promise(certificates)
          const listening = (make: (ready: (port: number) => void) => { readonly close: () => unknown }) =>
            Effect.acquireRelease(
              Effect.callback<{ readonly port: number; readonly close: () => unknown }>((resume) => {
                const made = make((port) => resume(Effect.succeed({ port, close: () => made.close() })))
              }),
              ({ close }) => Effect.sync(() => void close())
            )
          const portOf = (address: unknown) => (address as { readonly port: number }).port
          const plain = yield* listening((ready) => {
            const http = createServer((_, response) => response.end("hello"))
            return http.listen(0, "127.0.0.1", () => ready(portOf(http.address())))
          })
          const old = yield* listening((ready) => {
            const tls = createTls({ cert: server.cert, key: server.key, maxVersion: "TLSv1.2" })
            return tls.listen(0, "127.0.0.1", () => ready(portOf(tls.address())))
          })
          assert.strictEqual(yield* problem(1, alice), "unreachable: nobody listens there")
          assert.strictEqual(yield* problem(plain.port, alice), "tls: it speaks no TLS")
          assert.strictEqual(yield* problem(old.port, alice), "tls: it speaks no TLS 1.3")
        }).pipe(Effect.scoped), patience(30_000))
    })
  })
}
