/** Following over connections that break: every byte, once, whatever happens. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { resuming } from "../../src/client/Resume.ts"
import { ClientError, type ClientFailure, ConnectionError } from "../../src/client/StokerClient.ts"
import type { FollowEvent, FollowRequest } from "../../src/layers/api/JobApi.ts"
import { JobView } from "../../src/schemas/JobView.ts"
import { randomOf } from "../support/Random.ts"

const job = Schema.decodeUnknownSync(JobView)({
  id: "job-1",
  owner: "alice",
  intake: "api",
  function: "noop",
  state: "ended",
  attempt: 1,
  receivedAtMs: 0
})

const lost = new ConnectionError({ problem: "lost", server: "here", reason: "gone", remedy: "" })
const refused = new ConnectionError({ problem: "unreachable", server: "here", reason: "nobody listens", remedy: "" })

interface Attempt {
  readonly run: string
  readonly bytes: Uint8Array
  /** Bytes from..to are not kept. */
  readonly gap?: readonly [from: number, to: number]
}

/** A server with the output of several attempts, of which a connection shows what it is asked for. */
const serve = (attempts: ReadonlyArray<Attempt>, pieces: () => number, request: FollowRequest): Array<FollowEvent> => {
  const at = Math.max(0, attempts.findIndex(({ run }) => run === request.run))
  return [
    ...attempts.slice(at).flatMap(({ bytes, gap, run }, index): Array<FollowEvent> => {
      const asked = index === 0 && request.from !== undefined && "offset" in request.from ? request.from.offset : 0
      const events: Array<FollowEvent> = [{ _tag: "Begun", run, attempt: at + index + 1, offset: asked }]
      for (let offset = asked; offset < bytes.length;) {
        if (gap !== undefined && offset >= gap[0] && offset < gap[1]) {
          events.push({ _tag: "Gap", stream: "stdout", from: offset, to: gap[1] })
          offset = gap[1]
          continue
        }
        const to = Math.min(bytes.length, offset + pieces(), gap !== undefined && offset < gap[0] ? gap[0] : Infinity)
        events.push({ _tag: "Bytes", stream: "stdout", offset, bytes: bytes.subarray(offset, to) })
        offset = to
      }
      return events
    }),
    { _tag: "Ended", job }
  ]
}

/** What a follower has in the end, by attempt. */
const collect = (events: ReadonlyArray<FollowEvent>) => {
  const runs = new Map<string, { readonly bytes: Array<number>; readonly gaps: Array<readonly [number, number]> }>()
  let current: { readonly bytes: Array<number>; readonly gaps: Array<readonly [number, number]> } | undefined
  for (const event of events) {
    if (event._tag === "Begun") {
      assert.isFalse(runs.has(event.run), "an attempt is told once")
      current = { bytes: [], gaps: [] }
      runs.set(event.run, current)
    }
    if (event._tag === "Bytes") current?.bytes.push(...event.bytes)
    if (event._tag === "Gap") {
      current?.gaps.push([event.from, event.to])
      current?.bytes.push(...Array.from({ length: event.to - event.from }, () => -1))
    }
  }
  return runs
}

/** Runs it while time passes. */
const withTime = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect)
    for (let step = 0; step < 400; step++) yield* TestClock.adjust("1 second")
    return yield* Fiber.join(fiber)
  })

