/**
 * A real RabbitMQ for tests, with verbs. Plain async code; Effect tests wrap it.
 *
 *     const broker = await Broker.acquire()            // a fresh virtual host on the run's one broker
 *     const broker = await Broker.acquireExclusive()   // a broker nobody else uses: may be killed, frozen, blocked
 *     await broker.release()                           // or `await using broker = ...`, or let the file end
 *
 * The first `acquire` of a run waits about 7 s for the broker, so does the first `acquireExclusive`; later ones take
 * milliseconds. Give the hook that calls it `Broker.startMillis` to end.
 */
import { connect, type Socket } from "node:net"
import { createInterface } from "node:readline"
import { setTimeout as pause } from "node:timers/promises"
import { inject } from "vitest"
import type { Leased, Request, Response } from "./BrokerPool.ts"

/** A queue as the broker sees it now. `unacked` of a quorum queue may be 0.2 s old, everything else is exact. */
export interface QueueInfo {
  readonly name: string
  readonly type: "classic" | "quorum" | "stream"
  readonly durable: boolean
  readonly autoDelete: boolean
  readonly exclusive: boolean
  readonly arguments: Readonly<Record<string, unknown>>
  readonly ready: number
  readonly unacked: number
  readonly consumers: number
}

/** An exchange as it was declared. The broker's own (amq.*, the default one) are left out. */
export interface ExchangeInfo {
  readonly name: string
  readonly type: string
  readonly durable: boolean
  readonly autoDelete: boolean
  readonly arguments: Readonly<Record<string, unknown>>
}

/** An open AMQP connection. `name` is what the client calls itself (client property connection_name), or "". */
export interface ConnectionInfo {
  readonly name: string
  readonly channels: number
}

/** The pool's side of a lease: requests and answers matched by id, and no reason for a process to stay alive. */
class Lease {
  private readonly socket: Socket
  private readonly waiting = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>()
  private requests = 0

  constructor(address: string) {
    this.socket = connect(address)
    this.socket.unref()
    this.socket.on("error", () => undefined)
    this.socket.on("close", () => {
      for (const { reject } of this.waiting.values()) reject(new Error("the test run's broker pool is gone"))
      this.waiting.clear()
    })
    createInterface({ input: this.socket }).on("line", (line) => this.settle(JSON.parse(line) as Response))
  }

  request(request: Omit<Request, "id">): Promise<unknown> {
    const id = ++this.requests
    return new Promise((resolve, reject) => {
      if (this.socket.destroyed) return reject(new Error("this broker was released"))
      this.socket.ref()
      this.waiting.set(id, { resolve, reject })
      this.socket.write(`${JSON.stringify({ ...request, id })}\n`)
    })
  }

  close(): void {
    this.socket.destroy()
  }

  private settle(response: Response): void {
    const waiting = this.waiting.get(response.id)
    this.waiting.delete(response.id)
    if (this.waiting.size === 0) this.socket.unref()
    if (response.error === undefined) waiting?.resolve(response.result)
    else waiting?.reject(new Error(response.error))
  }
}

const erlangTable = `
  Plain = fun(Table) -> maps:from_list([{Key, Value} || {Key, _, Value} <- Table]) end,
  Name = fun(Resource) -> element(4, Resource) end,`

/** A virtual host of its own on a real broker. See the head of the file. */
export class Broker {
  /** How long a hook must be allowed that may be the first to need a broker. */
  static readonly startMillis = 100_000

  readonly host = "127.0.0.1"
  readonly port: number
  readonly vhost: string
  /** amqp://..., user and virtual host included. */
  readonly url: string
  protected readonly lease: Lease

  protected constructor(lease: Lease, { port, vhost }: Leased) {
    this.lease = lease
    this.port = port
    this.vhost = vhost
    this.url = `amqp://guest:guest@127.0.0.1:${port}/${vhost}`
  }

