import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import type { AmqpMessage } from "../../src/layers/amqp/Amqp.ts"
import { AmqpError } from "../../src/layers/amqp/Amqp.ts"
import * as Window from "../../src/layers/amqp/Window.ts"
import { message, numbers } from "./Contract.ts"

const failure = (reason: AmqpError["reason"]) => (sent: AmqpMessage) =>
  new AmqpError({ operation: sent.routingKey, reason, broker: "test", detail: "", remedy: "" })

/** A window whose wires are lists and whose pauses are a button. */
const setup = (limits: Partial<Window.WindowLimits> = {}) => {
  let resume = () => {}
  const window = Window.make(
    { messages: 100, bytes: 10_000, strikes: 3, nacks: 2, ...limits },
    { impossible: failure("Invalid"), closesChannel: failure("Channel"), nacked: failure("Nacked") },
    (next) => {
      resume = next
    }
  )
  const attach = (options: { readonly room?: number; readonly isGone?: boolean } = {}) => {
    const sent: Array<string> = []
    const wire: Window.Wire = {
      send: ({ routingKey }) => {
        if (options.isGone === true) throw new Window.Gone("closed")
        if (routingKey === "impossible") throw new RangeError("too long")
        sent.push(routingKey)
        return sent.length !== options.room
      }
    }
    window.attach(wire)
    return { sent, wire }
  }
  const enqueue = (...keys: ReadonlyArray<string>) =>
    Effect.forEach(
      keys,
      (key) =>
        Effect.flatMap(window.enqueue(message(key, "12345")), (confirm) =>
          Effect.forkChild(confirm, { startImmediately: true }))
    )
  return { window, attach, enqueue, resume: () => resume() }
}

const fault = { cause: new Error("404") }
const done = (fiber: Fiber.Fiber<unknown, unknown>) => fiber.pollUnsafe() !== undefined

