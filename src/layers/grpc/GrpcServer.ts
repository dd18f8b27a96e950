/** The gRPC door: all services over the control plane. Whoever configures none does not load this module. */
import { Effect, Layer } from "effect"
import type { SecureRandom } from "effect/crypto"
import type { IdentityField } from "../api/Identity.ts"
import { JobApi } from "../api/JobApi.ts"
import { Tls } from "../api/Tls.ts"
import type { HostError } from "../host/Host.ts"
import { serve, type Served, type ServeLimits } from "./Server.ts"
import { stokerV1 } from "./StokerV1.ts"

/** Where gRPC is served, and how. */
export interface GrpcOptions {
  /** "HOST:PORT"; port 0 is any that is free. */
  readonly listen: string
  /** Where in a certificate's subject the caller's name stands. Absent: CN. */
  readonly identity?: IdentityField
  readonly limits?: ServeLimits
  /** Told as the server's health. Absent: it is well as long as it is there. */
  readonly ready?: Effect.Effect<boolean>
}

/** Serves while the scope lives. */
export const make = Effect.fnUntraced(function*(options: GrpcOptions) {
  const api = yield* JobApi
  const served: Served = yield* serve(yield* Tls, {
    listen: options.listen,
    identity: options.identity ?? "CN",
    services: [stokerV1(api)],
    ...(options.limits === undefined ? {} : { limits: options.limits })
  })
  return served
})

/** The door as a part of a worker. */
export const layer = (
  options: GrpcOptions
): Layer.Layer<never, HostError, JobApi | Tls | SecureRandom.SecureRandom> => Layer.effectDiscard(make(options))