  /** A fresh virtual host on the broker all tests share. */
  static async acquire(): Promise<Broker> {
    const lease = new Lease(inject("brokers"))
    return new Broker(lease, await lease.request({ verb: "acquire", exclusive: false }) as Leased)
  }

  /** A fresh virtual host on a broker that no other test uses meanwhile. */
  static async acquireExclusive(): Promise<ExclusiveBroker> {
    const lease = new Lease(inject("brokers"))
    return ExclusiveBroker.over(lease, await lease.request({ verb: "acquire", exclusive: true }) as Leased)
  }

  /** Gives it back: the virtual host goes with all in it, its connections are closed. */
  async release(): Promise<void> {
    this.lease.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }

  /** Evaluates Erlang in the broker, for what has no verb here. A binary comes back as its text, else as Erlang prints it. */
  async eval(source: string): Promise<string> {
    return String(await this.lease.request({ verb: "eval", source }))
  }

  /** The broker closes every connection of this virtual host, politely (320 CONNECTION_FORCED). Tells how many it told. */
  async closeAllConnections(): Promise<number> {
    return Number(await this.onConnections(`rabbit_networking:close_connection(Pid, "closed by the test")`))
  }

  /** Cuts every connection of this virtual host without a word, as a broken network does. Tells how many. */
  async cutAllConnections(): Promise<number> {
    return Number(await this.onConnections("exit(Pid, kill)"))
  }

  /** The open connections of this virtual host, now. One that said goodbye stays a moment: ask with `until`. */
  async connections(): Promise<ReadonlyArray<ConnectionInfo>> {
    const text = await this.eval(
      `rabbit_json:encode([
         #{name => case lists:keyfind(<<"connection_name">>, 1, proplists:get_value(client_properties, Info, [])) of
                     {_, _, Name} -> Name; false -> <<>> end,
           channels => proplists:get_value(channels, Info)}
         || Pid <- rabbit_networking:connections(),
            Info <- [catch rabbit_networking:connection_info(Pid, [vhost, channels, client_properties])],
            is_list(Info), proplists:get_value(vhost, Info) =:= <<"${this.vhost}">>]).`
    )
    return JSON.parse(text) as ReadonlyArray<ConnectionInfo>
  }

  /** The queues of this virtual host, now. */
  async queues(): Promise<ReadonlyArray<QueueInfo>> {
    const text = await this.eval(
      `${erlangTable}
       rabbit_json:encode([
         begin
           Info = rabbit_amqqueue:info(Queue, [durable, auto_delete, arguments, messages_unacknowledged]),
           {ok, Ready, Consumers} = rabbit_amqqueue:stat(Queue),
           Unacked = proplists:get_value(messages_unacknowledged, Info),
           #{name => Name(amqqueue:get_name(Queue)),
             type => case amqqueue:get_type(Queue) of
                       rabbit_classic_queue -> classic; rabbit_quorum_queue -> quorum; rabbit_stream_queue -> stream end,
             durable => proplists:get_value(durable, Info),
             autoDelete => proplists:get_value(auto_delete, Info),
             exclusive => amqqueue:get_exclusive_owner(Queue) =/= none,
             arguments => Plain(proplists:get_value(arguments, Info)),
             ready => Ready, unacked => if is_integer(Unacked) -> Unacked; true -> 0 end, consumers => Consumers}
         end || Queue <- rabbit_amqqueue:list(<<"${this.vhost}">>)]).`
    )
    return JSON.parse(text) as ReadonlyArray<QueueInfo>
  }

  /** One queue, or undefined when there is none of that name. */
  async queue(name: string): Promise<QueueInfo | undefined> {
    return (await this.queues()).find((queue) => queue.name === name)
  }

