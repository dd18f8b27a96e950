/** A conversation with a real guest, in the words of the protocol. */
import { type Cause, Effect, Queue, Result } from "effect"
import * as Protocol from "../../src/guest/Protocol.ts"
import { patience } from "../support/Slowness.ts"
import { guestPath, jobId, type Program, program } from "./Native.ts"

export interface Ran {
  readonly pid: number
  readonly stdout: Buffer
  readonly stderr: Buffer
  readonly exit: Protocol.ExitFrame
}

export interface RunOptions {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  readonly limits?: Partial<Protocol.RunLimits>
}

export interface Session extends Program {
  readonly send: (parts: Uint8Array | ReadonlyArray<Uint8Array>) => void
  /** The next frame; a violation, an early end and silence of 20 seconds are defects. */
  readonly next: Effect.Effect<Protocol.GuestFrame>
  /** Sends a request and takes its answer; output that comes before it is kept for `finish`. */
  readonly ask: (parts: Uint8Array | ReadonlyArray<Uint8Array>) => Effect.Effect<Protocol.GuestFrame>
  readonly put: (path: string, data: string | Uint8Array, executable?: boolean) => Effect.Effect<Protocol.GuestFrame>
  readonly get: (path: string, offset?: number, max?: number) => Effect.Effect<Protocol.GuestFrame>
  /** Sends a RUN and takes its `Started` or `Fail`. */
  readonly start: (argv: ReadonlyArray<string>, options?: RunOptions) => Effect.Effect<Protocol.GuestFrame>
  /** What a started phase says until its `Exit`. */
  readonly finish: Effect.Effect<Omit<Ran, "pid">>
  readonly run: (argv: ReadonlyArray<string>, options?: RunOptions) => Effect.Effect<Ran>
  readonly shell: (script: string, options?: RunOptions) => Effect.Effect<Ran>
}

/** The arguments for a job with an identity of its own. */
export const asJob = (work: string): ReadonlyArray<string> => ["--work", work, "--uid", `${jobId}`, "--gid", `${jobId}`]

export const path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

/** Starts `command` (by default the guest as it is), which must end in a guest on its fds 0 and 1, and takes `Ready`. */
export const session = Effect.fnUntraced(function*(args: ReadonlyArray<string>, command: string = guestPath) {
  const running = yield* program(command, args)
  const frames = yield* Queue.unbounded<Protocol.GuestFrame, Cause.Done>()
  const decoder = Protocol.makeDecoder()
  let violation: Protocol.ProtocolViolation | undefined
  running.child.stdout.on("data", (chunk: Buffer) => {
    const decoded = decoder.push(chunk)
    violation = decoded.violation
    for (const frame of decoded.frames) Queue.offerUnsafe(frames, frame)
    if (violation !== undefined) Queue.endUnsafe(frames)
  })
  running.child.stdout.on("end", () => Queue.endUnsafe(frames))

  let seq = 100
  const send: Session["send"] = (parts) => {
    for (const part of parts instanceof Uint8Array ? [parts] : parts) running.child.stdin.write(part)
  }
  const next: Session["next"] = Queue.take(frames).pipe(
    Effect.timeoutOrElse({ duration: patience(20_000), orElse: () => Effect.die(new Error("the guest is silent")) }),
    Effect.catch(() => Effect.die(violation ?? new Error(`the guest has ended: ${running.stderr()}`)))
  )
  let early: Array<Protocol.OutputFrame> = []
  const answer = Effect.gen(function*() {
    while (true) {
      const frame = yield* next
      if (frame._tag !== "Stdout" && frame._tag !== "Stderr") return frame
      early.push(frame)
    }
  })
  const ask: Session["ask"] = (parts) => Effect.andThen(Effect.sync(() => send(parts)), answer)
  const put: Session["put"] = Effect.fnUntraced(function*(path, data, executable = false) {
    const { parts, replies } = Result.getOrThrow(
      Protocol.encodePut(++seq, { path, data: Buffer.from(data), executable })
    )
    send(parts)
    let worst = yield* answer
    for (let i = 1; i < replies; i++) {
      const other = yield* answer
      if (worst._tag === "Ok") worst = other
    }
    return worst
  })
  const get: Session["get"] = (path, offset = 0, max = Protocol.maxGetBytes) =>
    ask(Result.getOrThrow(Protocol.encodeGet(++seq, path, offset, max)))
  const start: Session["start"] = (argv, options = {}) =>
    ask(Result.getOrThrow(Protocol.encodeRun(++seq, {
      cwd: options.cwd ?? "",
      argv,
      env: options.env ?? { PATH: path },
      limits: { fileBytes: 0, openFiles: 0, stackBytes: 0, cpuSeconds: 0, ...options.limits }
    })))
  const finish: Session["finish"] = Effect.gen(function*() {
    const stdout: Array<Uint8Array> = []
    const stderr: Array<Uint8Array> = []
    const before = early
    early = []
    while (true) {
      const frame = before.shift() ?? (yield* next)
      if (frame._tag === "Stdout") stdout.push(frame.bytes)
      else if (frame._tag === "Stderr") stderr.push(frame.bytes)
      else if (frame._tag === "Exit") {
        return { stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr), exit: frame }
      } else return yield* Effect.die(new Error(`within a phase came ${JSON.stringify(frame)}`))
    }
  })
  const run: Session["run"] = Effect.fnUntraced(function*(argv, options) {
    const started = yield* start(argv, options)
    if (started._tag !== "Started") return yield* Effect.die(new Error(JSON.stringify(started)))
    return { pid: started.pid, ...(yield* finish) }
  })
  const shell: Session["shell"] = (script, options) => run(["sh", "-c", script], options)

  const ready = yield* next
  if (ready._tag !== "Ready") return yield* Effect.die(new Error(JSON.stringify(ready)))
  return { ...running, send, next, ask, put, get, start, finish, run, shell } satisfies Session
})
