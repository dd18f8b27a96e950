/**
 * Many who follow one job over gRPC, in a process of their own, for `grpc.ts`. A connection carries many streams, as
 * clients in one program share theirs. Every byte of every follower is looked at.
 */
import { fromBinary } from "@bufbuild/protobuf"
import { Client } from "@grpc/grpc-js"
import { once } from "node:events"
import { clientCredentials } from "../src/layers/api/GrpcTls.ts"
import type { TlsMaterial } from "../src/layers/api/TlsMaterial.ts"
import { FollowResponseSchema } from "../src/layers/grpc/gen/stoker/v1/stoker_pb.js"

/** Who follows what. */
export interface Following {
  readonly port: number
  readonly material: TlsMaterial
  /** An encoded `FollowRequest`. */
  readonly request: ReadonlyArray<number>
  readonly connections: number
  readonly followers: number
  /** How many bytes the job writes. */
  readonly bytes: number
  /** The job's blocks, which begin with when they were written (`STAMP` bytes). */
  readonly block: number
}

/** What they saw. */
export interface Followed {
  /** Followers with a byte that was wrong, missing or too many. */
  readonly wrong: number
  readonly messages: number
  /** Of blocks that were written when their follower was there already: from the write to here, in milliseconds. */
  readonly lags: ReadonlyArray<number>
  /** Milliseconds. */
  readonly cpu: number
}

/** Nanoseconds of the machine's monotonic clock, and a newline. */
export const STAMP = 20

/** What stands at an offset of a block behind its stamp. */
const patternOf = (block: number) => Buffer.from(Array.from({ length: block }, (_, n) => (n * 7 + (n >> 8)) & 0xff))
export const patternInPython = (block: number) => `bytes((n * 7 + (n >> 8)) & 255 for n in range(${block}))`

const plain = (bytes: Buffer) => bytes

const follow = ({ block, bytes, connections, followers, material, port, request }: Following) => {
  const clients = Array.from(
    { length: connections },
    () => new Client(`localhost:${port}`, clientCredentials(material), { "grpc.use_local_subchannel_pool": 1 })
  )
  const pattern = patternOf(block)
  const lags: Array<number> = []
  let messages = 0
  const one = async (client: Client) => {
    let next = 0
    let begun = 0n
    let isRight = true
    let isEnded = false
    const see = (offset: number, data: Uint8Array) => {
      if (offset !== next) isRight = false
      next = offset + data.length
      const now = process.hrtime.bigint()
      for (let start = offset - offset % block; start < next; start += block) {
        const from = Math.max(start + STAMP, offset)
        const to = Math.min(start + block, next)
        if (
          from < to &&
          Buffer.compare(data.subarray(from - offset, to - offset), pattern.subarray(from - start, to - start))
        ) {
          isRight = false
        }
        // The whole block is here, and its stamp with it.
        if (start < offset || start + block > next) continue
        const stamp = BigInt(Buffer.from(data.buffer, data.byteOffset + start - offset, STAMP - 1).toString("latin1"))
        if (stamp > begun) lags.push(Number(now - stamp) / 1e6)
      }
    }
    const call = client.makeServerStreamRequest(
      "/stoker.v1.JobService/Follow",
      plain,
      plain,
      Buffer.from(request)
    )
    call.on("data", (message: Buffer) => {
      messages += 1
      const { event } = fromBinary(FollowResponseSchema, message)
      if (event.case === "begun") begun = process.hrtime.bigint()
      else if (event.case === "ended") isEnded = true
      else if (event.case === "output" && event.value.content.case === "bytes") {
        const { data, offset } = event.value.content.value
        see(Number(offset), data)
      } else isRight = false
    })
    await new Promise<void>((resolve) => {
      call.on("error", () => resolve())
      call.on("end", () => resolve())
    })
    return isRight && isEnded && next === bytes
  }
  return Promise.all(
    Array.from({ length: followers }, (_, n) => {
      const client = clients[n % connections]
      if (client === undefined) throw new Error("no client")
      return one(client)
    })
  ).then((right): Followed => {
    for (const client of clients) client.close()
    const { system, user } = process.cpuUsage()
    return { wrong: right.filter((is) => !is).length, messages, lags, cpu: (system + user) / 1000 }
  })
}

if (import.meta.main) {
  const [following] = await once(process, "message")
  process.send?.(await follow(following as Following), () => process.exit())
}
