/** A virtual host with Stoker's own dialect on it: workers without sandboxes, and raw clients that know only AMQP. */
import { type Channel, connect, type ConsumeMessage, type Options } from "amqplib"
import { Context, Effect, Fiber, Layer, Logger, Queue, Redacted, type Scope, Stream } from "effect"
import * as ControlLive from "../../src/actors/ControlLive.ts"
import * as Desk from "../../src/actors/Desk.ts"
import * as DiskWatch from "../../src/actors/DiskWatch.ts"
import * as Dispatcher from "../../src/actors/Dispatcher.ts"
import * as Outbox from "../../src/actors/Outbox.ts"
import { Amqp } from "../../src/layers/amqp/Amqp.ts"
import * as AmqpLib from "../../src/layers/amqp/AmqpLib.ts"
import { StokerAmqpClient } from "../../src/layers/amqpclient/StokerAmqpClient.ts"
import * as StokerAmqpClientLive from "../../src/layers/amqpclient/StokerAmqpClientLive.ts"
import * as ArtefactsMemory from "../../src/layers/artefacts/ArtefactsMemory.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import { Emitters } from "../../src/layers/emitter/Emitter.ts"
import * as StokerEmitter from "../../src/layers/emitter/Stoker.ts"
import * as ExecutorTest from "../../src/layers/executor/ExecutorTest.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import * as DiskSpaceTest from "../../src/layers/host/DiskSpaceTest.ts"
import * as HostTest from "../../src/layers/host/HostTest.ts"
import * as Embedded from "../../src/layers/intake/Embedded.ts"
import * as StokerIntake from "../../src/layers/intake/Stoker.ts"
import * as StokerControl from "../../src/layers/intake/StokerControl.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import * as LedgerMemory from "../../src/layers/ledger/LedgerMemory.ts"
import * as LogMemory from "../../src/layers/log/LogMemory.ts"
import { InstanceId } from "../../src/schemas/Ids.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { Broker } from "../support/Broker.ts"
import { say } from "../support/Say.ts"

export const ask = <A>(promise: () => Promise<A>) => Effect.promise(promise)

export const acquireBroker = Effect.acquireRelease(ask(() => Broker.acquire()), (broker) => ask(() => broker.release()))

/** What is logged here is what these tests bring about. */
export const silent = Logger.layer([])

/** The transport on that virtual host; closing the scope closes it. */
export const transport = ({ url }: Broker, instance: string) =>
  Layer.build(Layer.fresh(AmqpLib.layer({ url: Redacted.make(url), instance })).pipe(Layer.provide(silent)))

export interface WorkerOptions {
  readonly instance: string
  readonly script: ExecutorTest.Script
  readonly slots?: number
}

/** A whole worker but for its sandboxes: intake, job actors, journal, log, emitter, and answers to questions. */
export const startWorker = Effect.fnUntraced(function*(broker: Broker, options: WorkerOptions) {
  const amqp = yield* transport(broker, options.instance)
  const emitters = Layer.effect(Emitters, Effect.map(StokerEmitter.make(), (emitter) => [emitter]))
  const layers = ControlLive.layer.pipe(
    Layer.provideMerge(Layer.mergeAll(Dispatcher.layer, DiskWatch.layer)),
    Layer.provideMerge(Layer.mergeAll(Outbox.layer, Desk.layer)),
    Layer.provideMerge(Layer.mergeAll(
      emitters,
      Embedded.layer,
      Functions.layer([say]),
      ExecutorTest.layerTest(options.script)
    )),
    Layer.provideMerge(Layer.mergeAll(
      JournalMemory.layerMemory,
      LogMemory.layerMemory,
      ArtefactsMemory.layerMemory,
      DiskSpaceTest.layerTest(),
      Layer.provideMerge(LedgerMemory.layerMemory, HostTest.layerTest({ instance: options.instance })),
      Settings.layer({ ...standardConfig, slots: options.slots ?? 2 })
    )),
    Layer.provideMerge(Layer.succeedContext(amqp)),
    Layer.provide(silent)
  )
  const context = yield* Layer.build(Layer.fresh(layers))
  return yield* Effect.gen(function*() {
    const [emitter] = yield* Emitters
    if (emitter === undefined) return yield* Effect.die("no emitter")
    const dispatcher = yield* Dispatcher.Dispatcher
    const intake = yield* StokerIntake.make({ slots: options.slots ?? 2, emitter, user: "guest" })
    const taking = yield* Effect.forkScoped(Stream.runForEach(intake.deliveries, dispatcher.deliver))
    yield* StokerControl.make({ instance: InstanceId.make(options.instance), user: "guest" })
    const stop = Effect.andThen(Fiber.interrupt(taking), dispatcher.abort)
    // As the worker does: what is in hand goes back before the connections close.
    yield* Effect.addFinalizer(() => stop)
    return { dispatcher, stop }
  }).pipe(Effect.provideContext(context), Effect.provide(silent))
})

