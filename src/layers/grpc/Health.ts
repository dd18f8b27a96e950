/** `grpc.health.v1.Health`: whether calls are taken, for load balancers and probes. */
import { Effect, Schedule, Stream } from "effect"
import { Health, HealthCheckResponse_ServingStatus as Serving } from "./gen/grpc/health/v1/health_pb.js"
import { Declined, offer } from "./Service.ts"

/** A watcher sees a change after so long. */
const LOOK = "1 second"
const NOT_FOUND = 5

/** All services are as well as the whole. `ready`: a worker that takes no jobs answers, too, but says so here. */
export const health = (services: ReadonlyArray<string>, ready: Effect.Effect<boolean>) => {
  const known = new Set(["", ...services])
  const status = Effect.map(ready, (isReady) => isReady ? Serving.SERVING : Serving.NOT_SERVING)
  const changes = Stream.changes(Stream.fromEffectSchedule(status, Schedule.spaced(LOOK)))
  return offer(Health, {
    check: ({ service }) =>
      known.has(service)
        ? Effect.map(status, (status) => ({ status }))
        : Effect.fail(new Declined({ code: NOT_FOUND, reason: "there is no such service" })),
    list: () =>
      Effect.map(status, (status) => ({
        statuses: Object.fromEntries([...known].map((service) => [service, { status }]))
      })),
    // Of a service that is not there the protocol wants a stream that goes on: it might come.
    watch: ({ service }) =>
      Effect.succeed(
        known.has(service)
          ? Stream.map(changes, (status) => ({ status }))
          : Stream.concat(Stream.make({ status: Serving.SERVICE_UNKNOWN }), Stream.never)
      )
  })
}
