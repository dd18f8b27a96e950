import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Protocol from "../../src/guest/Protocol.ts"

/** A frame as the guest would write it. */
const wire = (type: number, seq: number, payload: Uint8Array): Buffer => {
  const head = Buffer.alloc(9)
  head.writeUInt32LE(payload.length, 0)
  head.writeUInt8(type, 4)
  head.writeUInt32LE(seq, 5)
  return Buffer.concat([head, payload])
}
const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32LE(value | 0)
  return bytes
}
const u64 = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes
}
const text = (value: string): Buffer => Buffer.concat([u32(Buffer.byteLength(value)), Buffer.from(value)])
const exit = (kind: number, code: number, ...measures: ReadonlyArray<bigint>): Buffer =>
  Buffer.concat([Buffer.from([kind]), u32(code), ...measures.map(u64)])

const big = Buffer.alloc(3000, "0123456789")

/** One of each, as bytes and as what they mean. */
const said: ReadonlyArray<readonly [bytes: Buffer, frame: Protocol.GuestFrame]> = [
  [wire(0x81, 0, u32(3)), { _tag: "Ready", seq: 0, version: 3 }],
  [wire(0x82, 1, Buffer.alloc(0)), { _tag: "Ok", seq: 1 }],
  [wire(0x83, 2, Buffer.concat([u32(2), text("exec größe")])), { _tag: "Fail", seq: 2, errno: 2, text: "exec größe" }],
  [wire(0x84, 0xffff_ffff, u32(42)), { _tag: "Started", seq: 0xffff_ffff, pid: 42 }],
  [wire(0x85, 4, Buffer.from("a\0b")), { _tag: "Stdout", seq: 4, bytes: Buffer.from("a\0b") }],
  [wire(0x86, 4, big), { _tag: "Stderr", seq: 4, bytes: big }],
  [wire(0x87, 4, exit(0, 255, 1n, 2n, 3n, 2n ** 53n - 1n)), {
    _tag: "Exit",
    seq: 4,
    end: { kind: "exited", code: 255 },
    wallMicros: 1,
    userMicros: 2,
    systemMicros: 3,
    maxRssKiB: Number.MAX_SAFE_INTEGER
  }],
  [wire(0x87, 5, exit(1, 9, 0n, 0n, 0n, 0n)), {
    _tag: "Exit",
    seq: 5,
    end: { kind: "signalled", signal: 9 },
    wallMicros: 0,
    userMicros: 0,
    systemMicros: 0,
    maxRssKiB: 0
  }],
  [wire(0x88, 6, Buffer.concat([u64(3000n), u32(0o644), big])), {
    _tag: "Data",
    seq: 6,
    fileSize: 3000,
    mode: 0o644,
    bytes: big
  }],
  [wire(0x89, 7, Buffer.concat([1n, 2n, 2n ** 64n - 1n, 3n, 4n, 5n, 2n ** 53n - 1n, 0n].map(u64))), {
    _tag: "Measured",
    seq: 7,
    memoryPeakBytes: 1,
    oomKills: 2,
    pidsPeak: undefined,
    pidsRefused: 3,
    userMicros: 4,
    systemMicros: 5,
    ioReadBytes: Number.MAX_SAFE_INTEGER,
    ioWriteBytes: 0
  }],
  [wire(0xa0, 0, Buffer.concat([Buffer.alloc(32, 7), u64(1_800_000_000n), u32(999_999_999), Buffer.alloc(16, 9)])), {
    _tag: "Personalised",
    seq: 0,
    token: new Uint8Array(32).fill(7),
    seconds: 1_800_000_000,
    nanoseconds: 999_999_999,
    machineId: new Uint8Array(16).fill(9)
  }]
]

/** Output that came in pieces is one again, and every view becomes a plain copy. */
const joined = (frames: ReadonlyArray<Protocol.GuestFrame>): ReadonlyArray<Protocol.GuestFrame> => {
  const result: Array<Protocol.GuestFrame> = []
  for (const frame of frames) {
    const last = result.at(-1)
    if (frame._tag !== "Stdout" && frame._tag !== "Stderr") {
      result.push(frame._tag === "Data" ? { ...frame, bytes: Buffer.from(frame.bytes) } : frame)
    } else if (last !== undefined && last._tag === frame._tag && last.seq === frame.seq) {
      result[result.length - 1] = { ...frame, bytes: Buffer.concat([last.bytes, frame.bytes]) }
    } else result.push({ ...frame, bytes: Buffer.from(frame.bytes) })
  }
  return result
}

