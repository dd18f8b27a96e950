/** Sandboxes of the driver that is tried, and programs in them. */
import { Effect, Exit, type Scope, Stream } from "effect"
import type { PhaseExit, ProvisionFailed, Sandbox, SandboxLost, SandboxRefused } from "../layers/sandbox/Sandbox.ts"
import type { PhaseUsage } from "../schemas/Usage.ts"
import { expect, Mismatch } from "./Case.ts"
import { ConformanceDriver, ConformanceHost } from "./ConformanceHost.ts"
import { type Command, phaseOf } from "./Runs.ts"

const mismatch = (what: string) => (error: ProvisionFailed | SandboxLost | SandboxRefused) =>
  new Mismatch({ expected: what, seen: `${error._tag}: ${error.message}` })

/** The workspace's size, as the class's defaults have it. */
export const disk = Effect.map(ConformanceHost, ({ sandboxClass: { defaults } }) => ({
  bytes: defaults.diskBytes,
  inodes: defaults.diskInodes
}))

/** A sandbox of the tried class, which goes with the scope. */
export const provision: Effect.Effect<Sandbox, Mismatch, ConformanceDriver | ConformanceHost | Scope.Scope> = Effect
  .gen(function*() {
    const driver = yield* ConformanceDriver
    const { sandboxClass } = yield* ConformanceHost
    return yield* Effect.mapError(driver.provision(sandboxClass, yield* disk), mismatch("a sandbox"))
  })

/** What one phase came to. */
export interface PhaseRan {
  readonly exit: PhaseExit
  readonly usage: PhaseUsage
  readonly stdout: string
  readonly stderr: string
}

/** What is done with a phase while it runs. */
export interface Meanwhile {
  readonly env?: Readonly<Record<string, string>>
  readonly stdin?: string
  /** With all that stdout has had so far, at each piece. */
  readonly onOutput?: (stdout: string) => Effect.Effect<void, SandboxLost | SandboxRefused>
}

/** Runs one phase to its end, and holds its events to their order: Started, output, Ended once and last. */
export const attempt = Effect.fnUntraced(function*(sandbox: Sandbox, command: Command, meanwhile: Meanwhile = {}) {
  const phase = yield* phaseOf(command, meanwhile)
  const parts: Record<"stdout" | "stderr", Array<Uint8Array>> = { stdout: [], stderr: [] }
  const tags: Array<string> = []
  let ended: { readonly exit: PhaseExit; readonly usage: PhaseUsage } | undefined
  const text = (stream: "stdout" | "stderr") => Buffer.concat(parts[stream]).toString()
  const exit = yield* Effect.exit(Stream.runForEach(sandbox.run(phase), (event) => {
    tags.push(event._tag)
    if (event._tag === "Ended") ended = event
    if (event._tag !== "Output") return Effect.void
    parts[event.stream].push(event.bytes)
    return meanwhile.onOutput?.(text("stdout")) ?? Effect.void
  }))
  if (Exit.isFailure(exit)) return yield* Effect.failCause(exit.cause)
  const isOrdered = tags[0] === "Started" && tags.at(-1) === "Ended" &&
    tags.slice(1, -1).every((tag) => tag === "Output")
  yield* expect("Started, output, and Ended once at the end", isOrdered, tags.join(" "))
  if (ended === undefined) return yield* new Mismatch({ expected: "Ended", seen: tags.join(" ") })
  const ran: PhaseRan = { ...ended, stdout: text("stdout"), stderr: text("stderr") }
  return ran
})

/** The same where nothing may fail. */
export const run = (sandbox: Sandbox, command: Command, meanwhile: Meanwhile = {}) =>
  attempt(sandbox, command, meanwhile).pipe(
    Effect.catchTags({
      SandboxLost: (error) => Effect.fail(mismatch("a phase that ends")(error)),
      SandboxRefused: (error) => Effect.fail(mismatch("a phase that ends")(error))
    })
  )

/** What should succeed. */
export const done = <A>(what: string, effect: Effect.Effect<A, SandboxLost | SandboxRefused>) =>
  Effect.mapError(effect, mismatch(what))

/** What should fail in this way; with this errno, if it is given. */
export const fails = Effect.fnUntraced(function*<A, R>(
  what: string,
  effect: Effect.Effect<A, SandboxLost | SandboxRefused | Mismatch, R>,
  tag: "SandboxLost" | "SandboxRefused",
  errno?: number
) {
  const result = yield* Effect.result(effect)
  const error = result._tag === "Failure" ? result.failure : undefined
  const isSo = error?._tag === tag &&
    (errno === undefined || (error._tag === "SandboxRefused" && error.errno === errno))
  const wanted = errno === undefined ? tag : `${tag} with errno ${errno}`
  yield* expect(`${what}: ${wanted}`, isSo, error === undefined ? "success" : `${error._tag}: ${error.message}`)
})
