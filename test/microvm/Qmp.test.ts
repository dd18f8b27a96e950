/** The monitor's client against what a QEMU says, and what one would say that a guest has taken over. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Duplex } from "node:stream"
import { setImmediate } from "node:timers/promises"
import * as Qmp from "../../src/layers/microvm/qemu/Qmp.ts"

/** Both ends: what we wrote, and how the other side is heard. */
const pair = () => {
  const written: Array<{ readonly execute: string; readonly id: number; readonly arguments?: unknown }> = []
  const stream = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _, done) => {
      written.push(...chunk.toString().trim().split("\n").map((line) => JSON.parse(line)))
      done()
    }
  })
  const say = (text: string | Buffer) =>
    Effect.promise(async () => {
      stream.push(text)
      await setImmediate()
    })
  return { qmp: Qmp.make(stream), say, stream, written }
}

const greeting =
  "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n"

describe("QMP", () => {
  it.effect("a pid, a greeting, answers in any order, errors and events, in whatever pieces they come", () =>
    Effect.gen(function*() {
      const { qmp, say, written } = pair()
      const ready = yield* Effect.forkChild(qmp.ready, { startImmediately: true })
      for (const byte of `{"pid":77}\n${greeting}`) yield* say(byte)
      assert.strictEqual(yield* qmp.pid, 77)
      assert.deepStrictEqual(written.map(({ execute }) => execute), ["qmp_capabilities"])
      yield* say("{\"return\": {}, \"id\": 1}\n")
      yield* Fiber.join(ready)
      const start = { startImmediately: true }
      const one = yield* Effect.forkChild(qmp.execute("one", { a: 1 }), start)
      const two = yield* Effect.forkChild(Effect.flip(qmp.execute("two")), start)
      const event = yield* Effect.forkChild(
        qmp.next("two events", ({ data, event }) => event === "B" ? data?.["x"] : undefined),
        start
      )
      assert.deepStrictEqual(written.slice(1), [{ execute: "one", arguments: { a: 1 }, id: 2 }, {
        execute: "two",
        id: 3
      }])
      yield* say(
        "{\"event\": \"A\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\n{\"error\": {\"class\": \"GenericError\", "
      )
      yield* say(
        "\"desc\": \"no two\"}, \"id\": 3}\n{\"return\": {\"b\": [2]}, \"id\": 2}\n{\"event\": \"B\", \"data\": {\"x\": 5}}\n"
      )
      assert.deepStrictEqual(yield* Fiber.join(one), { b: [2] })
      assert.strictEqual((yield* Fiber.join(two)).message, "two: no two")
      assert.strictEqual(yield* Fiber.join(event), 5)
      assert.isFalse(qmp.isLost)
    }))

  const lies: ReadonlyArray<readonly [string, string | Buffer, RegExp]> = [
    ["no JSON", "Welcome!\n", /no QMP: Welcome!/],
    ["JSON that is no QMP", "{\"hello\": 1}\n", /no QMP/],
    ["an answer that nobody asked for", "{\"return\": {}, \"id\": 99}\n", /nobody asked/],
    ["an error that nobody asked for", "{\"error\": {\"class\": \"x\", \"desc\": \"y\"}}\n", /nobody asked/],
    ["a pid that is none", "{\"pid\": 0}\n", /no QMP/],
    ["bytes that are no text", Buffer.from([0xff, 0xfe, 0x0a]), /no QMP/],
    ["nested deeply", `${"[".repeat(100_000)}\n`, /no QMP/]
  ]
  for (const [name, text, expected] of lies) {
    it.effect(`ends the conversation: ${name}`, () =>
      Effect.gen(function*() {
        const { qmp, say } = pair()
        const asked = yield* Effect.forkChild(Effect.flip(qmp.execute("what")), { startImmediately: true })
        const awaited = yield* Effect.forkChild(Effect.flip(qmp.next("it", () => true)), { startImmediately: true })
        yield* say(text)
        assert.match((yield* Fiber.join(asked)).reason, expected)
        assert.match((yield* Fiber.join(awaited)).reason, expected)
        assert.match((yield* Effect.flip(qmp.execute("more"))).reason, expected)
        assert.isTrue(qmp.isLost)
      }))
  }

  it.effect("a line without an end takes no memory", () =>
    Effect.gen(function*() {
      const { qmp, say } = pair()
      const chunk = Buffer.alloc(64 * 1024, "a")
      for (let i = 0; i < 5; i++) yield* say(chunk)
      assert.match((yield* Effect.flip(qmp.pid)).reason, /without an end/)
      for (let i = 0; i < 100; i++) yield* say(chunk) // read, and let go
      assert.isTrue(qmp.isLost)
    }))

  it.effect("the end of the stream fails what waits", () =>
    Effect.gen(function*() {
      const { qmp, stream } = pair()
      const ready = yield* Effect.forkChild(Effect.flip(qmp.ready), { startImmediately: true })
      stream.destroy()
      assert.strictEqual((yield* Fiber.join(ready)).message, "greet: QEMU has ended")
    }))
})
