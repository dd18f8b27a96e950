/**
 * The floor under a job through RabbitMQ: bare amqplib and bare crun. Takes a job, publishes two statuses, runs a
 * container, publishes the third, waits for the confirms, acks. No journal, no log, no limits.
 */
import { connect } from "amqplib"
import { Effect, Fiber } from "effect"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { makeBare } from "./bare.ts"

const url = process.env["AMQP_URL"] ?? ""

const serve = Effect.gen(function*() {
  const bare = yield* makeBare(["/bin/sh", "-c", "true"], false)
  const runBare = () => Effect.runPromise(bare)
  yield* Effect.promise(async () => {
    const [incoming, outgoing] = await Promise.all([connect(url, { noDelay: true }), connect(url, { noDelay: true })])
    const jobs = await incoming.createChannel()
    const statuses = await outgoing.createConfirmChannel()
    await statuses.assertExchange("jobs_status_ex", "direct", { durable: false })
    await jobs.assertExchange("jobs_ex", "direct", { durable: true })
    await jobs.assertQueue("jobs_q", { durable: true })
    await jobs.bindQueue("jobs_q", "jobs_ex", "jobs_rk")
    await jobs.prefetch(4)
    const tell = (id: string, status: string) =>
      new Promise<void>((resolve, reject) =>
        statuses.publish(
          "jobs_status_ex",
          "jobs_status_rk",
          Buffer.from(
            JSON.stringify({
              id,
              status,
              message: "",
              error: "",
              stderr: "",
              stdout: "",
              exec_duration: 0,
              mem_usage: 0
            })
          ),
          { persistent: true, contentType: "text/plain" },
          (error) => error === null || error === undefined ? resolve() : reject(error as Error)
        )
      )
    await jobs.consume("jobs_q", (message) => {
      if (message === null) return
      const { id } = JSON.parse(message.content.toString()) as { id: string }
      const early = [tell(id, "received"), tell(id, "running")]
      void runBare().then(async () => {
        await Promise.all([...early, tell(id, "done")])
        jobs.ack(message)
      })
    })
  })
  process.stderr.write("consuming\n")
  return yield* Effect.never
}).pipe(Effect.scoped)

const state = Jobs.stateDirectory()
const serving = Effect.runFork(serve.pipe(Effect.provide(Jobs.layer("oci", state))))
process.once("SIGTERM", () => {
  void Effect.runPromise(Fiber.interrupt(serving)).finally(() => {
    Jobs.remove(state)
    process.exit(0)
  })
})
