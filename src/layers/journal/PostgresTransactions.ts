/** Carries operations out in PostgreSQL: each in one transaction, alone with its key, and by the server's clock. */
import { Effect, Fiber, Schedule } from "effect"
import { type SqlClient, SqlError } from "effect/sql"
import { JournalError } from "./Journal.ts"
import type { Perform } from "./JournalBackend.ts"
import { type Answer, type Operation, type OperationName, reads } from "./Operation.ts"
import { explain, failureOf, type PostgresPlace, Refused } from "./PostgresFailure.ts"
import * as PostgresStore from "./PostgresStore.ts"
import { apply, type Policy } from "./Rules.ts"

/** The whole of an operation, with the waiting for a connection; the server's own timeouts end before. */
const LONGEST = "20 seconds"

/** Two transactions met and the server ended one of them: it is done again, with a little disorder. */
const repeated = Schedule.exponential("10 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 6 }))

/** The one key an operation is about; several are locked where they are read. */
const keyOf = (operation: Operation): string | undefined => {
  switch (operation.name) {
    case "submit":
    case "claim":
    case "revive":
    case "discard":
    case "remove":
      return operation.input.key
    case "bury":
      return operation.input.letter.key
    case "settle":
    case "release":
    case "postpone":
    case "own":
      return operation.input.claim.key
    case "expire":
      return operation.input.lapse.key
    case "queued":
    case "renew":
    case "lapsed":
    case "abandon":
    case "holders":
    case "owed":
    case "counts":
    case "told":
    case "dead":
    case "letter":
    case "prune":
    case "unknown":
    case "get":
    case "list":
      return undefined
  }
}

/** Forked, because a timeout waits for what cannot be interrupted: a BEGIN that nobody answers. */
const bounded = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E | Refused> =>
  Effect.flatMap(Effect.forkDetach(effect, { startImmediately: true }), (fiber) =>
    Fiber.join(fiber).pipe(
      Effect.onInterrupt(() => Effect.forkDetach(Fiber.interrupt(fiber))),
      Effect.timeoutOrElse({
        duration: LONGEST,
        orElse: () => Effect.fail(new Refused({ code: "STOKER_SLOW", message: `nothing came back in ${LONGEST}` }))
      })
    ))

const isTimed = ({ input }: Operation) => input !== null && ("nowMs" in input || "receivedMs" in input)

/** What decides over leases is the clock of the server, which all workers share. */
const timed = <N extends OperationName>(operation: Operation<N>, nowMs: number): Operation<N> => {
  const { input } = operation
  if (input === null) return operation
  const times = "nowMs" in input ? { nowMs } : "receivedMs" in input ? { receivedMs: nowMs } : {}
  // A time is replaced by a time, so it is still the same operation.
  return { ...operation, input: { ...input, ...times } } as Operation<N>
}

export const make = (sql: SqlClient.SqlClient, place: PostgresPlace, policy: Policy): Perform => {
  const writing = PostgresStore.make(sql, true)
  const reading = PostgresStore.make(sql, false)

  /** A server or a role may be set to lose what it has confirmed; what the journal confirmed is on the disk. */
  const durable = `case current_setting('synchronous_commit') when 'off'
    then set_config('synchronous_commit', 'on', true) end as durable`
  const begun = (key: string | undefined) => {
    // A key that has no row yet has nothing else that could be locked.
    const lock = `pg_advisory_xact_lock(hashtextextended(current_schema() || ' ' || $1, 0))::text as locked, `
    return sql.unsafe<{ readonly nowMs: number }>(
      `select ${key === undefined ? "" : lock}${durable}, now_ms() as "nowMs"`,
      key === undefined ? [] : [key]
    )
  }

  /** In the order of their names, so that no two transactions wait for each other. */
  const lockRows = (operation: Operation) => {
    if (operation.name === "renew") {
      const keys = operation.input.claims.map(({ key }) => key)
      return sql.unsafe("select from jobs where key = any($1) order by key for update", [keys])
    }
    if (operation.name === "told") {
      const rows = operation.input.rows.map(String)
      return sql.unsafe("select from outbox where row = any($1::text[]::bigint[]) order by row for update", [rows])
    }
    return Effect.void
  }

  const carryOut = <N extends OperationName>(operation: Operation<N>) =>
    Effect.gen(() => apply(reads.has(operation.name) ? reading : writing, policy, operation))

  const written = <N extends OperationName>(operation: Operation<N>) =>
    sql.withTransaction(Effect.gen(function*() {
      // Any one of them, which a type parameter does not say.
      const any = operation as Operation
      const [time] = yield* begun(keyOf(any))
      yield* lockRows(any)
      return yield* carryOut(timed(operation, time?.nowMs ?? 0))
    }))

  const read = <N extends OperationName>(operation: Operation<N>) =>
    Effect.gen(function*() {
      if (!isTimed(operation as Operation)) return yield* carryOut(operation)
      const [time] = yield* begun(undefined)
      return yield* carryOut(timed(operation, time?.nowMs ?? 0))
    })

  return <N extends OperationName>(doing: string, operation: Operation<N>): Effect.Effect<Answer<N>, JournalError> =>
    (reads.has(operation.name) ? read(operation) : written(operation)).pipe(
      // A connection that is gone cannot be rolled back either, and that is a defect in the client's eyes.
      Effect.catchDefect((defect) => SqlError.isSqlError(defect) ? Effect.fail(defect) : Effect.die(defect)),
      Effect.retry({
        schedule: repeated,
        while: (error) =>
          error._tag === "SqlError" &&
          (error.reason._tag === "SerializationError" || error.reason._tag === "DeadlockError")
      }),
      bounded,
      Effect.mapError((error) => {
        const failure = failureOf(error)
        return new JournalError({ operation: doing, ...explain(failure, place), cause: failure })
      })
    )
}
