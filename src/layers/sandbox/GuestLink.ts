/**
 * The host's end of a guest: requests out, frames in, over any byte stream. Never believes what comes in: whatever is
 * not the protocol loses the sandbox. While nobody takes a phase's output the stream is paused, so that a flood waits
 * in the sandbox and not in the worker's memory.
 */
import { Cause, Deferred, Effect, Exit, Option, Queue, Result, Stream } from "effect"
import type { Readable, Writable } from "node:stream"
import * as Protocol from "../../guest/Protocol.ts"
import type { StreamName } from "../../schemas/Outcome.ts"
import type { PhaseName, ProgramFile } from "../../schemas/Program.ts"
import * as Prelude from "./Prelude.ts"
import { type PhaseExit, SandboxLost, SandboxRefused } from "./Sandbox.ts"

/** Bytes of output that may wait for the executor before the guest's stream is paused. */
const HIGH_WATER = 1024 * 1024

/** What a piece of output takes in our memory beside its bytes: a job may send them one by one. */
const PIECE_BYTES = 512
const weight = (bytes: Uint8Array) => bytes.length + PIECE_BYTES

/** Time for an answer to a small request. The guest serves them also while a job floods it. */
const ANSWER_LIMIT = "10 seconds"

const EFAULT = 14

/** Of a file that comes as a stream: so many bytes are sent before an answer is waited for. */
const PUT_BYTES = 4 * Protocol.chunkBytes

export type LinkEvent =
  /** `phase`, also of an exit: which part of a source it is of. */
  | { readonly _tag: "Started"; readonly phase?: PhaseName }
  | { readonly _tag: "Output"; readonly stream: StreamName; readonly bytes: Uint8Array }
  /** `maxRssBytes`: the largest process, in the guest's words. */
  | { readonly _tag: "Exited"; readonly exit: PhaseExit; readonly phase?: PhaseName; readonly maxRssBytes: number }

/** A phase that has been started and waits for its standard input. */
export interface Waiting {
  /** It has said the ready mark. Fails when it ends instead. */
  readonly ready: Effect.Effect<void, SandboxLost | SandboxRefused>
  /** Ends, at once and with what it said last, when it has ended without having been fed. */
  readonly ended: Effect.Effect<string>
  /** Its input, whole, and its limits from now on, as far as they are lower: what happens from here. To be used once. */
  readonly feed: (
    stdin: Uint8Array,
    limits: Protocol.RunLimits
  ) => Stream.Stream<LinkEvent, SandboxLost | SandboxRefused>
}

export interface GuestLink {
  /** The guest is up and speaks our version. */
  readonly ready: Effect.Effect<void, SandboxLost>
  readonly put: (file: ProgramFile) => Effect.Effect<void, SandboxLost | SandboxRefused>
  readonly putStream: <E>(
    path: string,
    bytes: Stream.Stream<Uint8Array, E>
  ) => Effect.Effect<void, SandboxLost | SandboxRefused | E>
  readonly run: (
    request: Protocol.RunRequest,
    stdin: Uint8Array
  ) => Stream.Stream<LinkEvent, SandboxLost | SandboxRefused>
  /** Starts a phase that says `mark` on stdout when it waits for its input. What it says before is nobody's output. */
  readonly wait: (
    request: Protocol.RunRequest,
    mark: string
  ) => Effect.Effect<Waiting, SandboxLost | SandboxRefused>
  readonly signal: (signal: number, scope: "main" | "all") => Effect.Effect<void, SandboxLost | SandboxRefused>
  /**
   * Of a guest with a machine of its own: limits of all processes of the phases to come together; 0 is no limit, `cpus` in
   * cores. While a phase waits it is limited so itself.
   */
  readonly limit: (limits: GroupLimits) => Effect.Effect<void, SandboxLost | SandboxRefused>
  /** What the phases since the last `limit` used. */
  readonly measure: Effect.Effect<Protocol.MeasuredFrame, SandboxLost | SandboxRefused>
  readonly get: (path: string, maximum: number) => Effect.Effect<Uint8Array, SandboxLost | SandboxRefused>
  readonly getStream: (path: string) => Stream.Stream<Uint8Array, SandboxLost | SandboxRefused>
  /** Ends with the reason when the other side is gone. */
  readonly lost: Effect.Effect<SandboxLost>
  /** Says farewell: the guest kills what is left inside and ends. */
  readonly close: Effect.Effect<void>
  /** The other side is gone, for this reason (what it said last, if anything): everything that waits fails. */
  readonly lose: (reason: string) => void
}

export interface GroupLimits {
  readonly memoryBytes: number
  readonly pids: number
  readonly cpus: number
}

