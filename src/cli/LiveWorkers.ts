/** The workers of a state directory that live now, as their admin sockets tell. */
import { Effect, Option, Result, type Schema } from "effect"
import { access } from "node:fs/promises"
import { join } from "node:path"
import { ask } from "../layers/control/AdminClient.ts"
import { type Route, routes, socketName } from "../layers/control/AdminSocket.ts"
import { Host } from "../layers/host/Host.ts"
import type { InstanceId } from "../schemas/Ids.ts"
import { JobsNow, WorkerStatus } from "../schemas/Operation.ts"
import { usageFailure } from "./CliFailure.ts"

export interface LiveWorker {
  readonly instance: InstanceId
  readonly ask: <A>(
    route: Route,
    answer: Schema.Codec<A, unknown>,
    options?: { readonly body?: string; readonly limitMs?: number }
  ) => ReturnType<typeof ask<A>>
  /** Whether its process lives. */
  readonly isAlive: Effect.Effect<boolean>
  /** Whether it left its socket behind: it then died, and did not end. */
  readonly leftSocket: Effect.Effect<boolean>
}

const exists = (path: string) =>
  Effect.tryPromise(() => access(path)).pipe(Effect.as(true), Effect.orElseSucceed(() => false))

/** Commands are instances too, but have no admin socket. */
export const liveWorkers = Effect.gen(function*() {
  const host = yield* Host
  const workerOf = (instance: InstanceId): LiveWorker => {
    const folder = host.paths.instance(instance)
    return {
      instance,
      ask: (route, answer, options) => ask(folder, route, answer, options),
      isAlive: host.isAlive(instance),
      leftSocket: exists(join(folder, socketName))
    }
  }
  const workers = (yield* host.others).map(workerOf)
  return yield* Effect.filter(
    workers,
    ({ isAlive, leftSocket }) => Effect.flatMap(leftSocket, (there) => there ? isAlive : Effect.succeed(false))
  )
})

/** Those that are meant: the one that is named, else all. Fails when there is none. */
export const chosenWorkers = Effect.fnUntraced(function*(instance: Option.Option<string>) {
  const live = yield* liveWorkers
  const chosen = live.filter((worker) => Option.isNone(instance) || worker.instance === instance.value)
  if (chosen.length > 0) return chosen
  const { paths } = yield* Host
  return yield* usageFailure(
    Option.isSome(instance)
      ? `no worker ${instance.value} is running with the state directory ${paths.state}`
      : `no worker is running with the state directory ${paths.state}`,
    live.length > 0
      ? `There are: ${live.map((worker) => worker.instance).join(", ")}.`
      : "Name another one with --state or STOKER_STATE."
  )
})

/** What a worker says of itself. */
export const statusOf = (worker: LiveWorker) => worker.ask(routes.status, WorkerStatus)

/** What the jobs of all workers that answer use now; one that does not has ended, or is stopped. */
export const jobsNow = Effect.gen(function*() {
  const answers = yield* Effect.forEach(
    yield* liveWorkers,
    (worker) => Effect.result(worker.ask(routes.jobs, JobsNow)),
    { concurrency: 8 }
  )
  return answers.flatMap((answer) => Result.isSuccess(answer) ? answer.success.jobs : [])
})
