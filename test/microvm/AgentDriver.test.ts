import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Stream } from "effect"
import type { Socket } from "node:net"
import { makeScanner } from "../../src/layers/sandbox/microvm/AgentAnswer.ts"
import type { AgentEvent } from "../../src/layers/sandbox/microvm/CodeBenchAgent.ts"
import type { Source } from "../../src/schemas/Program.ts"
import { eventually } from "../guest/Native.ts"
import { patience } from "../support/Slowness.ts"
import { agent } from "./AgentProcess.ts"
import { driving, faithful, hostile, signalOf } from "./AgentStandIn.ts"

interface Told {
  readonly phase: string | undefined
  readonly stdout: string
  readonly stderr: string
  readonly exit: unknown
  readonly maxRssBytes: number
}

const tell = (events: ReadonlyArray<AgentEvent>): Told => {
  const text = (stream: string) =>
    Buffer.concat(events.flatMap((event) => event._tag === "Output" && event.stream === stream ? [event.bytes] : []))
      .toString()
  const [first] = events
  const last = events.at(-1)
  return {
    phase: first?._tag === "Started" ? first.phase : undefined,
    stdout: text("stdout"),
    stderr: text("stderr"),
    exit: last?._tag === "Exited" && first?._tag === "Started" && first.phase === last.phase ? last.exit : undefined,
    maxRssBytes: last?._tag === "Exited" ? last.maxRssBytes : -1
  }
}

const run = (port: number, source: Source) => {
  const driver = driving(port)
  return Stream.runCollect(driver.source(source)).pipe(
    Effect.map(tell),
    Effect.timeout(patience(20_000)),
    Effect.tap(() => eventually("its connection is closed", 5, () => driver.open() === 0))
  )
}

const python = (code: string): Source => ({ language: "python", code })

/** What the driver says of an agent that answers with these bytes, and then does as told. */
const saidOf = (answer: string | ReadonlyArray<string>, then: (socket: Socket) => void = (socket) => socket.end()) =>
  Effect.scoped(Effect.gen(function*() {
    const port = yield* hostile((socket) => {
      for (const part of typeof answer === "string" ? [answer] : answer) socket.write(part, "latin1")
      then(socket)
    })
    const result = yield* Effect.result(run(port, python("print(1)")))
    if (Result.isSuccess(result)) return `ended: ${JSON.stringify(result.success)}`
    const { failure } = result
    return failure._tag === "TimeoutError" ? "too late" : `${failure._tag}: ${failure.reason}`
  }))

const http = (status: number, body: string, head = "") => `HTTP/1.1 ${status} X\r\n${head}\r\n${body}`
const success = (stdout = "") =>
  JSON.stringify({ message: "Success", error: "", stdout, stderr: "", exec_duration: 1, mem_usage: 2 })

