import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger, References } from "effect"
import { type ClientHttp2Session, connect } from "node:http2"
import { JobApi } from "../../src/layers/api/JobApi.ts"
import { clientTls, type TlsMaterial } from "../../src/layers/api/TlsMaterial.ts"
import { Owner } from "../../src/schemas/Ids.ts"
import { certificates } from "../support/Certs.ts"
import { withDoor } from "./Door.ts"

const connected = (port: number, material: TlsMaterial, initialWindowSize: number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const session = connect(`https://localhost:${port}`, { ...clientTls(material), settings: { initialWindowSize } })
      session.on("error", () => undefined)
      return session
    }),
    (session) => Effect.sync(() => session.destroy())
  )

/** The code a call ended with, or what came first of it: an answer's headers have none. */
const code = (session: ClientHttp2Session, id: string) =>
  Effect.callback<string | undefined>((resume) => {
    const stream = session.request({
      ":method": "POST",
      ":path": "/stoker.v1.JobService/Status",
      "content-type": "application/grpc",
      te: "trailers"
    })
    stream.on("error", () => undefined)
    stream.once("response", (headers) => {
      const status: unknown = headers["grpc-status"]
      resume(Effect.succeed(typeof status === "string" ? status : undefined))
    })
    const message = Buffer.concat([Buffer.from([10, id.length]), Buffer.from(id)])
    stream.end(Buffer.concat([Buffer.from([0, 0, 0, 0, message.length]), message]))
  })

describe("answers over gRPC that nobody reads", () => {
  it.live(
    "are held up to a bound for each caller, over all connections, and given back",
    () =>
      withDoor(({ port }) =>
        Effect.gen(function*() {
          const { alice, bob } = yield* Effect.promise(certificates)
          const api = yield* JobApi
          const args = { number: 3, text: "x".repeat(2_000_000) }
          const start = (name: string, id: string) =>
            api.start({ name: Owner.make(name), via: "certificate" }, { id, function: "fib", args })
          yield* start("alice", "big")
          yield* start("bob", "other")
          yield* Effect.scoped(Effect.gen(function*() {
            const codes: Array<string | undefined> = []
            for (let n = 0; n < 2; n += 1) {
              const session = yield* connected(port, alice, 0)
              for (let at = 0; at < 25; at += 1) codes.push(yield* code(session, "big"))
            }
            const refused = codes.filter((each) => each === "8").length
            assert.isAtLeast(refused, 50 - 34)
            assert.isAtMost(refused, 50 - 30)
            assert.isUndefined(yield* code(yield* connected(port, bob, 0), "other"))
          }))
          const session = yield* connected(port, alice, 65_535)
          yield* Effect.repeat(Effect.andThen(Effect.sleep("50 millis"), code(session, "big")), {
            until: (each) => each === undefined
          }).pipe(Effect.timeout("20 seconds"))
        })
      ),
    60_000
  )

  it.live("a certificate that names nobody is in the audit log", () => {
    const reasons: Array<unknown> = []
    const logger = Logger.make(({ fiber }) => {
      const { audit, reason } = fiber.getRef(References.CurrentLogAnnotations)
      if (audit === true) reasons.push(reason)
    })
    return withDoor(({ port }) =>
      Effect.gen(function*() {
        const made = yield* Effect.promise(certificates)
        const session = yield* connected(port, yield* Effect.promise(() => made.sign({ CN: "no body" })), 65_535)
        assert.strictEqual(yield* code(session, "a"), "16")
        assert.strictEqual(yield* code(session, "a"), "16")
        assert.deepStrictEqual(reasons, ["the CN of the certificate's subject cannot be the name of an owner"])
      })
    ).pipe(Effect.provide(Logger.layer([logger])))
  }, 60_000)
})
