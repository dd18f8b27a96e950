/** The compile cache under real compilers in real sandboxes. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { readFileSync, truncateSync } from "node:fs"
import { join } from "node:path"
import * as Pools from "../../src/actors/Pools.ts"
import { code } from "../../src/functions/Code.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import { Executor, type RunEvent } from "../../src/layers/executor/Executor.ts"
import * as SandboxExecutor from "../../src/layers/executor/SandboxExecutor.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import * as DiskSpaceTest from "../../src/layers/host/DiskSpaceTest.ts"
import { FunctionName, IntakeName, Owner } from "../../src/schemas/Ids.ts"
import { standardCeiling, standardDefaults } from "../../src/schemas/Limits.ts"
import type { WorkPath } from "../../src/schemas/Program.ts"
import type { DriverName } from "../../src/schemas/SandboxClass.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerCompileCache, layerDrivers } from "../../src/wiring.ts"
import { makeJob } from "../actors/World.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { until } from "../worker/until.ts"
import * as Cache from "./Cache.ts"

interface Worker {
  readonly state: string
  readonly compileCacheBytes?: number
  readonly driver?: DriverName
}

/** Everything of one worker that a program's way needs. */
const layerOf = ({ compileCacheBytes = standardConfig.compileCacheBytes, driver = "oci", state }: Worker) => {
  const config = { ...standardConfig, compileCacheBytes, classes: [standardClass(driver, driver)] as const }
  return SandboxExecutor.layer.pipe(
    Layer.provide(layerCompileCache(config)),
    Layer.provide(Pools.layer({})),
    Layer.provideMerge(Layer.mergeAll(
      layerDrivers(state, [driver]),
      Functions.layer([code]),
      Settings.layer(config),
      DiskSpaceTest.layerTest()
    ))
  )
}

interface Wanted {
  readonly language?: "c" | "cpp" | "go" | "python"
  readonly source?: string
  readonly files?: ReadonlyArray<{ readonly path: string; readonly content: string }>
  readonly compilerArgs?: ReadonlyArray<string>
  readonly args?: ReadonlyArray<string>
  readonly cache?: boolean
}

interface Whose {
  readonly owner?: string
  readonly intake?: string
  readonly driver?: DriverName
}

/** Runs it, and what was told, in order. */
const runJob = Effect.fnUntraced(function*(wanted: Wanted, { driver = "oci", intake, owner }: Whose = {}) {
  const job = {
    ...makeJob("a"),
    function: FunctionName.make("code"),
    args: JSON.parse(JSON.stringify({ language: "c", ...wanted })),
    ...(owner === undefined ? {} : { owner: Owner.make(owner) }),
    ...(intake === undefined ? {} : { intake: IntakeName.make(intake) })
  }
  const limits = { compile: standardCeiling, run: standardDefaults }
  const program = yield* (yield* Functions.Functions).program(job, limits)
  const artefacts = ["program" as WorkPath]
  const { events } = yield* (yield* Executor).start({
    job,
    attempt: 1,
    class: standardClass(driver, driver),
    program: { ...program, artefacts }
  })
  const told: Array<RunEvent> = []
  yield* Stream.runForEach(events, (event) => Effect.sync(() => told.push(event)))
  const last = told.at(-1)
  if (last?._tag !== "Finished") return yield* Effect.die("the run ended without an outcome")
  const output = (stream: string) =>
    Buffer.concat(told.flatMap((event) => event._tag === "Output" && event.stream === stream ? [event.bytes] : []))
  const steps = told.map((event) => "phase" in event ? `${event._tag} ${event.phase}` : event._tag)
  return {
    outcome: last.outcome,
    phases: last.usage.phases,
    cached: last.usage.phases[0]?.cached === true,
    stdout: output("stdout").toString("latin1"),
    stderr: output("stderr").toString("latin1"),
    program: told.flatMap((event) => event._tag === "Artefact" ? [Buffer.from(event.content).toString("base64")] : [])
      .join(),
    steps: steps.filter((step, index) => step !== steps[index - 1] && step !== "Artefact")
  }
}, Effect.scoped)

/** What is written down beside the run is there. */
const kept = (state: string, entries: number) =>
  Effect.promise(() => until("an entry in the compile cache", () => Cache.entriesOf(state).length >= entries))

const HELLO = "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 3; }\n"

