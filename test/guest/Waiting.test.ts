/** A phase that has begun and waits for its standard input. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { randomBytes } from "node:crypto"
import { constants } from "node:os"
import * as Protocol from "../../src/guest/Protocol.ts"
import { eventually, isAlive, workDir } from "./Native.ts"
import { asJob, path, session } from "./Session.ts"

const { EBUSY, ESRCH } = constants.errno

const unlimited = { fileBytes: 0, openFiles: 0, stackBytes: 0, cpuSeconds: 0 }

const guest = Effect.gen(function*() {
  const work = yield* workDir
  const talk = yield* session(asJob(work))
  let seq = 1000
  const wait = Effect.fnUntraced(function*(script: string, limits: Partial<Protocol.RunLimits> = {}) {
    const request = { cwd: "", argv: ["sh", "-c", script], env: { PATH: path }, limits: { ...unlimited, ...limits } }
    const frame = yield* talk.ask(Result.getOrThrow(Protocol.encodeRun(++seq, request, "wait")))
    return frame._tag === "Started" ? frame.pid : yield* Effect.die(frame)
  })
  const feed = (input: Uint8Array, limits: Partial<Protocol.RunLimits> = {}) => {
    seq += 1
    talk.send(Protocol.encodeStdin(seq, input))
    return talk.ask(Result.getOrThrow(Protocol.encodeFeed(seq, { ...unlimited, ...limits })))
  }
  return { ...talk, wait, feed }
})

describe("a phase that waits", () => {
  it.live("reads what it is fed, and then the end, and only once", () =>
    Effect.gen(function*() {
      const { feed, finish, next, wait } = yield* guest
      yield* wait("echo ready; cat; echo done")
      const first = yield* next
      assert.isTrue(first._tag === "Stdout" && Buffer.from(first.bytes).toString() === "ready\n")
      assert.strictEqual((yield* feed(Buffer.from("hello\n")))._tag, "Ok")
      assert.strictEqual((yield* finish).stdout.toString(), "hello\ndone\n")
      const again = yield* feed(Buffer.from("x"))
      assert.isTrue(again._tag === "Fail" && again.errno === ESRCH)
    }))

  it.live("takes more than its pipe holds, all of it and in order, while it writes as much", () =>
    Effect.gen(function*() {
      const { feed, finish, wait } = yield* guest
      const data = randomBytes(5_000_000)
      yield* wait("cat")
      assert.strictEqual((yield* feed(data))._tag, "Ok")
      const { exit, stdout } = yield* finish
      assert.isTrue(stdout.equals(data))
      assert.deepStrictEqual(exit.end, { kind: "exited", code: 0 })
    }))

  it.live("may end without having read it, or be killed", () =>
    Effect.gen(function*() {
      const { ask, feed, finish, wait } = yield* guest
      yield* wait("read line; exec true")
      assert.strictEqual((yield* feed(randomBytes(2_000_000)))._tag, "Ok")
      assert.deepStrictEqual((yield* finish).exit.end, { kind: "exited", code: 0 })
      const pid = yield* wait("cat")
      assert.strictEqual((yield* ask(Protocol.encodeSignal(5000, 9, "all")))._tag, "Ok")
      assert.deepStrictEqual((yield* finish).exit.end, { kind: "signalled", signal: 9 })
      assert.isFalse(isAlive(pid))
    }))

  it.live("has the limits it is fed with, where they are lower", () =>
    Effect.gen(function*() {
      const { feed, finish, wait } = yield* guest
      yield* wait("read line; cat /proc/self/limits", { openFiles: 100, fileBytes: 4096, cpuSeconds: 50 })
      yield* feed(Buffer.from("\n"), { openFiles: 20, fileBytes: 9999, cpuSeconds: 7 })
      const text = (yield* finish).stdout.toString()
      assert.match(text, /^Max open files +20 +20 /m)
      // Never higher than it was.
      assert.match(text, /^Max file size +4096 +4096 /m)
      assert.match(text, /^Max cpu time +7 +8 /m)
    }))

  it.live("keeps another phase from running, and goes with the guest", () =>
    Effect.gen(function*() {
      const { child, start, wait } = yield* guest
      const pid = yield* wait("cat")
      const other = yield* start(["true"])
      assert.isTrue(other._tag === "Fail" && other.errno === EBUSY)
      child.stdin.end()
      yield* eventually("the phase is gone with its guest", 5, () => !isAlive(pid))
    }))

  it.live("input for a phase that waits is nobody else's", () =>
    Effect.gen(function*() {
      const { feed, shell } = yield* guest
      const refused = yield* feed(Buffer.from("lost\n"))
      assert.isTrue(refused._tag === "Fail" && refused.errno === ESRCH)
      assert.strictEqual((yield* shell("cat")).stdout.toString(), "")
    }))
})
