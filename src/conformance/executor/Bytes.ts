/** What goes in and comes out of a program is exact to the byte. */
import { Effect } from "effect"
import { Outcome } from "../../schemas/Outcome.ts"
import { baseEnv } from "../../schemas/Program.ts"
import { define, expect, same } from "../Case.ts"
import { type Ran, run, slowly, within } from "../Runs.ts"

const MiB = 1024 * 1024
const exited = Outcome.cases.Exited.make({ phase: "run", code: 0 })
const room = { outputBytes: 16 * MiB }

/** Bytes without a period that a lost, doubled or swapped piece could hide in. */
const noise = (length: number, seed: number): Buffer => {
  const bytes = Buffer.alloc(length)
  let state = seed
  for (let index = 0; index < length; index++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff
    bytes[index] = state >>> 16
  }
  return bytes
}

const wrote = Effect.fnUntraced(function*(ran: Ran, stream: "stdout" | "stderr", expected: Uint8Array) {
  const seen = ran[stream]
  if (seen.equals(expected)) return
  const from = seen.findIndex((byte, index) => byte !== expected[index])
  const first = from < 0 ? Math.min(seen.length, expected.length) : from
  yield* expect(
    `${expected.length} exact bytes on ${stream}`,
    false,
    `${seen.length} bytes, the first difference at ${first}: ${ran.outcome._tag} ${
      seen.subarray(first, first + 16).toString("hex")
    }`
  )
})

