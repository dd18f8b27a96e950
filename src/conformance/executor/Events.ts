/** What a run says, in order. `follow` holds every run of every case to the order itself. */
import { Effect } from "effect"
import { Executor } from "../../layers/executor/Executor.ts"
import { Outcome } from "../../schemas/Outcome.ts"
import { define, expect, same } from "../Case.ts"
import { assignmentOf, run } from "../Runs.ts"

export const events = [
  define(
    "events come in order: Ready, each phase with its output, Finished once",
    [],
    Effect.gen(function*() {
      const { events } = yield* run({ compile: "echo compiled", run: "echo ran" })
      const tags = events.map((event) => event._tag === "Output" ? Buffer.from(event.bytes).toString() : event._tag)
      yield* same("the events", tags, [
        "Ready",
        "PhaseStarted",
        "compiled\n",
        "PhaseEnded",
        "PhaseStarted",
        "ran\n",
        "PhaseEnded",
        "Finished"
      ])
      const [ready] = events
      const isPlaced = ready?._tag === "Ready" && ready.place !== "" && ready.provisionMicros >= 0
      yield* expect("a place, and a time to make it", isPlaced, ready)
    })
  ),

  define(
    "output is told while the program runs, not at its end",
    [],
    Effect.gen(function*() {
      // It goes on only when it is stopped, and is stopped only when its word has come.
      const { outcome } = yield* run({
        run: "echo waiting; sleep 100",
        onEvent: (event, under) => event._tag === "Output" ? under.stop({ reason: "heard", graceMs: 0 }) : Effect.void
      })
      yield* same("the outcome", outcome._tag, "Stopped")
    })
  ),

  define(
    "what is told in Finished is what the phases told",
    [],
    Effect.gen(function*() {
      const { events, outcome, usage } = yield* run({ compile: "true", run: "false" })
      yield* same("the outcome", outcome, Outcome.cases.Exited.make({ phase: "run", code: 1 }))
      const ended = events.flatMap((event) => event._tag === "PhaseEnded" ? [event.usage] : [])
      yield* same("usage of both phases", ended, usage.phases)
    })
  ),

  define(
    "runs at the same time do not mix",
    [],
    Effect.gen(function*() {
      const names = ["a", "b", "c", "d", "e", "f"]
      const all = yield* Effect.forEach(
        names,
        (name) => run({ run: `cat file; cat; echo ${name} > other; cat other`, stdin: name, files: { file: name } }),
        { concurrency: 3 }
      )
      yield* same(
        "each one's own",
        all.map(({ stdout }) => stdout.toString()),
        names.map((name) => `${name}${name}${name}\n`)
      )
    })
  ),

  define(
    "nothing is adopted that never ran",
    [],
    Effect.scoped(Effect.gen(function*() {
      const assignment = yield* assignmentOf({ run: "true" })
      const found = yield* (yield* Executor).adopt(assignment)
      yield* expect("no run", found === undefined, found)
    }))
  )
]
