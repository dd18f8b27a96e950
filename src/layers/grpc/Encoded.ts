/** Messages that are bytes already, so that a thousand who are sent the same share one. */
import { create, type DescMessage, toBinary } from "@bufbuild/protobuf"
import { BinaryWriter } from "@bufbuild/protobuf/wire"
import type { StreamName } from "../../schemas/Outcome.ts"
import type { LogEntry } from "../log/Log.ts"
import { BytesSchema, FollowResponseSchema, OutputSchema } from "./gen/stoker/v1/stoker_pb.js"
import { type OutputInit, outputMessages } from "./JobMessages.ts"

/** What a stream may give in place of a message. The bytes are not changed afterwards. */
export class Encoded {
  readonly bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }
}

interface Known {
  readonly stream: StreamName
  readonly offset: number
  readonly byteOffset: number
  readonly byteLength: number
  readonly messages: ReadonlyArray<Encoded>
}

/**
 * By the memory that the bytes lie in, and forgotten with it: the last part of it that was encoded. Who follows at the end of
 * a log gets bytes by reference (`LogRecent`), all of them the same within one turn of the event loop.
 */
const known = new WeakMap<ArrayBufferLike, Known>()

/** Bytes. A table of all that is read from the disk, each for one reader, is what the collector then has to look through. */
const mostShared = 32 * 1024

/** One entry as messages of `Follow`: several if it is large. */
export const followOutput = (entry: LogEntry): ReadonlyArray<Encoded> => {
  if (entry._tag === "Gap") return encode(entry)
  const { bytes: { buffer, byteLength, byteOffset }, offset, stream } = entry
  if (byteLength > mostShared) return encode(entry)
  const found = known.get(buffer)
  if (
    found !== undefined && found.offset === offset && found.byteLength === byteLength &&
    found.byteOffset === byteOffset && found.stream === stream
  ) return found.messages
  const messages = encode(entry)
  known.set(buffer, { stream, offset, byteOffset, byteLength, messages })
  return messages
}

/** A tag of the wire: a field with a length before its bytes (https://protobuf.dev/programming-guides/encoding). */
const tagOf = (schema: DescMessage, name: string): number => {
  const field = schema.fields.find((field) => field.localName === name)
  if (field === undefined) throw new Error(`${schema.typeName} has no field ${name}`)
  return field.number << 3 | 2
}
const outputTag = tagOf(FollowResponseSchema, "output")
const bytesTag = tagOf(OutputSchema, "bytes")
const dataTag = tagOf(BytesSchema, "data")

/** What comes before so many bytes: the fields before them, the tag, the length. */
const before = (fields: Uint8Array, tag: number, length: number): Uint8Array =>
  new BinaryWriter().raw(fields).uint32(tag).uint32(length).finish()

const none = new Uint8Array()

/**
 * The bytes are the last field of each message around them, so all the rest comes before them, and they are copied once. The
 * library copies them for each message and each time its buffer grows: 8 ms for a MiB, more than all else (measured).
 */
const bytesMessage = (stream: OutputInit["stream"], offset: number | bigint, data: Uint8Array): Encoded => {
  const inner = before(toBinary(BytesSchema, create(BytesSchema, { offset: BigInt(offset) })), dataTag, data.length)
  const output = before(
    toBinary(OutputSchema, create(OutputSchema, stream === undefined ? {} : { stream })),
    bytesTag,
    inner.length + data.length
  )
  const outer = before(none, outputTag, output.length + inner.length + data.length)
  return new Encoded(Buffer.concat([outer, output, inner, data]))
}

const encode = (entry: LogEntry): ReadonlyArray<Encoded> =>
  outputMessages(entry).map((value) => {
    const { content, stream } = value
    return content?.case === "bytes" && content.value.data !== undefined && content.value.data.length > 0
      ? bytesMessage(stream, content.value.offset ?? 0, content.value.data)
      : new Encoded(toBinary(FollowResponseSchema, create(FollowResponseSchema, { event: { case: "output", value } })))
  })

/** Anything that is told again and again as the same object: encoded once, as long as somebody has it. */
export const once = <A extends object>(encode: (value: A) => Uint8Array): (value: A) => Encoded => {
  const told = new WeakMap<A, Encoded>()
  return (value) => {
    const found = told.get(value)
    if (found !== undefined) return found
    const made = new Encoded(encode(value))
    told.set(value, made)
    return made
  }
}
