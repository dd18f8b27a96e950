/** The API behind its guard without a socket: requests in, answers out. */
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { HttpEffect } from "effect/http"
import type { GuardOptions } from "../../src/layers/http/Guard.ts"
import { app, type HttpBounds } from "../../src/layers/http/HttpServer.ts"
import { Owner } from "../../src/schemas/Ids.ts"
import * as FakeApi from "./FakeApi.ts"

/** Who asks is what the test says, in a header that only this double believes. */
const identify: GuardOptions["identify"] = ({ headers }) => {
  const name = headers["x-test-caller"] ?? "alice"
  return name === "nobody"
    ? Effect.fail({ _tag: "Unauthenticated", reason: "no certificate", remedy: "Bring one." } as const)
    : Effect.succeed({ name: Owner.make(name), via: "certificate" })
}

export interface Asking {
  readonly method?: string
  readonly body?: string | Uint8Array<ArrayBuffer>
  readonly headers?: Readonly<Record<string, string>>
  readonly as?: string
}

/** Asks the API. */
export const make = Effect.fnUntraced(function*(options: HttpBounds = {}) {
  const guarded = yield* app(identify, { rateLimit: { perSecond: 1e6, burst: 1e6 }, ...options })
  const handle = HttpEffect.toWebHandler(guarded)
  return (path: string, { as = "alice", body, headers = {}, method = "GET" }: Asking = {}) =>
    Effect.promise((signal) =>
      handle(
        new Request(`https://localhost${path}`, {
          method,
          headers: {
            "x-test-caller": as,
            ...(body === undefined ? {} : { "content-type": "application/json" }),
            ...headers
          },
          signal,
          ...(body === undefined ? {} : { body })
        })
      )
    )
})

export const layer = (keepBytes?: number) => Layer.merge(FakeApi.layer(keepBytes), NodeHttpServer.layerHttpServices)
