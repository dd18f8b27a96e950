/**
 * Dead letters in a RabbitMQ queue. Looking works on a channel of its own that consumes all of them without acking,
 * alone, and is then closed: the broker puts them back at once, in their old order. (Getting and requeueing one by one
 * would turn the order round, and so would looking at a part: what is put back goes behind what was put back before.)
 * Each look counts as a delivery of the letter, which the queue's limit leaves room for.
 */
import type { Channel, ConfirmChannel, ConsumeMessage } from "amqplib"
import { Clock, Deferred, Duration, Effect, Layer, type Redacted, Schedule, Struct } from "effect"
import type { AmqpError } from "../amqp/Amqp.ts"
import * as Connection from "../amqp/Connection.ts"
import * as Endpoint from "../amqp/Endpoint.ts"
import * as Fault from "../amqp/Fault.ts"
import { within } from "../Release.ts"
import {
  type DeadLetter,
  DeadLetterError,
  DeadLetters,
  LetterNotFound,
  type OpenLetter,
  type Selection
} from "./DeadLetters.ts"
import { defaultDeadQueue } from "./Keeping.ts"
import * as Letter from "./Letter.ts"

export interface DeadLettersOptions {
  /** amqp://user:password@host:port/vhost, or amqps. */
  readonly url: Redacted.Redacted<string>
  /** Names the connection in the broker's list. */
  readonly name: string
  /** Default `stoker.dead`. */
  readonly queue?: string
  /** The workers' broker users, whose word is taken for whose a letter is. Our own is one of them always. */
  readonly spokesmen?: ReadonlyArray<string>
  /** Most letters looked through. More than that are turned round with each look. Default 10,000. */
  readonly depth?: number
}

/** Letters come as fast as the network takes them: this long without one, and something is wrong. */
const silence = Duration.seconds(10)

/** A letter as it lies there, and how to take it away. */
interface Held {
  readonly letter: OpenLetter
  readonly message: ConsumeMessage
}

const failure = (operation: string) => (error: AmqpError) =>
  new DeadLetterError({ operation, reason: error.detail, remedy: error.remedy, cause: error })

