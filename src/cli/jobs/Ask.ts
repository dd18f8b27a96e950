/** One command's questions to a worker: connected for as long as it takes, errors with the command line's exit codes. */
import { Effect } from "effect"
import { ClientError, type ClientFailure, ConnectionError, kindNamed, StokerClient } from "../../client/StokerClient.ts"
import { CliFailure } from "../CliFailure.ts"
import { exitCode } from "../ExitCode.ts"
import { interruptible } from "../Signals.ts"
import { clientOf } from "./Server.ts"
import type { ServerChoice } from "./ServerFlags.ts"

/** What a client's failure is on the command line. */
const told = (error: ClientFailure): CliFailure =>
  error._tag === "ClientError"
    ? new CliFailure({ reason: error.reason, remedy: error.remedy, code: kindNamed(error.kind).exit })
    : new CliFailure({ reason: `${error.server}: ${error.reason}`, remedy: error.remedy, code: exitCode.usage })

const isClientFailure = (error: unknown): error is ClientFailure =>
  error instanceof ClientError || error instanceof ConnectionError

/** Errors of the client as the command line tells them. */
export const telling = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.mapError(
    effect,
    (error): CliFailure | Exclude<E, ClientFailure> =>
      isClientFailure(error) ? told(error) : error as Exclude<E, ClientFailure>
  )

/** Runs it with the client; the first signal ends it. */
export const asking = <A, E, R>(choice: ServerChoice, effect: Effect.Effect<A, E, R>) =>
  telling(interruptible(Effect.provide(effect, clientOf(choice))))

/** The functions a worker offers, or none if it will not say: for titles, which are a courtesy. */
export const titles = Effect.gen(function*() {
  const client = yield* StokerClient
  return yield* Effect.orElseSucceed(client.functions, () => [])
})
