import { assert, describe, it } from "@effect/vitest"
import amqp from "amqplib"
import { spawn } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"
import { Broker, type ExclusiveBroker } from "../support/Broker.ts"

const open = async (broker: Broker, name = "test") => {
  const connection = await amqp.connect(broker.url, { noDelay: true, clientProperties: { connection_name: name } })
  const closed = new Promise<string>((resolve) => {
    connection.on("error", (error: Error) => resolve(error.message))
    connection.on("close", (error?: Error) => resolve(error?.message ?? "closed"))
  })
  return { connection, closed }
}

const connects = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port })
    socket.once("connect", () => resolve(true))
    socket.once("error", () => resolve(false))
    socket.once("close", () => socket.destroy())
  })

/** The local addresses somebody listens on at this port, as the kernel writes them. */
const listening = (port: number): ReadonlyArray<string> =>
  ["/proc/net/tcp", "/proc/net/tcp6"].flatMap((file) => readFileSync(file, "utf8").split("\n").slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[3] === "0A" && Number.parseInt(fields[1]?.split(":")[1] ?? "", 16) === port)
    .map((fields) => fields[1]?.split(":")[0] ?? "")

describe("the shared broker", () => {
  let broker: Broker
  beforeAll(async () => {
    broker = await Broker.acquire()
  }, Broker.startMillis)
  afterAll(() => broker.release())

  it("gives every lease an empty virtual host of its own on the same port", async () => {
    await using other = await Broker.acquire()
    assert.strictEqual(other.port, broker.port)
    const { connection } = await open(other)
    await (await connection.createChannel()).assertQueue("mine", { durable: true })
    assert.deepStrictEqual((await other.queues()).map(({ name }) => name), ["mine"])
    assert.deepStrictEqual(await broker.queues(), [])
    await connection.close()
  })

  it("shows queues and exchanges as they are now", async () => {
    await using lease = await Broker.acquire()
    const { connection } = await open(lease)
    const channel = await connection.createConfirmChannel()
    await channel.assertExchange("x", "direct", { durable: false })
    await channel.assertQueue("classic", { durable: true, arguments: { "x-max-length": 7 } })
    await channel.assertQueue("quorum", { durable: true, arguments: { "x-queue-type": "quorum" } })
    for (const queue of ["classic", "quorum"]) {
      for (let n = 0; n < 3; n++) channel.sendToQueue(queue, Buffer.from("x"), { persistent: true })
    }
    await channel.waitForConfirms()
    assert.deepStrictEqual(await lease.exchange("x"), {
      name: "x",
      type: "direct",
      durable: false,
      autoDelete: false,
      arguments: {}
    })
    assert.deepStrictEqual((await lease.exchanges()).map(({ name }) => name), ["x"])
    assert.deepStrictEqual(await lease.queue("classic"), {
      name: "classic",
      type: "classic",
      durable: true,
      autoDelete: false,
      exclusive: false,
      arguments: { "x-max-length": 7 },
      ready: 3,
      unacked: 0,
      consumers: 0
    })
    assert.strictEqual((await lease.queue("quorum"))?.ready, 3)
    await channel.prefetch(2)
    await channel.consume("classic", () => undefined)
    await channel.consume("quorum", () => undefined)
    for (const queue of ["classic", "quorum"]) {
      const taken = await Broker.until(() => lease.queue(queue), (info) => info?.unacked === 2)
      assert.deepInclude(taken, { ready: 1, consumers: 1 })
    }
    await lease.deleteQueue("classic")
    assert.strictEqual(await lease.queue("classic"), undefined)
    await connection.close()
    await Broker.until(() => lease.connections(), (open) => open.length === 0)
  })

  it("closes or cuts the connections of one virtual host and no other", async () => {
    await using one = await Broker.acquire()
    await using two = await Broker.acquire()
    const here = await open(one, "here")
    const there = await open(two, "there")
    assert.deepStrictEqual(await one.connections(), [{ name: "here", channels: 0 }])
    assert.strictEqual(await one.closeAllConnections(), 1)
    assert.include(await here.closed, "CONNECTION_FORCED")
    const again = await open(one)
    assert.strictEqual(await one.cutAllConnections(), 1)
    await again.closed
    assert.deepStrictEqual(await two.connections(), [{ name: "there", channels: 0 }])
    await there.connection.close()
  })

  it("has none of the verbs that would disturb other tests", () => {
    for (const verb of ["kill", "start", "freeze", "block"]) assert.strictEqual(verb in broker, false)
  })

  it("listens on loopback only", () => {
    // 0100007F is 127.0.0.1 as the kernel writes it.
    assert.deepStrictEqual(listening(broker.port), ["0100007F"])
  })
})

describe("an exclusive broker", () => {
  let broker: ExclusiveBroker
  beforeAll(async () => {
    broker = await Broker.acquireExclusive()
  }, Broker.startMillis)
  afterAll(() => broker.release())

  it("keeps confirmed messages over a kill and takes connections at the same port after it", async () => {
    const { closed, connection } = await open(broker)
    const channel = await connection.createConfirmChannel()
    await channel.assertQueue("kept", { durable: true })
    channel.sendToQueue("kept", Buffer.from("x"), { persistent: true })
    await channel.waitForConfirms()
    await broker.kill()
    await closed
    assert.strictEqual(await connects(broker.port), false)
    await broker.start()
    assert.strictEqual((await broker.queue("kept"))?.ready, 1)
    const again = await open(broker)
    await again.connection.close()
  }, 60_000)

  it("blocks publishers and lets them go on", async () => {
    const { connection } = await open(broker)
    const blocked = new Promise((resolve) => connection.once("blocked", resolve))
    const unblocked = new Promise((resolve) => connection.once("unblocked", resolve))
    const channel = await connection.createChannel()
    await channel.assertQueue("kept", { durable: true })
    await broker.block()
    channel.sendToQueue("kept", Buffer.from("x"))
    await blocked
    await broker.unblock()
    await unblocked
    await connection.close()
  })

  it("hangs while frozen and goes on when thawed", async () => {
    await broker.freeze()
    const opening = open(broker)
    assert.strictEqual(await connects(broker.port), true)
    await broker.thaw()
    await (await opening).connection.close()
  })
})

const processModule = new URL("../support/BrokerProcess.ts", import.meta.url).href
const dying = `
  import { BrokerProcess } from ${JSON.stringify(processModule)}
  const broker = await BrokerProcess.start()
  process.stdout.write(String(broker.port))
  setInterval(() => {}, 1000)
`

/** How many processes were given this folder in their environment. */
const livingIn = (folder: string): number =>
  readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/environ`, "utf8").includes(folder)
    } catch {
      return false
    }
  }).length

describe("a run that dies", () => {
  it("leaves neither broker nor epmd behind", async () => {
    const folder = mkdtempSync(join(tmpdir(), "stoker-dies-"))
    const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", dying], {
      env: { ...process.env, TMPDIR: folder },
      stdio: ["ignore", "pipe", "inherit"]
    })
    try {
      const port = await new Promise<number>((resolve) => child.stdout.once("data", (text) => resolve(Number(text))))
      assert.strictEqual(await connects(port), true)
      // The child itself, the broker and epmd.
      assert.isAtLeast(livingIn(folder), 3)
      child.kill("SIGKILL")
      await Broker.until(async () => livingIn(folder), (living) => living === 0)
      assert.strictEqual(await connects(port), false)
    } finally {
      child.kill("SIGKILL")
      rmSync(folder, { recursive: true, force: true })
    }
  }, Broker.startMillis)
})
