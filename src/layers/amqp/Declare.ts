import type { Channel } from "amqplib"
import { Duration, Effect, Semaphore } from "effect"
import type { AmqpError, ExchangeSpec, QueueSpec, Topology } from "./Amqp.ts"
import type { Link, OpenChannel } from "./Connection.ts"
import * as Connection from "./Connection.ts"
import * as Fault from "./Fault.ts"

/** A broker that answers at all answers a declare in this time, even with a slow disk. */
const answerLimit = Duration.seconds(10)

/** Declares on throw-away channels of one connection, never on one that carries messages. */
export interface Declarer {
  /** Fails with reason "Closed" if the connection ended meanwhile, "Topology" if the broker said no. */
  readonly ensure: (topology: Topology) => Effect.Effect<void, AmqpError>
  readonly declareOrUse: (queue: QueueSpec) => Effect.Effect<void, AmqpError>
}

/** `told` remembers over connections which differences have been logged. */
export const make = (link: Link, told: Set<string>): Declarer => {
  const one = Semaphore.makeUnsafe(1)
  let current: OpenChannel<Channel> | undefined

  const drop = Effect.suspend(() => {
    const broken = current
    current = undefined
    return broken === undefined ? Effect.void : broken.close
  })

  /** One request on the scratch channel, which a refusal closes: then the next request opens another. */
  const ask = <A>(operation: string, request: (channel: Channel) => Promise<A>): Effect.Effect<A, AmqpError> =>
    Semaphore.withPermits(one, 1)(Effect.gen(function*() {
      if (current === undefined || !current.isOpen()) {
        yield* drop
        current = yield* Connection.openChannel(link, (model) => model.createChannel())
      }
      const { channel } = current
      return yield* Effect.tryPromise({ try: () => request(channel), catch: (cause) => refusal(operation, cause) })
    })).pipe(
      Effect.timeoutOrElse({
        duration: answerLimit,
        orElse: () => Effect.fail(refusal(operation, new Error("no answer in time")))
      }),
      Effect.tapError(() => drop)
    )

  const refusal = (operation: string, cause: unknown) => {
    const code = Fault.replyCode(cause)
    const fail = Fault.at(link.address)
    return code === undefined
      ? fail("Closed", operation, `Is RabbitMQ running at ${link.address}?`, cause)
      : fail("Topology", operation, remedyFor(code), cause)
  }

  const exists = (operation: string, passive: (channel: Channel) => Promise<unknown>) =>
    ask(operation, passive).pipe(
      Effect.as(true),
      Effect.catch((error) => {
        switch (Fault.replyCode(error.cause)) {
          case 404:
            return Effect.succeed(false)
          // Somebody else's exclusive queue: it is there.
          case 405:
            return Effect.succeed(true)
          default:
            return Effect.fail(error)
        }
      })
    )

  /** Makes it if it is missing. If it is there it is used as it is; once per name, a difference is logged. */
  const declare = Effect.fnUntraced(function*(
    what: string,
    passive: (channel: Channel) => Promise<unknown>,
    active: (channel: Channel) => Promise<unknown>
  ) {
    const isThere = yield* exists(`looking for ${what}`, passive)
    if (isThere && told.has(what)) return
    told.add(what)
    yield* ask(`declaring ${what}`, active).pipe(Effect.catch(Effect.fnUntraced(function*(error) {
      if (error.reason === "Closed") return yield* error
      // Refused though it is there: made otherwise by somebody, perhaps just now. Else our arguments are impossible.
      if (!isThere && !(yield* exists(`looking for ${what}`, passive))) return yield* error
      if (Fault.replyCode(error.cause) === 406) {
        yield* Effect.logInfo(`${what} was declared otherwise and is used as it is: ${error.detail}`)
      }
    })))
  })

  const exchange = (spec: ExchangeSpec) =>
    spec.name === "" ? Effect.void : declare(
      `exchange ${spec.name}`,
      (channel) => channel.checkExchange(spec.name),
      (channel) =>
        channel.assertExchange(spec.name, spec.type, {
          durable: spec.durable ?? true,
          autoDelete: spec.autoDelete ?? false,
          ...(spec.alternate === undefined ? {} : { alternateExchange: spec.alternate })
        })
    )

  const queue = (spec: QueueSpec) =>
    declare(`queue ${spec.name}`, (channel) => channel.checkQueue(spec.name), (channel) => assert(channel, spec))

  return {
    ensure: Effect.fnUntraced(function*(topology) {
      for (const spec of topology.exchanges ?? []) yield* exchange(spec)
      for (const spec of topology.queues ?? []) yield* queue(spec)
      for (const { exchange, queue, routingKey } of topology.bindings ?? []) {
        if (exchange === "") continue
        yield* ask(
          `binding queue ${queue} to exchange ${exchange}`,
          (channel) => channel.bindQueue(queue, exchange, routingKey)
        )
      }
    }),
    declareOrUse: (spec) =>
      ask(`declaring queue ${spec.name}`, (channel) => assert(channel, spec)).pipe(
        Effect.asVoid,
        Effect.catch((error) => {
          switch (Fault.replyCode(error.cause)) {
            // There with other properties, or somebody's exclusive one. Impossible arguments are a 406 as well.
            case 406:
            case 405:
              return Effect.flatMap(
                exists(error.operation, (channel) => channel.checkQueue(spec.name)),
                (isThere) => isThere ? Effect.void : Effect.fail(error)
              )
            default:
              return Effect.fail(error)
          }
        })
      )
  }
}

const assert = (channel: Channel, spec: QueueSpec) =>
  channel.assertQueue(spec.name, {
    durable: spec.durable ?? true,
    exclusive: spec.exclusive ?? false,
    autoDelete: spec.autoDelete ?? false,
    ...(spec.maxLength === undefined ? {} : { maxLength: spec.maxLength }),
    ...(spec.expires === undefined ? {} : { expires: spec.expires }),
    arguments: { ...spec.arguments }
  })

const remedyFor = (code: number): string => {
  switch (code) {
    case 403:
      return "Grant this user permission to configure it, or declare it by other means"
    case 404:
      return "Declare both ends of the binding"
    default:
      return "Correct its arguments; RabbitMQ 4.x refuses some that 3.x took"
  }
}

/** Adds what is new by name, so that ensuring the same things again does not grow it. */
export const merge = (known: Topology, added: Topology): Topology => ({
  exchanges: byKey([...known.exchanges ?? [], ...added.exchanges ?? []], (spec) => spec.name),
  queues: byKey([...known.queues ?? [], ...added.queues ?? []], (spec) => spec.name),
  bindings: byKey(
    [...known.bindings ?? [], ...added.bindings ?? []],
    (spec) => JSON.stringify([spec.exchange, spec.queue, spec.routingKey])
  )
})

const byKey = <A>(items: ReadonlyArray<A>, key: (item: A) => string): ReadonlyArray<A> =>
  Array.from(new Map(items.map((item) => [key(item), item])).values())

/** What may be declared on a connection other than the consuming one: an exclusive queue belongs to its connection. */
export const shareable = (topology: Topology): Topology => {
  const exclusive = new Set((topology.queues ?? []).filter((spec) => spec.exclusive === true).map((spec) => spec.name))
  return {
    exchanges: topology.exchanges ?? [],
    queues: (topology.queues ?? []).filter((spec) => !exclusive.has(spec.name)),
    bindings: (topology.bindings ?? []).filter((spec) => !exclusive.has(spec.queue))
  }
}
