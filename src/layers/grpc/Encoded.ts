/** Messages that are bytes already, so that a thousand who are sent the same share one. */
import { create, toBinary } from "@bufbuild/protobuf"
import type { StreamName } from "../../schemas/Outcome.ts"
import type { LogEntry } from "../log/Log.ts"
import { FollowResponseSchema } from "./gen/stoker/v1/stoker_pb.js"
import { outputMessages } from "./JobMessages.ts"

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

/** One entry as messages of `Follow`: several if it is large. */
export const followOutput = (entry: LogEntry): ReadonlyArray<Encoded> => {
  if (entry._tag === "Gap") return encode(entry)
  const { bytes: { buffer, byteLength, byteOffset }, offset, stream } = entry
  const found = known.get(buffer)
  if (
    found !== undefined && found.offset === offset && found.byteLength === byteLength &&
    found.byteOffset === byteOffset && found.stream === stream
  ) return found.messages
  const messages = encode(entry)
  known.set(buffer, { stream, offset, byteOffset, byteLength, messages })
  return messages
}

const encode = (entry: LogEntry) =>
  outputMessages(entry).map((value) =>
    new Encoded(toBinary(FollowResponseSchema, create(FollowResponseSchema, { event: { case: "output", value } })))
  )
