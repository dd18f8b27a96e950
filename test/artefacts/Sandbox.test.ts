/** Files of real sandboxes: which come back, and what is said of the others. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Outcome } from "../../src/schemas/Outcome.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"

const MiB = 1024 * 1024

const exited = (code: number) => Outcome.cases.Exited.make({ phase: "run", code })
const shell = (script: string) => ({ args: { argv: ["/bin/sh", "-c", script] } })

for (const driver of ["oci", "process"] as const) {
  const state = Jobs.stateDirectory()
  const run = (wanted: Jobs.Wanted) => Jobs.run(driver, wanted)

  describe(`artefacts of jobs on ${driver}`, () => {
    afterAll(() => Jobs.remove(state))

    layer(Jobs.layer(driver, state), { excludeTestServices: true, timeout: patience(60_000) })(
      "in one executor",
      (it) => {
        it.effect("artefacts come back; what is none, or points out of the workspace, does not, and says why", () =>
          Effect.gen(function*() {
            const ran = yield* run({
              ...shell(
                "mkdir d; printf hi > d/a; : > empty; ln -s /etc/shadow link; ln -s /etc up; mkfifo pipe; "
                  + "truncate -s 10G sparse; ln -s d/a inside"
              ),
              limits: { fileBytes: 20 * 1024 * MiB },
              ceiling: { fileBytes: 20 * 1024 * MiB },
              artefacts: ["d/a", "empty", "link", "up/shadow", "inside", "pipe", "d", "sparse", "d/a/b", "absent"]
            })
            assert.deepStrictEqual(ran.outcome, exited(0))
            assert.deepStrictEqual([...ran.artefacts].map(([path, bytes]) => [path, bytes.toString()]), [
              ["d/a", "hi"],
              ["empty", ""]
            ])
            assert.deepStrictEqual([...ran.missing.keys()], [
              "link",
              "up/shadow",
              "inside",
              "pipe",
              "d",
              "sparse",
              "d/a/b",
              "absent"
            ])
            for (const path of ["link", "up/shadow", "inside"]) assert.include(ran.missing.get(path), "symbolic link")
            for (const path of ["pipe", "d"]) assert.include(ran.missing.get(path), "not a regular file")
            for (const path of ["d/a/b", "absent"]) assert.include(ran.missing.get(path), "no such file")
            assert.include(ran.missing.get("sparse"), "too large")
          }))

        it.effect("artefacts are bounded together, and a small one still comes after one that is too large", () =>
          Effect.gen(function*() {
            const ran = yield* run({
              ...shell("head -c 600000 /dev/zero > a; head -c 600000 /dev/zero > b; head -c 400000 /dev/zero > c"),
              artefactBytes: 1_000_000,
              artefacts: ["a", "b", "c"]
            })
            assert.deepStrictEqual([...ran.artefacts].map(([path, { length }]) => `${path} ${length}`), [
              "a 600000",
              "c 400000"
            ])
            assert.include(ran.missing.get("b"), "400000 left of the 1000000")
          }))

        it.effect("what a job had written when its time was up, when it died or was stopped, comes back", () =>
          Effect.gen(function*() {
            const late = yield* run({
              ...shell("echo part > out; sleep 60"),
              limits: { wallMs: 500 },
              artefacts: ["out"]
            })
            assert.strictEqual(late.outcome._tag, "TimedOut")
            assert.strictEqual(late.artefacts.get("out")?.toString(), "part\n")
            const died = yield* run({ ...shell("echo part > out; kill -9 $$"), artefacts: ["out"] })
            assert.strictEqual(died.outcome._tag, "Signalled")
            assert.strictEqual(died.artefacts.get("out")?.toString(), "part\n")
            const stopped = yield* run({
              ...shell("echo part > out; echo go; sleep 60"),
              artefacts: ["out"],
              onOutput: (_, stop) => stop
            })
            assert.strictEqual(stopped.outcome._tag, "Stopped")
            assert.strictEqual(stopped.artefacts.get("out")?.toString(), "part\n")
          }))
      }
    )
  })
}
