/** The files a job left, on their way to the user who waits for it: `run --artefact`, `submit --wait --artefact`. */
import { Effect, Option } from "effect"
import { artefactPieces, type ArtefactRange, type ArtefactSlice } from "../layers/artefacts/Artefacts.ts"
import type { BroughtBack } from "../schemas/JobEvent.ts"
import { CliFailure, usageFailure } from "./CliFailure.ts"
import { exitCode } from "./ExitCode.ts"
import { type OutOptions, taken, writeBelow } from "./OutFiles.ts"
import { say } from "./Output.ts"
import { formatBytes } from "./Units.ts"
import type { View } from "./View.ts"

/** As the flags have it. */
export interface BringOutFlags {
  readonly artefact: ReadonlyArray<string>
  readonly out: Option.Option<string>
  readonly overwrite: boolean
  /** Output for programs: what is missing is in it. */
  readonly json: boolean
}

const outOf = ({ out, overwrite }: BringOutFlags): OutOptions => ({
  directory: Option.getOrElse(out, () => "."),
  overwrite
})

/** Before anything is run: there is a place for each file. */
export const checkOut = Effect.fnUntraced(function*(flags: BringOutFlags) {
  if (flags.artefact.length === 0) {
    if (Option.isNone(flags.out)) return
    return yield* usageFailure(
      "--out means nothing without --artefact",
      "Name the files to bring back: --artefact PATH."
    )
  }
  const out = outOf(flags)
  const [first] = yield* taken(out, flags.artefact)
  if (first === undefined) return
  return yield* usageFailure(
    `${first} is there already in ${out.directory}`,
    "Name another directory with --out, or replace it: --overwrite."
  )
})

/**
 * Writes what came back, and says what did not. Fails if something that came back could not be written, though only for
 * a program that succeeded: the code of another one is its own.
 */
export const bringOut = Effect.fnUntraced(function*<E extends { readonly message: string }, R>(
  flags: BringOutFlags,
  { artefacts = [], artefactsMissing = [], artefactsStored = [] }: BroughtBack,
  succeeded: boolean,
  read: (path: string, range: ArtefactRange) => Effect.Effect<ArtefactSlice, E, R>,
  view: Pick<View, "note">
) {
  const out = outOf(flags)
  if (!flags.json) {
    yield* Effect.forEach(
      artefactsMissing,
      ({ path, reason }) => say(`stoker: ${path} was not brought back: ${reason}`),
      { discard: true }
    )
  }
  yield* Effect.forEach(
    artefactsStored,
    ({ bucket, bytes, key, path }) =>
      view.note(`stoker: ${path} (${formatBytes(bytes)}) is in bucket ${bucket} as ${key}`),
    { discard: true }
  )
  const failures: Array<string> = []
  for (const artefact of artefacts) {
    const written = yield* Effect.result(
      writeBelow(out, artefact, artefactPieces((range) => read(artefact.path, range)))
    )
    if (written._tag === "Failure") failures.push(written.failure.message)
    else yield* view.note(`stoker: ${artefact.path} (${formatBytes(artefact.bytes)}) is in ${out.directory}`)
  }
  if (failures.length === 0) return
  const failure = new CliFailure({
    reason: `files the job left could not be written:\n  ${failures.join("\n  ")}`,
    remedy: "They are kept with the job: `stoker artefacts ID --all --out DIR` writes them elsewhere.",
    code: exitCode.trouble
  })
  return yield* succeeded ? failure : say(`stoker: ${failure.message}`)
})