const make = Effect.fnUntraced(function*(options: DeadLettersOptions) {
  const queue = options.queue ?? defaultDeadQueue
  const endpoint = yield* Endpoint.make({
    url: options.url,
    connectTimeout: Duration.seconds(5),
    heartbeat: Duration.seconds(10),
    tls: undefined
  }).pipe(Effect.mapError(failure("reading the URL")))
  const user = Letter.userOf(options.url)
  const spokesmen = [...(user === undefined ? [] : [user]), ...options.spokesmen ?? []]
  const depth = options.depth ?? 10_000

  /** One connection for one piece of work; what breaks it ends the work. */
  const connected = <A, E>(operation: string, use: (link: Connection.Link) => Effect.Effect<A, E>) =>
    Effect.gen(function*() {
      const done = yield* Deferred.make<A, E | DeadLetterError>()
      const life = Connection.supervise({
        endpoint,
        name: `stoker/${options.name}/dead`,
        session: (link) => Effect.andThen(Deferred.into(use(link), done), Effect.never),
        onUp: Effect.void,
        onDown: (error) => Effect.asVoid(Deferred.fail(done, failure(operation)(error))),
        onBlocked: () => {}
      })
      return yield* Effect.raceFirst(Deferred.await(done), life)
    })

  const asked = <A>(link: Connection.Link, operation: string, request: () => Promise<A>) =>
    Effect.tryPromise({
      try: request,
      catch: (cause) =>
        failure(operation)(Fault.at(link.address)("Channel", operation, remedyFor(Fault.replyCode(cause)), cause))
    })

  const channel = <C extends Channel>(link: Connection.Link, open: (model: Connection.Link["model"]) => Promise<C>) =>
    Effect.acquireRelease(
      Connection.openChannel(link, open).pipe(Effect.mapError(failure("opening a channel"))),
      ({ close }) => close
    )

  /** The broker puts back what a closed channel held a moment after it says so; who looks next is to find it. */
  const awaitReturned = (link: Connection.Link, least: () => number) =>
    Effect.scoped(Effect.gen(function*() {
      if (least() === 0) return
      const counting = yield* channel(link, (model) => model.createChannel())
      const count = asked(link, "counting", () => counting.channel.checkQueue(queue))
      yield* Effect.repeat(count, {
        until: ({ messageCount }) => messageCount >= least(),
        schedule: Schedule.spaced("20 millis")
      })
    })).pipe(within("dead letters", "2 seconds"))

  /** All letters, up to the depth; those that are not taken are back when the scope closes. */
  const hold = Effect.fnUntraced(function*(
    link: Connection.Link,
    operation: string,
    open: (message: ConsumeMessage) => Held | undefined
  ) {
    let left = 0
    yield* Effect.addFinalizer(() => awaitReturned(link, () => left))
    const looking = yield* channel(link, (model) => model.createChannel())
    const total = yield* asked(link, operation, () => looking.channel.checkQueue(queue)).pipe(
      Effect.map(({ messageCount }) => messageCount),
      // Nothing was ever kept there.
      Effect.catchIf(({ cause }) => Letter.isMissing(cause), () => Effect.succeed(0))
    )
    const wanted = Math.min(total, depth, 65_535)
    const held: Array<Held> = []
    if (wanted === 0) return { total, held, ack: () => {} }
    const all = yield* Deferred.make<void>()
    let seen = 0
    const receive = (message: ConsumeMessage | null) => {
      if (message === null || seen >= wanted) return
      const one = open(message)
      if (one !== undefined) held.push(one)
      seen += 1
      left += 1
      if (seen === wanted) Deferred.doneUnsafe(all, Effect.void)
    }
    yield* asked(link, operation, () => looking.channel.prefetch(wanted))
    yield* asked(link, operation, () => looking.channel.consume(queue, receive, { exclusive: true }))
    const closed = Effect.flatMap(
      looking.ended,
      (cause) => Effect.fail(failure(operation)(Fault.at(link.address)("Closed", operation, "Try again", cause)))
    )
    // Somebody else may have taken some since they were counted: what came before a silence is then all there is.
    const more = Effect.suspend(() => {
      const before = seen
      return Effect.map(
        Effect.timeoutOption(Effect.raceFirst(Deferred.await(all), closed), silence),
        () => seen > before && seen < wanted
      )
    })
    yield* Effect.repeat(more, { while: (goesOn) => goesOn })
    const ack = ({ message }: Held) => {
      left -= 1
      looking.channel.ack(message)
    }
    return { total, held, ack }
  })

  const sealed = ({ letter }: Held): DeadLetter => Struct.omit(letter, ["body", "headers"])

  const opened = (message: ConsumeMessage): Held => ({ letter: Letter.read(queue, message), message })

  /** For those who need no body: many letters may be large. */
  const unburdened = (message: ConsumeMessage): Held => {
    const { letter } = opened(message)
    return { letter: { ...letter, body: new Uint8Array() }, message: { ...message, content: Buffer.alloc(0) } }
  }

  /** The letters that were asked for; every one of them, or it says which there is not. */
  const select = Effect.fnUntraced(function*(
    link: Connection.Link,
    operation: string,
    which: Selection,
    open: (message: ConsumeMessage) => Held
  ) {
    const wanted = which === "all" ? undefined : new Set(which)
    // A letter nobody asked for is let go at once.
    const isWanted = (one: Held) => wanted === undefined || wanted.has(one.letter.id) ? one : undefined
    const found = yield* hold(link, operation, (message) => isWanted(open(message)))
    const ids = new Set(found.held.map(({ letter }) => letter.id))
    const missing = which === "all" ? undefined : which.find((id) => !ids.has(id))
    if (missing !== undefined) return yield* new LetterNotFound({ id: missing })
    return found
  })

  const resend = Effect.fnUntraced(
    function*(link: Connection.Link, confirmed: ConfirmChannel, { letter, message }: Held) {
      const operation = `sending ${letter.id} to ${letter.queue} again`
      if (letter.isCut) {
        return yield* new DeadLetterError({
          operation,
          reason: "it was too large to be kept whole",
          remedy: "Let its sender send it again; `stoker dead drop` removes this one"
        })
      }
      const again = Letter.again(letter, message, { user, spokesmen, nowMs: yield* Clock.currentTimeMillis })
      const isRouted = yield* asked(link, operation, () => Letter.publish(confirmed, again))
      if (isRouted) return
      return yield* new DeadLetterError({
        operation,
        reason: `no queue takes it: ${
          again.exchange === "" ? `queue ${again.routingKey}` : `exchange ${again.exchange}`
        } leads nowhere`,
        remedy: "Start a worker, which declares its queues, and try again"
      })
    }
  )

  /** Each leaves the queue once `act` is done with it; a failure leaves it and the following ones where they are. */
  const taking = (
    operation: string,
    which: Selection,
    open: (message: ConsumeMessage) => Held,
    act: (link: Connection.Link, confirmed: ConfirmChannel, held: Held) => Effect.Effect<boolean, DeadLetterError>
  ) =>
    connected(
      operation,
      Effect.fnUntraced(function*(link) {
        const confirming = yield* channel(link, (model) => model.createConfirmChannel())
        const { ack, held } = yield* select(link, operation, which, open)
        const taken: Array<DeadLetter> = []
        for (const one of held) {
          if (!(yield* act(link, confirming.channel, one))) continue
          ack(one)
          taken.push(sealed(one))
        }
        return taken
      }, Effect.scoped)
    )

  return DeadLetters.of({
    list: Effect.fn("DeadLetters.list")((limit) =>
      connected("listing dead letters", (link) =>
        Effect.scoped(Effect.map(
          hold(link, "listing dead letters", unburdened),
          ({ held, total }) => ({ total, letters: held.slice(0, limit).map(sealed) })
        )))
    ),
    show: Effect.fn("DeadLetters.show")((id) =>
      connected("showing a dead letter", (link) =>
        Effect.scoped(Effect.flatMap(
          select(link, "showing a dead letter", [id], opened),
          ({ held: [first] }) =>
            first === undefined ? Effect.fail(new LetterNotFound({ id })) : Effect.succeed(first.letter)
        )))
    ),
    retry: Effect.fn("DeadLetters.retry")((which) =>
      taking("retrying dead letters", which, opened, (link, confirmed, held) =>
        // Of all there are, those that cannot be sent stay, and hold up none.
        which === "all" && held.letter.isCut
          ? Effect.succeed(false)
          : Effect.as(resend(link, confirmed, held), true))
    ),
    drop: Effect.fn("DeadLetters.drop")((which) =>
      taking("dropping dead letters", which, unburdened, () => Effect.succeed(true))
    )
  })
})

const remedyFor = (code: number | undefined): string => {
  switch (code) {
    case 403:
      return "Somebody else looks at the letters just now, or this user may not: try again, or grant it permission"
    case 404:
      return "Start a worker, which declares what is missing"
    default:
      return "Check that the broker is up, and try again"
  }
}

/** Connects for each operation, and leaves nothing open. Fails only for a URL that cannot be one. */
export const layer = (options: DeadLettersOptions): Layer.Layer<DeadLetters, DeadLetterError> =>
  Layer.effect(DeadLetters, make(options))
