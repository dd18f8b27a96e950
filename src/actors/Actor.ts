/**
 * The one small piece all actors share: a bounded typed mailbox, ask and tell, stop, and restart intensity.
 *
 * An actor is a loop over its mailbox. When the loop fails it is started again after a pause, with the messages that
 * wait; when it fails too often in a period it is given up: its `ended` fails, and whoever supervises it hears.
 */
import { Cause, Deferred, Duration, Effect, Exit, Fiber, Queue, Schema, type Scope } from "effect"
import { monotonicMs } from "../layers/Now.ts"

/** The actor has ended: the message was not, and will never be, handled. */
export class ActorEnded extends Schema.TaggedError<ActorEnded>()("ActorEnded", { actor: Schema.String }) {
  override get message() {
    return `${this.actor} has ended and takes no more messages`
  }
}

/** The loop failed more often than its restart intensity allows. */
export class ActorFailed extends Schema.TaggedError<ActorFailed>()("ActorFailed", {
  actor: Schema.String,
  failures: Schema.Natural,
  cause: Schema.Defect()
}) {
  override get message() {
    return `${this.actor} failed ${this.failures} times in a row of short order and was given up: ${String(this.cause)}`
  }
}

/** At most `times` restarts within `within`; one more failure gives the actor up. `times: 0` never restarts. */
export interface RestartIntensity {
  readonly times: number
  readonly within: Duration.Input
  /** Pause before the first restart; doubled each time, up to 30 s. */
  readonly backoff: Duration.Input
}

export const noRestart: RestartIntensity = { times: 0, within: 0, backoff: 0 }

/** The receiving end: what a behaviour loops over. `Done` when the actor was asked to stop and nothing is left. */
export type Mailbox<Message> = Queue.Dequeue<Message, Cause.Done>

/** Answers one `ask`, once. */
export interface Reply<in A, in E = never> {
  readonly succeed: (value: A) => Effect.Effect<void>
  readonly fail: (error: E) => Effect.Effect<void>
}

export interface ActorRef<in Message> {
  readonly name: string
  /** Waits while the mailbox is full. */
  readonly tell: (message: Message) => Effect.Effect<void, ActorEnded>
  /** Sends a message that carries a reply, and waits for the answer or for the actor's end. */
  readonly ask: <A, E = never>(message: (reply: Reply<A, E>) => Message) => Effect.Effect<A, E | ActorEnded>
  /** No new messages; those that wait are still handled. Returns when the loop has ended. */
  readonly stop: Effect.Effect<void>
  /** Ends as the actor ends. */
  readonly ended: Effect.Effect<void, ActorFailed>
}

export interface Options<in Message = never> {
  readonly name: string
  /** Messages that may wait. */
  readonly capacity: number
  readonly restart: RestartIntensity
  /** What becomes of a message that was taken in and that the loop has ended without. Absent: nothing. */
  readonly unhandled?: (message: Message) => Effect.Effect<void>
}

/** Runs `body` again after each failure, within the intensity. Interruption and success end it. */
export const restarting = <E, R>(
  name: string,
  intensity: RestartIntensity,
  body: Effect.Effect<void, E, R>
): Effect.Effect<void, ActorFailed, R> =>
  Effect.gen(function*() {
    const within = Duration.toMillis(intensity.within)
    let failures: ReadonlyArray<number> = []
    while (true) {
      const exit = yield* Effect.exit(body)
      if (Exit.isSuccess(exit)) return
      if (Cause.hasInterruptsOnly(exit.cause)) return yield* Effect.interrupt
      const now = yield* monotonicMs
      failures = [...failures.filter((at) => now - at < within), now]
      if (failures.length > intensity.times) {
        yield* Effect.logError(`${name} is given up`, exit.cause)
        return yield* new ActorFailed({ actor: name, failures: failures.length, cause: Cause.squash(exit.cause) })
      }
      const pause = Duration.min(
        Duration.times(Duration.fromInputUnsafe(intensity.backoff), 2 ** (failures.length - 1)),
        Duration.seconds(30)
      )
      yield* Effect.logWarning(`${name} failed and starts again in ${Duration.toMillis(pause)} ms`, exit.cause)
      yield* Effect.sleep(pause)
    }
  })

/** Starts an actor that lives at most as long as the scope. */
export const start = <Message, E, R>(
  options: Options<Message>,
  behaviour: (mailbox: Mailbox<Message>) => Effect.Effect<void, E, R>
): Effect.Effect<ActorRef<Message>, never, R | Scope.Scope> =>
  Effect.gen(function*() {
    const { name } = options
    const mailbox = yield* Queue.bounded<Message, Cause.Done>(options.capacity)
    const ended = yield* Deferred.make<void, ActorFailed>()
    const leave = Effect.gen(function*() {
      // Nobody is let in any more, then those inside are seen to.
      yield* Queue.end(mailbox)
      const left = yield* Effect.orElseSucceed(Queue.clear(mailbox), () => [])
      yield* Queue.shutdown(mailbox)
      const { unhandled } = options
      if (unhandled !== undefined) yield* Effect.forEach(left, unhandled, { discard: true })
    })
    const fiber = yield* restarting(name, options.restart, behaviour(mailbox)).pipe(
      Effect.annotateLogs({ actor: name }),
      Effect.onExit((exit) =>
        Effect.andThen(
          leave,
          // Interrupted by its scope: an end like any other for those who wait.
          Deferred.done(ended, Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? Exit.void : exit)
        )
      ),
      Effect.forkScoped({ startImmediately: true })
    )
    const gone = Effect.fail(new ActorEnded({ actor: name }))
    const tell = (message: Message) =>
      Queue.offer(mailbox, message).pipe(
        Effect.raceFirst(Effect.as(Effect.ignore(Deferred.await(ended)), false)),
        Effect.flatMap((taken) => taken ? Effect.void : gone)
      )
    return {
      name,
      tell,
      ask: <A, E2 = never>(message: (reply: Reply<A, E2>) => Message) =>
        Effect.gen(function*() {
          const answer = yield* Deferred.make<A, E2>()
          yield* tell(message({
            succeed: (value) => Effect.asVoid(Deferred.succeed(answer, value)),
            fail: (error) => Effect.asVoid(Deferred.fail(answer, error))
          }))
          return yield* Effect.raceFirst(
            Deferred.await(answer),
            Effect.andThen(Effect.ignore(Deferred.await(ended)), gone)
          )
        }),
      stop: Effect.andThen(Queue.end(mailbox), Effect.asVoid(Fiber.await(fiber))),
      ended: Deferred.await(ended)
    }
  })