  /** The exchanges somebody declared in this virtual host. */
  async exchanges(): Promise<ReadonlyArray<ExchangeInfo>> {
    const text = await this.eval(
      `${erlangTable}
       rabbit_json:encode([
         begin
           Get = fun(Key) -> proplists:get_value(Key, Info) end,
           #{name => Name(Get(name)), type => Get(type), durable => Get(durable), autoDelete => Get(auto_delete),
             arguments => Plain(Get(arguments))}
         end || Exchange <- rabbit_exchange:list(<<"${this.vhost}">>),
                Info <- [rabbit_exchange:info(Exchange, [name, type, durable, auto_delete, arguments])],
                not lists:member(Name(proplists:get_value(name, Info)), [<<>>]),
                string:prefix(Name(proplists:get_value(name, Info)), <<"amq.">>) =:= nomatch]).`
    )
    return JSON.parse(text) as ReadonlyArray<ExchangeInfo>
  }

  /** One exchange, or undefined when there is none of that name. */
  async exchange(name: string): Promise<ExchangeInfo | undefined> {
    return (await this.exchanges()).find((exchange) => exchange.name === name)
  }

  /** Removes a queue under whoever uses it. */
  async deleteQueue(name: string): Promise<void> {
    await this.eval(
      `{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"${this.vhost}">>, queue, <<"${name}">>)),
       rabbit_amqqueue:delete(Queue, false, false, <<"stoker">>), ok.`
    )
  }

  /** Asks until the answer is right, and gives it; rejects with the last one when the time is over. */
  static async until<A>(ask: () => Promise<A>, right: (answer: A) => boolean, limitMillis = 10_000): Promise<A> {
    const deadline = performance.now() + limitMillis
    for (;;) {
      const answer = await ask()
      if (right(answer)) return answer
      if (performance.now() > deadline) throw new Error(`not within ${limitMillis} ms: ${JSON.stringify(answer)}`)
      await pause(20)
    }
  }

  private onConnections(act: string): Promise<string> {
    return this.eval(
      `Ours = [Pid || Pid <- rabbit_networking:connections(),
                      (catch rabbit_networking:connection_info(Pid, [vhost])) =:= [{vhost, <<"${this.vhost}">>}]],
       lists:foreach(fun(Pid) -> ${act} end, Ours),
       length(Ours).`
    )
  }
}

/** A broker of one's own, with the verbs that would disturb others. However it is left, the next one gets it running. */
export class ExclusiveBroker extends Broker {
  static over(lease: Lease, leased: Leased): ExclusiveBroker {
    return new ExclusiveBroker(lease, leased)
  }

  /** As a power cut: SIGKILL. Resolves when it is gone; its port then refuses connections. */
  async kill(): Promise<void> {
    await this.lease.request({ verb: "kill" })
  }

  /** Up again on the same port and data (about 6 s). Resolves when it takes connections. */
  async start(): Promise<void> {
    await this.lease.request({ verb: "start" })
  }

  /** `kill`, then `start`. */
  async restart(): Promise<void> {
    await this.kill()
    await this.start()
  }

  /** Up again on the same port, but with nothing of what it had, as after the loss of its disk. The virtual host is there. */
  async startEmpty(): Promise<void> {
    await this.lease.request({ verb: "startEmpty" })
  }

  /** Hangs with its sockets open, until `thaw`. */
  async freeze(): Promise<void> {
    await this.lease.request({ verb: "freeze" })
  }

  async thaw(): Promise<void> {
    await this.lease.request({ verb: "thaw" })
  }

  // Both ask for the alarms afterwards: an alarm is set in the background, and the answer comes when every connection
  // has been told. Without it one publish in ten slips through.

  /** Raises the memory alarm: publishers get connection.blocked at their next publish, until `unblock`. */
  async block(): Promise<void> {
    await this.eval("rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}), rabbit_alarm:get_alarms(), ok.")
  }

  async unblock(): Promise<void> {
    await this.eval("rabbit_alarm:clear_alarm({resource_limit, memory, node()}), rabbit_alarm:get_alarms(), ok.")
  }
}