describe("following that resumes", () => {
  for (let seed = 1; seed <= 40; seed++) {
    it.effect(`gives every byte once over broken connections (seed ${seed})`, () =>
      Effect.gen(function*() {
        const below = randomOf(seed)
        const bytes = (size: number) => Uint8Array.from({ length: size }, () => below(256))
        const attempts = Array.from({ length: 1 + below(3) }, (_, index): Attempt => {
          const size = below(5000)
          const from = below(size + 1)
          return {
            run: `run-${index}`,
            bytes: bytes(size),
            ...(below(2) === 0 || size === 0 ? {} : { gap: [from, from + below(size - from + 1)] as const })
          }
        })
        let connections = 0
        let inARow = 0
        const open = (request: FollowRequest): Stream.Stream<FollowEvent, ClientFailure> => {
          connections += 1
          const events = serve(attempts, () => 1 + below(700), request)
          // Now and then it can't be made at all, but not for ever.
          if (connections > 1 && inARow < 8 && below(3) === 0) {
            inARow += 1
            return Stream.fail(below(2) === 0 ? refused : lost)
          }
          inARow = 0
          const most = connections > 60 ? events.length : 1 + below(6)
          const shown = Stream.rechunk(Stream.fromIterable(events.slice(0, most)), 1 + below(4))
          return most >= events.length
            ? shown
            : below(3) === 0
            ? shown
            : Stream.concat(
              shown,
              Stream.fail(below(2) === 0 ? lost : new ClientError({ kind: "unavailable", reason: "", remedy: "" }))
            )
        }
        const events = yield* withTime(Stream.runCollect(resuming("here", open, { id: "job-1" })))
        assert.strictEqual(events.at(-1)?._tag, "Ended")
        assert.strictEqual(events.filter(({ _tag }) => _tag === "Ended").length, 1)
        const runs = collect(events)
        assert.deepStrictEqual([...runs.keys()], attempts.map(({ run }) => run))
        for (const { bytes, gap: [from, to] = [0, 0], run } of attempts) {
          assert.deepStrictEqual(
            runs.get(run)?.bytes,
            [...bytes].map((byte, at) => at >= from && at < to ? -1 : byte)
          )
        }
      }))
  }

  it.effect("fails at once when the first connection cannot be made, and for what time does not mend", () =>
    Effect.gen(function*() {
      let opened = 0
      const failing = (failure: ClientFailure) =>
        Stream.runCollect(resuming("here", () => {
          opened += 1
          return Stream.fail(failure)
        }, { id: "job-1" })).pipe(Effect.flip)
      assert.strictEqual(yield* failing(refused), refused)
      const forbidden = new ClientError({ kind: "forbidden", reason: "no", remedy: "" })
      assert.strictEqual(yield* failing(forbidden), forbidden)
      assert.strictEqual(opened, 2)
    }))

  it.effect("gives up after ten tries without an event, having said each of them", () =>
    Effect.gen(function*() {
      let opened = 0
      const heard: Array<number> = []
      const error = yield* withTime(
        Stream.runDrain(resuming("here", () => {
          opened += 1
          return opened === 1
            ? Stream.concat(
              Stream.make<[FollowEvent]>({ _tag: "Begun", run: "r", attempt: 1, offset: 0 }),
              Stream.fail(lost)
            )
            : Stream.fail(refused)
        }, { id: "job-1", onResume: (_, attempt) => Effect.sync(() => void heard.push(attempt)) })).pipe(Effect.flip)
      )
      assert.strictEqual(error, refused)
      assert.strictEqual(opened, 11)
      assert.deepStrictEqual(heard, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    }))

  it.effect("reads another attempt's output from its first byte when the server went on at the former one's offset", () =>
    Effect.gen(function*() {
      const requests: Array<FollowRequest> = []
      const bytes = new Uint8Array([1, 2, 3, 4])
      const begun = (run: string, offset: number): FollowEvent => ({ _tag: "Begun", run, attempt: 1, offset })
      const events = yield* withTime(Stream.runCollect(resuming("here", (request) => {
        requests.push(request)
        const offset = request.from !== undefined && "offset" in request.from ? request.from.offset : 0
        const entry: FollowEvent = { _tag: "Bytes", stream: "stdout", offset, bytes: bytes.subarray(offset) }
        return requests.length === 1
          ? Stream.concat(
            Stream.fromIterable([begun("a", 0), { ...entry, bytes: bytes.subarray(0, 2) }]),
            Stream.fail(lost)
          )
          : Stream.fromIterable([begun("b", offset), entry, { _tag: "Ended" as const, job }])
      }, { id: "job-1" })))
      const runs = collect(events)
      assert.deepStrictEqual(runs.get("a")?.bytes, [1, 2])
      assert.deepStrictEqual(runs.get("b")?.bytes, [1, 2, 3, 4])
    }))

  it.effect("does not hide that bytes are missing", () =>
    Effect.gen(function*() {
      const error = yield* Stream.runDrain(resuming("here", () =>
        Stream.fromIterable<FollowEvent>([
          { _tag: "Begun", run: "r", attempt: 1, offset: 0 },
          { _tag: "Bytes", stream: "stdout", offset: 5, bytes: new Uint8Array(1) }
        ]), { id: "job-1" })).pipe(Effect.flip)
      assert.match(error.message, /byte 5 where byte 0 was due/)
    }))
})
