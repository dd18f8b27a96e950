/**
 * The words between the worker (host) and the guest: pure data and a codec, no I/O.
 *
 * A frame is `u32 payload length, u8 type, u32 seq, payload`; integers are little endian, a string is its u32 byte
 * length and UTF-8 bytes. An answer carries the seq of its request; output and exit carry the seq of their run.
 * The other side is `native/guest/guest.h`. The guest shares a sandbox with hostile code, so nothing it says is trusted.
 */
import { Result, Schema } from "effect"

/** Spoken by both sides; a guest that speaks another one is refused. */
export const version = 3

/** Bytes before every payload. */
export const headerBytes = 9

/** The most bytes of payload the guest takes in one frame. */
export const maxPayloadBytes = 1024 * 1024

/** The most bytes of payload the decoder takes in one frame. */
export const maxGuestPayloadBytes = maxPayloadBytes + 64

/** Files and input are cut into pieces of this many bytes. */
export const chunkBytes = 256 * 1024

/** The most bytes of a file in one `Data`; ask again at the next offset until `fileSize` is reached. */
export const maxGetBytes = 128 * 1024

/** Longest path, in bytes of UTF-8. */
export const maxPathBytes = 4095

const hostType = {
  put: 0x01,
  stdin: 0x02,
  run: 0x03,
  signal: 0x04,
  get: 0x05,
  shutdown: 0x06,
  wait: 0x07,
  feed: 0x08,
  limit: 0x09,
  measure: 0x0a
} as const

