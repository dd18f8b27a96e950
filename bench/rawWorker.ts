/**
 * The floor under a job through RabbitMQ: bare amqplib, bare crun, bare SQLite. Takes a job, writes it down, publishes
 * two statuses, runs it, writes down its end, publishes the third, waits for the confirms, acks. No log, no limits.
 * usage: rawWorker.ts STATE gated|none. `gated`: in a container that stood ready; `none`: nothing is run.
 */
import { connect } from "amqplib"
import { Effect, Fiber } from "effect"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { type Gated, makeGated } from "./bare.ts"
import { openRaw } from "./rawCommit.ts"

const url = process.env["AMQP_URL"] ?? ""
const [state = "", kind = "gated"] = process.argv.slice(2)

/** As many as Stoker keeps; each is replaced when it is taken. */
const READY = 2

const pool = (make: () => Promise<Gated>) => {
  const ready = Array.from({ length: READY }, make)
  return async () => {
    const container = await (ready.shift() ?? make())
    await container.go("/bin/sh -c true")
    ready.push(make())
  }
}

const consume = async (run: () => Promise<void>, prefetch: number) => {
  const store = openRaw(state)
  const [incoming, outgoing] = await Promise.all([connect(url, { noDelay: true }), connect(url, { noDelay: true })])
  const jobs = await incoming.createChannel()
  const statuses = await outgoing.createConfirmChannel()
  await statuses.assertExchange("jobs_status_ex", "direct", { durable: false })
  await jobs.assertExchange("jobs_ex", "direct", { durable: true })
  await jobs.assertQueue("jobs_q", { durable: true })
  await jobs.bindQueue("jobs_q", "jobs_ex", "jobs_rk")
  await jobs.prefetch(prefetch)
  const told = { message: "", error: "", stderr: "", stdout: "", exec_duration: 0, mem_usage: 0 }
  const tell = (id: string, status: string) =>
    new Promise<void>((resolve, reject) =>
      statuses.publish(
        "jobs_status_ex",
        "jobs_status_rk",
        Buffer.from(JSON.stringify({ id, status, ...told })),
        { persistent: true, contentType: "text/plain" },
        (error) => error === null || error === undefined ? resolve() : reject(error as Error)
      )
    )
  const serve = async (id: string) => {
    const received = tell(id, "received")
    await store.begin(id)
    const running = tell(id, "running")
    await run()
    await store.end(id)
    await Promise.all([received, running, tell(id, "done")])
  }
  await jobs.consume("jobs_q", (message) => {
    if (message === null) return
    const { id } = JSON.parse(message.content.toString()) as { id: string }
    void serve(id).then(() => jobs.ack(message))
  })
  process.stderr.write("consuming\n")
}

const gated = Effect.gen(function*() {
  const makeOne = yield* makeGated
  const context = yield* Effect.context()
  yield* Effect.promise(() => consume(pool(() => Effect.runPromiseWith(context)(makeOne)), 4))
  return yield* Effect.never
}).pipe(Effect.scoped, Effect.provide(Jobs.layer("oci", state)))

const nothing = Effect.andThen(Effect.promise(() => consume(() => Promise.resolve(), 256)), Effect.never)

const serving = Effect.runFork(kind === "none" ? nothing : gated)
process.once("SIGTERM", () => {
  void Effect.runPromise(Fiber.interrupt(serving)).finally(() => process.exit(0))
})