/** Small deterministic generator (mulberry32): the seed in a failure's message replays it. */
const random = (seed: number) => {
  let state = seed
  return (below: number): number => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

const cut = (bytes: Buffer, next: (below: number) => number, most: number): ReadonlyArray<Buffer> => {
  const pieces: Array<Buffer> = []
  for (let at = 0; at < bytes.length;) {
    const size = next(most + 1)
    pieces.push(bytes.subarray(at, at + size))
    at += size
  }
  return pieces
}

describe("Decoder", () => {
  const all = Buffer.concat(said.map(([bytes]) => bytes))
  const meant = said.map(([, frame]) => frame)

  it("reads every frame, whole", () => {
    const decoder = Protocol.makeDecoder()
    const { frames, violation } = decoder.push(all)
    assert.isUndefined(violation)
    assert.deepStrictEqual(joined(frames), meant)
    assert.isUndefined(decoder.end())
  })

  it("reads every frame, byte by byte", () => {
    const decoder = Protocol.makeDecoder()
    const frames = Array.from(all, (byte) => decoder.push(Uint8Array.of(byte)).frames).flat()
    assert.deepStrictEqual(joined(frames), meant)
    assert.isUndefined(decoder.end())
  })

  it("reads every frame however the stream was cut", () => {
    for (let seed = 1; seed <= 200; seed++) {
      const next = random(seed)
      const decoder = Protocol.makeDecoder()
      const frames = cut(all, next, 1 + next(4000)).flatMap((piece) => decoder.push(piece).frames)
      assert.deepStrictEqual(joined(frames), meant, `seed ${seed}`)
      assert.isUndefined(decoder.end(), `seed ${seed}`)
    }
  })

  it("gives output as views of the chunk, without copying and without waiting for the end of a frame", () => {
    const chunk = wire(0x85, 1, big).subarray(0, 1000)
    const [frame] = Protocol.makeDecoder().push(chunk).frames
    assert.isTrue(frame?._tag === "Stdout" && frame.bytes.buffer === chunk.buffer && frame.bytes.length === 991)
  })

  const broken: ReadonlyArray<readonly [what: string, bytes: Buffer, why: RegExp]> = [
    ["an unknown type", wire(0x80, 0, Buffer.alloc(0)), /unknown frame type 0x80/],
    ["a request", wire(0x03, 0, Buffer.alloc(4)), /unknown frame type 0x3/],
    ["a length above the limit", wire(0x85, 0, Buffer.alloc(Protocol.maxGuestPayloadBytes + 1)), /Stdout of 1048641/],
    ["the largest length there is", Buffer.from([255, 255, 255, 255, 0x88, 0, 0, 0, 0]), /Data of 4294967295/],
    ["empty output", wire(0x85, 0, Buffer.alloc(0)), /Stdout of 0/],
    ["an Ok with a payload", wire(0x82, 0, u32(0)), /Ok of 4/],
    ["another version", wire(0x81, 0, u32(2)), /speaks version 2, this worker 3.*native\/build/],
    [
      "a Fail whose text is longer than its frame",
      wire(0x83, 0, Buffer.concat([u32(1), u32(99), u32(0)])),
      /text of 99/
    ],
    ["a Started without a pid", wire(0x84, 0, u32(0)), /without a pid/],
    ["an Exit that is neither", wire(0x87, 0, exit(2, 0, 0n, 0n, 0n, 0n)), /kind 2 with code 0/],
    ["an exit code above 255", wire(0x87, 0, exit(0, 256, 0n, 0n, 0n, 0n)), /kind 0 with code 256/],
    ["signal 0", wire(0x87, 0, exit(1, 0, 0n, 0n, 0n, 0n)), /kind 1 with code 0/],
    ["a time no number can hold", wire(0x87, 0, exit(0, 0, 2n ** 53n, 0n, 0n, 0n)), /above 2\^53/],
    ["a measure no number can hold", wire(0x89, 0, Buffer.concat(Array(8).fill(u64(2n ** 53n)))), /above 2\^53/],
    ["too few measures", wire(0x89, 0, u64(0n)), /Measured of 8/],
    [
      "a clock of two seconds in one",
      wire(0xa0, 0, Buffer.concat([Buffer.alloc(40), u32(1e9), Buffer.alloc(16)])),
      /no time/
    ],
    [
      "a time before 1970",
      wire(0xa0, 0, Buffer.concat([Buffer.alloc(32), u64(2n ** 64n - 1n), Buffer.alloc(20)])),
      /no time/
    ],
    ["a size no number can hold", wire(0x88, 0, Buffer.concat([u64(2n ** 64n - 1n), u32(0)])), /above 2\^53/]
  ]
  for (const [what, bytes, why] of broken) {
    it(`calls ${what} a violation, keeps what came before it and takes nothing after it`, () => {
      const decoder = Protocol.makeDecoder()
      const { frames, violation } = decoder.push(Buffer.concat([wire(0x82, 7, Buffer.alloc(0)), bytes]))
      assert.deepStrictEqual(frames, [{ _tag: "Ok", seq: 7 }])
      assert.match(violation?.message ?? "", why)
      assert.deepStrictEqual(decoder.push(all), { frames: [], violation })
      assert.strictEqual(decoder.end(), violation)
    })
  }

  it("calls a stream that ends within a frame cut", () => {
    for (const [bytes] of said) {
      for (const kept of [1, 8, bytes.length - 1]) {
        const decoder = Protocol.makeDecoder()
        decoder.push(bytes.subarray(0, kept))
        assert.match(decoder.end()?.message ?? "", /ended within a frame/)
      }
    }
  })

  it("never throws on what a broken guest says, and never gives more than it got", () => {
    for (let seed = 1; seed <= 3000; seed++) {
      const next = random(seed)
      // Small frames in random order, then bytes changed, dropped and doubled.
      const order = Array.from({ length: 1 + next(12) }, () => said[next(said.length)]?.[0] ?? all)
      const stream = Buffer.concat(order.map((bytes) => bytes.subarray(0, next(8) === 0 ? next(bytes.length) : 2000)))
      for (let i = next(6); i > 0; i--) stream[next(stream.length + 1)] = next(256)
      const decoder = Protocol.makeDecoder()
      let got = 0
      try {
        for (const piece of cut(stream, next, 1 + next(3000))) {
          for (const frame of decoder.push(piece).frames) got += "bytes" in frame ? frame.bytes.length : 1
        }
        decoder.end()
      } catch (error) {
        assert.fail(`seed ${seed}: ${String(error)}`)
      }
      assert.isAtMost(got, stream.length, `seed ${seed}`)
    }
  })
})

describe("requests", () => {
  /** Cuts what is sent into frames again. */
  const frames = (parts: ReadonlyArray<Uint8Array>) => {
    const bytes = Buffer.concat(parts)
    const result: Array<{ readonly type: number; readonly seq: number; readonly payload: Buffer }> = []
    for (let at = 0; at < bytes.length;) {
      const size = bytes.readUInt32LE(at)
      assert.isAtMost(size, Protocol.maxPayloadBytes)
      const payload = bytes.subarray(at + 9, at + 9 + size)
      result.push({ type: bytes.readUInt8(at + 4), seq: bytes.readUInt32LE(at + 5), payload })
      at += 9 + size
    }
    return result
  }
  const limits = { fileBytes: 0, openFiles: 0, stackBytes: 0, cpuSeconds: 0 }

  it("cuts a file into a first and appended pieces, without copying it", () => {
    const data = Buffer.alloc(2 * Protocol.chunkBytes + 1, "xyz")
    const put = Result.getOrThrow(Protocol.encodePut(7, { path: "ä/b", data, executable: true }))
    const sent = frames(put.parts)
    assert.deepStrictEqual(sent.map(({ payload, seq, type }) => [type, seq, payload[0]]), [[1, 7, 2], [1, 7, 3], [
      1,
      7,
      3
    ]])
    for (const { payload } of sent) assert.deepStrictEqual(payload.subarray(1, 9), text("ä/b"))
    assert.deepStrictEqual(Buffer.concat(sent.map(({ payload }) => payload.subarray(9))), data)
    assert.strictEqual(put.replies, 3)
    assert.isTrue(put.parts.filter((_, i) => i % 2 === 1).every((part) => part.buffer === data.buffer))
  })

  it("sends an empty file as one frame and empty input as none", () => {
    const put = Result.getOrThrow(Protocol.encodePut(1, { path: "a", data: Buffer.alloc(0), executable: false }))
    assert.deepStrictEqual([frames(put.parts).length, put.replies], [1, 1])
    assert.deepStrictEqual(Protocol.encodeStdin(1, Buffer.alloc(0)), [])
  })

  it("writes run, input, signal, get and shutdown as the guest reads them", () => {
    const run = Result.getOrThrow(Protocol.encodeRun(2 ** 32 + 3, {
      cwd: "d",
      argv: ["cc", "größe.c"],
      env: { PATH: "/bin", EMPTY: "" },
      limits: { fileBytes: 1, openFiles: 2, stackBytes: 3, cpuSeconds: 2 ** 40 }
    }))
    assert.deepStrictEqual(
      run,
      wire(
        3,
        3,
        Buffer.concat([
          text("d"),
          ...[1n, 2n, 3n, 2n ** 40n].map(u64),
          u32(2),
          text("cc"),
          text("größe.c"),
          u32(2),
          text("PATH=/bin"),
          text("EMPTY=")
        ])
      )
    )
    assert.deepStrictEqual(Buffer.concat(Protocol.encodeStdin(4, Buffer.from("in"))), wire(2, 4, Buffer.from("in")))
    assert.deepStrictEqual(Protocol.encodeSignal(5, 15, "all"), wire(4, 5, Buffer.concat([u32(15), Buffer.of(1)])))
    assert.deepStrictEqual(
      Result.getOrThrow(Protocol.encodeGet(6, "o", 2 ** 33, 2 ** 31)),
      wire(5, 6, Buffer.concat([text("o"), u64(2n ** 33n), u32(Protocol.maxGetBytes)]))
    )
    assert.deepStrictEqual(Protocol.encodeShutdown(7), wire(6, 7, Buffer.alloc(0)))
    assert.deepStrictEqual(
      Result.getOrThrow(Protocol.encodeLimit(8, { memoryBytes: 2 ** 40, pids: 0, cpuMicros: 50_000 })),
      wire(9, 8, Buffer.concat([2n ** 40n, 0n, 50_000n].map(u64)))
    )
    assert.deepStrictEqual(Protocol.encodeMeasure(9), wire(10, 9, Buffer.alloc(0)))
  })

  it("refuses what would not fit into a frame, and says what to do instead", () => {
    const run = (argv: ReadonlyArray<string>, own: Partial<Protocol.RunLimits> = {}) =>
      Result.getOrThrow(Result.flip(Protocol.encodeRun(1, { cwd: "", argv, env: {}, limits: { ...limits, ...own } })))
        .message
    assert.match(run(["x".repeat(Protocol.maxPayloadBytes)]), /1048624 bytes, 1048576 is the most.*standard input/)
    assert.match(run(["x"], { cpuSeconds: 0.5 }), /not all whole numbers/)
    assert.match(run(["x"], { openFiles: -1 }), /not all whole numbers/)
    const limit = Protocol.encodeLimit(1, { memoryBytes: 1.5, pids: 0, cpuMicros: 0 })
    assert.match(Result.getOrThrow(Result.flip(limit)).message, /^limit was not sent.*not all whole numbers/)
    const path = "p".repeat(Protocol.maxPathBytes + 1)
    const put = Protocol.encodePut(1, { path, data: Buffer.alloc(0), executable: false })
    assert.match(Result.getOrThrow(Result.flip(put)).message, /put.*4096 bytes, 4095 is the most/)
    assert.match(Result.getOrThrow(Result.flip(Protocol.encodeGet(1, path, 0, 1))).message, /get.*4096 bytes/)
    assert.match(Result.getOrThrow(Result.flip(Protocol.encodeGet(1, "a", -1, 1))).message, /offset -1/)
  })
})
