import { assert, describe, it } from "@effect/vitest"
import {
  advance,
  begin,
  deadlineMs,
  type Event,
  next,
  type State,
  states
} from "../../src/layers/sandbox/microvm/Lifecycle.ts"

const events: ReadonlyArray<Event> = ["reserved", "connected", "confirmed", "taken", "stop", "cleared"]

describe("the life of a machine", () => {
  it("goes through every state in order", () => {
    const seen: Array<State> = []
    let life = begin(0)
    for (const [index, event] of events.entries()) {
      seen.push(life.state)
      const step = advance(life, event, index + 1)
      assert.isDefined(step, `${event} in ${life.state}`)
      assert.deepStrictEqual([step?.left, step?.lastedMs], [life.state, 1])
      if (step !== undefined) life = step.life
    }
    assert.deepStrictEqual([...seen, life.state], [...states])
  })

  it("can be stopped wherever it is, once, and is gone from there only", () => {
    for (const state of states) {
      const canStop = state !== "stopping" && state !== "gone"
      assert.strictEqual(next(state, "stop"), canStop ? "stopping" : undefined, state)
      assert.strictEqual(next(state, "cleared"), state === "stopping" ? "gone" : undefined, state)
    }
  })

  it("skips no state and repeats none", () => {
    const order = new Map(states.map((state, index) => [state, index]))
    for (const state of states) {
      for (const event of events) {
        const after = next(state, event)
        if (after === undefined) continue
        const step = (order.get(after) ?? 0) - (order.get(state) ?? 0)
        assert.isTrue(event === "stop" ? after === "stopping" && step > 0 : step === 1, `${state} -${event}-> ${after}`)
      }
    }
  })

  it("is used only by whom it was confirmed for", () => {
    for (const state of states) {
      assert.strictEqual(next(state, "taken"), state === "ready" ? "leased" : undefined)
      assert.strictEqual(next(state, "confirmed"), state === "booting" ? "ready" : undefined)
    }
  })

  it("waits for work no longer than its VMM's deadlines say", () => {
    const deadlines = { bootMs: 1000, restoreMs: 100, personaliseMs: 10, saveMs: 1 }
    assert.strictEqual(deadlineMs("booting", deadlines, false), 1010)
    assert.strictEqual(deadlineMs("booting", deadlines, true), 110)
    for (const state of ["reserving", "network", "booting", "stopping"] as const) {
      assert.isAbove(deadlineMs(state, deadlines, false), 0)
    }
  })
})
