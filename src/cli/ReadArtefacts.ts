/** `stoker artefacts`: the files a job left, listed, to stdout, or to files. */
import { Effect, Layer, Option, type Redacted, Stream } from "effect"
import { artefactPieces, Artefacts, readNamed } from "../layers/artefacts/Artefacts.ts"
import * as ArtefactsFiles from "../layers/artefacts/ArtefactsFiles.ts"
import type { JobRecord } from "../layers/journal/Journal.ts"
import type { Artefact, StoredArtefact } from "../schemas/JobEvent.ts"
import { layerHost } from "../wiring.ts"
import { usageFailure } from "./CliFailure.ts"
import type { JobName } from "./Flags.ts"
import * as Loggers from "./Loggers.ts"
import { writeBelow, writeTo } from "./OutFiles.ts"
import { print, say, write } from "./Output.ts"
import * as Records from "./Records.ts"
import * as Signals from "./Signals.ts"
import { existingState, stateDirectory } from "./StateDirectory.ts"
import { table } from "./Style.ts"
import { formatBytes } from "./Units.ts"

export interface ArtefactsOptions {
  readonly id: JobName
  readonly path: Option.Option<string>
  readonly state: Option.Option<string>
  readonly journal: Option.Option<Redacted.Redacted<string>>
  readonly out: Option.Option<string>
  readonly all: boolean
  readonly overwrite: boolean
  readonly json: boolean
}

const inBucket = ({ bucket, key }: StoredArtefact) => `it is in bucket ${bucket} as ${key}`

const overview = (artefacts: ReadonlyArray<Artefact>, record: JobRecord) => {
  const { artefactsMissing: missing = [], artefactsStored: stored = [] } = record.settlement ?? {}
  return table([
    ["PATH", "SIZE", "SHA-256"],
    ...artefacts.map(({ bytes, path, sha256 }) => [path, formatBytes(bytes), sha256]),
    ...stored.map((one) => [one.path, formatBytes(one.bytes), inBucket(one)]),
    ...missing.map(({ path, reason }) => [path, "-", reason])
  ])
}

/** All of one, as it is in the state directory. */
const contentOf = (record: JobRecord, artefact: Artefact) =>
  Stream.unwrap(
    Effect.map(Artefacts, (artefacts) => artefactPieces((range) => readNamed(artefacts, record, artefact.path, range)))
  ).pipe(
    Stream.catchTag("ArtefactNotFound", (error) =>
      Stream.fail(usageFailure(
        error.message,
        record.instance === undefined
          ? "It was kept long enough, or its disk failed."
          : `It lies on the host of worker ${record.instance}, in that worker's --state, as long as the job is kept.`
      )))
  )

const nothing = ({ request: { job }, settlement, state }: JobRecord) =>
  settlement === undefined
    ? usageFailure(`job ${job.id} is ${state}: its files come with its end`, `stoker logs -f ${job.id} waits for that.`)
    : usageFailure(`job ${job.id} left no files`, "They are asked for when it is sent: --artefact PATH.")

const contradiction = ({ all, out, path }: ArtefactsOptions) => {
  const target = Option.getOrUndefined(out)
  if (all && Option.isSome(path)) return usageFailure("--all and one path", "Give only one of them.")
  if (!all && Option.isNone(path) && target !== undefined) {
    return usageFailure("--out without a path", "Name the file, or all of them: --all.")
  }
  return all && target === "-"
    ? usageFailure("several files do not go to stdout", "Name a directory: --out DIR.")
    : undefined
}

export const showArtefacts = Effect.fn("ReadArtefacts.showArtefacts")(function*(options: ArtefactsOptions) {
  const wrong = contradiction(options)
  if (wrong !== undefined) return yield* wrong
  const { all, journal, overwrite, path, state } = options
  const directory = Option.isSome(journal) ? yield* stateDirectory(state) : yield* existingState(state)
  yield* Effect.gen(function*() {
    const record = yield* Records.find(options.id)
    const { artefacts = [], artefactsMissing = [], artefactsStored = [] } = record.settlement ?? {}
    if (!all && Option.isNone(path)) {
      if (options.json) {
        const { id } = record.request.job
        return yield* print(JSON.stringify({ id, artefacts, artefactsStored, artefactsMissing }))
      }
      if (artefacts.length + artefactsStored.length + artefactsMissing.length === 0) return yield* nothing(record)
      return yield* print(overview(artefacts, record))
    }
    if (artefacts.length + artefactsStored.length === 0) return yield* nothing(record)
    if (all) {
      const out = { directory: Option.getOrElse(options.out, () => "."), overwrite }
      for (const artefact of artefacts) {
        yield* writeBelow(out, artefact, contentOf(record, artefact))
        yield* say(`stoker: ${artefact.path} (${formatBytes(artefact.bytes)}) is in ${out.directory}`)
      }
      for (const one of artefactsStored) yield* say(`stoker: ${one.path} was not brought: ${inBucket(one)}`)
      return
    }
    const name = Option.getOrElse(path, () => "")
    const artefact = artefacts.find((one) => one.path === name)
    const stored = artefactsStored.find((one) => one.path === name)
    if (stored !== undefined) {
      return yield* usageFailure(
        `${name} is not kept here: ${inBucket(stored)}`,
        "Fetch it with a client of its object store."
      )
    }
    if (artefact === undefined) {
      const reason = artefactsMissing.find((one) => one.path === name)?.reason
      return yield* usageFailure(
        `the job left no file ${name}${reason === undefined ? "" : `: ${reason}`}`,
        `stoker artefacts ${record.request.job.id} shows those it left.`
      )
    }
    const content = contentOf(record, artefact)
    const target = Option.getOrElse(options.out, () => "-")
    return yield* target === "-"
      ? Stream.runForEach(content, (piece) => write("stdout", piece))
      : writeTo(target, overwrite, artefact, content)
  }).pipe(
    Effect.provide(
      Layer.mergeAll(
        Records.layerJournal(journal, directory),
        ArtefactsFiles.layer.pipe(Layer.provide(layerHost(directory)))
      )
    ),
    Signals.interruptible
  )
}, Effect.provide(Loggers.layer({ format: "auto", usual: "Error" })))