/** Of a guest that is behind the first process of a machine. */
export interface LinkOptions {
  /** Sent first, once: an encoded PERSONALISE. The guest is not ready before it is answered. */
  readonly hello?: Uint8Array
  /** Why the answer will not do, or nothing. */
  readonly confirm?: (answer: Protocol.PersonalisedFrame) => string | undefined
}

/** As the kernel counts: microseconds in each tenth of a second. */
const CPU_MICROS = 100_000

type Answer = Protocol.GuestFrame & { readonly _tag: "Ok" | "Data" | "Measured" }
type Failure = SandboxLost | SandboxRefused

interface Asking {
  readonly operation: SandboxRefused["operation"]
  left: number
  readonly answer: Deferred.Deferred<Answer, Failure>
}

interface Running {
  readonly seq: number
  readonly events: Queue.Queue<LinkEvent, Failure | Cause.Done>
  ended: boolean
  /** Of one that waits, until it is ready. */
  prelude?: Prelude.Prelude
}

const remedy = "The job is answered as failed; see the worker's log, and `stoker doctor` if it happens again."

export const make = (driver: string, input: Writable, output: Readable, options: LinkOptions = {}): GuestLink => {
  const decoder = Protocol.makeDecoder()
  const ready = Deferred.makeUnsafe<void, SandboxLost>()
  const gone = Deferred.makeUnsafe<SandboxLost>()
  const waiting = new Map<number, Asking>()
  let running: Running | undefined
  let lost: SandboxLost | undefined
  let lastSeq = 0
  /** The request that ended a phase which nobody follows any more: its answer is for nobody. */
  let unawaited: number | undefined
  let buffered = 0
  /** The machine has still to say that it is the one it was asked to be. */
  let isUnconfirmed = options.hello !== undefined
  /** We have said farewell: the other side's end is what we asked for, not a loss. */
  let closing = false

  const lose = (reason: string, cause?: unknown) => {
    if (lost !== undefined || (closing && waiting.size === 0 && (running?.ended ?? true))) return
    lost = new SandboxLost({ driver, reason, remedy, ...(cause === undefined ? {} : { cause }) })
    const failure = Exit.fail(lost)
    Deferred.doneUnsafe(gone, Exit.succeed(lost))
    Deferred.doneUnsafe(ready, failure)
    for (const { answer } of waiting.values()) Deferred.doneUnsafe(answer, failure)
    waiting.clear()
    if (running !== undefined && !running.ended) {
      running.ended = true
      Queue.failCauseUnsafe(running.events, Cause.fail(lost))
    }
    input.destroy()
  }

  const confirm = (frame: Protocol.GuestFrame) => {
    if (frame._tag === "Fail") return lose(`it could not be personalised: ${frame.text} (errno ${frame.errno})`)
    if (frame._tag !== "Personalised") return lose(`it said ${frame._tag} before it was personalised`)
    const refusal = options.confirm?.(frame)
    if (refusal !== undefined) return lose(`it was personalised, but ${refusal}`)
    isUnconfirmed = false
  }

  const take = (frame: Protocol.GuestFrame) => {
    // The machine is lost already: what still comes from it is nobody's.
    if (isUnconfirmed) return lost === undefined ? confirm(frame) : undefined
    switch (frame._tag) {
      case "Personalised":
        return lose("its guest says that it was personalised, which nobody asked for")
      case "Ready":
        if (frame.version !== Protocol.version) {
          return lose(`its guest speaks version ${frame.version} of the protocol, this worker ${Protocol.version}`)
        }
        return void Deferred.doneUnsafe(ready, Exit.void)
      case "Stdout":
      case "Stderr": {
        if (frame.seq !== running?.seq || running.ended) return
        const stream = frame._tag === "Stdout" ? "stdout" : "stderr"
        const bytes = running.prelude?.hear(stream, frame.bytes) ?? frame.bytes
        if (bytes.length === 0) return
        buffered += weight(bytes)
        if (buffered > HIGH_WATER) output.pause()
        return void Queue.offerUnsafe(running.events, { _tag: "Output", stream, bytes })
      }
      case "Started":
        if (frame.seq !== running?.seq) return
        return void Queue.offerUnsafe(running.events, { _tag: "Started" })
      case "Exit": {
        if (frame.seq !== running?.seq || running.ended) return
        const { events, prelude } = running
        running.ended = true
        const exit: PhaseExit = frame.end.kind === "exited"
          ? { _tag: "Exited", code: frame.end.code }
          : { _tag: "Signalled", signal: frame.end.signal }
        Queue.offerUnsafe(events, { _tag: "Exited", exit, maxRssBytes: frame.maxRssKiB * 1024 })
        Queue.endUnsafe(events)
        // Last of all: whoever waits for it may start the next one inside this call.
        return prelude?.end(frame.end)
      }
      case "Ok":
      case "Data":
      case "Measured":
      case "Fail": {
        const waiter = waiting.get(frame.seq)
        if (frame._tag === "Fail") {
          const { errno, text: reason } = frame
          if (waiter !== undefined) {
            waiting.delete(frame.seq)
            const refusal = new SandboxRefused({ operation: waiter.operation, errno, reason })
            return void Deferred.doneUnsafe(waiter.answer, Exit.fail(refusal))
          }
          if (frame.seq !== running?.seq || running.ended) return
          running.ended = true
          return void Queue.failCauseUnsafe(
            running.events,
            Cause.fail(new SandboxRefused({ operation: "run", errno, reason }))
          )
        }
        if (waiter === undefined && frame.seq === unawaited) return
        if (waiter === undefined) return lose(`its guest answered request ${frame.seq}, which was never made`)
        waiter.left -= 1
        if (waiter.left > 0) return
        waiting.delete(frame.seq)
        return void Deferred.doneUnsafe(waiter.answer, Exit.succeed(frame))
      }
    }
  }

  output.on("data", (chunk: Buffer) => {
    const { frames, violation } = decoder.push(chunk)
    for (const frame of frames) take(frame)
    if (violation !== undefined) lose(violation.problem, violation)
  })
  // `lose` is called at the other side's end, which knows what it said last; an error of the stream says less.
  output.on("error", () => {})
  input.on("error", () => {})

  if (options.hello !== undefined) input.write(options.hello)

  const write = (parts: ReadonlyArray<Uint8Array>) =>
    Effect.callback<void, SandboxLost>((resume) => {
      if (lost !== undefined) return resume(Effect.fail(lost))
      input.cork()
      const free = parts.map((part) => input.write(part)).every(Boolean)
      input.uncork()
      if (free) return resume(Effect.void)
      const drained = () => {
        input.off("drain", drained)
        input.off("close", drained)
        resume(lost === undefined ? Effect.void : Effect.fail(lost))
      }
      input.on("drain", drained)
      input.on("close", drained)
      return Effect.sync(() => input.off("drain", drained).off("close", drained))
    })

  const ask = Effect.fnUntraced(function*(
    operation: SandboxRefused["operation"],
    seq: number,
    parts: ReadonlyArray<Uint8Array>,
    replies: number
  ) {
    const answer = Deferred.makeUnsafe<Answer, Failure>()
    waiting.set(seq, { operation, left: replies, answer })
    yield* write(parts)
    return yield* Deferred.await(answer).pipe(
      Effect.timeoutOrElse({
        duration: ANSWER_LIMIT,
        orElse: () => {
          lose(`its guest did not answer a ${operation} within ${ANSWER_LIMIT}`)
          return Deferred.await(answer)
        }
      }),
      Effect.ensuring(Effect.sync(() => waiting.delete(seq)))
    )
  })

  const encoded = <A>(operation: SandboxRefused["operation"], result: Result.Result<A, Protocol.RequestInvalid>) =>
    Result.isSuccess(result)
      ? Effect.succeed(result.success)
      : Effect.fail(new SandboxRefused({ operation, errno: EFAULT, reason: result.failure.message }))

  const signal = (number: number, scope: "main" | "all") =>
    Effect.suspend(() => {
      const seq = ++lastSeq
      return Effect.asVoid(ask("signal", seq, [Protocol.encodeSignal(seq, number, scope)], 1))
    })

  const begin = Effect.fnUntraced(function*(seq: number, parts: ReadonlyArray<Uint8Array>, prelude?: Prelude.Prelude) {
    const mine: Running = {
      seq,
      events: yield* Queue.unbounded<LinkEvent, Failure | Cause.Done>(),
      ended: false,
      ...(prelude === undefined ? {} : { prelude })
    }
    buffered = 0
    running = mine
    yield* write(parts)
    return mine
  })

  const eventsOf = (mine: Running) =>
    Stream.fromQueue(mine.events).pipe(
      Stream.mapArray((events) => {
        for (const event of events) if (event._tag === "Output") buffered -= weight(event.bytes)
        if (buffered <= HIGH_WATER / 2 && output.isPaused()) output.resume()
        return events
      }),
      // Left before its end: nothing of it may go on.
      Stream.ensuring(Effect.suspend(() => {
        output.resume()
        if (mine.ended || lost !== undefined) return Effect.void
        mine.ended = true
        unawaited = ++lastSeq
        return Effect.ignore(write([Protocol.encodeSignal(unawaited, 9, "all")]))
      }))
    )

  const put = Effect.fnUntraced(function*(file: Protocol.FileRequest) {
    const seq = ++lastSeq
    const { parts, replies } = yield* encoded("put", Protocol.encodePut(seq, file))
    yield* ask("put", seq, parts, replies)
  })

  const read = Effect.fnUntraced(function*(path: string, offset: number) {
    const seq = ++lastSeq
    const frame = yield* encoded("get", Protocol.encodeGet(seq, path, offset, Protocol.maxGetBytes))
    const data = yield* ask("get", seq, [frame], 1)
    if (data._tag === "Data") return data
    lose("its guest answered a get without data")
    return yield* new SandboxLost({ driver, reason: "a get without data", remedy })
  })

  return {
    ready: Deferred.await(ready),
    lost: Deferred.await(gone),
    put: ({ content, executable, path }) => put({ path, data: content, executable }),
    putStream: (path, bytes) =>
      Effect.gen(function*() {
        const buffer = Buffer.allocUnsafe(PUT_BYTES)
        let length = 0
        let isBegun = false
        const flush = Effect.suspend(() => {
          const file = { path, data: buffer.subarray(0, length), executable: false, append: isBegun }
          isBegun = true
          length = 0
          // Answered before the buffer is filled again.
          return put(file)
        })
        yield* Stream.runForEachArray(bytes, (pieces) =>
          Effect.gen(function*() {
            for (const piece of pieces) {
              for (let rest = piece; rest.length > 0;) {
                const taken = rest.subarray(0, buffer.length - length)
                buffer.set(taken, length)
                length += taken.length
                rest = rest.subarray(taken.length)
                if (length === buffer.length) yield* flush
              }
            }
          }))
        if (length > 0 || !isBegun) yield* flush
      }),
    run: (request, stdin) =>
      Stream.unwrap(Effect.gen(function*() {
        const seq = ++lastSeq
        const frame = yield* encoded("run", Protocol.encodeRun(seq, request))
        const mine = yield* begin(seq, [...Protocol.encodeStdin(seq, stdin), frame])
        return eventsOf(mine)
      })),
    wait: Effect.fnUntraced(function*(request, mark) {
      const seq = ++lastSeq
      const frame = yield* encoded("run", Protocol.encodeRun(seq, request, "wait"))
      const prelude = Prelude.make(mark)
      const mine = yield* begin(seq, [frame], prelude)
      const waiting: Waiting = {
        ended: prelude.ended,
        ready: Effect.raceFirst(
          prelude.ready,
          Effect.flatMap(prelude.ended, (reason) => Effect.fail(new SandboxLost({ driver, reason, remedy })))
        ).pipe(Effect.raceFirst(Effect.flatMap(Deferred.await(gone), Effect.fail))),
        feed: (stdin, limits) =>
          Stream.unwrap(Effect.gen(function*() {
            const fed = ++lastSeq
            const feed = yield* encoded("run", Protocol.encodeFeed(fed, limits))
            yield* ask("run", fed, [...Protocol.encodeStdin(fed, stdin), feed], 1)
            return eventsOf(mine)
          }))
      }
      return waiting
    }),
    signal,
    limit: Effect.fnUntraced(function*({ cpus, memoryBytes, pids }) {
      const seq = ++lastSeq
      const limits = { memoryBytes, pids, cpuMicros: Math.round(cpus * CPU_MICROS) }
      yield* ask("limit", seq, [yield* encoded("limit", Protocol.encodeLimit(seq, limits))], 1)
    }),
    measure: Effect.suspend(() => {
      const seq = ++lastSeq
      return ask("measure", seq, [Protocol.encodeMeasure(seq)], 1)
    }).pipe(
      Effect.flatMap((answer) => {
        if (answer._tag === "Measured") return Effect.succeed(answer)
        lose("its guest answered a measure without one")
        return Effect.fail(new SandboxLost({ driver, reason: "a measure without one", remedy }))
      })
    ),
    get: Effect.fnUntraced(function*(path, maximum) {
      let content: Buffer | undefined
      let offset = 0
      while (true) {
        const data = yield* read(path, offset)
        if (data.fileSize > maximum) {
          const reason = `${path} has ${data.fileSize} bytes, ${maximum} are allowed`
          return yield* new SandboxRefused({ operation: "get", errno: 27, reason })
        }
        // One copy, in place: the decoder's views die with their chunk's memory only when nobody holds them.
        content ??= Buffer.allocUnsafeSlow(data.fileSize)
        const piece = data.bytes.subarray(0, content.length - offset)
        content.set(piece, offset)
        offset += piece.length
        if (piece.length === 0 || offset >= content.length) return content.subarray(0, offset)
      }
    }),
    getStream: (path) =>
      Stream.paginate(0, (offset) =>
        Effect.map(read(path, offset), ({ bytes, fileSize }) => {
          const next = offset + bytes.length
          const isLast = bytes.length === 0 || next >= fileSize
          return [bytes.length === 0 ? [] : [bytes], isLast ? Option.none() : Option.some(next)] as const
        })),
    close: Effect.sync(() => {
      closing = true
      if (lost === undefined && !input.destroyed) input.end()
    }),
    lose
  }
}
