/**
 * A compile phase's result as a file: magic, key, the length of a head, the head (JSON: names and lengths), the bytes it
 * lists, and a SHA-256 of all that. Numbers are little-endian.
 */
import { Option, Schema } from "effect"
import { createHash } from "node:crypto"
import { StreamName } from "../../schemas/Outcome.ts"
import { WorkPath } from "../../schemas/Program.ts"
import type { Compiled, CompileKey } from "./CompileCache.ts"
import { FORMAT } from "./CompileKey.ts"

const MAGIC = Buffer.from(`STOKERC${FORMAT}`)
const KEY = 32
const HASH = 32
const FIXED = MAGIC.length + KEY + 4

const Head = Schema.Struct({
  files: Schema.Array(Schema.Struct({ path: WorkPath, executable: Schema.Boolean, bytes: Schema.Natural })),
  output: Schema.Array(Schema.Struct({ stream: StreamName, bytes: Schema.Natural }))
})
const decodeHead = Schema.decodeUnknownOption(Schema.fromJsonString(Head))

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest()

export const encode = (key: CompileKey, { files, output }: Compiled): Buffer => {
  const head: typeof Head.Type = {
    files: files.map(({ content, executable, path }) => ({ path, executable, bytes: content.length })),
    output: output.map(({ bytes, stream }) => ({ stream, bytes: bytes.length }))
  }
  const json = Buffer.from(JSON.stringify(head))
  const length = Buffer.alloc(4)
  length.writeUInt32LE(json.length)
  const body = Buffer.concat([
    MAGIC,
    Buffer.from(key, "hex"),
    length,
    json,
    ...files.map(({ content }) => content),
    ...output.map(({ bytes }) => bytes)
  ])
  return Buffer.concat([body, sha256(body)])
}

/** None unless it is whole, unchanged, and the result of that key. */
export const decode = (key: CompileKey, bytes: Buffer): Option.Option<Compiled> => {
  const end = bytes.length - HASH
  if (end < FIXED || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) return Option.none()
  if (bytes.toString("hex", MAGIC.length, MAGIC.length + KEY) !== key) return Option.none()
  if (!sha256(bytes.subarray(0, end)).equals(bytes.subarray(end))) return Option.none()
  const headEnd = FIXED + bytes.readUInt32LE(FIXED - 4)
  return Option.flatMap(decodeHead(bytes.toString("utf8", FIXED, headEnd)), (head) => {
    let at = headEnd
    const next = (length: number) => bytes.subarray(at, at += length)
    const files = head.files.map(({ bytes, executable, path }) => ({ path, executable, content: next(bytes) }))
    const output = head.output.map(({ bytes, stream }) => ({ stream, bytes: next(bytes) }))
    return at === end ? Option.some({ files, output }) : Option.none()
  })
}
