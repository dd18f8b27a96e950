/** One HTTP exchange over a byte stream, as HTTP/1.0 has it: no chunks, and the answer's end is the connection's. */
import { Effect, Schema } from "effect"
import type { Duplex } from "node:stream"

/** Bytes of status line and header fields. */
const MOST_HEAD = 16 * 1024

/** The other side did not keep to HTTP, or went away. */
export class ExchangeFailed extends Schema.TaggedError<ExchangeFailed>()("ExchangeFailed", {
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

const failed = (reason: string) => Effect.fail(new ExchangeFailed({ reason }))

/** The next bytes, or undefined at the end. Nothing is read while nobody asks. */
const next = (stream: Duplex): Effect.Effect<Uint8Array | undefined, ExchangeFailed> =>
  Effect.callback((resume) => {
    const off = () => {
      for (const event of ["readable", "end", "close", "error"]) stream.off(event, look)
    }
    const look = (error?: unknown) => {
      const chunk = stream.read() as Buffer | null
      if (chunk !== null) {
        off()
        return resume(Effect.succeed(chunk))
      }
      if (error instanceof Error || stream.errored !== null) {
        off()
        return resume(failed(`the connection broke: ${(stream.errored ?? (error as Error)).message}`))
      }
      if (stream.readableEnded || stream.destroyed) {
        off()
        return resume(Effect.succeed(undefined))
      }
    }
    for (const event of ["readable", "end", "close", "error"]) stream.on(event, look)
    look()
    return Effect.sync(off)
  })

export interface Answered {
  readonly status: number
  /** The next bytes of the body, or undefined at its end. Fails when the connection ends before the body should. */
  readonly body: Effect.Effect<Uint8Array | undefined, ExchangeFailed>
}

interface Head {
  readonly status: number
  /** Bytes of the body, if it says so. */
  readonly length: number | undefined
}

const parseHead = (text: string): Head | string => {
  const [first = "", ...fields] = text.split("\r\n")
  const status = /^HTTP\/1\.[01] ([1-5][0-9]{2})(?: |$)/.exec(first)?.[1]
  if (status === undefined) return "its answer is no HTTP"
  let length: number | undefined
  for (const field of fields) {
    const [, name = "", value = ""] = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/.exec(field) ?? []
    if (name === "") return "its answer has a header field that is none"
    if (name.toLowerCase() === "transfer-encoding") return "its answer comes in an encoding that nobody asked for"
    if (name.toLowerCase() !== "content-length") continue
    if (length !== undefined || !/^[0-9]{1,15}$/.test(value)) return "its answer has a length that is none"
    length = Number(value)
  }
  return { status: Number(status), length }
}

const requestHead = (method: "GET" | "POST", path: string, body: Uint8Array | undefined): string =>
  [
    `${method} ${path} HTTP/1.0`,
    "Host: agent",
    "Connection: close",
    ...(body === undefined ? [] : ["Content-Type: application/json", `Content-Length: ${body.length}`]),
    "",
    ""
  ].join("\r\n")

/** Sends a request; comes back with the head of the answer. */
export const exchange = Effect.fnUntraced(function*(
  stream: Duplex,
  method: "GET" | "POST",
  path: string,
  body?: Uint8Array
) {
  // Reading finds out all that there is to know of a connection that breaks.
  stream.on("error", () => {})
  stream.write(requestHead(method, path, body))
  // Not waited for: an answer may come before the agent has read all of it.
  if (body !== undefined) stream.write(body)

  let head: Buffer = Buffer.alloc(0)
  let end = -1
  while (end < 0) {
    const chunk = yield* next(stream)
    if (chunk === undefined) return yield* failed("it closed the connection without an answer")
    head = Buffer.concat([head, chunk])
    end = head.indexOf("\r\n\r\n")
    if (end > MOST_HEAD || (end < 0 && head.length > MOST_HEAD)) return yield* failed("its answer has an endless head")
  }
  const parsed = parseHead(head.subarray(0, end).toString("latin1"))
  if (typeof parsed === "string") return yield* failed(parsed)
  const { length, status } = parsed
  let left = length ?? Number.POSITIVE_INFINITY
  let first: Buffer | undefined = head.subarray(end + 4)

  const answered: Answered = {
    status,
    body: Effect.gen(function*() {
      if (left === 0) return undefined
      const begun = first
      first = undefined
      const chunk = begun !== undefined && begun.length > 0 ? begun : yield* next(stream)
      if (chunk === undefined) return length === undefined ? undefined : yield* failed("its answer was cut off")
      const part = chunk.subarray(0, left)
      left -= part.length
      return part
    })
  }
  return answered
})
