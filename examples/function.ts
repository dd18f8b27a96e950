/** A function of one's own: a name, the arguments it takes, and the program it makes of them. */
import { Effect, Schema } from "effect"
import { Function, Program } from "stoker"

const script = `import sys
last = int(sys.argv[1])
for n in range(2, last + 1):
    if all(n % d for d in range(2, int(n ** 0.5) + 1)):
        print(n)
`

/** What a job's `args` must be. Anything else is refused before a sandbox is taken, with what would be right. */
export const PrimesArgs = Schema.Struct({
  upTo: Schema.Int.check(
    Schema.isBetween({ minimum: 2, maximum: 1_000_000 }, { expected: "a number from 2 to 1000000" })
  )
})

/** Prints the primes up to a number. */
export const primes = Function.make({
  name: "primes",
  description: "prints the primes up to a number.",
  args: PrimesArgs,
  program: ({ upTo }, { run }) =>
    Effect.succeed(Program.ofRun({
      files: { "primes.py": script },
      argv: ["python3", "primes.py", String(upTo)],
      limits: run
    }))
})