/** The intake alone: what it hands over comes in a queue, for the test to settle. */
export const startIntake = Effect.fnUntraced(function*(
  broker: Broker,
  options: Partial<StokerIntake.StokerIntakeOptions> = {}
) {
  const context = yield* transport(broker, "intake-test")
  return yield* Effect.gen(function*() {
    const emitter = yield* StokerEmitter.make()
    const intake = yield* StokerIntake.make({ slots: 4, emitter, user: "guest", ...options })
    const arrived = yield* Queue.unbounded<StokerIntake.StokerDelivery>()
    yield* Effect.forkScoped(Stream.runForEach(intake.deliveries, (delivery) => Queue.offer(arrived, delivery)))
    return { intake, arrived, emitter }
  }).pipe(Effect.provide([Layer.succeedContext(context), LogMemory.layerMemory, ArtefactsMemory.layerMemory, silent]))
})

let clients = 0

/** Our own client, on a connection of its own. */
export const startClient = Effect.fnUntraced(function*(
  broker: Broker,
  options: Partial<StokerAmqpClientLive.StokerAmqpClientOptions> = {}
) {
  const name = `test${++clients}`
  const context = yield* Layer.build(
    StokerAmqpClientLive.layer({ name, ...options }).pipe(
      Layer.provide(Layer.succeedContext(yield* transport(broker, name))),
      Layer.provide(silent)
    )
  )
  return Context.get(context, StokerAmqpClient)
})

export const amqpOf = Effect.fnUntraced(function*(broker: Broker): Effect.fn.Return<
  Amqp["Service"],
  Effect.Error<ReturnType<typeof transport>>,
  Scope.Scope
> {
  return Context.get(yield* transport(broker, "test"), Amqp)
})

/** A client that knows nothing but AMQP. */
export class RawClient {
  readonly heard: Array<ConsumeMessage> = []
  readonly channel: Channel
  private readonly end: () => Promise<void>

  private constructor(channel: Channel, end: () => Promise<void>) {
    this.channel = channel
    this.end = end
  }

  static async connect(url: string): Promise<RawClient> {
    const connection = await connect(url, { noDelay: true })
    connection.on("error", () => undefined)
    const channel = await connection.createChannel()
    channel.on("error", () => undefined)
    return new RawClient(channel, () => connection.close().catch(() => undefined))
  }

  close(): Promise<void> {
    return this.end()
  }

  send(body: unknown, options: Options.Publish = {}, queue = "stoker.jobs"): void {
    const bytes = Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body))
    this.channel.sendToQueue(queue, bytes, { persistent: true, ...options })
  }

  /** Hears a queue of its own, bound to the events with that key, or to nothing. */
  async listen(key?: string): Promise<string> {
    const { queue } = await this.channel.assertQueue("", { exclusive: true })
    if (key !== undefined) {
      await this.channel.assertExchange("stoker.events", "topic", { durable: true })
      await this.channel.bindQueue(queue, "stoker.events", key)
    }
    await this.channel.consume(queue, (message) => {
      if (message !== null) this.heard.push(message)
    }, { noAck: true })
    return queue
  }

  /** Until so many messages were heard. */
  until(count: number): Promise<ReadonlyArray<ConsumeMessage>> {
    return Broker.until(async () => this.heard, (heard) => heard.length >= count)
  }

  events(): ReadonlyArray<Record<string, unknown>> {
    return this.heard.map(({ content }) => JSON.parse(content.toString()) as Record<string, unknown>)
  }
}

/** The same virtual host, as another broker user of that name. */
export const acquireUser = Effect.fnUntraced(function*(broker: Broker, name: string) {
  const quoted = `<<"${name}">>`
  yield* Effect.acquireRelease(
    ask(() =>
      broker.eval(
        `rabbit_auth_backend_internal:add_user(${quoted}, <<"secret">>, <<"test">>),
         rabbit_auth_backend_internal:set_permissions(${quoted}, <<"${broker.vhost}">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>), ok.`
      )
    ),
    () => ask(() => broker.eval(`rabbit_auth_backend_internal:delete_user(${quoted}, <<"test">>), ok.`))
  )
  const url = broker.url.replace("guest:guest@", `${name}:secret@`)
  return Object.assign(Object.create(broker) as Broker, { url })
})

export const acquireRaw = ({ url }: Broker) =>
  Effect.acquireRelease(ask(() => RawClient.connect(url)), (client) => ask(() => client.close()))

export const queueIs = (broker: Broker, name: string, ready: number) =>
  ask(() => Broker.until(() => broker.queue(name), (queue) => queue?.ready === ready && queue.unacked === 0))

/** A consumer is there. */
export const served = (broker: Broker, queue = "stoker.jobs") =>
  ask(() => Broker.until(() => broker.queue(queue), (found) => found !== undefined && found.consumers > 0))

export const say1 = (id: string) => ({ id, function: "say", args: { word: "hello" } })
