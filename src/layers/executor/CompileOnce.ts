/**
 * Takes the result of a compile phase out of the compile cache, and puts it in. The lookup goes on beside the taking of a
 * sandbox; the products are fetched before the next phase begins, which could change them, and written down while it runs.
 */
import { Effect, Fiber, FiberSet, Option, Result, type Scope } from "effect"
import type { StreamName } from "../../schemas/Outcome.ts"
import type { Phase, ProgramFile } from "../../schemas/Program.ts"
import type { PhaseUsage } from "../../schemas/Usage.ts"
import { CompileCache, type Compiled, type CompileKey } from "../cache/CompileCache.ts"
import { compileKey } from "../cache/CompileKey.ts"
import { monotonicNanos } from "../Now.ts"
import { within } from "../Release.ts"
import { Drivers, type Sandbox } from "../sandbox/Sandbox.ts"
import { count, metrics } from "../telemetry/Metrics.ts"
import type { Assignment, RunEvent } from "./Executor.ts"

/** A compile phase that writes more is run each time. Bytes, both streams together. */
const MOST_OUTPUT = 64 * 1024

/** One that goes from one stream to the other more often as well: each piece has a line in the head of what is kept. */
const MOST_PIECES = 1000

/** A disk that answers later than this is slower than most compilers. */
const PATIENCE = "1 second"

/** Results on their way to the cache, together; more are let go. Bytes. */
const MOST_PENDING = 64 * 1024 * 1024

/** A worker that ends waits for them. */
const LAST_WRITES = "5 seconds"

type Emit = (event: RunEvent) => Effect.Effect<unknown>

/** One program's way through the cache. */
export interface CompileOnce {
  /**
   * Puts the products into the sandbox and tells all that the phase would tell; its usage. Undefined: the phase has to run.
   * `sandbox` has the program's files.
   */
  readonly replay: (sandbox: Sandbox, emit: Emit) => Effect.Effect<PhaseUsage | undefined>
  /** Hears what a phase that has to run tells. */
  readonly listening: (phase: Phase, emit: Emit) => Emit
  /** After each phase that succeeded and before the next one begins. */
  readonly keep: (sandbox: Sandbox) => Effect.Effect<void>
}

/** For programs that are compiled each time, and those that are not compiled. */
const each: CompileOnce = {
  replay: () => Effect.undefined,
  listening: (_, emit) => emit,
  keep: () => Effect.void
}

/** What a phase writes, in order, until it is too much. */
const makeRecorder = () => {
  const pieces: Array<{ readonly stream: StreamName; readonly parts: Array<Uint8Array> }> = []
  let total = 0
  return {
    hear: (stream: StreamName, bytes: Uint8Array) => {
      total += bytes.length
      if (total > MOST_OUTPUT || pieces.length > MOST_PIECES) return
      const last = pieces.at(-1)
      // A copy: what came may be a view of something much larger.
      if (last?.stream === stream) last.parts.push(Uint8Array.from(bytes))
      else pieces.push({ stream, parts: [Uint8Array.from(bytes)] })
    },
    /** Undefined: too much, or more than the phase's log keeps. */
    heard: ({ limits: { outputBytes } }: Phase): Compiled["output"] | undefined =>
      total > Math.min(MOST_OUTPUT, outputBytes) || pieces.length > MOST_PIECES
        ? undefined
        : pieces.map(({ parts, stream }) => ({ stream, bytes: Buffer.concat(parts) }))
  }
}

const written = ({ output }: Compiled, stream: StreamName) =>
  output.reduce((sum, piece) => piece.stream === stream ? sum + piece.bytes.length : sum, 0)

/** Nothing the phase's limits would have stopped. */
const isAllowed = (compiled: Compiled, { limits: { outputBytes } }: Phase) =>
  written(compiled, "stdout") <= outputBytes && written(compiled, "stderr") <= outputBytes

