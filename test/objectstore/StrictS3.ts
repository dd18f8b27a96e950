/**
 * An object store for tests, over real HTTP and strict: signatures are worked out anew from what came over the wire, checksums
 * are checked, parts have their least size. Faults are put in by the request. It knows nothing of src.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto"
import * as http from "node:http"
import type { AddressInfo } from "node:net"

export interface Seen {
  readonly method: string
  readonly bucket: string
  readonly key: string
  readonly query: URLSearchParams
  readonly headers: http.IncomingHttpHeaders
  readonly bodyBytes: number
}

export type Fault =
  /** Refuses, after the body or before it. */
  | { readonly kind: "status"; readonly status: number; readonly code?: string; readonly retryAfter?: number }
  /** The connection is cut before anything is done. */
  | { readonly kind: "reset" }
  /** Does it, and cuts the connection instead of answering. */
  | { readonly kind: "unheard" }
  /** Never answers. */
  | { readonly kind: "silent" }
  /** Gives so many bytes of an object, then cuts the connection, or says nothing more, or gives one of them wrong. */
  | { readonly kind: "cut" | "stall" | "flip"; readonly after: number }
  /** So many bytes of an object every 100 ms. */
  | { readonly kind: "trickle"; readonly bytes: number }
  /** Keeps only so many bytes of what was put, and says nothing of it. */
  | { readonly kind: "lose"; readonly keep: number }
  /** Says it went wrong with status 200, as stores do that have begun to answer. */
  | { readonly kind: "late-error"; readonly code: string }

export interface Stored {
  readonly pieces: ReadonlyArray<Buffer>
  readonly bytes: number
  readonly etag: string
  readonly type: string
}

interface Upload {
  readonly bucket: string
  readonly key: string
  readonly type: string
  readonly parts: Map<number, Stored>
}

class Refusal extends Error {
  readonly status: number
  readonly code: string
  readonly more: string
  constructor(status: number, code: string, message: string, more = "") {
    super(message)
    this.status = status
    this.code = code
    this.more = more
  }
}

const xml = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\"", "&quot;")
/** A body is hashed once: it is checked and named by it. */
const known = new WeakMap<Buffer, Buffer>()
const md5 = (bytes: Buffer) => {
  const sum = known.get(bytes) ?? createHash("md5").update(bytes).digest()
  known.set(bytes, sum)
  return sum
}
const stored = (pieces: ReadonlyArray<Buffer>, etag: string, type: string): Stored => ({
  pieces,
  bytes: pieces.reduce((sum, piece) => sum + piece.length, 0),
  etag,
  type
})

/** A byte that may stand in a canonical request as it is. */
const isPlain = (byte: number) =>
  (byte >= 48 && byte <= 57) || (byte >= 65 && byte <= 90) || (byte >= 97 && byte <= 122) ||
  [45, 46, 95, 126].includes(byte)