/** A request that cannot be put into a frame. It was not sent; the guest is unharmed. */
export class RequestInvalid extends Schema.TaggedError<RequestInvalid>()("RequestInvalid", {
  request: Schema.Literals(["put", "run", "get", "limit"]),
  problem: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.request} was not sent to the guest: ${this.problem}. ${this.remedy}`
  }
}

/** The guest said something the protocol does not know: it is broken, replaced or attacked. End its sandbox. */
export class ProtocolViolation extends Schema.TaggedError<ProtocolViolation>()("ProtocolViolation", {
  problem: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `the guest broke the protocol: ${this.problem}. ${this.remedy}`
  }
}

/** Limits of one phase, set by the guest as rlimits (soft and hard). Whole numbers; 0 leaves what the guest has. */
export interface RunLimits {
  /** Largest file a process may write, bytes. */
  readonly fileBytes: number
  /** Open files per process. */
  readonly openFiles: number
  /** Stack of a process, bytes. */
  readonly stackBytes: number
  /** CPU time per process, seconds: SIGXCPU at the limit, SIGKILL a second later. */
  readonly cpuSeconds: number
}

/** Limits of all processes of the phases to come together, in a machine of their own. Whole numbers; 0 is no limit. */
export interface GroupLimits {
  readonly memoryBytes: number
  readonly pids: number
  /** Microseconds of CPU time in each 100 milliseconds: 100,000 is one core. */
  readonly cpuMicros: number
}

/** What a RUN asks for. */
export interface RunRequest {
  /** Relative to the work directory; "" is the work directory itself. */
  readonly cwd: string
  /** Program and arguments; a program without a slash is looked up in the PATH of `env`. */
  readonly argv: ReadonlyArray<string>
  /** The whole environment: nothing is inherited. */
  readonly env: Readonly<Record<string, string>>
  readonly limits: RunLimits
}

/** A file to be put beneath the work directory. */
export interface FileRequest {
  /** Relative, without `..`; missing directories are made. */
  readonly path: string
  readonly data: Uint8Array
  readonly executable: boolean
  /** Goes behind what the file has. Absent: the file is made, or emptied. */
  readonly append?: boolean
}

/** A PUT: the parts to write in order (views of the data, so leave it unchanged until they are written). */
export interface PutFrames {
  readonly parts: ReadonlyArray<Uint8Array>
  /** How many `Ok` or `Fail` come back, all with the one seq. The file is there when all are `Ok`. */
  readonly replies: number
}

/** Bytes of one of the two output streams of a run, in order. One frame of the wire may come as several of these. */
export interface OutputFrame {
  readonly _tag: "Stdout" | "Stderr"
  readonly seq: number
  /** A view of the chunk given to the decoder. */
  readonly bytes: Uint8Array
}

/** The end of a run: no process of it is left, all its output came before. Times as the guest saw them: not evidence. */
export interface ExitFrame {
  readonly _tag: "Exit"
  readonly seq: number
  readonly end: { readonly kind: "exited"; readonly code: number } | {
    readonly kind: "signalled"
    readonly signal: number
  }
  /** Microseconds from fork to the end of the main process. */
  readonly wallMicros: number
  /** CPU of all processes of the run, microseconds. */
  readonly userMicros: number
  readonly systemMicros: number
  /** Largest resident set of any one process, KiB. */
  readonly maxRssKiB: number
}

/**
 * What the phases since the last LIMIT used, in the words of the machine's own kernel. Undefined: that kernel does not know.
 * The guest has it from cgroup files that no job can reach.
 */
export interface MeasuredFrame {
  readonly _tag: "Measured"
  readonly seq: number
  readonly memoryPeakBytes: number | undefined
  /** Processes that were killed because memory ran out. */
  readonly oomKills: number | undefined
  readonly pidsPeak: number | undefined
  /** Forks that were refused by the limit. */
  readonly pidsRefused: number | undefined
  readonly userMicros: number | undefined
  readonly systemMicros: number | undefined
  readonly ioReadBytes: number | undefined
  readonly ioWriteBytes: number | undefined
}

/** The first frame of a machine: it is what `Personalisation.encode` asked it to be. */
export interface PersonalisedFrame {
  readonly _tag: "Personalised"
  readonly seq: number
  /** As it was sent. */
  readonly token: Uint8Array
  /** The machine's clock afterwards, since 1970. */
  readonly seconds: number
  readonly nanoseconds: number
  /** 16 random bytes that were made after the machine had its entropy. */
  readonly machineId: Uint8Array
}

/** Everything a guest can say. */
export type GuestFrame =
  | { readonly _tag: "Ready"; readonly seq: number; readonly version: number }
  | { readonly _tag: "Ok"; readonly seq: number }
  /** `errno` is Linux's number; `text` says what failed, on which path or program (`exec NAME`). */
  | { readonly _tag: "Fail"; readonly seq: number; readonly errno: number; readonly text: string }
  /** `pid` as the guest sees it. */
  | { readonly _tag: "Started"; readonly seq: number; readonly pid: number }
  | OutputFrame
  | ExitFrame
  | MeasuredFrame
  | PersonalisedFrame
  /** `fileSize` in bytes, `mode` the permission bits, `bytes` at most `maxGetBytes` from the offset asked for. */
  | {
    readonly _tag: "Data"
    readonly seq: number
    readonly fileSize: number
    readonly mode: number
    readonly bytes: Uint8Array
  }

/** A header with room for `ownBytes` of the payload behind it. */
export const frame = (type: number, seq: number, payloadBytes: number, ownBytes = payloadBytes): Buffer => {
  const buffer = Buffer.allocUnsafe(headerBytes + ownBytes)
  buffer.writeUInt32LE(payloadBytes, 0)
  buffer.writeUInt8(type, 4)
  buffer.writeUInt32LE(seq >>> 0, 5)
  return buffer
}

const pathProblem = (path: string): string | undefined => {
  const bytes = Buffer.byteLength(path)
  return bytes > maxPathBytes ? `its path has ${bytes} bytes, ${maxPathBytes} is the most` : undefined
}

const invalid = (request: RequestInvalid["request"], problem: string, remedy: string) =>
  Result.fail(new RequestInvalid({ request, problem, remedy }))

/** One file as PUT frames of at most `chunkBytes` of data: the first creates or empties it, the others append. */
export const encodePut = (seq: number, file: FileRequest): Result.Result<PutFrames, RequestInvalid> => {
  const problem = pathProblem(file.path)
  if (problem !== undefined) return invalid("put", problem, "Use a shorter path.")
  const pathBytes = Buffer.byteLength(file.path)
  const parts: Array<Uint8Array> = []
  let offset = 0
  do {
    const bytes = file.data.subarray(offset, offset + chunkBytes)
    const head = frame(hostType.put, seq, 5 + pathBytes + bytes.length, 5 + pathBytes)
    head.writeUInt8((offset > 0 || file.append === true ? 1 : 0) | (file.executable ? 2 : 0), headerBytes)
    head.writeUInt32LE(pathBytes, headerBytes + 1)
    head.write(file.path, headerBytes + 5)
    parts.push(head)
    if (bytes.length > 0) parts.push(bytes)
    offset += chunkBytes
  } while (offset < file.data.length)
  return Result.succeed({ parts, replies: Math.ceil(offset / chunkBytes) })
}

/** Standard input of the next RUN or FEED, more than once if you like. There is no answer: a failure fails that one. */
export const encodeStdin = (seq: number, data: Uint8Array): ReadonlyArray<Uint8Array> => {
  const parts: Array<Uint8Array> = []
  for (let offset = 0; offset < data.length; offset += chunkBytes) {
    const bytes = data.subarray(offset, offset + chunkBytes)
    parts.push(frame(hostType.stdin, seq, bytes.length, 0), bytes)
  }
  return parts
}

/** As they lie in a RUN and a FEED. */
const limitWords = ({ cpuSeconds, fileBytes, openFiles, stackBytes }: RunLimits) => {
  const limits = [fileBytes, openFiles, stackBytes, cpuSeconds]
  return limits.every((limit) => Number.isSafeInteger(limit) && limit >= 0)
    ? Result.succeed(limits)
    : invalid("run", `its limits ${limits.join(", ")} are not all whole numbers`, "Use 0 for no limit.")
}

/**
 * Starts a phase: answered by `Started` (or `Fail`), then output, then `Exit`. One that waits (`wait`) begins without its
 * standard input, which is open until a FEED has brought all of it.
 */
export const encodeRun = (
  seq: number,
  run: RunRequest,
  kind: "run" | "wait" = "run"
): Result.Result<Uint8Array, RequestInvalid> => {
  const words = limitWords(run.limits)
  if (Result.isFailure(words)) return Result.fail(words.failure)
  const limits = words.success
  const env = Object.entries(run.env).map(([name, value]) => `${name}=${value}`)
  const strings = [run.cwd, ...run.argv, ...env]
  const payloadBytes = strings.reduce((sum, string) => sum + 4 + Buffer.byteLength(string), 8 * limits.length + 8)
  if (payloadBytes > maxPayloadBytes) {
    return invalid(
      "run",
      `arguments and environment take ${payloadBytes} bytes, ${maxPayloadBytes} is the most`,
      "Put the data into a file or into standard input."
    )
  }
  const buffer = frame(hostType[kind], seq, payloadBytes)
  let at = headerBytes
  const u32 = (value: number) => {
    at = buffer.writeUInt32LE(value, at)
  }
  const string = (value: string) => {
    const bytes = buffer.write(value, at + 4)
    u32(bytes)
    at += bytes
  }
  string(run.cwd)
  for (const limit of limits) at = buffer.writeBigUInt64LE(BigInt(limit), at)
  u32(run.argv.length)
  run.argv.forEach(string)
  u32(env.length)
  env.forEach(string)
  return Result.succeed(buffer)
}

/**
 * What STDIN has brought is the standard input of the phase that waits, and these are its limits from now on: they can only
 * be lowered, and 0 leaves one as it is. Answered by `Ok`, or by `Fail` when no phase waits.
 */
export const encodeFeed = (seq: number, limits: RunLimits): Result.Result<Uint8Array, RequestInvalid> =>
  Result.map(limitWords(limits), (words) => {
    const buffer = frame(hostType.feed, seq, 8 * words.length)
    words.forEach((limit, index) => buffer.writeBigUInt64LE(BigInt(limit), headerBytes + 8 * index))
    return buffer
  })

/** Signals the group of the phase's main process (`main`) or every process of the job (`all`). */
export const encodeSignal = (seq: number, signal: number, scope: "main" | "all"): Uint8Array => {
  const buffer = frame(hostType.signal, seq, 5)
  buffer.writeInt32LE(signal, headerBytes)
  buffer.writeUInt8(scope === "all" ? 1 : 0, headerBytes + 4)
  return buffer
}

/** Reads up to `max` bytes (at most `maxGetBytes`) of a regular file; refused with EBUSY while a phase runs. */
export const encodeGet = (
  seq: number,
  path: string,
  offset: number,
  max: number
): Result.Result<Uint8Array, RequestInvalid> => {
  const problem = pathProblem(path)
  if (problem !== undefined) return invalid("get", problem, "Use a shorter path.")
  if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(max) || max < 0) {
    return invalid("get", `offset ${offset} and length ${max} are not whole numbers`, "Count in bytes from 0.")
  }
  const pathBytes = Buffer.byteLength(path)
  const buffer = frame(hostType.get, seq, 16 + pathBytes)
  buffer.writeUInt32LE(pathBytes, headerBytes)
  buffer.write(path, headerBytes + 4)
  buffer.writeBigUInt64LE(BigInt(offset), headerBytes + 4 + pathBytes)
  buffer.writeUInt32LE(Math.min(max, maxGetBytes), headerBytes + 12 + pathBytes)
  return Result.succeed(buffer)
}

/**
 * Begins a group with these limits, in which the phases started from now on live; while one runs or waits, changes its group
 * instead. Answered by `Ok`, or by `Fail` from a guest that has no machine of its own.
 */
export const encodeLimit = (seq: number, limits: GroupLimits): Result.Result<Uint8Array, RequestInvalid> => {
  const words = [limits.memoryBytes, limits.pids, limits.cpuMicros]
  if (!words.every((word) => Number.isSafeInteger(word) && word >= 0)) {
    return invalid("limit", `its limits ${words.join(", ")} are not all whole numbers`, "Use 0 for no limit.")
  }
  const buffer = frame(hostType.limit, seq, 8 * words.length)
  words.forEach((word, index) => buffer.writeBigUInt64LE(BigInt(word), headerBytes + 8 * index))
  return Result.succeed(buffer)
}

/** Asks what the group of the last LIMIT used: answered by `Measured`, or by `Fail`. */
export const encodeMeasure = (seq: number): Uint8Array => frame(hostType.measure, seq, 0)

/** Ends the guest: every process of the job is killed, then comes `Ok`, then EOF. */
export const encodeShutdown = (seq: number): Uint8Array => frame(hostType.shutdown, seq, 0)

/** What a chunk brought. Frames before a violation are valid; after one, every further push gives only the violation. */
export interface Decoded {
  readonly frames: ReadonlyArray<GuestFrame>
  readonly violation: ProtocolViolation | undefined
}

/** Incremental and bounded: it holds at most one header and one payload that is not output, never output. */
export interface Decoder {
  /** Any cut of the stream will do. Frames hold views of the chunk: do not reuse its memory. */
  readonly push: (chunk: Uint8Array) => Decoded
  /** To be called at EOF: a stream that ends within a frame was cut. */
  readonly end: () => ProtocolViolation | undefined
}

type GuestTag = GuestFrame["_tag"]

/** Type byte to name and permitted payload sizes. */
const guestTypes: ReadonlyMap<number, { readonly tag: GuestTag; readonly min: number; readonly max: number }> = new Map(
  [
    [0x81, { tag: "Ready", min: 4, max: 4 }],
    [0x82, { tag: "Ok", min: 0, max: 0 }],
    [0x83, { tag: "Fail", min: 8, max: 8 + 64 * 1024 }],
    [0x84, { tag: "Started", min: 4, max: 4 }],
    [0x85, { tag: "Stdout", min: 1, max: maxGuestPayloadBytes }],
    [0x86, { tag: "Stderr", min: 1, max: maxGuestPayloadBytes }],
    [0x87, { tag: "Exit", min: 37, max: 37 }],
    [0x88, { tag: "Data", min: 12, max: maxGuestPayloadBytes }],
    [0x89, { tag: "Measured", min: 64, max: 64 }],
    [0xa0, { tag: "Personalised", min: 60, max: 60 }]
  ]
)

const violation = (problem: string, remedy = "Its sandbox must be ended; run the job in another one.") =>
  new ProtocolViolation({ problem, remedy })

const uint64 = (bytes: Buffer, at: number): number | undefined => {
  const value = bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32
  return Number.isSafeInteger(value) ? value : undefined
}

const decodeExit = (seq: number, body: Buffer): GuestFrame | ProtocolViolation => {
  const kind = body.readUInt8(0)
  const code = body.readInt32LE(1)
  const wallMicros = uint64(body, 5)
  const userMicros = uint64(body, 13)
  const systemMicros = uint64(body, 21)
  const maxRssKiB = uint64(body, 29)
  if (
    wallMicros === undefined || userMicros === undefined || systemMicros === undefined || maxRssKiB === undefined
  ) return violation("an Exit with a measure above 2^53")
  if (kind === 0 && code >= 0 && code <= 255) {
    return { _tag: "Exit", seq, end: { kind: "exited", code }, wallMicros, userMicros, systemMicros, maxRssKiB }
  }
  if (kind === 1 && code >= 1 && code <= 64) {
    return {
      _tag: "Exit",
      seq,
      end: { kind: "signalled", signal: code },
      wallMicros,
      userMicros,
      systemMicros,
      maxRssKiB
    }
  }
  return violation(`an Exit of kind ${kind} with code ${code}`)
}

const unknown = 2n ** 64n - 1n

const decodeMeasured = (seq: number, body: Buffer): GuestFrame | ProtocolViolation => {
  const values = Array.from({ length: 8 }, (_, index) => uint64(body, 8 * index))
  for (let index = 0; index < 8; index++) {
    if (values[index] === undefined && body.readBigUInt64LE(8 * index) !== unknown) {
      return violation("a Measured with a measure above 2^53")
    }
  }
  const [memoryPeakBytes, oomKills, pidsPeak, pidsRefused, userMicros, systemMicros, ioReadBytes, ioWriteBytes] = values
  return {
    _tag: "Measured",
    seq,
    memoryPeakBytes,
    oomKills,
    pidsPeak,
    pidsRefused,
    userMicros,
    systemMicros,
    ioReadBytes,
    ioWriteBytes
  }
}

const decodePersonalised = (seq: number, body: Buffer): GuestFrame | ProtocolViolation => {
  const seconds = uint64(body, 32)
  const nanoseconds = body.readUInt32LE(40)
  if (seconds === undefined || nanoseconds >= 1_000_000_000) return violation("a Personalised with no time of a clock")
  const token = Uint8Array.from(body.subarray(0, 32))
  return { _tag: "Personalised", seq, token, seconds, nanoseconds, machineId: Uint8Array.from(body.subarray(44)) }
}

/** A whole payload that is not output; its size was checked with the header. */
const decodeBody = (
  tag: Exclude<GuestTag, "Stdout" | "Stderr">,
  seq: number,
  body: Buffer
): GuestFrame | ProtocolViolation => {
  switch (tag) {
    case "Ready": {
      const spoken = body.readUInt32LE(0)
      return spoken === version
        ? { _tag: "Ready", seq, version: spoken }
        : violation(`it speaks version ${spoken}, this worker ${version}`, "Rebuild the guest with native/build.")
    }
    case "Ok":
      return { _tag: "Ok", seq }
    case "Fail": {
      const textBytes = body.readUInt32LE(4)
      return textBytes === body.length - 8
        ? { _tag: "Fail", seq, errno: body.readInt32LE(0), text: body.toString("utf8", 8) }
        : violation(`a Fail of ${body.length} bytes with a text of ${textBytes}`)
    }
    case "Started": {
      const pid = body.readUInt32LE(0)
      return pid > 0 ? { _tag: "Started", seq, pid } : violation("a Started without a pid")
    }
    case "Exit":
      return decodeExit(seq, body)
    case "Measured":
      return decodeMeasured(seq, body)
    case "Personalised":
      return decodePersonalised(seq, body)
    case "Data": {
      const fileSize = uint64(body, 0)
      return fileSize === undefined
        ? violation("a Data with a file size above 2^53")
        : { _tag: "Data", seq, fileSize, mode: body.readUInt32LE(8), bytes: body.subarray(12) }
    }
  }
}

/** A decoder for the life of one guest. */
export const makeDecoder = (): Decoder => {
  const header = Buffer.alloc(headerBytes)
  let headerFilled = 0
  // The frame whose header is complete, and what is still missing of its payload.
  let current: { readonly tag: GuestTag; readonly seq: number; readonly size: number } | undefined
  let missing = 0
  let body: Buffer | undefined // only for a payload that came in pieces
  let broken: ProtocolViolation | undefined

  const open = (bytes: Buffer, at: number): ProtocolViolation | undefined => {
    const size = bytes.readUInt32LE(at)
    const type = bytes.readUInt8(at + 4)
    const known = guestTypes.get(type)
    if (known === undefined) return violation(`an unknown frame type 0x${type.toString(16)}`)
    if (size < known.min || size > known.max) {
      return violation(`a frame ${known.tag} of ${size} bytes, permitted are ${known.min} to ${known.max}`)
    }
    current = { tag: known.tag, seq: bytes.readUInt32LE(at + 5), size }
    missing = size
    return undefined
  }

  const push = (chunk: Uint8Array): Decoded => {
    const frames: Array<GuestFrame> = []
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    let at = 0
    while (broken === undefined) {
      if (current === undefined) {
        if (headerFilled === 0 && bytes.length - at >= headerBytes) {
          broken = open(bytes, at)
          at += headerBytes
        } else {
          const taken = bytes.copy(header, headerFilled, at, at + headerBytes - headerFilled)
          headerFilled += taken
          at += taken
          if (headerFilled < headerBytes) break
          headerFilled = 0
          broken = open(header, 0)
        }
        continue
      }
      const { seq, size, tag } = current
      const part = bytes.subarray(at, at + missing)
      at += part.length
      missing -= part.length
      if (tag === "Stdout" || tag === "Stderr") {
        if (part.length > 0) frames.push({ _tag: tag, seq, bytes: part })
        if (missing > 0) break
        current = undefined
        continue
      }
      if (body !== undefined || part.length < size) {
        body ??= Buffer.allocUnsafe(size)
        body.set(part, size - missing - part.length)
      }
      if (missing > 0) break
      const decoded = decodeBody(tag, seq, body ?? part)
      current = undefined
      body = undefined
      if (decoded._tag === "ProtocolViolation") broken = decoded
      else frames.push(decoded)
    }
    return { frames, violation: broken }
  }

  const end = () => {
    if (broken === undefined && (current !== undefined || headerFilled > 0)) {
      broken = violation("it ended within a frame")
    }
    return broken
  }

  return { push, end }
}
