import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import { follow, type FollowOptions } from "../../src/layers/api/Follow.ts"
import { type FollowEvent, INTAKE, type Unavailable, type UnknownJob } from "../../src/layers/api/JobApi.ts"
import { viewOf } from "../../src/layers/api/Views.ts"
import type { JobRecord } from "../../src/layers/journal/Journal.ts"
import { Log, type LogStream } from "../../src/layers/log/Log.ts"
import { layerMemory } from "../../src/layers/log/LogMemory.ts"
import { FunctionName, type JobKey } from "../../src/schemas/Ids.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { bytes, key as keyOf, numbers } from "../log/Model.ts"

const key: JobKey = { ...keyOf("a"), intake: INTAKE }

/** A job whose record is whatever the test says, and whose output is in a real log. */
const makeJob = Effect.gen(function*() {
  const log = yield* Log
  const request = {
    job: { ...key, function: FunctionName.make("say"), args: {}, limits: {} },
    hash: "",
    reply: null
  }
  let record: JobRecord = { request, state: "queued", attempt: 0, receivedAtMs: 0 }
  const begin = (attempt: number, keepBytes = 1 << 20) =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const writer = yield* Scope.provide(log.open(key, { attempt, keepBytes }), scope)
      record = { ...record, state: "running", attempt }
      return { ...writer, leave: Scope.close(scope, Exit.void) }
    })
  const settle = Effect.sync(() => {
    record = {
      ...record,
      state: "ended",
      settlement: {
        outcome: Outcome.cases.Exited.make({ phase: "run", code: 0 }),
        usage: { phases: [] },
        output: [],
        attempt: record.attempt,
        endedAtMs: 0
      }
    }
  })
  const queueAgain = Effect.sync(() => {
    record = { ...record, state: "queued" }
  })
  const following = (options: Partial<FollowOptions> = {}) =>
    follow({
      key,
      status: Effect.sync(() => record),
      read: (options) => log.read(key, options).pipe(Effect.catchTag("LogError", Effect.die)),
      news: { subscribe: () => Effect.succeed(Effect.sleep(5)) },
      view: (record) => viewOf(record, { args: false })
    }, { stream: "all", from: { offset: 0 }, wait: true, ...options })
  return { begin, settle, queueAgain, following }
})

const all = (stream: Stream.Stream<FollowEvent, UnknownJob | Unavailable>) =>
  Effect.map(Stream.runCollect(stream), (events) => Array.from(events))

/** What was said, in a line. */
const told = (events: ReadonlyArray<FollowEvent>) =>
  events.map((event) => {
    switch (event._tag) {
      case "Begun":
        return `begun ${event.attempt} at ${event.offset}`
      case "Bytes":
        return Buffer.from(event.bytes).toString()
      case "Gap":
        return `gap ${event.from}-${event.to}`
      case "Ended":
        return `ended${event.end === undefined ? "" : event.end.complete ? " whole" : " cut off"}`
      case "Paused":
        return `paused ${event.next}`
    }
  })

const promise = (title: string, effect: Effect.Effect<unknown, unknown, Log>) =>
  it.live(title, () => effect.pipe(Effect.provide(layerMemory), Effect.timeout("20 seconds")))

