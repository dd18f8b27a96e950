/** The first frame to a machine, and what its answer must be. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Personalisation from "../../src/guest/Personalisation.ts"
import type { PersonalisedFrame } from "../../src/guest/Protocol.ts"

const plain: Personalisation.Personalisation = {
  clockMillis: 1_800_000_000_123,
  token: new Uint8Array(32).fill(3),
  entropy: new Uint8Array(64).fill(5),
  hostname: "s-1.job",
  defaultRoute: true,
  resolvConf: "nameserver 192.0.2.1\n"
}

/** As native/init/personalise.c reads it. */
const read = (bytes: Uint8Array) => {
  const view = Buffer.from(bytes)
  let at = 9
  const u32 = () => view.readUInt32LE((at += 4) - 4)
  const raw = (size: number): Uint8Array => Uint8Array.from(view.subarray(at, at += size))
  const version = u32()
  const seconds = Number(view.readBigInt64LE((at += 8) - 8))
  const nanoseconds = u32()
  const token = raw(32)
  const entropy = raw(u32())
  const hostname = Buffer.from(raw(u32())).toString()
  const flags = raw(1)[0]
  const resolvConf = Buffer.from(raw(u32())).toString()
  assert.strictEqual(at, view.length)
  assert.strictEqual(view.readUInt32LE(0), view.length - 9)
  assert.deepStrictEqual([view[4], view.readUInt32LE(5), version], [0x20, 0, 1])
  return { seconds, nanoseconds, token, entropy, hostname, flags, resolvConf }
}

describe("what a machine is told", () => {
  it("is all it is to be", () => {
    assert.deepStrictEqual(read(Result.getOrThrow(Personalisation.encode(plain))), {
      seconds: 1_800_000_000,
      nanoseconds: 123_000_000,
      token: plain.token,
      entropy: plain.entropy,
      hostname: "s-1.job",
      flags: 1,
      resolvConf: plain.resolvConf
    })
  })

  it("is read as it was meant, whatever the sizes and the moment", () => {
    for (let seed = 0; seed < 500; seed++) {
      const is: Personalisation.Personalisation = {
        clockMillis: (seed * 7_919_777_777.25) % 1e14,
        token: Uint8Array.from({ length: 32 }, (_, i) => (seed * 31 + i * 7) % 256),
        entropy: Uint8Array.from({ length: 64 + seed * 37 % 449 }, (_, i) => (seed + i) % 256),
        hostname: "a".repeat(1 + seed % 64),
        defaultRoute: seed % 2 === 0,
        resolvConf: "ä".repeat(seed % 2049)
      }
      const { flags, nanoseconds, seconds, ...rest } = read(Result.getOrThrow(Personalisation.encode(is)))
      const { clockMillis, defaultRoute, ...sent } = is
      assert.deepStrictEqual(rest, sent, `seed ${seed}`)
      assert.strictEqual(flags, defaultRoute ? 1 : 0)
      assert.isBelow(nanoseconds, 1e9)
      assert.closeTo(seconds * 1000 + nanoseconds / 1e6, clockMillis, 0.1, `seed ${seed}`)
    }
  })

  const refused: ReadonlyArray<readonly [what: Partial<Personalisation.Personalisation>, why: RegExp]> = [
    [{ token: new Uint8Array(31) }, /token of 31 bytes/],
    [{ entropy: new Uint8Array(63) }, /entropy of 63 bytes, permitted are 64 to 512/],
    [{ entropy: new Uint8Array(513) }, /entropy of 513 bytes/],
    [{ hostname: "" }, /no host name/],
    [{ hostname: "a b" }, /no host name/],
    [{ hostname: "a".repeat(65) }, /no host name/],
    [{ resolvConf: "ä".repeat(2049) }, /resolv\.conf of 4098 bytes/],
    [{ clockMillis: Number.NaN }, /no time/],
    [{ clockMillis: -1 }, /no time/]
  ]
  for (const [what, why] of refused) {
    it(`is not sent with ${JSON.stringify(Object.keys(what))} that cannot be (${why.source})`, () => {
      assert.match(Result.getOrThrow(Result.flip(Personalisation.encode({ ...plain, ...what }))).message, why)
    })
  }
})

describe("its answer", () => {
  const answer: PersonalisedFrame = {
    _tag: "Personalised",
    seq: 0,
    token: plain.token,
    seconds: 1_800_000_001,
    nanoseconds: 500_000_000,
    machineId: Uint8Array.from({ length: 16 }, (_, i) => i)
  }
  const now = 1_800_000_002_000

  it("will do with the token, a clock that is right, and an id", () => {
    assert.isUndefined(Personalisation.refusal(plain, answer, now))
    assert.isUndefined(Personalisation.refusal(plain, answer, now - 2500))
  })

  it("will not do otherwise", () => {
    const token = Uint8Array.from(plain.token)
    token[31] = 0
    assert.match(Personalisation.refusal(plain, { ...answer, token }, now) ?? "", /another machine's token/)
    assert.match(Personalisation.refusal(plain, { ...answer, token: new Uint8Array(0) }, now) ?? "", /token/)
    assert.match(Personalisation.refusal(plain, answer, now + 1501) ?? "", /clock is -2001 ms off/)
    assert.match(Personalisation.refusal(plain, answer, now - 2501) ?? "", /clock is 2001 ms off/)
    assert.match(Personalisation.refusal(plain, { ...answer, machineId: new Uint8Array(16) }, now) ?? "", /not random/)
  })
})
