import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import type { IncomingMessage } from "node:http"
import { clientTls } from "../../src/layers/api/TlsMaterial.ts"
import * as Tokens from "../../src/layers/api/Tokens.ts"
import { numbers } from "../log/Model.ts"
import { certificates } from "../support/Certs.ts"
import { Hand } from "./FakeApi.ts"
import { call, open, server } from "./Https.ts"
import * as Memory from "./Memory.ts"

type Tls = ReturnType<typeof clientTls>
type Stream = "stdout" | "stderr" | "all"
type Dice = (below: number) => number

/** Bytes, or so many that were not kept. */
type Piece = Buffer | number

const digestOf = (pieces: ReadonlyArray<Piece>) => {
  const hash = createHash("sha256")
  for (const piece of pieces) hash.update(typeof piece === "number" ? `gap ${piece};` : piece)
  return `${pieces.reduce<number>((sum, piece) => sum + (typeof piece === "number" ? piece : piece.length), 0)} ${
    hash.digest("hex")
  }`
}

interface Told {
  readonly id: string
  readonly event: string
  readonly data: {
    readonly offset: number
    readonly text?: string
    readonly base64?: string
    readonly from: number
    readonly to: number
  }
}

/** Events that came whole in what was read before the connection was cut after so many bytes. */
const eventsUntil = (answer: IncomingMessage, most: number) =>
  Effect.callback<ReadonlyArray<Told>>((resume) => {
    const chunks: Array<Buffer> = []
    let length = 0
    const done = () => {
      const blocks = Buffer.concat(chunks).toString().split("\n\n").slice(0, -1)
      resume(Effect.succeed(blocks.flatMap((block) => {
        const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(block)?.[1] ?? ""
        const data = field("data")
        return data === "" ? [] : [{ id: field("id"), event: field("event"), data: JSON.parse(data) as Told["data"] }]
      })))
    }
    answer.on("data", (chunk: Buffer) => {
      chunks.push(chunk)
      length += chunk.length
      if (length >= most) answer.destroy()
    })
    answer.once("close", done)
  })

/** Follows to the end, however often the connection is cut on the way. */
const follow = Effect.fnUntraced(function*(port: number, tls: Tls, stream: Stream, dice: Dice) {
  const pieces: Array<Piece> = []
  let id = ""
  let cuts = 0
  let next = 0
  while (true) {
    const answer = yield* open(port, `/v1/jobs/one/events?stream=${stream}`, {
      tls,
      headers: id === "" ? {} : { "last-event-id": id }
    })
    assert.strictEqual(answer.statusCode, 200)
    for (const { data, event, id: at } of yield* eventsUntil(answer, 1 + dice(dice(3) === 0 ? 500 : 600_000))) {
      if (at !== "") id = at
      if (event === "output") {
        assert.strictEqual(data.offset, next)
        const bytes = data.text === undefined ? Buffer.from(data.base64 ?? "", "base64") : Buffer.from(data.text)
        pieces.push(bytes)
        next += bytes.length
      } else if (event === "gap") {
        assert.strictEqual(data.from, next)
        pieces.push(data.to - data.from)
        next = data.to
      } else if (event === "end") return { pieces, cuts }
      else assert.strictEqual(event, "begun")
    }
    cuts++
  }
})

/** Reads by ranges of any size to the end, while there is more to come. */
const ranges = Effect.fnUntraced(function*(port: number, tls: Tls, stream: Stream, dice: Dice) {
  const pieces: Array<Piece> = []
  let next = 0
  while (true) {
    const last = next + dice(dice(2) === 0 ? 1000 : 300_000)
    const answer = yield* call(port, `/v1/jobs/one/output?stream=${stream}&wait=1`, {
      tls,
      headers: { range: dice(5) === 0 ? `bytes=${next}-` : `bytes=${next}-${last}` }
    })
    const gap = /^(\d+)-(\d+)$/.exec(String(answer.headers["stoker-gap"]))
    if (answer.status === 206) {
      const [, from = "", to = ""] = /^bytes (\d+)-(\d+)\/(?:\d+|\*)$/.exec(String(answer.headers["content-range"])) ??
        []
      assert.strictEqual(Number(from), next)
      assert.strictEqual(Number(to) - next + 1, answer.body.length)
      pieces.push(answer.body)
      next += answer.body.length
    } else {
      assert.strictEqual(answer.status, 416)
      if (answer.headers["stoker-output"] === "complete" && answer.headers["content-range"] === `bytes */${next}`) {
        return pieces
      }
    }
    if (gap !== null && Number(gap[1]) === next) {
      pieces.push(Number(gap[2]) + 1 - next)
      next = Number(gap[2]) + 1
    }
  }
})