describe("programs that were compiled before", () => {
  let root = ""
  let states = 0
  beforeAll(() => {
    root = Jobs.stateDirectory()
  })
  afterAll(() => Jobs.remove(root))

  /** A state directory of its own, and workers over it. */
  const makeState = () => {
    const state = join(root, String(states++))
    return {
      state,
      worker: <A, E>(
        body: Effect.Effect<A, E, Executor | Functions.Functions>,
        options: Partial<Worker> = {}
      ) => Effect.scoped(Effect.provide(body, layerOf({ state, ...options })))
    }
  }
  const slow = { timeout: 60_000 }

  it.live("are not compiled again, and that is all the difference", () => {
    const { state, worker } = makeState()
    // What the program can see of itself.
    const source = "#include <stdlib.h>\nint main(void) { return system(\"id -u; pwd; stat -c '%A %U %s %n' .* *; " +
      "sha256sum *; echo ran\") != 0; }\n#warning \"caf\xe9\"\n"
    return worker(Effect.gen(function*() {
      const miss = yield* runJob({ source, compilerArgs: ["-Wall"] })
      assert.isFalse(miss.cached)
      yield* kept(state, 1)
      const hit = yield* runJob({ source, compilerArgs: ["-Wall"] })
      assert.isTrue(hit.cached)
      assert.match(hit.stdout, /-rwxr-xr-x job \d+ program\n/)
      assert.match(hit.stdout, /ran\n$/)
      assert.match(hit.stderr, /warning: #warning "caf/)
      assert.isNotEmpty(hit.program)
      const { cached: _, phases, ...others } = miss
      const { cached: __, phases: hitPhases, ...hitOthers } = hit
      assert.deepStrictEqual(hitOthers, others)
      const written = (of: typeof phases) =>
        of.map(({ phase, stderrBytes, stdoutBytes }) => ({ phase, stderrBytes, stdoutBytes }))
      assert.deepStrictEqual(written(hitPhases), written(phases))
      assert.isAbove(hitPhases[0]?.wallMicros ?? 0, 0)
      assert.strictEqual(hitPhases[1]?.cached, undefined)
      assert.isAbove(hitPhases[1]?.wallMicros ?? 0, 0)
    }))
  }, slow)

  it.live("are those of one owner at one door, with the same files and options, and of no other", () => {
    const { state, worker } = makeState()
    const main = { path: "main.c", content: "#include \"a.h\"\nint main(void) { return A; }" }
    const files = [main, { path: "a.h", content: "#define A 4" }]
    return worker(Effect.gen(function*() {
      const others: ReadonlyArray<readonly [Wanted, Whose?]> = [
        [{ files }],
        [{ files }, { owner: "bob" }],
        [{ files }, { intake: "codebench" }],
        [{ files, compilerArgs: ["-DB"] }],
        [{ files: [main, { path: "a.h", content: "#define A 5" }] }],
        [{ files: [...files, { path: "data", content: "1" }] }]
      ]
      for (const [n, [wanted, whose]] of others.entries()) {
        const ran = yield* runJob(wanted, whose)
        assert.isFalse(ran.cached, String(n))
        assert.deepInclude(ran.outcome, { _tag: "Exited", phase: "run", code: n === 4 ? 5 : 4 })
        yield* kept(state, n + 1)
      }
      for (const [n, [wanted, whose]] of others.entries()) {
        // What is only the program's makes no other one.
        const ran = yield* runJob({ ...wanted, args: ["other"] }, whose)
        assert.isTrue(ran.cached, String(n))
        assert.deepInclude(ran.outcome, { _tag: "Exited", phase: "run", code: n === 4 ? 5 : 4 })
      }
    }))
  }, slow)

  it.live("did compile then: what fails is compiled each time", () => {
    const { state, worker } = makeState()
    return worker(Effect.gen(function*() {
      for (const _ of [1, 2]) {
        const { cached, outcome, stderr } = yield* runJob({ source: "int main(void) { return x; }" })
        assert.isFalse(cached)
        assert.deepInclude(outcome, { _tag: "Exited", phase: "compile", code: 1 })
        assert.match(stderr, /error/)
      }
      assert.deepStrictEqual(Cache.entriesOf(state), [])
    }))
  }, slow)

  it.live("are as the compiler left them, whatever they did to themselves", () => {
    const { state, worker } = makeState()
    const source =
      "#include <stdio.h>\n#include <sys/stat.h>\n#include <unistd.h>\nint main(void) { puts(\"clean\"); " +
      "unlink(\"program\"); FILE *f = fopen(\"program\", \"w\"); fputs(\"#!/bin/sh\\necho poisoned\\n\", f); fclose(f); " +
      "chmod(\"program\", 0755); return 0; }"
    return worker(Effect.gen(function*() {
      const first = yield* runJob({ source })
      // It did it.
      assert.strictEqual(Buffer.from(first.program, "base64").toString(), "#!/bin/sh\necho poisoned\n")
      yield* kept(state, 1)
      for (const _ of [1, 2]) {
        const { cached, stdout } = yield* runJob({ source })
        assert.isTrue(cached)
        assert.strictEqual(stdout, "clean\n")
      }
    }))
  }, slow)

  it.live("are compiled again when the file is damaged, and then not again", () => {
    const { state, worker } = makeState()
    return worker(Effect.gen(function*() {
      yield* runJob({ source: HELLO })
      yield* kept(state, 1)
      const path = join(Cache.folderOf(state), Cache.entriesOf(state)[0] ?? "")
      const whole = readFileSync(path)
      truncateSync(path, whole.length - 1)
      const again = yield* runJob({ source: HELLO })
      assert.isFalse(again.cached)
      assert.strictEqual(again.stdout, "hello\n")
      yield* kept(state, 1)
      assert.isTrue((yield* runJob({ source: HELLO })).cached)
    }))
  }, slow)

  it.live("are there after a restart, at once when a worker ends with its only job, and for a worker beside", () => {
    const { state, worker } = makeState()
    return Effect.gen(function*() {
      assert.isFalse((yield* worker(runJob({ source: HELLO }))).cached)
      // Without waiting: its end did.
      assert.lengthOf(Cache.entriesOf(state), 1)
      yield* worker(Effect.gen(function*() {
        assert.isTrue((yield* runJob({ source: HELLO })).cached)
        assert.isTrue((yield* worker(runJob({ source: HELLO }))).cached)
        assert.isFalse((yield* worker(runJob({ source: `${HELLO}// other` }))).cached)
        assert.isTrue((yield* runJob({ source: `${HELLO}// other` })).cached)
      }))
    })
  }, slow)

  it.live("are compiled each time with the cache off, for the worker or for the job", () => {
    const { state, worker } = makeState()
    return Effect.gen(function*() {
      for (const _ of [1, 2]) {
        assert.isFalse((yield* worker(runJob({ source: HELLO }), { compileCacheBytes: 0 })).cached)
        assert.isFalse((yield* worker(runJob({ source: HELLO, cache: false }))).cached)
      }
      assert.deepStrictEqual(Cache.entriesOf(state), [])
      yield* worker(runJob({ source: HELLO }))
      assert.isFalse((yield* worker(runJob({ source: HELLO, cache: false }))).cached)
      assert.isFalse((yield* worker(runJob({ source: HELLO }), { compileCacheBytes: 0 })).cached)
      assert.isTrue((yield* worker(runJob({ source: HELLO }))).cached)
    })
  }, slow)

  it.live("are compiled each time where a compile sees more than its root: with the driver process", () => {
    const { state, worker } = makeState()
    return worker(
      Effect.gen(function*() {
        for (const _ of [1, 2]) {
          const { cached, stdout } = yield* runJob({ source: HELLO }, { driver: "process" })
          assert.isFalse(cached)
          assert.strictEqual(stdout, "hello\n")
        }
        assert.deepStrictEqual(Cache.entriesOf(state), [])
      }),
      { driver: "process" }
    )
  }, slow)

  it.live("may be a Go module: the program, and the go.mod that the build brought up to date", () => {
    const { state, worker } = makeState()
    const main =
      "package main\nimport (\"fmt\"; \"os\")\nfunc main() { b, _ := os.ReadFile(\"go.mod\"); fmt.Print(string(b)) }"
    const files = [{ path: "go.mod", content: "module m\n" }, { path: "main.go", content: main }]
    return worker(Effect.gen(function*() {
      const miss = yield* runJob({ language: "go", files })
      assert.isFalse(miss.cached)
      assert.match(miss.stdout, /module m/)
      yield* kept(state, 1)
      const hit = yield* runJob({ language: "go", files })
      assert.isTrue(hit.cached)
      assert.strictEqual(hit.stdout, miss.stdout)
      assert.strictEqual(hit.program, miss.program)
      assert.isAbove(hit.program.length, 1_000_000)
    }))
  }, { timeout: 120_000 })
})
