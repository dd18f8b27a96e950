/** Files that a job leaves come back exactly, or not at all. */
import { Effect } from "effect"
import { Outcome } from "../../schemas/Outcome.ts"
import { define, expect, same } from "../Case.ts"
import { run, slowly, stopAt } from "../Runs.ts"

const MiB = 1024 * 1024

export const artefacts = [
  define(
    "artefacts are exact: binary, empty, in folders, of some megabytes, whatever the exit",
    [],
    Effect.gen(function*() {
      const python =
        "import os, sys\nos.makedirs('d/e')\nopen('d/e/all', 'wb').write(bytes(range(256)))\nopen('empty', 'wb')\n" +
        "open('large', 'wb').write(bytes(i * 7 % 251 for i in range(3 * 2**20)))\nsys.exit(9)"
      const ran = yield* run({
        run: { python },
        files: { given: "as it was" },
        artefacts: ["d/e/all", "empty", "large", "given"]
      })
      yield* same("the outcome", ran.outcome, Outcome.cases.Exited.make({ phase: "run", code: 9 }))
      yield* same("the artefacts", [...ran.artefacts.keys()], ["d/e/all", "empty", "large", "given"])
      yield* same("d/e/all", [...ran.artefacts.get("d/e/all") ?? []], Array.from({ length: 256 }, (_, index) => index))
      yield* same("empty", ran.artefacts.get("empty")?.length, 0)
      yield* same("given", ran.artefacts.get("given")?.toString(), "as it was")
      const large = ran.artefacts.get("large") ?? Buffer.of()
      const isExact = large.length === 3 * MiB && large.every((byte, index) => byte === (index * 7) % 251)
      yield* expect("large to be exact", isExact, `${large.length} bytes`)
    })
  ),

  define(
    "what is missing, no regular file, or leads out of the workspace does not come, and harms no other",
    [],
    Effect.gen(function*() {
      const ran = yield* run({
        run:
          "mkdir d; printf hi > d/a; ln -s /etc/passwd link; ln -s /etc out; ln -s ../../../../etc up; mkfifo pipe; echo x > secret; chmod 000 secret",
        artefacts: ["absent", "link", "out/passwd", "up/passwd", "pipe", "d", "d/a"]
      })
      yield* same("those that are missing", [...ran.missing.keys()], [
        "absent",
        "link",
        "out/passwd",
        "up/passwd",
        "pipe",
        "d"
      ])
      yield* expect("a reason for each", [...ran.missing.values()].every((reason) => reason !== ""), ran.missing)
      yield* same("the outcome", ran.outcome, Outcome.cases.Exited.make({ phase: "run", code: 0 }))
      yield* same("the artefacts", [...ran.artefacts].map(([path, bytes]) => [path, bytes.toString()]), [["d/a", "hi"]])
    })
  ),

  define(
    "they are bounded together, and a small one still comes after one that is too large",
    [],
    Effect.gen(function*() {
      const ran = yield* run({
        run: "head -c 600000 /dev/zero > a; head -c 600000 /dev/zero > b; head -c 400000 /dev/zero > c",
        artefactBytes: 1_000_000,
        artefacts: ["a", "b", "c"]
      })
      const came = [...ran.artefacts].map(([path, { length }]) => `${path} ${length}`)
      yield* same("the artefacts", came, ["a 600000", "c 400000"])
      yield* same("those that are missing", [...ran.missing.keys()], ["b"])
    })
  ),

  define(
    "what a job had written when its time was up, when it died or was stopped, comes back",
    [],
    Effect.gen(function*() {
      const artefacts = ["out"]
      const late = yield* run({
        run: "echo part > out; sleep 100",
        limits: { wallMs: yield* slowly(500) },
        artefacts
      })
      const died = yield* run({ run: "echo part > out; kill -9 $$", artefacts })
      const ended = yield* run({ run: "echo part > out; echo up; sleep 100", artefacts, onEvent: stopAt("up", 0) })
      const all = [late, died, ended]
      yield* same("the outcomes", all.map(({ outcome }) => outcome._tag), ["TimedOut", "Signalled", "Stopped"])
      yield* same("out", all.map(({ artefacts }) => artefacts.get("out")?.toString()), ["part\n", "part\n", "part\n"])
    })
  ),

  define(
    "what is too large does not come, the small one after it does",
    [],
    Effect.gen(function*() {
      const ran = yield* run({
        run: "head -c 60000000 /dev/zero > large; echo small > small",
        artefacts: ["large", "small"],
        limits: { fileBytes: 64 * MiB, memoryBytes: 256 * MiB }
      })
      yield* same("the outcome", ran.outcome, Outcome.cases.Exited.make({ phase: "run", code: 0 }))
      yield* same("the artefacts", [...ran.artefacts.keys()], ["small"])
    })
  )
]
