/**
 * An object of a gibibyte through the object store's client, up and down, beside a bare one that signs and sends and checks nothing:
 * speed as a ratio of the same run, and what the process holds meanwhile. The store is the tests' own, in a process of its own.
 */
import { Effect, Redacted, Stream } from "effect"
import { fork } from "node:child_process"
import { once } from "node:events"
import * as http from "node:http"
import { ObjectStore } from "../src/layers/objectstore/ObjectStore.ts"
import * as ObjectStoreS3 from "../src/layers/objectstore/ObjectStoreS3.ts"
import { queryText, signed } from "../src/layers/objectstore/SigV4.ts"
import { standardObjectStore } from "../src/schemas/ObjectStoreConfig.ts"
import { heldBytes } from "./held.ts"
import { percentile, publish, round } from "./report.ts"

const MiB = 1024 * 1024
const PART = ObjectStoreS3.PART_BYTES
const PARTS = Number(process.argv[2] ?? 128)
const ROUNDS = Number(process.argv[3] ?? 5)
const SIZE = PARTS * PART

const child = fork(new URL("objectstoreServer.ts", import.meta.url), { stdio: ["ignore", "inherit", "inherit", "ipc"] })
const [{ accessKey, endpoint, secretKey }] = (await once(child, "message")) as [
  { readonly accessKey: string; readonly endpoint: string; readonly secretKey: string }
]
const url = new URL(endpoint)
const credentials = { accessKey, secretKey, region: standardObjectStore.region }
const agent = new http.Agent({ keepAlive: true })

/** Signs, sends, reads to the end, and looks at nothing but the status. */
const ask = (method: string, path: string, query: Record<string, string> = {}, body?: Uint8Array) =>
  new Promise<{ readonly text: string; readonly etag: string; readonly bytes: number }>((resolve, reject) => {
    const unsigned = { method, path, query, headers: { host: url.host } }
    const headers = { ...signed(credentials, unsigned, Date.now()), "content-length": `${body?.length ?? 0}` }
    const words = queryText(query)
    const options = {
      agent,
      method,
      host: url.hostname,
      port: url.port,
      path: words === "" ? path : `${path}?${words}`
    }
    const request = http.request({ ...options, headers }, (response) => {
      const isText = response.headers["content-type"] === "application/xml"
      let text = ""
      let bytes = 0
      response.on("data", (piece: Buffer) => {
        bytes += piece.length
        if (isText) text += piece.toString()
      })
      response.on("end", () =>
        response.statusCode === 200
          ? resolve({ text, bytes, etag: String(response.headers.etag) })
          : reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`)))
    })
    request.on("error", reject)
    request.end(body)
  })

const block = Buffer.alloc(PART, "stoker")

/** Two parts on their way at once, as ours has one sent and one filled. */
const barePut = async () => {
  const uploadId = /<UploadId>(.*)<\/UploadId>/.exec((await ask("POST", "/bench/bare", { uploads: "" })).text)?.[1] ??
    ""
  const etags: Array<string> = []
  let next = 0
  const lane = async () => {
    for (let part = next++; part < PARTS; part = next++) {
      etags[part] = (await ask("PUT", "/bench/bare", { partNumber: `${part + 1}`, uploadId }, block)).etag
    }
  }
  await Promise.all([lane(), lane()])
  const parts = etags.map((etag, index) => `<Part><PartNumber>${index + 1}</PartNumber><ETag>${etag}</ETag></Part>`)
  const body = `<CompleteMultipartUpload>${parts.join("")}</CompleteMultipartUpload>`
  await ask("POST", "/bench/bare", { uploadId }, Buffer.from(body))
}
const bareGet = async () => {
  const { bytes } = await ask("GET", "/bench/bare")
  if (bytes !== SIZE) throw new Error(`the bare client read ${bytes} of ${SIZE} bytes`)
}

const ours = <A, E>(use: (store: ObjectStore["Service"]) => Effect.Effect<A, E>) =>
  Effect.runPromise(
    Effect.flatMap(ObjectStore, use).pipe(
      Effect.provide(
        ObjectStoreS3.layer(
          { ...standardObjectStore, endpoint },
          { accessKey: Redacted.make(accessKey), secretKey: Redacted.make(secretKey) }
        )
      )
    )
  )
const ourPut = () =>
  ours((store) =>
    store.put(
      "bench",
      "ours",
      Stream.suspend(() =>
        Stream.fromIterable((function*() {
          for (let at = 0; at < SIZE; at += 256 * 1024) yield block.subarray(0, 256 * 1024)
        })())
      )
    )
  )
const ourGet = async () => {
  let bytes = 0
  await ours((store) =>
    Stream.runForEachArray(store.get("bench", "ours"), (pieces) =>
      Effect.sync(() => {
        for (const piece of pieces) bytes += piece.length
      }))
  )
  if (bytes !== SIZE) throw new Error(`ours read ${bytes} of ${SIZE} bytes`)
}

let [most, mostHeld] = [0, 0]
const timed = async (run: () => Promise<unknown>) => {
  const began = process.hrtime.bigint()
  await run()
  return SIZE / MiB / (Number(process.hrtime.bigint() - began) / 1e9)
}
const speeds: Record<"ourPut" | "ourGet" | "barePut" | "bareGet", Array<number>> = {
  ourPut: [],
  ourGet: [],
  barePut: [],
  bareGet: []
}

// Ours first and alone, so that what is held is nobody else's.
await ours((store) => store.put("bench", "warm", Stream.make(block)))
const before = { rss: process.memoryUsage().rss, held: heldBytes() }
const looking = setInterval(() => most = Math.max(most, process.memoryUsage().rss), 10)
await ourPut()
await ourGet()
clearInterval(looking)
const counting = setInterval(() => mostHeld = Math.max(mostHeld, heldBytes()), 20)
await ourPut()
await ourGet()
clearInterval(counting)
const grownMiB = (most - before.rss) / MiB
const heldMiB = (mostHeld - before.held) / MiB

for (let round = 0; round < ROUNDS; round++) {
  speeds.barePut.push(await timed(barePut))
  speeds.ourPut.push(await timed(ourPut))
  speeds.bareGet.push(await timed(bareGet))
  speeds.ourGet.push(await timed(ourGet))
}
agent.destroy()
child.kill()

const median = (values: ReadonlyArray<number>) => percentile(values, 0.5)
const slower = (floor: ReadonlyArray<number>, values: ReadonlyArray<number>) => median(floor) / median(values)

const held = publish({
  name: "objectstore",
  figures: {
    "object MiB": SIZE / MiB,
    "put MiB/s": round(median(speeds.ourPut)),
    "bare put MiB/s": round(median(speeds.barePut)),
    "get MiB/s": round(median(speeds.ourGet)),
    "bare get MiB/s": round(median(speeds.bareGet)),
    "held beside what was before, MiB": round(heldMiB),
    "resident memory grew by MiB": round(grownMiB)
  },
  claims: [
    // 70 % of the bare client's speed.
    {
      claim: "an object is put in at most so much longer than bare",
      measured: round(slower(speeds.barePut, speeds.ourPut)),
      bound: 1.43,
      unit: "x"
    },
    {
      claim: "an object is got in at most so much longer than bare",
      measured: round(slower(speeds.bareGet, speeds.ourGet)),
      bound: 1.43,
      unit: "x"
    },
    // And what sockets have read, and the engine has compiled, meanwhile.
    { claim: "a gibibyte passes through two parts", measured: round(heldMiB), bound: 2 * PART / MiB + 8, unit: "MiB" }
  ]
})
process.exitCode = held ? 0 : 1