export const make = Effect.gen(function*() {
  const cache = yield* CompileCache
  const drivers = Option.getOrElse(yield* Effect.serviceOption(Drivers), () => [])
  const context = yield* Effect.context<never>()
  const writing = yield* FiberSet.make<void>()
  yield* Effect.addFinalizer(() => within("the compile cache", LAST_WRITES)(FiberSet.awaitEmpty(writing)))
  let pendingBytes = 0

  /** The products, as a job of the same sources finds them after its put. */
  const fetch = Effect.fnUntraced(function*(sandbox: Sandbox, { files, products }: Assignment["program"]) {
    const made: Array<ProgramFile> = []
    let left = cache.mostBytes
    for (const path of products ?? []) {
      const content = yield* sandbox.get(path, left)
      left -= content.length
      const former = files.find((file) => file.path === path)
      // A compiler that writes over a file leaves its mode; what it makes is there to be run.
      made.push({ path, content, executable: former?.executable ?? true })
    }
    return made
  })

  const write = Effect.fnUntraced(function*(key: CompileKey, compiled: Compiled) {
    const bytes = compiled.files.reduce((sum, { content }) => sum + content.length, 0)
    if (pendingBytes + bytes > MOST_PENDING) return
    pendingBytes += bytes
    yield* FiberSet.run(
      writing,
      Effect.ensuring(
        Effect.ignoreCause(cache.put(key, compiled), { log: "Warn", message: "what was compiled is not kept" }),
        Effect.sync(() => {
          pendingBytes -= bytes
        })
      )
    )
  })

  const lookUp = Effect.fnUntraced(function*({ class: sandboxClass, job, program }: Assignment, phase: Phase) {
    const began = yield* monotonicNanos
    const identity = drivers.find(({ name }) => name === sandboxClass.driver)?.rootIdentity
    if (identity === undefined) return undefined
    const root = yield* identity(sandboxClass)
    const { intake, owner } = job
    const place = { intake, owner, driver: sandboxClass.driver, runtime: sandboxClass.runtime ?? "crun", root }
    const key = yield* compileKey(place, phase, program)
    const found = Option.filter(yield* cache.get(key), (compiled) => isAllowed(compiled, phase))
    return { key, found, wallMicros: Number(((yield* monotonicNanos) - began) / 1000n) }
  })

  /** Begins to look for the result of the program's compile phase. */
  return Effect.fnUntraced(function*(assignment: Assignment): Effect.fn.Return<CompileOnce, never, Scope.Scope> {
    const { phases: [phase, ...others], products } = assignment.program
    if (cache.mostBytes === 0 || products === undefined || phase.name !== "compile" || others.length === 0) return each
    const looking = yield* lookUp(assignment, phase).pipe(
      Effect.timeoutOption(PATIENCE),
      Effect.map(Option.getOrUndefined),
      Effect.catchCause((cause) =>
        Effect.as(Effect.logDebug("nobody knows whether it was compiled before", cause), undefined)
      ),
      Effect.forkScoped({ startImmediately: true })
    )
    const recorder = makeRecorder()
    /** Under which the result is to be kept, once it is known that it is not there. */
    let missing: CompileKey | undefined

    const replay = Effect.fnUntraced(function*(sandbox: Sandbox, emit: Emit) {
      const looked = yield* Fiber.join(looking)
      if (looked === undefined) return undefined
      // A sandbox that cannot take them is lost or full: the phase itself says which, and how that ends.
      const result = Option.isNone(looked.found)
        ? undefined
        : yield* Effect.result(sandbox.put(looked.found.value.files))
      const isHit = result !== undefined && Result.isSuccess(result)
      count(context, metrics.compileCache, { result: isHit ? "hit" : "miss" })
      if (!isHit || Option.isNone(looked.found)) {
        missing = looked.key
        return undefined
      }
      const compiled = looked.found.value
      const usage: PhaseUsage = {
        phase: "compile",
        wallMicros: looked.wallMicros,
        stdoutBytes: written(compiled, "stdout"),
        stderrBytes: written(compiled, "stderr"),
        cached: true
      }
      yield* emit({ _tag: "PhaseStarted", phase: "compile" })
      for (const { bytes, stream } of compiled.output) yield* emit({ _tag: "Output", stream, bytes })
      yield* emit({ _tag: "PhaseEnded", phase: "compile", usage })
      return usage
    })

    const listening = ({ name }: Phase, emit: Emit): Emit => (event) => {
      if (name === "compile" && event._tag === "Output") recorder.hear(event.stream, event.bytes)
      return emit(event)
    }

    const keep = Effect.fnUntraced(function*(sandbox: Sandbox) {
      const key = missing
      const output = recorder.heard(phase)
      missing = undefined
      if (key === undefined || output === undefined) return
      yield* fetch(sandbox, assignment.program).pipe(
        Effect.flatMap((files) => write(key, { files, output })),
        Effect.catchCause((cause) => Effect.logDebug("what was compiled is not kept", cause))
      )
    })

    return { replay, listening, keep }
  })
})
