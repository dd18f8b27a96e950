/** What is to be run, and where: decided before anything is held for it. */
import { Effect, Schema } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import { Functions } from "../layers/functions/Functions.ts"
import { unmetNeed } from "../schemas/Function.ts"
import type { Job } from "../schemas/Job.ts"
import { resolve } from "../schemas/Limits.ts"
import { ArtefactPaths, mostArtefacts, type Program } from "../schemas/Program.ts"
import type { SandboxClass } from "../schemas/SandboxClass.ts"
import { rejected } from "./JobResult.ts"

export interface JobPlan {
  readonly class: SandboxClass
  readonly program: Program
}

const isArtefactPaths = Schema.is(ArtefactPaths)

/** Functions make programs as they like: what no worker brings back is refused before anything is held for it. */
const artefactsRefused = ({ artefacts }: Program, artefactBytes: number) => {
  if (artefacts.length === 0) return undefined
  if (artefactBytes === 0) {
    return rejected(
      "it asks for artefacts, and this worker brings none back",
      "Leave them out, or send it to a worker that does (`artefacts` in its configuration)."
    )
  }
  return isArtefactPaths(artefacts) ? undefined : rejected(
    "its artefacts cannot be brought back under these names",
    `Name at most ${mostArtefacts}, each once, as relative paths without '..' and control characters.`
  )
}

/** Class, limits and program of a job, or why it can never run. */
export const plan = Effect.fnUntraced(function*(job: Job) {
  const { artefactBytes, classes, defaultClass } = yield* Settings
  const wanted = job.class ?? defaultClass
  const sandboxClass = classes.find(({ name }) => name === wanted)
  if (sandboxClass === undefined) {
    return yield* Effect.fail(
      rejected(`there is no sandbox class ${wanted}`, `Use one of: ${classes.map(({ name }) => name).join(", ")}.`)
    )
  }
  const { ceiling, defaults } = sandboxClass
  const run = yield* Effect.mapError(
    resolve(ceiling, defaults, job.limits),
    (error) => rejected(error.message, "What a class allows is its ceiling in the worker's configuration.")
  )
  const functions = yield* Functions
  const definition = functions.definitions.find(({ name }) => name === job.function)
  const unmet = definition === undefined ? undefined : unmetNeed(definition, sandboxClass.network)
  if (unmet !== undefined) {
    const others = classes.filter(({ network }) => network !== "none").map(({ name }) => name)
    return yield* Effect.fail(rejected(
      unmet,
      others.length === 0 ? "Give the worker a class with a network." : `Use one of: ${others.join(", ")}.`
    ))
  }
  const program = yield* Effect.mapError(
    functions.program(job, { compile: ceiling, run }),
    (error) => rejected(`${error.function}: ${error.reason}`, error.remedy)
  )
  const refusal = artefactsRefused(program, artefactBytes)
  if (refusal !== undefined) return yield* Effect.fail(refusal)
  const planned: JobPlan = { class: sandboxClass, program }
  return planned
})
