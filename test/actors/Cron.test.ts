import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, Logger, Result, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as Cron from "../../src/actors/Cron.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import { Control } from "../../src/layers/control/Control.ts"
import { Overloaded } from "../../src/layers/control/Overloaded.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import { type IdConflict, Journal, JournalError } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import { Schedule, Schedules } from "../../src/schemas/Cron.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { say } from "../support/Say.ts"
import * as SetClock from "../support/SetClock.ts"

const scheduleOf = Schema.decodeUnknownSync(Schedule)
const hourly = { name: "hourly", cron: "0 * * * *", function: "say", args: { word: "hello" } }

const away = new JournalError({ operation: "submit", reason: "it is away", remedy: "wait" })

interface Options {
  readonly dedupeMs?: number
  /** What a submission comes to before it reaches the journal. */
  readonly first?: (id: string) => Effect.Effect<void, IdConflict | JournalError | Overloaded>
}

/** A worker that submits to that journal; what it was asked for and what it logged. */
const worker = (
  state: JournalMemory.JournalState,
  { dedupeMs = 86_400_000, first = () => Effect.void }: Options = {}
) => {
  const asked: Array<string> = []
  const logged: Array<string> = []
  const unasked = Effect.die("not asked here")
  const control = Effect.map(Journal, (journal) =>
    Control.of({
      submit: Effect.fnUntraced(function*(request) {
        asked.push(request.job.id)
        yield* first(request.job.id)
        return yield* journal.submit(request)
      }),
      stop: () => unasked,
      status: () => unasked,
      list: journal.list,
      remove: () => unasked,
      read: () => unasked,
      artefact: () => unasked,
      events: undefined as never
    }))
  const layer = Layer.mergeAll(
    Layer.effect(Control, control).pipe(Layer.provideMerge(JournalMemory.layer(state))),
    Functions.layer([say]),
    Settings.layer({ ...standardConfig, retention: { ...standardConfig.retention, dedupeMs } }),
    Logger.layer([Logger.make(({ message }) => void logged.push(String(message)))])
  )
  return { asked, layer, logged }
}

const idsIn = (state: JournalMemory.JournalState) =>
  Effect.flatMap(Journal, (journal) => journal.list({ limit: 100 })).pipe(
    Effect.map((records) => records.map(({ request: { job } }) => String(job.id)).toSorted()),
    Effect.provide(JournalMemory.layer(state))
  )

const at = (date: string) => TestClock.setTime(Date.parse(date))

/** Moves time in steps of a minute, so that each thing that waits goes on in its turn. */
const pass = (minutes: number) => Effect.repeat(TestClock.adjust("1 minute"), { times: minutes - 1 })

const start = (schedules: ReadonlyArray<unknown>, { layer }: ReturnType<typeof worker>) =>
  Effect.gen(function*() {
    yield* Effect.forkScoped(Effect.provide(Cron.rounds(schedules.map((one) => scheduleOf(one))), layer), {
      startImmediately: true
    })
    yield* TestClock.adjust("1 millis")
  })

