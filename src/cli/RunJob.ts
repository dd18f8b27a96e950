/** `stoker run`: one job on a worker of its own, in this process, over a state directory it may share. */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Effect, Layer, Option } from "effect"
import { Worker } from "../actors/Worker.ts"
import { programs } from "../functions/BuiltIn.ts"
import { Control } from "../layers/control/Control.ts"
import { Direct } from "../layers/intake/Direct.ts"
import { IntakeName } from "../schemas/Ids.ts"
import { keyOf } from "../schemas/Job.ts"
import { layerWorker } from "../wiring.ts"
import { attend } from "./Attend.ts"
import { bringOut, type BringOutFlags, checkOut } from "./BringOut.ts"
import { CliFailure, ExitWith, exitWith } from "./CliFailure.ts"
import { exitCode, exitCodeOf } from "./ExitCode.ts"
import { type JobOptions, requestOf } from "./JobSource.ts"
import * as Loggers from "./Loggers.ts"
import * as Signals from "./Signals.ts"
import { stateDirectory } from "./StateDirectory.ts"
import { viewFor, type ViewOptions } from "./Views.ts"
import { configForOne, type DriverChoice, driverOf, noIsolation } from "./WorkerConfigs.ts"

export interface RunOptions extends JobOptions, ViewOptions, Pick<BringOutFlags, "out" | "overwrite"> {
  readonly state: Option.Option<string>
  readonly driver: Option.Option<DriverChoice>
}

const DOOR = "cli"

const turnedAway = (reason: string, remedy: string, code: number) =>
  Effect.fail(new CliFailure({ reason, remedy, code }))

/** Runs it and ends with its exit code. */
export const runJob = Effect.fn("RunJob.runJob")(
  function*(options: RunOptions) {
    const flags = { ...options, json: options.json || options.events }
    yield* checkOut(flags)
    const signals = yield* Signals.take
    const directory = yield* stateDirectory(options.state)
    const driver = yield* driverOf(options.driver, options.class)
    const request = yield* requestOf(options, { intake: IntakeName.make(DOOR), prefix: "run", command: "run" })
    const view = yield* viewFor(options)
    if (driver === "process" && !options.quiet) yield* view.note(noIsolation)

    const enter = Effect.flatMap(Direct, (direct) => direct.submit(request)).pipe(
      Effect.map(Effect.flatMap((parted) => {
        switch (parted._tag) {
          case "Settled":
            return Effect.never
          case "Rejected":
            return turnedAway(`the job was rejected: ${parted.reason}`, "Try again.", exitCode.rejected)
          case "GivenBack":
            return turnedAway("the worker gave the job back", "LOG_LEVEL=Info shows why.", exitCode.trouble)
        }
      }))
    )
    const life = Effect.gen(function*() {
      const control = yield* Control
      const key = keyOf(request.job)
      const report = yield* attend({ key, driver, enter, view, signals })
      yield* bringOut(
        flags,
        report,
        exitCodeOf(report.outcome) === 0,
        (path, range) => control.artefact(key, path, range),
        view
      )
      // The sandbox is removed meanwhile.
      yield* (yield* Worker).drain
      return report
    }).pipe(
      Effect.provide(layerWorker({
        stateDirectory: directory,
        config: configForOne(driver, options.limits, Option.getOrUndefined(options.container.image)),
        embedded: false,
        direct: DOOR,
        functions: programs
      }))
    )
    const forced = Effect.andThen(signals.second, Effect.fail(new ExitWith({ code: exitCode.stopped })))
    const { outcome } = yield* Effect.raceFirst(life, forced)
    yield* exitWith(exitCodeOf(outcome))
  },
  Effect.provide(Layer.merge(Loggers.layer({ format: "auto", usual: "Error" }), layerSecureRandom)),
  Effect.scoped
)
