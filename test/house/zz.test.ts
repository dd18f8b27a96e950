import { assert, it } from "@effect/vitest"
import amqp from "amqplib"
import { Broker } from "../support/Broker.ts"
it("x", async () => {
  const broker = await Broker.acquireExclusive()
  let lost = 0
  for (let i = 0; i < 150; i++) {
    const connection = await amqp.connect(broker.url, { noDelay: true })
    const blocked = new Promise((resolve) => connection.once("blocked", () => resolve(true)))
    const channel = await connection.createChannel()
    await channel.assertQueue("kept", { durable: true })
    await broker.block()
    channel.sendToQueue("kept", Buffer.from("x"))
    const got = await Promise.race([blocked, new Promise((r) => setTimeout(() => r(false), 1000))])
    if (!got) lost++
    await broker.unblock()
    await connection.close()
  }
  assert.strictEqual(lost, 0)
}, 200_000)