const percent = (text: string, others = "") =>
  [...Buffer.from(text)].map((byte) =>
    isPlain(byte) || others.includes(String.fromCharCode(byte))
      ? String.fromCharCode(byte)
      : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`
  ).join("")

export class StrictS3 {
  readonly buckets = new Map<string, Map<string, Stored>>()
  readonly uploads = new Map<string, Upload>()
  readonly seen: Array<Seen> = []
  /** Asked for each request that is well signed. */
  fault: (seen: Seen) => Fault | undefined = () => undefined
  readonly accessKey: string
  readonly secretKey: string
  readonly region: string
  pageKeys = 1000
  readonly #server: http.Server
  #uploads = 0

  constructor(options: { readonly accessKey?: string; readonly secretKey?: string; readonly region?: string } = {}) {
    this.accessKey = options.accessKey ?? "AKIATEST"
    this.secretKey = options.secretKey ?? "a+secret/key="
    this.region = options.region ?? "us-east-1"
    this.#server = http.createServer((request, response) => void this.#serve(request, response))
    this.#server.on("checkContinue", (request, response) => void this.#serve(request, response))
  }

  async start(port = 0): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(port, "127.0.0.1", resolve))
    return this
  }
  async stop(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }
  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  bucket(name: string): Map<string, Stored> {
    const found = this.buckets.get(name) ?? new Map<string, Stored>()
    this.buckets.set(name, found)
    return found
  }
  put(bucket: string, key: string, content: string | Buffer): void {
    const bytes = Buffer.from(content)
    this.bucket(bucket).set(key, stored([bytes], md5(bytes).toString("hex"), "application/octet-stream"))
  }
  content(bucket: string, key: string): Buffer | undefined {
    const found = this.buckets.get(bucket)?.get(key)
    return found === undefined ? undefined : Buffer.concat(found.pieces)
  }

  async #serve(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const [rawPath = "/", rawQuery = ""] = (request.url ?? "/").split("?")
    const query = new URLSearchParams(rawQuery)
    const [, bucket = "", ...rest] = rawPath.split("/")
    try {
      const key = decodeURIComponent(rest.join("/"))
      request.on("error", () => {})
      const wantsWord = request.headers.expect === "100-continue"
      // Who is not let in is told so before the body is sent.
      this.#authorize(request, rawPath, rawQuery)
      const early = { method: request.method ?? "", bucket, key, query, headers: request.headers, bodyBytes: 0 }
      if (!this.buckets.has(bucket)) throw new Refusal(404, "NoSuchBucket", "The specified bucket does not exist")
      if (wantsWord) response.writeContinue()
      const body = await this.#body(request)
      const seen: Seen = { ...early, bodyBytes: body.length }
      this.seen.push(seen)
      const fault = this.fault(seen)
      if (fault?.kind === "reset") return void request.socket.destroy()
      if (fault?.kind === "silent") return
      if (fault?.kind === "status") {
        if (fault.retryAfter !== undefined) response.setHeader("retry-after", fault.retryAfter)
        throw new Refusal(fault.status, fault.code ?? "InternalError", "as the test wants it")
      }
      this.#checkBody(request, body)
      if (fault?.kind === "unheard") response.end = response.writeHead = () => (request.socket.destroy(), response)
      await this.#answer(seen, body, response, fault)
    } catch (error) {
      const { code, message, more, status } = error instanceof Refusal
        ? error
        : new Refusal(500, "InternalError", String(error))
      if (response.destroyed || response.headersSent) return
      const text = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${xml(message)}</Message>${more}</Error>`
      // What is still to come is not read: the connection is of no more use.
      response.writeHead(status, { "content-type": "application/xml", connection: "close" })
      response.end(request.method === "HEAD" ? "" : text)
    }
  }

  #body(request: http.IncomingMessage): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const pieces: Array<Buffer> = []
      request.on("data", (piece: Buffer) => pieces.push(piece))
      request.on("end", () => resolve(Buffer.concat(pieces)))
      request.on("error", reject)
    })
  }

  #authorize({ headers, method = "" }: http.IncomingMessage, path: string, rawQuery: string): void {
    const parts =
      /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/
        .exec(headers.authorization ?? "")
    if (parts === null) throw new Refusal(403, "AccessDenied", "no signature of version 4")
    const [, accessKey, day = "", region = "", names = "", signature = ""] = parts
    const date = String(headers["x-amz-date"])
    if (accessKey !== this.accessKey) throw new Refusal(403, "InvalidAccessKeyId", "The access key does not exist")
    if (region !== this.region) {
      const more = `<Region>${this.region}</Region>`
      throw new Refusal(400, "AuthorizationHeaderMalformed", `the region '${region}' is wrong`, more)
    }
    const at = Date.parse(date.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z"))
    if (!(Math.abs(Date.now() - at) < 900_000)) throw new Refusal(403, "RequestTimeTooSkewed", "The clocks differ")
    const signed = names.split(";")
    const must = Object.keys(headers).filter((name) =>
      name.startsWith("x-amz-") || ["host", "content-md5"].includes(name)
    )
    for (const name of must) {
      if (!signed.includes(name)) throw new Refusal(403, "AccessDenied", `header ${name} is not signed`)
    }
    if (signed.join() !== signed.toSorted().join()) throw new Refusal(403, "AccessDenied", "headers are not in order")
    const words = rawQuery === "" ? [] : rawQuery.split("&").map((pair) => {
      const [name = "", value = ""] = pair.split("=")
      return `${percent(decodeURIComponent(name))}=${percent(decodeURIComponent(value))}`
    })
    const canonical = [
      method,
      percent(decodeURIComponent(path), "/"),
      words.toSorted().join("&"),
      ...signed.map((name) => `${name}:${String(headers[name] ?? "").trim()}`),
      "",
      names,
      String(headers["x-amz-content-sha256"])
    ].join("\n")
    const scope = `${day}/${region}/s3/aws4_request`
    const hash = createHash("sha256").update(canonical).digest("hex")
    let key: string | Buffer = `AWS4${this.secretKey}`
    for (const word of scope.split("/")) key = createHmac("sha256", key).update(word).digest()
    const expected = createHmac("sha256", key).update(`AWS4-HMAC-SHA256\n${date}\n${scope}\n${hash}`).digest()
    if (!date.startsWith(day) || !timingSafeEqual(expected, Buffer.from(signature, "hex"))) {
      throw new Refusal(403, "SignatureDoesNotMatch", "The signature is another one")
    }
  }

  #checkBody({ headers }: http.IncomingMessage, body: Buffer): void {
    if (headers["transfer-encoding"] !== undefined) throw new Refusal(411, "MissingContentLength", "no length")
    const sha = headers["x-amz-content-sha256"]
    if (sha !== "UNSIGNED-PAYLOAD" && sha !== createHash("sha256").update(body).digest("hex")) {
      throw new Refusal(400, "XAmzContentSHA256Mismatch", "The body is another one")
    }
    const sum = headers["content-md5"]
    if (sum !== undefined && sum !== md5(body).toString("base64")) {
      throw new Refusal(400, "BadDigest", "The Content-MD5 is another one")
    }
  }

  async #answer(
    { bucket, headers, key, method, query }: Seen,
    body: Buffer,
    response: http.ServerResponse,
    fault: Fault | undefined
  ): Promise<void> {
    const objects = this.bucket(bucket)
    const kept = fault?.kind === "lose" ? body.subarray(0, fault.keep) : body
    const type = headers["content-type"] ?? "binary/octet-stream"
    const xmlAnswer = (text: string) => {
      response.writeHead(200, { "content-type": "application/xml" })
      response.end(`<?xml version="1.0" encoding="UTF-8"?>${text}`)
    }
    if (key === "") {
      if (method === "GET" && query.get("list-type") === "2") return xmlAnswer(this.#list(bucket, query))
      if (method === "GET" && query.has("uploads")) {
        const here = [...this.uploads.values()].filter((upload) => upload.bucket === bucket)
        return xmlAnswer(
          `<ListMultipartUploadsResult>${
            here.map(({ key }) => `<Upload><Key>${xml(key)}</Key></Upload>`).join("")
          }</ListMultipartUploadsResult>`
        )
      }
      throw new Refusal(501, "NotImplemented", "not of buckets")
    }
    const uploadId = query.get("uploadId")
    if (method === "POST" && query.has("uploads")) {
      const id = `upload-${++this.#uploads}`
      this.uploads.set(id, { bucket, key, type, parts: new Map() })
      return xmlAnswer(`<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`)
    }
    if (uploadId !== null) {
      const upload = this.uploads.get(uploadId)
      if (upload === undefined || upload.bucket !== bucket || upload.key !== key) {
        throw new Refusal(404, "NoSuchUpload", "The upload does not exist")
      }
      if (method === "PUT") {
        const number = Number(query.get("partNumber"))
        if (!(number >= 1 && number <= 10_000)) throw new Refusal(400, "InvalidArgument", "no part number")
        const etag = md5(body).toString("hex")
        upload.parts.set(number, stored([kept], etag, type))
        return void response.writeHead(200, { etag: `"${etag}"` }).end()
      }
      if (method === "DELETE") {
        this.uploads.delete(uploadId)
        return void response.writeHead(204).end()
      }
      if (method === "POST") {
        if (fault?.kind === "late-error") {
          return xmlAnswer(`<Error><Code>${fault.code}</Code><Message>late</Message></Error>`)
        }
        const etag = this.#complete(upload, body.toString())
        this.uploads.delete(uploadId)
        return xmlAnswer(
          `<CompleteMultipartUploadResult><ETag>&quot;${etag}&quot;</ETag></CompleteMultipartUploadResult>`
        )
      }
    }
    if (method === "PUT") {
      const etag = md5(body).toString("hex")
      objects.set(key, stored([kept], fault?.kind === "lose" ? md5(kept).toString("hex") : etag, type))
      return void response.writeHead(200, { etag: `"${fault?.kind === "lose" ? md5(kept).toString("hex") : etag}"` })
        .end()
    }
    if (method === "DELETE") {
      objects.delete(key)
      return void response.writeHead(204).end()
    }
    const found = objects.get(key)
    if (found === undefined) throw new Refusal(404, "NoSuchKey", "The specified key does not exist.")
    const wanted = headers["if-match"]
    if (wanted !== undefined && wanted !== `"${found.etag}"`) {
      throw new Refusal(412, "PreconditionFailed", "It is another one")
    }
    const range = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "")
    const from = Number(range?.[1] ?? 0)
    const to = range?.[2] === undefined || range[2] === "" ? found.bytes : Math.min(found.bytes, Number(range[2]) + 1)
    if (range !== null && from >= found.bytes) throw new Refusal(416, "InvalidRange", "not satisfiable")
    response.writeHead(range === null ? 200 : 206, {
      etag: `"${found.etag}"`,
      "content-type": found.type,
      "content-length": to - from,
      ...(range === null ? {} : { "content-range": `bytes ${from}-${to - 1}/${found.bytes}` })
    })
    if (method === "HEAD") return void response.end()
    await this.#send(found, from, to, response, fault)
  }

  async #send(object: Stored, from: number, to: number, response: http.ServerResponse, fault: Fault | undefined) {
    let at = 0
    let left = fault !== undefined && "after" in fault ? fault.after : Number.POSITIVE_INFINITY
    const step = fault?.kind === "trickle" ? fault.bytes : 256 * 1024
    for (const whole of object.pieces) {
      const piece = whole.subarray(Math.max(0, from - at), Math.max(0, to - at))
      at += whole.length
      for (let offset = 0; offset < piece.length && !response.destroyed; offset += step) {
        let bytes = piece.subarray(offset, offset + step)
        if (fault?.kind === "trickle") await new Promise((resolve) => setTimeout(resolve, 100))
        if (bytes.length > left && fault?.kind === "flip") {
          bytes = Buffer.from(bytes)
          bytes[left] = (bytes[left] ?? 0) ^ 1
          left = Number.POSITIVE_INFINITY
        } else if (bytes.length > left) {
          await new Promise<void>((resolve) => response.write(bytes.subarray(0, left), () => resolve()))
          if (fault?.kind === "cut") response.destroy()
          return
        }
        left -= bytes.length
        if (!response.write(bytes)) {
          await new Promise<void>((resolve) => {
            const go = () => {
              response.off("drain", go).off("close", go)
              resolve()
            }
            response.on("drain", go).on("close", go)
          })
        }
      }
    }
    response.end()
  }

  #list(bucket: string, query: URLSearchParams): string {
    const prefix = query.get("prefix") ?? ""
    const after = query.get("continuation-token")
    const isUrl = query.get("encoding-type") === "url"
    const keys = [...this.bucket(bucket).keys()].filter((key) => key.startsWith(prefix)).toSorted()
      .filter((key) => after === null || key > Buffer.from(after, "base64").toString())
    const page = keys.slice(0, Math.min(this.pageKeys, Number(query.get("max-keys") ?? 1000)))
    const more = keys.length > page.length
    const name = (key: string) => isUrl ? percent(key, "/").replaceAll("%20", "+") : xml(key)
    return `<ListBucketResult><Name>${bucket}</Name><IsTruncated>${more}</IsTruncated>${
      isUrl ? "<EncodingType>url</EncodingType>" : ""
    }${
      more ? `<NextContinuationToken>${Buffer.from(page.at(-1) ?? "").toString("base64")}</NextContinuationToken>` : ""
    }${
      page.map((key) => {
        const { bytes = 0, etag = "" } = this.bucket(bucket).get(key) ?? {}
        return `<Contents><Key>${name(key)}</Key><ETag>&quot;${etag}&quot;</ETag><Size>${bytes}</Size></Contents>`
      }).join("")
    }</ListBucketResult>`
  }

  #complete({ bucket, key, parts, type }: Upload, body: string): string {
    const named = [...body.matchAll(/<Part>.*?<PartNumber>(\d+)<\/PartNumber>.*?<ETag>(.*?)<\/ETag>.*?<\/Part>/gs)]
    if (named.length === 0) throw new Refusal(400, "MalformedXML", "no parts")
    let last = 0
    const chosen = named.map(([, number, etag = ""], index) => {
      const part = parts.get(Number(number))
      if (Number(number) <= last) throw new Refusal(400, "InvalidPartOrder", "not in order")
      last = Number(number)
      if (part === undefined || etag.replaceAll(/&quot;|"/g, "") !== part.etag) {
        throw new Refusal(400, "InvalidPart", `part ${number}`)
      }
      if (index < named.length - 1 && part.bytes < 5 * 1024 * 1024) throw new Refusal(400, "EntityTooSmall", "a part")
      return part
    })
    const sums = Buffer.concat(chosen.map(({ etag }) => Buffer.from(etag, "hex")))
    const etag = `${md5(sums).toString("hex")}-${chosen.length}`
    this.bucket(bucket).set(key, stored(chosen.flatMap(({ pieces }) => pieces), etag, type))
    return etag
  }
}