describe("Window", () => {
  it.effect("sends what waited once a channel is there, in order", () =>
    Effect.gen(function*() {
      const { attach, enqueue } = setup()
      yield* enqueue("a", "b", "c")
      assert.deepStrictEqual(attach().sent, ["a", "b", "c"])
    }))

  it.effect("sends the unconfirmed again in their order, before what is newer", () =>
    Effect.gen(function*() {
      const { attach, enqueue, window } = setup()
      const first = attach()
      yield* enqueue("a", "b", "c", "d")
      window.confirm(2, false)
      window.detach(first.wire)
      yield* enqueue("e")
      assert.deepStrictEqual(attach().sent, ["a", "c", "d", "e"])
    }))

  it.effect("understands confirms of several at once and out of order", () =>
    Effect.gen(function*() {
      const { attach, enqueue, window } = setup()
      attach()
      const [a, b, c, d] = yield* enqueue("a", "b", "c", "d")
      window.confirm(3, false)
      assert.deepStrictEqual([a, b, c, d].map((fiber) => fiber !== undefined && done(fiber)), [
        false,
        false,
        true,
        false
      ])
      window.confirm(2, true)
      assert.deepStrictEqual([a, b, c, d].map((fiber) => fiber !== undefined && done(fiber)), [true, true, true, false])
      assert.strictEqual(window.size(), 1)
    }))

  it.effect("never blames a message that shared the channel: only alone in flight, three times, does it fail", () =>
    Effect.gen(function*() {
      const { attach, enqueue, window } = setup()
      const [a, bad, c] = yield* enqueue("a", "bad", "c")
      window.detach(attach().wire, fault)
      // One at a time from here.
      const second = attach()
      assert.deepStrictEqual(second.sent, ["a"])
      window.confirm(1, false)
      assert.deepStrictEqual(second.sent, ["a", "bad"])
      window.detach(second.wire, fault)
      window.detach(attach().wire, fault)
      assert.isFalse(bad !== undefined && done(bad))
      window.detach(attach().wire, fault)
      assert.isTrue(a !== undefined && Exit.isSuccess(yield* Fiber.await(a)))
      assert.isTrue(bad !== undefined && Exit.isFailure(yield* Fiber.await(bad)))
      assert.isFalse(c !== undefined && done(c))
      yield* enqueue("d", "e")
      const last = attach()
      assert.deepStrictEqual(last.sent, ["c"])
      window.confirm(1, false)
      assert.deepStrictEqual(last.sent, ["c", "d", "e"])
    }))

  it.effect("a lost connection is nobody's fault, however often", () =>
    Effect.gen(function*() {
      const { attach, enqueue, window } = setup()
      const [a] = yield* enqueue("a")
      for (const _ of numbers(10)) window.detach(attach().wire)
      assert.isFalse(a !== undefined && done(a))
      assert.deepStrictEqual(attach().sent, ["a"])
    }))

  it.effect("an impossible message fails at once and alone; a dead channel loses nothing", () =>
    Effect.gen(function*() {
      const { attach, enqueue } = setup()
      const [impossible] = yield* enqueue("impossible", "b")
      attach({ isGone: true })
      assert.deepStrictEqual(attach().sent, ["b"])
      assert.isTrue(impossible !== undefined && Exit.isFailure(yield* Fiber.await(impossible)))
    }))

  it.effect("a nacked message goes again after the pause, before the newer ones, and fails when nacked too often", () =>
    Effect.gen(function*() {
      const { attach, enqueue, resume, window } = setup()
      const { sent } = attach()
      const [a, b] = yield* enqueue("a", "b")
      window.nack(1, false)
      yield* enqueue("c")
      window.confirm(2, false)
      assert.deepStrictEqual(sent, ["a", "b"])
      resume()
      assert.deepStrictEqual(sent, ["a", "b", "a", "c"])
      window.nack(3, false)
      assert.isTrue(a !== undefined && Exit.isFailure(yield* Fiber.await(a)))
      assert.isTrue(b !== undefined && Exit.isSuccess(yield* Fiber.await(b)))
    }))

  it.effect("waits for the socket to drain, and while the broker has an alarm", () =>
    Effect.gen(function*() {
      const { attach, enqueue, window } = setup()
      const { sent } = attach({ room: 2 })
      yield* enqueue("a", "b", "c")
      assert.deepStrictEqual(sent, ["a", "b"])
      window.drained()
      assert.deepStrictEqual(sent, ["a", "b", "c"])
      window.block(true)
      yield* enqueue("d")
      assert.deepStrictEqual(sent, ["a", "b", "c"])
      window.block(false)
      assert.deepStrictEqual(sent, ["a", "b", "c", "d"])
    }))

  it.effect("enqueue suspends while the window is full, in messages or bytes, and keeps the order of those who wait", () =>
    Effect.gen(function*() {
      const { attach, enqueue, window } = setup({ messages: 2 })
      const { sent } = attach()
      yield* enqueue("a", "b")
      const waiters = yield* Effect.forEach(
        ["c", "d", "e"],
        (key) => Effect.forkChild(enqueue(key), { startImmediately: true })
      )
      assert.deepStrictEqual(sent, ["a", "b"])
      const [, d] = waiters
      if (d !== undefined) yield* Fiber.interrupt(d)
      window.confirm(1, false)
      assert.deepStrictEqual(sent, ["a", "b", "c"])
      window.confirm(3, true)
      assert.deepStrictEqual(sent, ["a", "b", "c", "e"])

      const narrow = setup({ bytes: 12 })
      const wire = narrow.attach()
      yield* narrow.enqueue("a", "b")
      yield* Effect.forkChild(narrow.enqueue("c"), { startImmediately: true })
      assert.deepStrictEqual(wire.sent, ["a", "b"])
      narrow.window.confirm(2, true)
      assert.deepStrictEqual(wire.sent, ["a", "b", "c"])
    }))

  it.effect("a message larger than the window goes alone", () =>
    Effect.gen(function*() {
      const { attach, enqueue, window } = setup({ bytes: 3 })
      const { sent } = attach()
      yield* enqueue("a")
      yield* Effect.forkChild(enqueue("b"), { startImmediately: true })
      assert.deepStrictEqual(sent, ["a"])
      window.confirm(1, false)
      assert.deepStrictEqual(sent, ["a", "b"])
    }))

  it.effect("an interrupted caller leaves its message in the window", () =>
    Effect.gen(function*() {
      const { attach, enqueue } = setup()
      const [a] = yield* enqueue("a")
      if (a !== undefined) yield* Fiber.interrupt(a)
      assert.deepStrictEqual(attach().sent, ["a"])
    }))

  it.effect("closing fails what is left and who waits, and everything later", () =>
    Effect.gen(function*() {
      const { attach, enqueue, window } = setup({ messages: 2 })
      attach()
      const [a] = yield* enqueue("a", "b")
      const waiter = yield* Effect.forkChild(enqueue("c"), { startImmediately: true })
      const settled = yield* Effect.forkChild(window.settled, { startImmediately: true })
      window.close(failure("Closed")(message("x", "")))
      const [c] = yield* Fiber.join(waiter)
      const [d] = yield* enqueue("d")
      for (const fiber of [a, c, d]) assert.isTrue(fiber !== undefined && Exit.isFailure(yield* Fiber.await(fiber)))
      yield* Fiber.join(settled)
    }))
})
