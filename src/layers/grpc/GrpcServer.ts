/**
 * The gRPC door: all services over the control plane. Whoever configures none does not load this module. A worker's
 * `Functions`, if they are there, give a tail its titles.
 */
import { Effect, Layer, Option } from "effect"
import { SecureRandom } from "effect/crypto"
import type { IdentityField } from "../api/Identity.ts"
import { JobApi } from "../api/JobApi.ts"
import { Tls } from "../api/Tls.ts"
import { Functions } from "../functions/Functions.ts"
import type { HostError } from "../host/Host.ts"
import { health } from "./Health.ts"
import { jobWorker } from "./JobWorker.ts"
import { reflection } from "./Reflection.ts"
import { serve, type ServeLimits } from "./Server.ts"
import { stokerV1 } from "./StokerV1.ts"
import { workernator } from "./Workernator.ts"
import { workernatorPb } from "./WorkernatorPb.ts"

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
  const titles = Option.match(yield* Effect.serviceOption(Functions), {
    onNone: () => [],
    onSome: ({ definitions }) => definitions
  })
  let isEnding = false
  const ready = Effect.suspend(() => isEnding ? Effect.succeed(false) : options.ready ?? Effect.succeed(true))
  const jobs = [
    stokerV1(api),
    workernator(api, titles),
    workernatorPb(api),
    jobWorker(api, yield* SecureRandom.SecureRandom)
  ]
  const told = [...jobs, health(jobs.map(({ service }) => service.typeName), ready)]
  return yield* serve(yield* Tls, {
    listen: options.listen,
    identity: options.identity ?? "CN",
    services: [...told, ...reflection(told)],
    onEnd: Effect.sync(() => void (isEnding = true)),
    ...(options.limits === undefined ? {} : { limits: options.limits })
  })
})

/** The door as a part of a worker. */
export const layer = (
  options: GrpcOptions
): Layer.Layer<never, HostError, JobApi | Tls | SecureRandom.SecureRandom> => Layer.effectDiscard(make(options))
