/** `stoker submit`: a row in the embedded queue, or with a broker a CodeBench message. */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Clock, Effect, Layer, Option, type Redacted } from "effect"
import { type ArtefactRange, Artefacts, readNamed } from "../layers/artefacts/Artefacts.ts"
import * as ArtefactsFiles from "../layers/artefacts/ArtefactsFiles.ts"
import { Overloaded } from "../layers/control/Overloaded.ts"
import { DiskSpace } from "../layers/host/DiskSpace.ts"
import * as DiskSpaceLive from "../layers/host/DiskSpaceLive.ts"
import { Host } from "../layers/host/Host.ts"
import { NAME } from "../layers/intake/Embedded.ts"
import { Journal, type Request } from "../layers/journal/Journal.ts"
import * as JournalSqlite from "../layers/journal/JournalSqlite.ts"
import * as LogFiles from "../layers/log/LogFiles.ts"
import { nowMs } from "../layers/Now.ts"
import { keyOf } from "../schemas/Job.ts"
import { broughtBack } from "../schemas/JobEvent.ts"
import { standardConfig } from "../schemas/WorkerConfig.ts"
import { layerHost, layerPostgres } from "../wiring.ts"
import { bringOut, type BringOutFlags, checkOut } from "./BringOut.ts"
import { CliFailure, ExitWith, exitWith, usageFailure } from "./CliFailure.ts"
import { exitCode, exitCodeOf } from "./ExitCode.ts"
import { type TermsFlags, termsOf } from "./Flags.ts"
import { followRecord } from "./FollowRecord.ts"
import { type JobOptions, requestOf } from "./JobSource.ts"
import * as Loggers from "./Loggers.ts"
import { print, say } from "./Output.ts"
import * as Signals from "./Signals.ts"
import { stateDirectory } from "./StateDirectory.ts"
import { viewFor } from "./Views.ts"

export interface SubmitOptions extends JobOptions, Pick<BringOutFlags, "out" | "overwrite"> {
  readonly amqp: Option.Option<Redacted.Redacted<string>>
  readonly state: Option.Option<string>
  readonly journal: Option.Option<Redacted.Redacted<string>>
  readonly terms: TermsFlags
  readonly json: boolean
  readonly wait: boolean
}

/** The id on stdout, where a script finds it; with `--wait` that is the program's. */
const tellId = ({ json, wait }: SubmitOptions, id: string) => {
  if (!wait) return print(json ? JSON.stringify({ id }) : id)
  return json ? Effect.void : say(`stoker: submitted ${id}`)
}

const warnWithoutWorker = Effect.gen(function*() {
  const host = yield* Host
  const others = yield* Effect.filter(yield* host.others, host.isAlive)
  if (others.length > 0) return
  yield* say(
    `stoker: no worker is running with this state directory; start one: stoker worker --state ${host.paths.state}`
  )
})

const awaitEnd = Effect.fnUntraced(function*(request: Request, options: SubmitOptions) {
  const { json } = options
  const key = keyOf(request.job)
  const view = yield* viewFor({ json, events: false, quiet: false })
  const fact = Effect.fnUntraced(function*(attempt: number, seq: number) {
    return { key, attempt, seq, atMs: yield* Clock.currentTimeMillis }
  })
  yield* view.event({ _tag: "Received", ...(yield* fact(0, 0)) })
  const record = yield* followRecord(key, {
    ...view,
    stream: "all",
    began: (attempt) =>
      Effect.flatMap(fact(attempt, 0), (facts) => view.event({ _tag: "PhaseStarted", phase: "run", ...facts }))
  })
  if (record === undefined) {
    return yield* new CliFailure({
      reason: `job ${key.id} is no longer in the journal`,
      remedy: "Was the state directory cleared? Submit it again.",
      code: exitCode.trouble
    })
  }
  const { outcome, output, usage } = record.settlement
  const files = broughtBack(record.settlement)
  yield* view.event({ _tag: "Ended", ...(yield* fact(record.attempt, 1)), outcome, usage, output, ...files })
  yield* view.ended({ id: key.id, outcome, usage, output, ...files })
  const artefacts = yield* Artefacts
  const read = (path: string, range: ArtefactRange) => readNamed(artefacts, record, path, range)
  yield* bringOut(options, files, exitCodeOf(outcome) === 0, read, view)
  return outcome
}, Effect.scoped)

const layerJournal = (journal: SubmitOptions["journal"]) =>
  Option.isSome(journal) ? layerPostgres({ postgres: journal.value, connections: 1 }) : JournalSqlite.layerHost()

/** As the worker does at its doors: what is written now could not be worked off. */
const enough = Effect.gen(function*() {
  const { diskReserveBytes } = standardConfig
  const { paths } = yield* Host
  if ((yield* (yield* DiskSpace).free) >= diskReserveBytes) return
  return yield* new Overloaded({
    limit: "diskReserveBytes",
    maximum: diskReserveBytes,
    remedy: `free space below ${paths.state}`
  })
})

const submitEmbedded = Effect.fnUntraced(function*(options: SubmitOptions) {
  const directory = yield* stateDirectory(options.state)
  const { delay, ttl } = options.terms
  if (Option.isSome(delay) && Option.isSome(ttl) && ttl.value <= delay.value) {
    return yield* usageFailure(
      "with that --delay the job would expire before it may begin",
      "Both are counted from now: give a --ttl that is longer than --delay."
    )
  }
  if (options.wait) yield* checkOut(options)
  else if (Option.isSome(options.out)) {
    return yield* usageFailure(
      "--out means nothing without --wait",
      "`stoker artefacts ID --all --out DIR` writes them later."
    )
  }
  const request = yield* requestOf(options, { intake: NAME, prefix: "job", command: "submit" })
  const signals = yield* Signals.take
  yield* Effect.gen(function*() {
    yield* enough
    yield* (yield* Journal).submit(request, {
      terms: termsOf(options.terms, yield* nowMs),
      maximum: standardConfig.queueMaximum
    })
    yield* tellId(options, request.job.id)
    // A shared journal's workers may be anywhere.
    if (!options.json && Option.isNone(options.journal)) yield* warnWithoutWorker
    if (!options.wait) return
    const leave = signals.first.pipe(
      Effect.andThen(say(`stoker: not waiting any more; the job goes on: stoker logs -f ${request.job.id}`)),
      Effect.andThen(Effect.fail(new ExitWith({ code: exitCode.stopped })))
    )
    const outcome = yield* Effect.raceFirst(awaitEnd(request, options), leave)
    yield* exitWith(exitCodeOf(outcome))
  }).pipe(
    Effect.provide(
      Layer.mergeAll(layerJournal(options.journal), LogFiles.layer, ArtefactsFiles.layer, DiskSpaceLive.layer).pipe(
        Layer.provideMerge(layerHost(directory))
      )
    )
  )
}, Effect.scoped)

export const submitJob = Effect.fn("SubmitJob.submitJob")(
  function*(options: SubmitOptions) {
    if (Option.isNone(options.amqp)) return yield* submitEmbedded(options)
    const { submitCodeBench } = yield* Effect.promise(() => import("./SubmitCodeBench.ts"))
    yield* submitCodeBench({ ...options, url: options.amqp.value, tellId: (id) => tellId(options, id) })
  },
  Effect.provide(Layer.merge(Loggers.layer({ format: "auto", usual: "Error" }), layerSecureRandom))
)
