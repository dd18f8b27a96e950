/** Runs random bundles for a while in real sandboxes, several at once, and counts what is left of them. */
import { Effect, Fiber, Layer, References, Stream } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Pools from "../../../src/actors/Pools.ts"
import { command } from "../../../src/functions/Command.ts"
import * as Settings from "../../../src/layers/config/Settings.ts"
import { Executor } from "../../../src/layers/executor/Executor.ts"
import * as SandboxExecutor from "../../../src/layers/executor/SandboxExecutor.ts"
import * as Functions from "../../../src/layers/functions/Functions.ts"
import { ClassName, FunctionName } from "../../../src/schemas/Ids.ts"
import { resolve } from "../../../src/schemas/Limits.ts"
import type { Outcome } from "../../../src/schemas/Outcome.ts"
import { standardPool } from "../../../src/schemas/PoolConfig.ts"
import type { DriverName, SandboxClass } from "../../../src/schemas/SandboxClass.ts"
import { standardClass, standardConfig } from "../../../src/schemas/WorkerConfig.ts"
import { layerDrivers } from "../../../src/wiring.ts"
import { makeJob } from "../../actors/World.ts"
import * as Jobs from "../../sandbox/Jobs.ts"
import * as Dice from "../../simulation/Dice.ts"
import { projectRoot } from "../../support/Tree.ts"
import { type Bundle, judge, roll, warmDisk } from "./Bundle.ts"

const AT_ONCE = 3

const isV2 = existsSync("/sys/fs/cgroup/cgroup.controllers")

/** `actor.c` as a static program, made once: what it costs is its own. */
const buildActor = (): Uint8Array => {
  const folder = mkdtempSync(join(tmpdir(), "stoker-actor-"))
  try {
    const source = join(projectRoot, "test/limits/bundles/actor.c")
    execFileSync("cc", ["-O1", "-static", "-o", join(folder, "actor"), source])
    return readFileSync(join(folder, "actor"))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The two kinds of class that bundles ask for. */
const classesOf = (driver: DriverName): readonly [SandboxClass, SandboxClass] => {
  const own = standardClass("cold", driver)
  return [own, {
    ...own,
    name: ClassName.make("warm"),
    pool: { ...standardPool, minimum: 1, maximum: 2, disk: warmDisk }
  }]
}

const layerOf = (driver: DriverName, state: string) =>
  SandboxExecutor.layer.pipe(
    Layer.provide(Pools.layer({})),
    Layer.provideMerge(Layer.mergeAll(
      layerDrivers(state, [driver]),
      Functions.layer([command]),
      Settings.layer({ ...standardConfig, classes: classesOf(driver) })
    ))
  )

const start = Effect.fnUntraced(function*(driver: DriverName, bundle: Bundle, actor: string) {
  const [cold, warm] = classesOf(driver)
  const sandboxClass = bundle.class === "warm" ? warm : cold
  const { ceiling, defaults } = sandboxClass
  const limits = yield* resolve(ceiling, defaults, bundle.limits)
  const args = {
    argv: ["./actor", ...bundle.steps],
    files: [{ path: "actor", contentBase64: actor, executable: true }]
  }
  const job = { ...makeJob("a"), function: FunctionName.make("command"), args }
  const program = yield* (yield* Functions.Functions).program(job, { compile: ceiling, run: limits })
  return yield* (yield* Executor).start({ job, attempt: 1, class: sandboxClass, program })
})

/** How it ended; undefined if it was abandoned before. */
const play = Effect.fnUntraced(function*(driver: DriverName, bundle: Bundle, actor: string) {
  const run = yield* start(driver, bundle, actor)
  let outcome: Outcome | undefined
  const following = yield* Effect.forkScoped(Stream.runForEach(run.events, (event) =>
    Effect.sync(() => {
      if (event._tag === "Finished") outcome = event.outcome
    })))
  const { cancel } = bundle
  if (cancel?.how === "abandon") {
    yield* Effect.timeoutOption(Fiber.await(following), cancel.afterMs)
    return outcome
  }
  if (cancel?.how === "stop") {
    const { afterMs, graceMs } = cancel
    yield* Effect.forkScoped(Effect.delay(run.stop({ reason: "by chance", graceMs }), afterMs))
  }
  yield* Fiber.join(following)
  return outcome
}, Effect.scoped)

export interface Report {
  readonly seed: number
  readonly ran: number
  /** How often each outcome came. */
  readonly outcomes: Readonly<Record<string, number>>
  /** Bundles that did not end as they must, with their number. */
  readonly wrong: ReadonlyArray<string>
  /** What the host held when all was over. */
  readonly held: ReturnType<typeof Jobs.held>
}

/** Bundles of that seed, one after the other, until the time is over. The n-th bundle of a seed is always the same. */
export const runFor = Effect.fnUntraced(function*(options: {
  readonly driver: DriverName
  readonly seed: number
  readonly seconds: number
  readonly say: (line: string) => void
}) {
  const state = Jobs.stateDirectory()
  const actor = Buffer.from(buildActor()).toString("base64")
  const outcomes: Record<string, number> = {}
  const wrong: Array<string> = []
  const deadline = performance.now() + options.seconds * 1000
  let next = 0
  const one = Effect.gen(function*() {
    const number = next++
    const bundle = roll(Dice.make(options.seed * 1_000_003 + number), isV2)
    const outcome = yield* play(options.driver, bundle, actor).pipe(
      Effect.timeoutOrElse({
        duration: "2 minutes",
        orElse: () =>
          Effect.sync(() => void wrong.push(`#${number}: no end within 2 minutes: ${JSON.stringify(bundle)}`))
      })
    )
    if (outcome === undefined) {
      outcomes["abandoned"] = (outcomes["abandoned"] ?? 0) + 1
      if (bundle.cancel?.how !== "abandon") wrong.push(`#${number}: no outcome: ${JSON.stringify(bundle)}`)
      return
    }
    outcomes[outcome._tag] = (outcomes[outcome._tag] ?? 0) + 1
    const problem = judge(bundle, outcome)
    if (problem !== undefined) wrong.push(`#${number}: ${problem}: ${JSON.stringify({ outcome, ...bundle })}`)
    if (next % 500 === 0) options.say(`${next} bundles, ${wrong.length} wrong`)
  })
  const player = Effect.gen(function*() {
    while (performance.now() < deadline && wrong.length < 10) yield* one
  })
  yield* Effect.all(Array.from({ length: AT_ONCE }, () => player), { concurrency: "unbounded" }).pipe(
    Effect.andThen(Effect.sync(() => void Jobs.held(state))),
    Effect.provide(layerOf(options.driver, state)),
    Effect.provideService(References.MinimumLogLevel, "Warn")
  )
  const held = Jobs.held(state)
  Jobs.remove(state)
  const report: Report = { seed: options.seed, ran: next, outcomes, wrong, held }
  return report
})
