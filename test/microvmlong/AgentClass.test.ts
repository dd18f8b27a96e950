/**
 * Jobs of a class whose machines have a CodeBench agent, compiled and run by it. The image:
 * `stoker image build languages --languages c,python --state build`, or another one by STOKER_LANGUAGES_IMAGE.
 */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { realpathSync } from "node:fs"
import * as Rig from "../microvm/Rig.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"

const LIMIT = patience(240_000)
const image = realpathSync(process.env["STOKER_LANGUAGES_IMAGE"] ?? "build/machine-images/names/languages")

describe("a class of machines with a CodeBench agent and languages", () => {
  const state = Jobs.stateDirectory()
  afterAll(() => {
    const left = Rig.left(state, [])
    Jobs.remove(state)
    assert.deepStrictEqual(left, [])
  })
  const small = Rig.machineClass({ agent: "codebench", image })
  const memoryBytes = 256 * 1024 * 1024
  const sandboxClass = {
    ...small,
    ceiling: { ...small.ceiling, memoryBytes },
    defaults: { ...small.defaults, memoryBytes, wallMs: patience(60_000) }
  }
  const code = (language: string, source: string, more: Partial<Jobs.Wanted> = {}) =>
    Jobs.runIn(sandboxClass, { function: "code", args: { language, source }, ...more })

  layer(Jobs.layerOf(sandboxClass, state), { excludeTestServices: true, timeout: LIMIT })("on QEMU", (it) => {
    it.effect("compiles and runs C", () =>
      Effect.gen(function*() {
        const ran = yield* code(
          "c",
          "#include <stdio.h>\nint main(void) { puts(\"out\"); fputs(\"err\", stderr); return 3; }"
        )
        assert.deepStrictEqual(ran.outcome, { _tag: "Exited", phase: "run", code: 3 })
        assert.deepStrictEqual([ran.stdout.toString(), ran.stderr.toString()], ["out\n", "err"])
        assert.deepStrictEqual([ran.phases, ran.usage.phases.map(({ phase }) => phase)], [["run"], ["run"]])
        assert.isAbove(ran.usage.phases[0]?.cpuMicros ?? 0, 0)
      }), LIMIT)

    it.effect("tells what does not compile", () =>
      Effect.gen(function*() {
        const ran = yield* code("c", "int main(void) { return }")
        assert.deepStrictEqual(ran.outcome, { _tag: "Exited", phase: "compile", code: 1 })
        assert.include(ran.stderr.toString(), "error: expected expression")
        assert.deepStrictEqual([ran.phases, ran.usage.phases.map(({ phase }) => phase)], [["compile"], ["compile"]])
      }), LIMIT)

    it.effect("runs Python", () =>
      Effect.gen(function*() {
        const ran = yield* code("python", "import os\nprint(os.getuid(), flush=True)\nos.kill(os.getpid(), 11)")
        assert.deepStrictEqual(ran.outcome, { _tag: "Signalled", phase: "run", signal: 11 })
        assert.strictEqual(ran.stdout.toString(), "1000\n")
      }), LIMIT)

    it.effect("ends a machine whose program does not end", () =>
      Effect.gen(function*() {
        const ran = yield* code("python", "while True: pass", { limits: { wallMs: 5000 } })
        assert.deepStrictEqual(ran.outcome, { _tag: "TimedOut", phase: "run", limit: "wall", limitMs: 5000 })
      }), LIMIT)
  })
})