const whole = (pieces: ReadonlyArray<Piece>): ReadonlyArray<Piece> =>
  pieces.reduce<Array<Piece>>((joined, piece) => {
    const last = joined.at(-1)
    if (typeof piece === "number" && typeof last === "number") joined[joined.length - 1] = last + piece
    else if (typeof piece !== "number" || piece > 0) joined.push(piece)
    return joined
  }, [])

/** Lines, letters of two to four bytes, and anything at all. */
const something = (dice: Dice): Buffer => {
  const length = 1 + dice(dice(4) === 0 ? 200_000 : 3000)
  switch (dice(3)) {
    case 0:
      return Buffer.from("line of text\n".repeat(length).slice(0, length))
    case 1:
      return Buffer.from("ä€😀\u0000\r\n\ufeff ".repeat(length).slice(0, Math.ceil(length / 3)))
    default:
      return Buffer.from(Uint8Array.from({ length }, () => dice(256)))
  }
}

const seed = Number(process.env["SEED"] ?? 1)

describe("an output that grows", () => {
  for (const [name, keepBytes] of [["all kept", undefined], ["with a gap", 300_000]] as const) {
    it.live(`is the same to every byte however it is read and cut, ${name}`, () =>
      Effect.gen(function*() {
        const certs = yield* Effect.promise(certificates)
        const tls = clientTls(certs.alice)
        const port = yield* server()
        const hand = yield* Hand
        const body = JSON.stringify({ function: "fib", id: "one" })
        yield* call(port, "/v1/jobs", { method: "POST", body, tls })
        const dice = numbers(seed)
        const written: Record<Stream, Array<Buffer>> = { stdout: [], stderr: [], all: [] }
        const write = Effect.gen(function*() {
          for (let n = 0; n < 120; n++) {
            const stream = dice(3) === 0 ? "stderr" : "stdout"
            const bytes = something(dice)
            written[stream].push(bytes)
            written.all.push(bytes)
            yield* hand.write("one", stream, bytes)
            if (dice(4) === 0) yield* Effect.sleep(dice(60))
          }
          yield* hand.end("one")
        })
        const streams: ReadonlyArray<Stream> = ["stdout", "stderr", "all", "all"]
        const [, followed, ranged] = yield* Effect.all([
          write,
          Effect.forEach(streams, (stream, n) => follow(port, tls, stream, numbers(seed + n)), { concurrency: 4 }),
          Effect.forEach(streams, (stream, n) => ranges(port, tls, stream, numbers(seed + 10 + n)), { concurrency: 4 })
        ], { concurrency: 3 })
        assert.isAbove(followed.reduce((sum, { cuts }) => sum + cuts, 0), 20)
        for (const [n, stream] of streams.entries()) {
          const size = written[stream].reduce((sum, { length }) => sum + length, 0)
          const late = yield* follow(port, tls, stream, numbers(seed + 20 + n))
          const [a, b, c] = [followed[n]?.pieces ?? [], ranged[n] ?? [], late.pieces].map(whole)
          // Readers in time may have got what was dropped later: then the late ones have a part of theirs.
          if (keepBytes === undefined) {
            const expected = digestOf(written[stream])
            for (const read of [a, b, c]) assert.strictEqual(digestOf(read ?? []), expected)
          } else {
            const all = Buffer.concat(written[stream])
            for (const read of [a ?? [], b ?? [], c ?? []]) {
              let at = 0
              for (const piece of read) {
                if (typeof piece === "number") at += piece
                else {
                  assert.isTrue(piece.equals(all.subarray(at, at + piece.length)), `${stream} at ${at}`)
                  at += piece.length
                }
              }
              assert.strictEqual(at, size)
            }
            assert.isTrue((c ?? []).some((piece) => typeof piece === "number") === size > keepBytes)
          }
        }
        for (let look = 0; look < 100 && hand.following() > 0; look++) yield* Effect.sleep("50 millis")
        assert.strictEqual(hand.following(), 0)
      }).pipe(Effect.scoped, Effect.provide([Tokens.layerNone, Memory.layer(keepBytes)])), 60_000)
  }
})
