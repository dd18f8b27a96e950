import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Schema } from "effect"
import * as Admission from "../../src/actors/Admission.ts"
import { Priority, standardWeights } from "../../src/schemas/Terms.ts"

const limits: Admission.AdmissionLimits = { slots: 1, weights: standardWeights }

/** Applicants who note when they are called and stay until they are told to go. */
const place = (options: Partial<Admission.AdmissionLimits> = {}) => {
  const admission = Admission.make({ ...limits, ...options })
  const called: Array<string> = []
  const leaving = new Map<string, Deferred.Deferred<void>>()
  const apply = (name: string, owner: string, priority: Priority = "normal") => {
    const leave = Deferred.makeUnsafe<void>()
    leaving.set(name, leave)
    const life = Effect.andThen(Effect.sync(() => void called.push(name)), Deferred.await(leave))
    return Effect.forkChild(admission.admit({ owner, priority })(life), { startImmediately: true })
  }
  const go = (name: string) =>
    Effect.suspend(() => {
      const leave = leaving.get(name)
      return leave === undefined ? Effect.die(`${name} is not there`) : Deferred.succeed(leave, undefined)
    }).pipe(Effect.andThen(Effect.repeat(Effect.yieldNow, { times: 5 })))
  /** Everybody who is called leaves again, until nobody is. */
  const flow = Effect.gen(function*() {
    for (let seen = 0; seen < called.length; seen++) yield* go(called[seen] ?? "")
  })
  return { admission, apply, called, flow, go }
}

describe("Admission", () => {
  it.effect("calls the levels by their weights, and starves none", () =>
    Effect.gen(function*() {
      const { apply, called, flow } = place()
      yield* apply("first", "a")
      for (let n = 0; n < 28; n++) {
        for (const level of Priority.literals) yield* apply(`${level}${n}`, "a", level)
      }
      yield* flow
      const among = called.slice(1, 29)
      const count = (level: string) => among.filter((name) => name.startsWith(level)).length
      assert.deepStrictEqual([count("high"), count("normal"), count("low")], [16, 8, 4])
      assert.strictEqual(called.length, 85)
    }))

  it.effect("gives the owners of a level turns: a flood of one holds up no other", () =>
    Effect.gen(function*() {
      const { apply, called, flow } = place()
      for (let n = 0; n < 10; n++) yield* apply(`a${n}`, "a")
      yield* apply("b0", "b")
      yield* apply("c0", "c")
      yield* apply("b1", "b")
      yield* flow
      assert.deepStrictEqual(called.slice(0, 6), ["a0", "a1", "b0", "c0", "a2", "b1"])
    }))

  it.effect("holds an owner to its share, and hands the slot to others meanwhile", () =>
    Effect.gen(function*() {
      const { admission, apply, called, go } = place({ slots: 3, ownerSlots: 2 })
      for (let n = 0; n < 4; n++) yield* apply(`a${n}`, "a", "high")
      assert.deepStrictEqual(called, ["a0", "a1"])
      yield* apply("b0", "b", "low")
      yield* apply("b1", "b", "low")
      assert.deepStrictEqual(called, ["a0", "a1", "b0"])
      assert.deepStrictEqual(yield* admission.stats, { slots: 3, running: 3, waiting: { high: 2, normal: 0, low: 1 } })
      yield* go("b0")
      assert.deepStrictEqual(called, ["a0", "a1", "b0", "b1"])
      yield* go("a0")
      assert.deepStrictEqual(called, ["a0", "a1", "b0", "b1", "a2"])
    }))

  it.effect("grows and shrinks while jobs run", () =>
    Effect.gen(function*() {
      const { admission, apply, called, go } = place()
      for (let n = 0; n < 5; n++) yield* apply(`a${n}`, "a")
      yield* admission.configure({ ...limits, slots: 3 })
      assert.deepStrictEqual(called, ["a0", "a1", "a2"])
      yield* admission.configure(limits)
      yield* go("a0")
      yield* go("a1")
      assert.deepStrictEqual(called, ["a0", "a1", "a2"])
      yield* go("a2")
      assert.deepStrictEqual(called, ["a0", "a1", "a2", "a3"])
    }))

  it.effect("whoever is interrupted leaves the line, or gives back the slot", () =>
    Effect.gen(function*() {
      const { admission, apply, called, go } = place()
      const first = yield* apply("a0", "a")
      const second = yield* apply("a1", "a")
      yield* apply("a2", "a")
      yield* Fiber.interrupt(second)
      yield* Fiber.interrupt(first)
      assert.deepStrictEqual(called, ["a0", "a2"])
      yield* go("a2")
      assert.deepStrictEqual(yield* admission.stats, { slots: 1, running: 0, waiting: { high: 0, normal: 0, low: 0 } })
    }))

  const Step = Schema.Struct({
    owner: Schema.Literals(["a", "b", "c"]),
    priority: Priority,
    act: Schema.Literals(["come", "come", "go", "interrupt"])
  })
  it.effect.prop(
    "never more than there is room for, and nobody waits while there is",
    { steps: Schema.Array(Step).check(Schema.isMaxLength(60)) },
    ({ steps }) =>
      Effect.gen(function*() {
        const admission = Admission.make({ ...limits, slots: 3, ownerSlots: 2 })
        const inside = new Map<Fiber.Fiber<unknown, unknown>, { owner: string; leave: Deferred.Deferred<void> }>()
        const all: Array<Fiber.Fiber<unknown, unknown>> = []
        const settle = Effect.repeat(Effect.yieldNow, { times: 5 })
        for (const { act, owner, priority } of steps) {
          if (act === "come") {
            const leave = Deferred.makeUnsafe<void>()
            const life = Effect.withFiber((fiber) => {
              inside.set(fiber, { owner, leave })
              return Effect.ensuring(Deferred.await(leave), Effect.sync(() => inside.delete(fiber)))
            })
            all.push(yield* Effect.forkChild(admission.admit({ owner, priority })(life)))
          } else if (act === "go") {
            const [one] = inside.values()
            if (one !== undefined) yield* Deferred.succeed(one.leave, undefined)
          } else {
            const fiber = all.at(-1 - (steps.length % 3))
            if (fiber !== undefined) yield* Fiber.interrupt(fiber)
          }
          yield* settle
          const { running, waiting } = yield* admission.stats
          const ofOwner = (name: string) => [...inside.values()].filter((one) => one.owner === name).length
          assert.strictEqual(running, inside.size)
          assert.isAtMost(running, 3)
          for (const name of ["a", "b", "c"]) assert.isAtMost(ofOwner(name), 2)
          const waits = waiting.high + waiting.normal + waiting.low
          if (waits > 0 && running < 3) assert.strictEqual(Math.max(...["a", "b", "c"].map(ofOwner)), 2)
        }
        yield* Fiber.interruptAll(all)
        assert.deepStrictEqual((yield* admission.stats).running, 0)
      }),
    { arbitrary: { runs: 200 } }
  )
})