describe("a follower", () => {
  promise(
    "waits for a job that is queued, hears it from its first byte, and its end",
    Effect.gen(function*() {
      const job = yield* makeJob
      const heard = yield* Effect.forkChild(all(job.following()))
      yield* Effect.sleep(20)
      const writer = yield* job.begin(1)
      yield* writer.append("stdout", bytes("one "))
      yield* Effect.sleep(20)
      yield* writer.append("stderr", bytes("two"))
      yield* writer.end
      yield* Effect.sleep(20)
      yield* job.settle
      assert.deepStrictEqual(told(yield* Fiber.join(heard)), ["begun 1 at 0", "one ", "two", "ended whole"])
    })
  )

  promise(
    "of a job without output, or whose output is gone, hears its end",
    Effect.gen(function*() {
      const job = yield* makeJob
      yield* job.settle
      assert.deepStrictEqual(told(yield* all(job.following())), ["ended"])
      const silent = yield* makeJob
      const writer = yield* silent.begin(1)
      yield* writer.end
      yield* silent.settle
      assert.deepStrictEqual(told(yield* all(silent.following())), ["begun 1 at 0", "ended whole"])
    })
  )

  promise(
    "is told when another attempt begins, and hears all of that",
    Effect.gen(function*() {
      const job = yield* makeJob
      const first = yield* job.begin(1)
      yield* first.append("stdout", bytes("lost"))
      const heard = yield* Effect.forkChild(all(job.following()))
      yield* Effect.sleep(30)
      yield* first.leave
      yield* job.queueAgain
      yield* Effect.sleep(30)
      const second = yield* job.begin(2)
      yield* second.append("stdout", bytes("kept"))
      yield* second.end
      yield* job.settle
      assert.deepStrictEqual(told(yield* Fiber.join(heard)), [
        "begun 1 at 0",
        "lost",
        "begun 2 at 0",
        "kept",
        "ended whole"
      ])
    })
  )

  promise(
    "that does not wait gets what there is",
    Effect.gen(function*() {
      const job = yield* makeJob
      assert.deepStrictEqual(told(yield* all(job.following({ wait: false }))), ["paused 0"])
      const writer = yield* job.begin(1)
      yield* writer.append("stdout", bytes("abc"))
      assert.deepStrictEqual(told(yield* all(job.following({ wait: false, from: { offset: 1 } }))), [
        "begun 1 at 1",
        "bc",
        "paused 3"
      ])
    })
  )

  promise(
    "begins at the last lines, or at what is new",
    Effect.gen(function*() {
      const job = yield* makeJob
      const writer = yield* job.begin(1)
      yield* writer.append("stdout", bytes("one\ntwo\n"))
      yield* writer.append("stdout", bytes("three\nfour"))
      const from = (from: FollowOptions["from"], stream: LogStream = "stdout") =>
        Effect.map(all(job.following({ wait: false, from, stream })), (events) => told(events).slice(1, -1).join(""))
      assert.strictEqual(yield* from({ lastLines: 0 }), "")
      assert.strictEqual(yield* from({ lastLines: 1 }), "four")
      assert.strictEqual(yield* from({ lastLines: 2 }), "three\nfour")
      assert.strictEqual(yield* from({ lastLines: 3 }, "all"), "two\nthree\nfour")
      assert.strictEqual(yield* from({ lastLines: 4 }), "one\ntwo\nthree\nfour")
      assert.strictEqual(yield* from({ lastLines: 99 }), "one\ntwo\nthree\nfour")
      yield* writer.append("stdout", bytes("\n"))
      assert.strictEqual(yield* from({ lastLines: 1 }), "four\n")
      const heard = yield* Effect.forkChild(all(job.following({ from: { newOnly: true } })))
      yield* Effect.sleep(20)
      yield* writer.append("stdout", bytes("new"))
      yield* writer.end
      yield* job.settle
      assert.deepStrictEqual(told(yield* Fiber.join(heard)), ["begun 1 at 19", "new", "ended whole"])
    })
  )

  promise(
    "finds the last lines in a long log, also across a gap",
    Effect.gen(function*() {
      const job = yield* makeJob
      const writer = yield* job.begin(1, 600_000)
      const line = (index: number) => `${String(index).padStart(9, "0")}\n`
      for (let index = 0; index < 100_000; index += 1000) {
        yield* writer.append("stdout", bytes(Array.from({ length: 1000 }, (_, at) => line(index + at)).join("")))
      }
      const last = (lines: number) =>
        Effect.map(
          all(job.following({ wait: false, from: { lastLines: lines } })),
          (events) => events.flatMap((event) => event._tag === "Bytes" ? [Buffer.from(event.bytes)] : [])
        ).pipe(Effect.map((parts) => Buffer.concat(parts).toString()))
      assert.strictEqual(yield* last(2), line(99_998) + line(99_999))
      assert.strictEqual((yield* last(29_000)).split("\n").length, 29_001)
      // 300,000 bytes of the end are kept, then a gap, then the beginning.
      assert.isTrue((yield* last(30_001)).startsWith(line(29_999)))
    })
  )

  promise(
    "that comes back again and again, anywhere and for any time, has every byte once and in its place",
    Effect.gen(function*() {
      for (let seed = 1; seed <= 20; seed += 1) {
        const random = numbers(seed)
        const job = yield* makeJob
        const expected: Record<LogStream, Array<number>> = { stdout: [], stderr: [], all: [] }
        const writer = yield* job.begin(1)
        const writing = Effect.gen(function*() {
          for (let piece = 0; piece < 40; piece += 1) {
            const stream = random(2) === 0 ? "stdout" : "stderr"
            const output = Uint8Array.from({ length: random(3000) }, () => random(256))
            expected[stream].push(...output)
            expected.all.push(...output)
            yield* writer.append(stream, output)
            if (random(3) === 0) yield* Effect.sleep(random(3))
          }
          yield* writer.end
          yield* job.settle
        })
        const hear = Effect.fnUntraced(function*(stream: LogStream) {
          const got: Array<number> = []
          let run: { readonly run?: string } = {}
          let isEnded = false
          while (true) {
            // Any number of events, then the connection is gone.
            const patience = 1 + random(6)
            yield* job.following({ stream, from: { offset: got.length }, ...run }).pipe(
              Stream.take(patience),
              Stream.runForEach((event) =>
                Effect.sync(() => {
                  if (event._tag === "Begun") {
                    assert.strictEqual(event.offset, got.length)
                    run = { run: event.run }
                  }
                  if (event._tag === "Bytes") {
                    assert.strictEqual(event.offset, got.length)
                    got.push(...event.bytes)
                  }
                  assert.notStrictEqual(event._tag, "Gap")
                  if (event._tag === "Ended") isEnded = true
                })
              )
            )
            if (isEnded) return Buffer.from(got)
          }
        })
        const [, ...heard] = yield* Effect.all([writing, hear("stdout"), hear("stderr"), hear("all")], {
          concurrency: "unbounded"
        })
        for (const [index, stream] of (["stdout", "stderr", "all"] as const).entries()) {
          assert.isTrue(heard[index]?.equals(Buffer.from(expected[stream])), `seed ${seed}, ${stream}`)
        }
      }
    })
  )
})