describe("an original agent, driven by our worker", () => {
  it.live("runs programs of both kinds, and what it says of their ends is understood", () =>
    Effect.gen(function*() {
      for (const start of [faithful, Effect.map(agent(), ({ port }) => port)]) {
        const port = yield* start
        yield* driving(port).ready(patience(10_000))
        const exited = (code: number) => ({ _tag: "Exited", code })
        const hello = yield* run(port, { language: "c", code: "#include <stdio.h>\nint main(){puts(\"<hi> &\");}" })
        assert.deepStrictEqual([hello.phase, hello.stdout, hello.exit], ["run", "<hi> &\n", exited(0)])
        const seven = yield* run(port, python("import sys\nprint('ä\\t\\0')\nsys.stderr.write('no')\nsys.exit(7)"))
        assert.deepStrictEqual([seven.phase, seven.stdout, seven.stderr, seven.exit], [
          "run",
          "ä\t\0\n",
          "no",
          exited(7)
        ])
        assert.isAbove(seven.maxRssBytes, 1_000_000)
        const killed = yield* run(port, python("import os\nos.kill(os.getpid(), 9)"))
        assert.deepStrictEqual(killed.exit, { _tag: "Signalled", signal: signalOf("SIGKILL") })
        const aborted = yield* run(port, python("import os\nos.abort()"))
        assert.deepStrictEqual(aborted.exit, { _tag: "Signalled", signal: signalOf("SIGABRT") })
        const wrong = yield* run(port, { language: "cpp", code: "int main() { return missing; }", variant: "g++" })
        assert.deepStrictEqual([wrong.phase, wrong.exit, wrong.stdout], ["compile", exited(1), ""])
        assert.include(wrong.stderr, "missing")
        const large = yield* run(port, python("print('x\\n' * 150_000, end='')"))
        assert.strictEqual(large.stdout, "x\n".repeat(150_000))
      }
    }), 120_000)

  it.live("that refuses the source has not lost its sandbox", () =>
    Effect.gen(function*() {
      const port = yield* faithful
      const said = yield* Effect.flip(run(port, { language: "cobol", code: "x" }))
      assert.strictEqual(
        said.message,
        "run refused: the machine's agent refused the source (400): Invalid language"
      )
      const empty = yield* Effect.flip(run(port, python("")))
      assert.include(empty.message, "failed on the 'required' tag")
      const missing = JSON.stringify({
        message: "Failed to compile",
        error: "exec: \"gcc\": executable file not found in $PATH"
      })
      assert.strictEqual(
        yield* saidOf(http(400, missing)),
        "SandboxRefused: exec: \"gcc\": executable file not found in $PATH"
      )
      assert.match(yield* saidOf(http(413, "too much")), /^SandboxRefused: .*\(413\): too much$/)
    }), 60_000)

  it.live("that answers no HTTP, no JSON, or half of it loses its sandbox", () =>
    Effect.gen(function*() {
      const cases: ReadonlyArray<readonly [answer: string, says: RegExp]> = [
        ["", /closed the connection without an answer/],
        ["HTTP/1.1 200 OK\r\nContent-", /closed the connection without an answer/],
        ["SSH-2.0-OpenSSH\r\n\r\n", /is no HTTP/],
        ["HTTP/1.1 999 X\r\n\r\n", /is no HTTP/],
        [http(200, success(), "Nonsense\r\n"), /a header field that is none/],
        [http(200, success(), "Content-Length: -1\r\n"), /a length that is none/],
        [http(200, success(), "Content-Length: 5\r\nContent-Length: 6\r\n"), /a length that is none/],
        [http(200, success(), "Transfer-Encoding: chunked\r\n"), /an encoding that nobody asked for/],
        [http(200, success(), "Content-Length: 9\r\n"), /ends in the middle/],
        [http(200, success().slice(0, 20), "Content-Length: 900\r\n"), /was cut off/],
        [http(200, success().slice(0, -2)), /ends in the middle/],
        [http(200, ""), /ends in the middle/],
        [http(200, "<html>"), /no JSON object/],
        [http(200, "[1]"), /no JSON object/],
        [http(200, "{\"message\":\"Success\",\"message\":\"Success\"}"), /message is there twice/],
        [http(200, "{\"message\":\"Success\",\"mem_usage\":-5}"), /not usable/],
        [http(200, "{\"message\":\"Success\",\"mem_usage\":\"5\"}"), /not usable/],
        [http(200, "{\"message\":{}}"), /neither text nor a number/],
        [http(200, "{\"message\":5}"), /not usable/],
        [http(200, "{\"stdout\":\"x\",\"message\":\"Success\"}"), /output comes before the message/],
        [http(200, "{\"message\":\"Success\",\"stdout\":\"\\x\"}"), /unknown escape/],
        [http(200, "{\"message\":\"Failed to run\",\"error\":\"exit status 1\"}"), /answered 200: Failed to run/],
        [http(400, "{\"message\":\"Failed to run\",\"error\":\"exit status 999\"}"), /does not say how/],
        [http(400, "{\"message\":\"Failed to run\",\"error\":\"signal: jazz\"}"), /does not say how/],
        [http(500, "{\"message\":\"Internal Server Error\"}"), /answered 500: \{"message":"Internal Server Error"\}/],
        [http(503, "\u001b[31m busy"), /answered 503: \[31m busy/],
        [http(301, ""), /answered 301: without a word/]
      ]
      for (const [answer, says] of cases) assert.match(yield* saidOf(answer), says, answer)
    }), 60_000)

  it.live("is not waited for once its answer is whole, whatever it says after it", () =>
    Effect.gen(function*() {
      const stays = () => undefined
      assert.match(yield* saidOf(http(200, success("x")), stays), /^ended: .*"stdout":"x"/)
      assert.match(yield* saidOf(http(200, success("x") + "garbage".repeat(9), ""), stays), /^ended: /)
      const deep = `{"new":${"[".repeat(50_000)}"]\\""${"]".repeat(50_000)},${success("x").slice(1)}`
      assert.match(yield* saidOf(http(200, deep), stays), /^ended: .*"stdout":"x"/)
    }), 60_000)

  it.live("that never ends its head or a name is found out", () =>
    Effect.gen(function*() {
      const endless = (socket: Socket, piece: string) => {
        const more = () => {
          while (!socket.destroyed && socket.write(piece)) continue
        }
        socket.on("drain", more)
        more()
      }
      const line = `X-${"x".repeat(500)}: y\r\n`
      assert.match(yield* saidOf("HTTP/1.1 200 OK\r\n", (socket) => endless(socket, line)), /an endless head/)
      assert.match(yield* saidOf(http(200, "{\""), (socket) => endless(socket, line)), /endless name/)
      assert.match(
        yield* saidOf(http(200, "{\"message\":\""), (socket) => endless(socket, "x".repeat(1000))),
        /message is endless/
      )
      assert.match(yield* saidOf(http(500, ""), (socket) => endless(socket, "x".repeat(1000))), /answered 500: xxx/)
    }), 60_000)

  it.live(
    "that sends output without end fills no memory, is held up by a slow reader, and is left at once",
    () =>
      Effect.gen(function*() {
        let sent = 0
        let gone = 0
        const piece = "\\n".repeat(32_000)
        const port = yield* hostile((socket) => {
          socket.on("close", () => gone++)
          socket.write(http(200, "{\"message\":\"Success\",\"stdout\":\""))
          const more = () => {
            let isFree = true
            while (isFree && !socket.destroyed) {
              isFree = socket.write(piece)
              sent += piece.length
            }
          }
          socket.on("drain", more)
          more()
        })
        const { source } = driving(port)
        const taken = yield* Stream.runCollect(Stream.take(source(python("x")), 3))
        assert.deepStrictEqual(taken.map(({ _tag }) => _tag), ["Started", "Output", "Output"])
        yield* eventually("the connection is closed", 10, () => gone === 1)
        const before = sent
        const slow = yield* Effect.forkChild(
          Stream.runForEach(source(python("x")), () => Effect.never),
          { startImmediately: true }
        )
        yield* Effect.sleep(patience(1000))
        assert.isBelow(sent - before, 32 * 1024 * 1024)
        assert.isUndefined(slow.pollUnsafe())
        let bytes = 0
        yield* source(python("x")).pipe(
          Stream.takeWhile((event) => {
            bytes += event._tag === "Output" ? event.bytes.length : 0
            return bytes < 100_000_000
          }),
          Stream.runDrain
        )
        assert.isAtLeast(bytes, 100_000_000)
      }),
    120_000
  )

  it.live("is asked until it is there, and not longer than it may take", () =>
    Effect.gen(function*() {
      const port = yield* hostile((socket, number) => {
        if (number === 1) return void socket.destroy()
        if (number < 4) {
          return void socket.end(http(number === 2 ? 503 : 200, "").replace("HTTP", number === 3 ? "X" : "HTTP"))
        }
        socket.end(http(200, "OK"))
      })
      yield* driving(port).ready(patience(10_000))
      const silent = yield* hostile(() => {})
      const late = yield* Effect.flip(driving(silent).ready(300))
      assert.match(late.reason, /was not ready within 300 ms/)
      const closed = yield* Effect.scoped(hostile(() => {}))
      const refused = yield* Effect.flip(driving(closed).ready(200))
      assert.match(refused.reason, /at last: .*ECONNREFUSED/)
    }), 60_000)
})

describe("an agent's answer", () => {
  it("is the same however its bytes come in pieces", () => {
    const stdout = "a\"\\/\b\f\n\r\t\u0001ä€😀\u007f" + "x".repeat(100) + "\n".repeat(30)
    const plain = JSON.stringify({
      message: "Success",
      extra: [{ a: "]}" }],
      error: null,
      stdout,
      stderr: "e",
      mem_usage: 1e3
    })
    const escaped = plain.replaceAll(
      /[^\x20-\x7e]/gu,
      (char) =>
        Array.from({ length: char.length }, (_, at) => `\\u${char.charCodeAt(at).toString(16).padStart(4, "0")}`).join(
          ""
        )
    )
    for (
      const text of [
        plain,
        escaped,
        `\n ${escaped}`,
        plain.replace("\"stdout\":\"", "\"stdout\":\"\\ud83d\\ud83dx\\udc00")
      ]
    ) {
      const bytes = Buffer.from(text)
      const expected = JSON.parse(text) as { readonly stdout: string }
      for (let size = 1; size < 40; size++) {
        const scanner = makeScanner()
        const out: Array<Uint8Array> = []
        let isComplete = false
        for (let at = 0; at < bytes.length; at += size) {
          const scanned = scanner.push(bytes.subarray(at, at + size))
          assert.isUndefined(scanned.wrong)
          for (const piece of scanned.pieces) if (piece.stream === "stdout") out.push(piece.bytes)
          isComplete = scanned.isComplete
        }
        assert.isTrue(isComplete)
        assert.strictEqual(Buffer.concat(out).toString(), expected.stdout.toWellFormed())
        assert.deepStrictEqual(Result.getOrThrow(scanner.words()), { message: "Success", error: null, mem_usage: 1000 })
      }
    }
  })
})
