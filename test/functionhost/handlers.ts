/** Functions for the tests of the function host: each does one thing that a handler may do, or must not. */
import { Effect, Schema } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { Function } from "stoker"

const nothing = Schema.Struct({})

export const idle = Function.make({
  name: "idle",
  description: "does nothing.",
  args: nothing,
  handler: () => Effect.void
})

export const greet = Function.make({
  name: "greet",
  description: "greets somebody.",
  args: Schema.Struct({ who: Schema.NonEmptyString, times: Schema.FiniteFromString.pipe(Schema.optionalKey) }),
  handler: Effect.fnUntraced(function*({ times = 1, who }, { attempt, id, owner, say }) {
    for (let n = 0; n < times; n++) yield* say(`hello ${who}`)
    return { id, owner, attempt, seen: who.length }
  })
})

export const fails = Function.make({
  name: "fails",
  description: "fails.",
  args: nothing,
  handler: () => Effect.fail({ reason: "nobody is at home" })
})

export const dies = Function.make({
  name: "dies",
  description: "has a bug.",
  args: nothing,
  handler: () => Effect.sync(() => JSON.parse("{"))
})

export const prints = Function.make({
  name: "prints",
  description: "gives back a long text.",
  args: Schema.Struct({ bytes: Schema.Int }),
  handler: ({ bytes }) => Effect.succeed("x".repeat(bytes))
})

export const measures = Function.make({
  name: "measures",
  description: "tells how long a text is.",
  args: Schema.Struct({ text: Schema.String }),
  handler: ({ text }) => Effect.succeed(text.length)
})

export const spins = Function.make({
  name: "spins",
  description: "never yields.",
  args: nothing,
  handler: () =>
    Effect.sync(() => {
      for (;;);
    })
})

export const sleeps = Function.make({
  name: "sleeps",
  description: "waits for an hour, and says so at its end.",
  args: nothing,
  handler: (_, { say }) =>
    Effect.andThen(say("asleep"), Effect.sleep("1 hour")).pipe(Effect.onInterrupt(() => say("woken")))
})

export const forgets = Function.make({
  name: "forgets",
  description: "waits for something that cannot come.",
  args: nothing,
  handler: () => Effect.promise(() => new Promise(() => {}))
})

export const grows = Function.make({
  name: "grows",
  description: "takes memory until there is none.",
  args: nothing,
  handler: () =>
    Effect.sync(() => {
      const kept: Array<Array<number>> = []
      for (;;) kept.push(Array.from({ length: 100_000 }, () => kept.length))
    })
})

export const marks = Function.make({
  name: "marks",
  description: "leaves something behind and tells what was there.",
  args: nothing,
  handler: () =>
    Effect.sync(() => {
      const there = existsSync("mark")
      writeFileSync("mark", "")
      const counter = globalThis as { calls?: number }
      counter.calls = (counter.calls ?? 0) + 1
      return { there, calls: counter.calls }
    })
})

export const pries = Function.make({
  name: "pries",
  description: "looks for what it must not see.",
  args: Schema.Struct({ paths: Schema.Array(Schema.String) }),
  handler: Effect.fnUntraced(function*({ paths }) {
    const read = paths.map((path) => {
      try {
        return statSync(path).isDirectory() ? readdirSync(path).join(",") : readFileSync(path, "utf8")
      } catch (error) {
        return error instanceof Error && "code" in error ? String(error.code) : String(error)
      }
    })
    const network = yield* Effect.callback<string>((resume) => {
      connect({ host: "1.1.1.1", port: 53 })
        .on("error", (error) => resume(Effect.succeed("code" in error ? String(error.code) : error.message)))
        .on("connect", () => resume(Effect.succeed("connected")))
    })
    return {
      read,
      network,
      uid: process.getuid?.(),
      env: Object.keys(process.env).toSorted(),
      argv: process.argv.length
    }
  })
})

export const limits = Function.make({
  name: "limits",
  description: "tells its limits.",
  args: nothing,
  handler: () => Effect.sync(() => execFileSync("cat", ["/proc/self/limits"]).toString())
})

/** Loads what it needs where it needs it. */
export const late = Function.make({
  name: "late",
  description: "imports something while it runs.",
  args: Schema.Struct({}),
  handler: () => Effect.promise(async () => typeof (await import("node:https")).request)
})
