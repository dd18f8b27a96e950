/** Following that outlives its connections: each one goes on where the last one ended. */
import { Cause, Clock, Effect, Exit, Pull, Scope, Stream } from "effect"
import { sleep } from "../layers/amqp/Backoff.ts"
import type { FollowEvent, FollowRequest } from "../layers/api/JobApi.ts"
import { ClientError, type ClientFailure, type ClientFollowRequest, ConnectionError } from "./StokerClient.ts"

/** Tries in a row without anything coming of them. With their waits half a minute, and the time that connecting takes. */
const MOST_TRIES = 10
/** A connection that held so long was one, even if there was nothing to say. */
const HELD_MS = 10_000

/** Trouble of the moment. */
const passes = (failure: ClientFailure): boolean =>
  failure._tag === "ConnectionError"
    // A server that was there once may show anything while it is replaced; files of ours stay as they are.
    ? failure.problem !== "credentials" && failure.problem !== "protocol"
    : failure.kind === "unavailable" || failure.kind === "overloaded"

/** Where to go on, when the connection is gone. */
interface Place {
  /** Absent: whichever there is. */
  readonly run?: string
  readonly next: number
}

const isFailure = (value: object): value is ClientFailure =>
  value instanceof ClientError || value instanceof ConnectionError

/** An entry without what was there before; nothing if that is all of it. */
const beyond = (event: FollowEvent, next: number): FollowEvent | undefined => {
  switch (event._tag) {
    case "Bytes": {
      const seen = next - event.offset
      if (seen <= 0) return event
      return seen >= event.bytes.length ? undefined : { ...event, offset: next, bytes: event.bytes.subarray(seen) }
    }
    case "Gap":
      return next <= event.from ? event : next >= event.to ? undefined : { ...event, from: next }
    default:
      return event
  }
}

/** The same request as it is made after a disconnect. */
const requestAt = (request: FollowRequest, place: Place | undefined): FollowRequest =>
  place === undefined
    ? request
    : { ...request, from: { offset: place.next }, ...(place.run === undefined ? {} : { run: place.run }) }

interface Connection {
  readonly pull: Pull.Pull<readonly [FollowEvent, ...Array<FollowEvent>], ClientFailure>
  readonly scope: Scope.Closeable
  readonly sinceMs: number
}

/**
 * Every byte once, over as many connections as it takes. `open` makes one; `server` is told of in errors. A first
 * connection that cannot be made fails at once: then it is more likely wrong than interrupted.
 */
export const resuming = (
  server: string,
  open: (request: FollowRequest) => Stream.Stream<FollowEvent, ClientFailure>,
  { onResume, ...request }: ClientFollowRequest
): Stream.Stream<FollowEvent, ClientFailure> =>
  Stream.unwrap(Effect.gen(function*() {
    let connection: Connection | undefined
    let place: Place | undefined
    let isOver = false
    let wasThere = false
    let tries = 0

    const ended = new ConnectionError({
      problem: "lost",
      server,
      reason: "the connection ended before the job did",
      remedy: "Ask again: output is kept."
    })

    const hangUp = Effect.suspend(() => {
      const gone = connection
      connection = undefined
      return gone === undefined ? Effect.void : Scope.close(gone.scope, Exit.void)
    })
    yield* Effect.addFinalizer(() => hangUp)

    const connect = Effect.gen(function*() {
      const scope = yield* Scope.make()
      const pull = yield* Stream.toPull(open(requestAt(request, place))).pipe(Scope.provide(scope))
      connection = { pull, scope, sinceMs: yield* Clock.currentTimeMillis }
      return connection
    }).pipe(Effect.uninterruptible)

    const anew = () => {
      place = { next: 0 }
      return new ConnectionError({ problem: "lost", server, reason: "the output began anew", remedy: "Ask again." })
    }

    /** What of an event was not there before, or why it cannot be one that follows. */
    const take = (event: FollowEvent): FollowEvent | ClientFailure | undefined => {
      if (event._tag === "Begun") {
        if (place?.run === event.run) return undefined
        // Another attempt's output, and not from its beginning: that is where our offset of the former one led.
        if (place !== undefined && event.offset > 0) return anew()
        place = { run: event.run, next: event.offset }
        return event
      }
      if (event._tag !== "Bytes" && event._tag !== "Gap") {
        isOver = true
        return event
      }
      if (place === undefined) return event
      const { next } = place
      const [begins, ends] = event._tag === "Bytes"
        ? [event.offset, event.offset + event.bytes.length]
        : [event.from, event.to]
      if (begins > next) {
        return new ClientError({
          kind: "internal",
          reason: `the output goes on at byte ${begins} where byte ${next} was due`,
          remedy: "This is a defect of Stoker; please report it."
        })
      }
      place = { ...place, next: Math.max(next, ends) }
      return beyond(event, next)
    }

    const again = Effect.fnUntraced(function*(failure: ClientFailure, since: Connection | undefined) {
      yield* hangUp
      const now = yield* Clock.currentTimeMillis
      if (since !== undefined && now - since.sinceMs >= HELD_MS) {
        tries = 0
        wasThere = true
      }
      if (failure._tag === "ConnectionError" && failure.problem === "lost") wasThere = true
      if (!passes(failure) || !wasThere || tries >= MOST_TRIES) return yield* failure
      tries += 1
      if (onResume !== undefined) yield* onResume(failure, tries)
      yield* sleep(tries - 1)
    })

    let trouble: ClientFailure | undefined
    const pull: Pull.Pull<readonly [FollowEvent, ...Array<FollowEvent>], ClientFailure> = Effect.gen(function*() {
      while (true) {
        if (isOver) return yield* Cause.done()
        const current: Connection = connection ?? (yield* connect)
        if (trouble !== undefined) {
          const failure = trouble
          trouble = undefined
          yield* again(failure, current)
          continue
        }
        const given = yield* current.pull.pipe(
          Pull.catchDone(() => Effect.fail(ended)),
          Effect.catch((failure: ClientFailure) => Effect.succeed(failure))
        )
        if (isFailure(given)) {
          trouble = given
          continue
        }
        wasThere = true
        tries = 0
        const events: Array<FollowEvent> = []
        for (const event of given) {
          const taken = take(event)
          if (taken === undefined) continue
          if (isFailure(taken)) {
            // What came before it is given first.
            trouble = taken
            break
          }
          events.push(taken)
          if (isOver) break
        }
        const [first, ...others] = events
        if (first !== undefined) return [first, ...others] as const
      }
    })
    return Stream.fromPull(Effect.succeed(pull))
  }))
