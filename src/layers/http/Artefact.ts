/** A file that a job left, whole or a range of it. */
import { Effect, Option, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import type { ApiError } from "../api/JobApi.ts"
import type { ArtefactNotFound, ArtefactRange, ArtefactSlice } from "../artefacts/Artefacts.ts"
import { isCurrent, parse, within } from "./ByteRange.ts"
import { outOfRange, type Refusal } from "./Problems.ts"

/** Read together, sent together. Bytes. */
const PIECE = 1024 * 1024

type Read = (range: ArtefactRange) => Effect.Effect<ArtefactSlice, ApiError | ArtefactNotFound>

const pieces = (read: Read, from: number, to: number) =>
  Stream.paginate(
    from,
    (offset) =>
      Effect.map(read({ offset, maxBytes: Math.min(PIECE, to - offset) }), ({ bytes }) => {
        const next = offset + bytes.length
        return [
          bytes.length === 0 ? [] : [bytes.subarray(0, to - offset)],
          bytes.length === 0 || next >= to ? Option.none<number>() : Option.some(next)
        ] as const
      })
  )

/** Its last name, in the form that holds any character (RFC 6266). */
const disposition = (path: string): string => {
  const name = path.slice(path.lastIndexOf("/") + 1)
  const encoded = encodeURIComponent(name).replaceAll(/['()*]/g, (char) => `%${char.charCodeAt(0).toString(16)}`)
  return `attachment; filename*=UTF-8''${encoded}`
}

/** The answer. `read` is asked for one byte first, which tells how many there are. */
export const artefact = Effect.fnUntraced(function*(
  read: Read,
  headers: { readonly range?: string | undefined; readonly "if-range"?: string | undefined }
): Effect.fn.Return<HttpServerResponse.HttpServerResponse, ApiError | ArtefactNotFound | Refusal> {
  const { artefact: { bytes: size, path, sha256 } } = yield* read({ offset: 0, maxBytes: 1 })
  const etag = `"${sha256}"`
  const common = {
    "accept-ranges": "bytes",
    etag,
    "content-disposition": disposition(path),
    "cache-control": "private, no-cache"
  }
  const asked = isCurrent(headers["if-range"], etag) ? parse(headers.range) : undefined
  const span = asked === undefined ? { from: 0, to: size } : within(asked, size)
  if (span === undefined) {
    return yield* Effect.fail(
      outOfRange(`the file has ${size} bytes`, "Ask for some of them.", { "content-range": `bytes */${size}` })
    )
  }
  const length = span.to - span.from
  const partly = asked === undefined ? {} : { "content-range": `bytes ${span.from}-${span.to - 1}/${size}` }
  const body = length === 0 ? Stream.empty : pieces(read, span.from, span.to)
  return HttpServerResponse.stream(body, {
    status: asked === undefined ? 200 : 206,
    contentType: "application/octet-stream",
    contentLength: length,
    headers: { ...common, ...partly }
  })
})
