/**
 * Functions of one's own: `stoker worker --functions examples/my-functions.ts`. Handlers run inside the sandbox, in a Node
 * process that waited for them; a program runs whatever the sandbox has.
 */
import { Effect, Schema } from "effect"
import { Function, Program } from "stoker"

/** Counts the words of a text; what it gives back is printed as `[RESULT] …`. */
export const words = Function.make({
  name: "words",
  description: "counts the words of a text and names the most frequent one.",
  args: Schema.Struct({ text: Schema.String, ignoreCase: Schema.optionalKey(Schema.Boolean) }),
  positional: { text: "text" },
  handler: ({ ignoreCase = false, text }) =>
    Effect.sync(() => {
      const found = (ignoreCase ? text.toLowerCase() : text).match(/\p{L}+/gu) ?? []
      const counts = Map.groupBy(found, (word) => word)
      const [most] = [...counts].toSorted(([, one], [, other]) => other.length - one.length)
      return { words: found.length, different: counts.size, ...(most === undefined ? {} : { most: most[0] }) }
    })
})

/** The way of a number to 1, one line for each step; whoever follows the job sees them as they come. */
export const collatz = Function.make({
  name: "collatz",
  description: "halves even numbers and takes 3n + 1 of odd ones until it is at 1.",
  args: Schema.Struct({
    from: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 }, { expected: "a number to 1000000" }))
  }),
  positional: { from: "number" },
  handler: Effect.fnUntraced(function*({ from }, { say }) {
    let steps = 0
    for (let n = from; n !== 1; n = n % 2 === 0 ? n / 2 : 3 * n + 1) {
      yield* say(`${n}`)
      steps += 1
    }
    return `${steps} steps`
  })
})

/** A program of the sandbox: no Node is needed for it. */
export const checksum = Function.make({
  name: "checksum",
  description: "prints the SHA-256 of a text.",
  args: Schema.Struct({ text: Schema.String }),
  positional: { text: "text" },
  program: ({ text }, { run }) => Effect.succeed(Program.ofRun({ argv: ["sha256sum"], stdin: text, limits: run }))
})