export const bytes = [
  define(
    "each byte value arrives as it was written, NUL and no newline at the end included, both streams apart",
    [],
    Effect.gen(function*() {
      const python =
        "import os\nx = bytes(range(256))\nos.write(1, x + b'\\n\\n' + x)\nos.write(2, x[::-1])\nos.write(1, b'\\0')"
      const ran = yield* run({ run: { python } })
      const all = Buffer.from(Array.from({ length: 256 }, (_, value) => value))
      yield* same("the outcome", ran.outcome, exited)
      yield* wrote(ran, "stdout", Buffer.concat([all, Buffer.from("\n\n"), all, Buffer.of(0)]))
      yield* wrote(ran, "stderr", all.toReversed())
    })
  ),

  define(
    "five megabytes arrive byte for byte, and so do as many through stdin",
    [],
    Effect.gen(function*() {
      const stdin = noise(5 * MiB, 7)
      const ran = yield* run({ run: "cat", stdin, limits: room })
      yield* same("the outcome", ran.outcome, exited)
      yield* wrote(ran, "stdout", stdin)
      yield* wrote(ran, "stderr", Buffer.of())
    })
  ),

  define(
    "five megabytes on both streams at once are kept apart",
    [],
    Effect.gen(function*() {
      const stdin = noise(5 * MiB, 11)
      const ran = yield* run({ run: "tee /dev/stderr", stdin, limits: room })
      yield* same("the outcome", ran.outcome, exited)
      yield* wrote(ran, "stdout", stdin)
      yield* wrote(ran, "stderr", stdin)
    })
  ),

  define(
    "many small writes keep their order",
    [],
    Effect.gen(function*() {
      const ran = yield* run({ run: { python: "import os\nfor i in range(2000): os.write(1, b'%d,' % i)" } })
      yield* wrote(ran, "stdout", Buffer.from(Array.from({ length: 2000 }, (_, index) => `${index},`).join("")))
    })
  ),

  define(
    "who writes nothing has empty streams",
    [],
    Effect.gen(function*() {
      const ran = yield* run({ run: "true" })
      yield* same("both streams", [ran.stdout.length, ran.stderr.length], [0, 0])
    })
  ),

  define(
    "what was written last before the end arrives, also of who dies",
    [],
    Effect.gen(function*() {
      const ran = yield* run({ run: "printf out; printf err >&2; kill -9 $$" })
      yield* same("both streams", [ran.stdout.toString(), ran.stderr.toString()], ["out", "err"])
    })
  ),

  define(
    "stdin without a byte is at its end",
    [],
    Effect.gen(function*() {
      const ran = yield* run({ run: "cat; echo end" })
      yield* same("stdout", ran.stdout.toString(), "end\n")
    })
  ),

  define(
    "stdin is exact, NUL included",
    [],
    Effect.gen(function*() {
      const stdin = Buffer.from("a\u0000b\r\n\nc\u0004 é")
      const ran = yield* run({ run: "cat", stdin })
      yield* wrote(ran, "stdout", stdin)
    })
  ),

  define(
    "stdin that nobody reads holds nobody up",
    [],
    Effect.gen(function*() {
      const ran = yield* run({ run: "echo done", stdin: noise(3 * MiB, 3) })
      yield* same("the outcome", ran.outcome, exited)
      yield* same("stdout", ran.stdout.toString(), "done\n")
    })
  ),

  define(
    "stdin is the run phase's own",
    [],
    Effect.gen(function*() {
      const ran = yield* run({ compile: "cat", run: "cat", stdin: "input" })
      yield* same("stdout", ran.stdout.toString(), "input")
    })
  ),

  define(
    "arguments are exact",
    [],
    Effect.gen(function*() {
      const args = ["", " two  words ", "a\nb", "\"'`$HOME\\", "*", "--", "-x", "é✓", "x".repeat(100_000)]
      const python = "import os, sys\nos.write(1, b'\\0'.join(os.fsencode(a) for a in sys.argv[1:]))"
      const ran = yield* run({ run: { python, args } })
      yield* wrote(ran, "stdout", Buffer.from(args.join("\u0000")))
    })
  ),

  define(
    "the environment is that of the phase and nothing else",
    [],
    Effect.gen(function*() {
      const env = {
        EMPTY: "",
        "with-dash": "a=b",
        LINES: "a\nb",
        UTF: "é✓",
        LONG: "x".repeat(50_000),
        PATH: "/usr/bin:/bin"
      }
      const python = "import os\nos.write(1, open('/proc/self/environ', 'rb').read())"
      const { stdout } = yield* run({ run: { python }, env })
      const seen = stdout.toString().split("\u0000").filter((line) => line !== "").toSorted()
      // Where the workspace is differs from driver to driver, and these two with it.
      const isOwn = (line: string) => !/^(?:HOME|TMPDIR)=/.test(line)
      const expected = Object.entries({ ...baseEnv, ...env }).map(([name, value]) => `${name}=${value}`).toSorted()
      yield* same("the environment", seen.filter(isOwn), expected.filter(isOwn))
      yield* same("HOME and TMPDIR", seen.filter((line) => !isOwn(line)).map((line) => line.split("=")[0]), [
        "HOME",
        "TMPDIR"
      ])
    })
  ),

  define(
    "a variable of the job's own wins over every default",
    [],
    Effect.gen(function*() {
      const { stdout } = yield* run({
        run: "printf '%s %s %s' \"$HOME\" \"$TMPDIR\" \"$LANG\"",
        env: { HOME: "/a", TMPDIR: "/b", LANG: "C" }
      })
      yield* same("stdout", stdout.toString(), "/a /b C")
    })
  ),

  define(
    "both phases begin in the workspace, where the files are, and may write there",
    [],
    Effect.gen(function*() {
      const ran = yield* run({
        compile: "pwd; cat given/file > made",
        run: "pwd; cat made given/file; ./tool",
        files: { "given/file": "text " },
        executables: { tool: "#!/bin/sh\nprintf tool" }
      })
      const [first, second, rest] = ran.stdout.toString().split("\n")
      yield* same("the outcome", ran.outcome, exited)
      yield* expect("the same directory twice", first !== "" && first === second, ran.stdout.toString())
      yield* same("the rest of stdout", rest, "text text tool")
    })
  ),

  define(
    "a daemon that holds the pipes does not hold up the end, nor outlive it",
    [],
    Effect.gen(function*() {
      const ran = yield* within(
        20_000,
        run({ run: "(setsid sleep 1000 &); (setsid sh -c 'trap \"\" TERM HUP; sleep 1000' &); echo started" })
      )
      yield* same("the outcome", ran?.outcome, exited)
      yield* same("stdout", ran?.stdout.toString(), "started\n")
      yield* expect(
        "an end long before the daemon's",
        (ran?.last.wallMicros ?? 0) < (yield* slowly(20_000)) * 1000,
        ran?.last
      )
    })
  )
]