describe("cron", () => {
  it.effect("submits a job at each moment, under the schedule's name and the moment", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      yield* at("2026-01-01T00:30:00Z")
      yield* start([{ ...hourly, class: "small", limits: { wallMs: 5000 } }], worker(state))
      yield* pass(29)
      assert.deepStrictEqual(yield* idsIn(state), [])
      yield* pass(61)
      assert.deepStrictEqual(yield* idsIn(state), ["hourly-20260101T010000Z", "hourly-20260101T020000Z"])
      const [record] = yield* Effect.flatMap(Journal, (journal) => journal.list({ limit: 1 })).pipe(
        Effect.provide(JournalMemory.layer(state))
      )
      assert.deepStrictEqual<unknown>(record?.request.job, {
        id: "hourly-20260101T020000Z",
        owner: "cron",
        intake: "cron",
        function: "say",
        args: { word: "hello" },
        class: "small",
        limits: { wallMs: 5000 }
      })
    }))

  it.effect("is on time, to the millisecond the clock has", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      yield* at("2026-01-01T00:59:00Z")
      yield* start([hourly], worker(state))
      yield* TestClock.adjust("59998 millis")
      assert.deepStrictEqual(yield* idsIn(state), [])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* idsIn(state), ["hourly-20260101T010000Z"])
    }))

  it.effect("two workers with one journal fire once", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      const [one, other] = [worker(state), worker(state)]
      yield* at("2026-01-01T00:30:00Z")
      yield* start([hourly], one)
      yield* start([hourly], other)
      yield* pass(120)
      assert.strictEqual(one.asked.length, 2)
      assert.deepStrictEqual(one.asked, other.asked)
      assert.deepStrictEqual(yield* idsIn(state), one.asked)
      assert.deepStrictEqual([...one.logged, ...other.logged], [])
    }))

  it.effect("of what a worker missed that was down, the latest is made up for, within the bound", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      yield* at("2026-01-01T05:09:00Z")
      const one = worker(state)
      yield* start([{ ...hourly, cron: "*/3 * * * *" }], one)
      assert.deepStrictEqual(yield* idsIn(state), ["hourly-20260101T050900Z"])
      // Earlier ones may have run: a worker that starts does not know.
      assert.deepStrictEqual(one.logged, [])
    }))

  it.effect("what is longer ago is not", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      yield* at("2026-01-01T05:10:01Z")
      yield* start([hourly, { ...hourly, name: "none", missedMs: 0 }], worker(state))
      assert.deepStrictEqual(yield* idsIn(state), [])
      yield* pass(50)
      assert.deepStrictEqual(yield* idsIn(state), ["hourly-20260101T060000Z", "none-20260101T060000Z"])
    }))

  it.effect("nor what the journal may have forgotten", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      yield* at("2026-01-01T05:05:00Z")
      yield* start([hourly], worker(state, { dedupeMs: 240_000 }))
      assert.deepStrictEqual(yield* idsIn(state), [])
    }))

  it.effect("a restart fires nothing twice", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      yield* at("2026-01-01T05:00:30Z")
      const again = worker(state)
      yield* Effect.scoped(start([hourly], worker(state)))
      yield* start([hourly], again)
      assert.deepStrictEqual(again.asked, ["hourly-20260101T050000Z"])
      assert.deepStrictEqual(yield* idsIn(state), ["hourly-20260101T050000Z"])
    }))

  it.effect("a date that jumps forward fires the latest moment only, and says what is left out", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      const one = worker(state)
      yield* at("2026-01-01T00:30:00Z")
      const { clock, jump } = yield* SetClock.make
      yield* Effect.gen(function*() {
        yield* start([hourly], one)
        jump(8 * 3_600_000 + 32 * 60_000)
        yield* pass(1)
        assert.deepStrictEqual(yield* idsIn(state), ["hourly-20260101T090000Z"])
        assert.include(one.logged.join(), "2026-01-01T01:00:00.000Z and what follows before 2026-01-01T09:00:00.000Z")
        jump(24 * 3_600_000 + 30 * 60_000)
        yield* pass(31)
        assert.deepStrictEqual(yield* idsIn(state), ["hourly-20260101T090000Z", "hourly-20260102T100000Z"])
      }).pipe(Effect.provideService(Clock.Clock, clock))
    }))

  it.effect("a date that is set back stops nothing, and what comes again is the same job", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      const one = worker(state)
      yield* at("2036-01-01T00:59:30Z")
      const { clock, jump } = yield* SetClock.make
      yield* Effect.gen(function*() {
        yield* start([hourly], one)
        yield* pass(1)
        jump(Date.parse("2026-01-01T00:59:00Z") - Date.parse("2036-01-01T01:00:30Z"))
        yield* pass(3)
        jump(-180_000)
        yield* pass(3)
      }).pipe(Effect.provideService(Clock.Clock, clock))
      assert.deepStrictEqual(one.asked, [
        "hourly-20360101T010000Z",
        "hourly-20260101T010000Z",
        "hourly-20260101T010000Z"
      ])
      assert.deepStrictEqual(yield* idsIn(state), ["hourly-20260101T010000Z", "hourly-20360101T010000Z"])
    }))

  it.effect("every second, for a minute", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      yield* at("2026-01-01T00:00:00.500Z")
      yield* start([{ ...hourly, cron: "* * * * * *", missedMs: 0 }], worker(state))
      yield* Effect.repeat(TestClock.adjust("1 second"), { times: 59 })
      assert.strictEqual((yield* idsIn(state)).length, 60)
    }))

  it.effect("a day is found for one that comes every four years", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      yield* at("2028-02-28T23:59:00Z")
      yield* start([{ ...hourly, cron: "0 0 29 2 *" }], worker(state))
      yield* pass(2)
      assert.deepStrictEqual(yield* idsIn(state), ["hourly-20280229T000000Z"])
    }))

  it.effect("while the journal is away or full it waits, and submits when it is back", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      let tries = 0
      const full = new Overloaded({ limit: "queueMaximum", maximum: 1 })
      const one = worker(state, {
        first: () => Effect.suspend(() => ++tries > 5 ? Effect.void : Effect.fail(tries % 2 === 0 ? away : full))
      })
      yield* at("2026-01-01T00:59:30Z")
      yield* start([hourly], one)
      yield* pass(1)
      assert.deepStrictEqual(yield* idsIn(state), [])
      yield* Effect.repeat(TestClock.adjust("1 second"), { times: 59 })
      assert.deepStrictEqual(yield* idsIn(state), ["hourly-20260101T010000Z"])
      assert.strictEqual(tries, 6)
      assert.include(one.logged.join(), "the worker is full (queueMaximum: 1)")
    }))

  it.effect("a journal that is away for longer than the bound makes it miss a moment, which is said", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      let isAway = true
      const one = worker(state, { first: () => Effect.suspend(() => isAway ? Effect.fail(away) : Effect.void) })
      yield* at("2026-01-01T00:59:30Z")
      yield* start([hourly], one)
      yield* pass(13)
      isAway = false
      yield* pass(1)
      assert.deepStrictEqual(yield* idsIn(state), [])
      assert.include(one.logged.join(), "2026-01-01T01:00:00.000Z passed")
      yield* pass(60)
      assert.deepStrictEqual(yield* idsIn(state), ["hourly-20260101T020000Z"])
    }))

  it.effect("a schedule that was changed in the middle of a moment says so and goes on", () =>
    Effect.gen(function*() {
      const state = JournalMemory.makeState()
      const other = worker(state)
      yield* at("2026-01-01T01:00:10Z")
      yield* start([hourly], worker(state))
      yield* start([{ ...hourly, args: { word: "other" } }], other)
      assert.include(other.logged.join(), "give a changed schedule a new name")
      yield* pass(60)
      assert.strictEqual((yield* idsIn(state)).length, 2)
    }))

  it.effect("says at its start which of its jobs will be rejected", () =>
    Effect.gen(function*() {
      const one = worker(JournalMemory.makeState())
      yield* at("2026-01-01T00:30:00Z")
      yield* start([{ ...hourly, function: "sya" }, { ...hourly, name: "other", args: { wrod: "x" } }], one)
      assert.include(one.logged[0], "schedule hourly: there is no function sya")
      assert.include(one.logged[1], "schedule other: say:")
    }))

  const berlin = { ...hourly, name: "berlin", timeZone: "Europe/Berlin" }
  for (
    const [name, cron, from, minutes, ids] of [
      ["an hour of the day is the zone's, in winter", "0 9 * * *", "2026-01-01T07:30:00Z", 60, ["20260101T080000Z"]],
      ["and in summer", "0 9 * * *", "2026-07-01T06:30:00Z", 60, ["20260701T070000Z"]],
      ["a time that comes twice fires the first time only", "30 2 * * *", "2026-10-25T00:00:00Z", 120, [
        "20261025T003000Z"
      ]],
      ["every so many minutes goes on while an hour comes twice", "*/30 * * * *", "2026-10-25T00:11:00Z", 110, [
        "20261025T003000Z",
        "20261025T010000Z",
        "20261025T013000Z",
        "20261025T020000Z"
      ]],
      ["a time that is left out fires an hour later, once", "30 2 * * *", "2026-03-27T12:00:00Z", 3000, [
        "20260328T013000Z",
        "20260329T013000Z"
      ]]
    ] as const
  ) {
    it.effect(`time zones: ${name}`, () =>
      Effect.gen(function*() {
        const state = JournalMemory.makeState()
        yield* at(from)
        yield* start([{ ...berlin, cron }], worker(state))
        yield* pass(minutes)
        assert.deepStrictEqual(yield* idsIn(state), ids.map((id) => `berlin-${id}`))
      }))
  }

  const decode = Schema.decodeUnknownResult(Schedules)
  const faultOf = (...schedules: ReadonlyArray<unknown>) =>
    Result.match(decode(schedules), { onSuccess: () => "none", onFailure: (error) => error.message })

  it("a schedule has usual values", () => {
    assert.deepInclude(scheduleOf({ name: "a", cron: "0 0 * * *", function: "noop" }), {
      timeZone: "UTC",
      args: {},
      limits: {},
      owner: "cron" as never,
      missedMs: 600_000
    })
  })

  for (
    const [name, schedule, words] of [
      ["too few fields", { cron: "* * *" }, "five fields (minute hour day month weekday)"],
      ["a name for an expression", { cron: "@daily" }, "five fields"],
      ["a minute that is none", { cron: "60 * * * *" }, "between 0 and 59"],
      ["words", { cron: "every day at nine please" }, "five fields"],
      ["a day that never comes", { cron: "0 0 30 2 *" }, "there is no such day"],
      ["a time zone that is none", { timeZone: "Mars/Olympus" }, "a time zone, such as Europe/Berlin"],
      ["a name that is no part of an id", { name: "Nightly run" }, "lower-case letters, digits and '-'"],
      ["a day too long ago", { missedMs: 1e9 }, "a time of a day at most"],
      ["a function's name that is none", { function: "No" }, "a function"]
    ] as const
  ) {
    it(`refuses ${name}, saying what is right`, () => assert.include(faultOf({ ...hourly, ...schedule }), words))
  }

  it("refuses two of one name", () => assert.include(faultOf(hourly, hourly), "a different name for each schedule"))
})
