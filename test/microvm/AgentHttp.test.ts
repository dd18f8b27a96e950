import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { eventually, jobId, processes } from "../guest/Native.ts"
import { agent, agentFor, ask, raw, runs } from "./AgentProcess.ts"

const ofJob = () => processes(({ uid }) => uid === jobId)
const hello = "#include <stdio.h>\nint main() { printf(\"Hello, World!\"); return 0; }"

describe("our agent for the old worker", () => {
  it.live(
    "answers its health question and its job as the old one did, connection after connection",
    () =>
      Effect.gen(function*() {
        const { places, port } = yield* agent()
        for (let second = 0; second < 3; second++) {
          const health = yield* ask(port, "GET", "/health", undefined, {}, 500)
          assert.deepStrictEqual(health, { status: 200, type: "text/plain; charset=UTF-8", body: "OK" })
        }
        const posted = JSON.stringify({ id: "666", language: "c", code: hello, variant: "TODO" })
        const { body, status, type } = yield* ask(port, "POST", "/run", posted)
        assert.deepStrictEqual([status, type], [200, "application/json; charset=UTF-8"])
        const answer = JSON.parse(body) as Record<string, unknown>
        const { exec_duration, mem_usage, ...words } = answer
        assert.deepStrictEqual(Object.keys(answer), [
          "message",
          "error",
          "stdout",
          "stderr",
          "exec_duration",
          "mem_usage"
        ])
        assert.deepStrictEqual(words, { message: "Success", error: "", stdout: "Hello, World!", stderr: "" })
        assert.isTrue(Number(exec_duration) > 0 && Number(mem_usage) > 100)
        yield* eventually("the job's directory is removed", 5, () => places().length === 0)
      }),
    60_000
  )

  it.live("tells exit codes, signals and compilers' words as the old one did", () =>
    Effect.gen(function*() {
      const { port } = yield* agent()
      const failed = yield* runs(port, "python", "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(7)")
      assert.deepStrictEqual(
        [failed.status, failed.message, failed.error, failed.stdout, failed.stderr],
        [400, "Failed to run", "exit status 7", "out\n", "err\n"]
      )
      const killed = yield* runs(port, "python", "import os\nos.kill(os.getpid(), 11)")
      assert.deepStrictEqual([killed.status, killed.error], [400, "signal: segmentation fault"])
      const wrong = yield* runs(port, "cpp", "int main() { return nothing; }")
      assert.deepStrictEqual(
        [wrong.status, wrong.message, wrong.error, wrong.exec_duration, wrong.mem_usage],
        [400, "Failed to compile", "exit status 1", 0, 0]
      )
      assert.include(wrong.stderr, "nothing")
      const other = yield* runs(port, "rust", "fn main() {}")
      assert.deepStrictEqual(other, { status: 400, message: "Invalid language" })
    }), 60_000)

  it.live("gives whatever bytes a program writes as valid JSON", () =>
    Effect.gen(function*() {
      const { port } = yield* agent()
      const { stdout } = yield* runs(port, "python", "import os\nos.write(1, bytes(range(256)) + 'ä€😀'.encode())")
      const ascii = Buffer.from(Array.from({ length: 128 }, (_, byte) => byte)).toString()
      assert.strictEqual(stdout, `${ascii}${"\uFFFD".repeat(128)}ä€😀`)
    }), 60_000)

  it.live(
    "keeps the beginning of what a program prints without end, and says what it left out",
    () =>
      Effect.gen(function*() {
        const { port } = yield* agent("--run-seconds", "2", "--output-bytes", "1000")
        const answer = yield* runs(port, "python", "while True: print('x' * 99)")
        assert.deepStrictEqual([answer.status, answer.message], [400, "Failed to run"])
        assert.strictEqual(answer.error, "signal: killed (it did not end within 2 seconds)")
        const line = `${"x".repeat(99)}\n`
        assert.match(answer.stdout ?? "", new RegExp(`^(${line}){10}\n\\[[0-9]{4,} bytes left out here\\]\n$`))
        assert.deepStrictEqual(ofJob(), [])
      }),
    60_000
  )

  it.live("answers a program that hangs, kills all it has started, and a compiler too", () =>
    Effect.gen(function*() {
      const { places, port } = yield* agent("--run-seconds", "1", "--compile-seconds", "1")
      const code = [
        "import os, time",
        "os.makedirs('/tmp/' + '/'.join(['d'] * 500))",
        "if os.fork() == 0:",
        "  os.setsid()",
        "  if os.fork() == 0: time.sleep(1000)",
        "time.sleep(1000)"
      ].join("\n")
      const answer = yield* runs(port, "python", code)
      assert.strictEqual(answer.error, "signal: killed (it did not end within 1 seconds)")
      assert.deepStrictEqual(ofJob(), [])
      const slow = yield* runs(port, "c", "#include \"/dev/zero\"\nint main() {}")
      assert.deepStrictEqual([slow.status, slow.message], [400, "Failed to compile"])
      assert.deepStrictEqual(ofJob(), [])
      yield* eventually("all files are removed", 10, () => places().length === 0)
    }), 60_000)

  it.live(
    "lets a program see neither the agent nor other jobs' files, and outlives what it does",
    () =>
      Effect.gen(function*() {
        const { pid, port } = yield* agent()
        const code = [
          "import os, signal",
          "print(os.getuid(), os.getgid(), os.getgroups())",
          "print(sorted(name for name in os.listdir('/proc') if name.isdigit()))",
          "for pid in [1, os.getppid()]:",
          "  try: os.kill(pid, signal.SIGKILL)",
          "  except OSError as e: print(type(e).__name__)",
          `print(os.path.exists('/proc/${pid}/cmdline'))`,
          "open('/tmp/left', 'w').write('secret')",
          "open('/dev/shm/left', 'w').write('secret')",
          "os.kill(-1, signal.SIGKILL)"
        ].join("\n")
        const answer = yield* runs(port, "python", code)
        const own = /\['(\d+)'\]/.exec(answer.stdout ?? "")?.[1]
        assert.strictEqual(
          answer.stdout,
          `${jobId} ${jobId} []\n['${own}']\nPermissionError\nPermissionError\nFalse\n`
        )
        const next = yield* runs(port, "python", "import os\nprint(os.listdir('/tmp'), os.listdir('/dev/shm'))")
        assert.deepStrictEqual([next.stdout, next.status], ["['main.py'] []\n", 200])
      }),
    60_000
  )

  it.live("takes nothing from the id but that it is there", () =>
    Effect.gen(function*() {
      const { port } = yield* agent()
      const { stdout } = yield* runs(port, "python", "print(__file__)", "../../etc/passwd\u0000; -o x")
      assert.strictEqual(stdout, "/tmp/main.py\n")
    }), 60_000)

  it.live("runs one job after the other, and says so to whom it cannot take", () =>
    Effect.gen(function*() {
      const { places, port } = yield* agent("--wait-seconds", "0")
      const long = yield* Effect.forkChild(runs(port, "python", "import time\ntime.sleep(3)\nprint(1)"))
      yield* eventually("the first job runs", 10, () => ofJob().length > 0)
      const refused = yield* runs(port, "python", "print(2)")
      assert.deepStrictEqual(refused, { status: 503, message: "Service Unavailable" })
      assert.strictEqual((yield* ask(port, "GET", "/health")).body, "OK")
      assert.strictEqual((yield* Fiber.join(long)).stdout, "1\n")
      yield* eventually("the first one's files are removed", 10, () => places().length === 0)
      assert.strictEqual((yield* ask(port, "GET", "/health")).body, "OK")

      const patient = yield* agent()
      const answers = yield* Effect.all(
        [1, 2, 3, 4].map((n) => runs(patient.port, "python", `print(${n})`)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(answers.map(({ stdout }) => stdout), ["1\n", "2\n", "3\n", "4\n"])
    }), 60_000)

  it.live("ends a program whose agent dies", () =>
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const { port } = yield* agent()
        yield* Effect.forkScoped(Effect.ignoreCause(runs(port, "python", "import time\ntime.sleep(1000)")))
        yield* eventually("the job runs", 10, () => ofJob().length > 0)
      }))
      yield* eventually("nothing of the job is left", 10, () => ofJob().length === 0)
    }), 60_000)

  it.live("refuses what is no such request, with a status and in words", () =>
    Effect.gen(function*() {
      const { port } = yield* agent()
      const post = (body: string, headers?: Record<string, string>) => ask(port, "POST", "/run", body, headers)
      const words = ({ body }: { readonly body: string }) => (JSON.parse(body) as { readonly message: string }).message
      const missing = yield* post("{\"id\":\"1\",\"code\":null,\"language\":\"c\",\"variant\":\"\"}")
      assert.strictEqual(missing.status, 400)
      assert.strictEqual(
        words(missing),
        "code=400, message=Key: 'runReq.Code' Error:Field validation for 'Code' failed on the 'required' tag\n" +
          "Key: 'runReq.Variant' Error:Field validation for 'Variant' failed on the 'required' tag"
      )
      for (
        const body of ["", "[]", "{", "{}x", "{\"id\":1}", "{\"id\":\"\xff", "[".repeat(100_000), "{\"a\":01}", "nul"]
      ) {
        const { status, type } = yield* post(body)
        assert.deepStrictEqual([body.slice(0, 9), status, type], [
          body.slice(0, 9),
          400,
          "application/json; charset=UTF-8"
        ])
      }
      assert.strictEqual((yield* post("{}", { "Content-Type": "text/plain" })).status, 415)
      assert.strictEqual((yield* post("{}", { "Transfer-Encoding": "chunked" })).status, 411)
      assert.strictEqual((yield* post(`"${"x".repeat(1 << 20)}"`)).status, 413)
      assert.strictEqual((yield* ask(port, "GET", "/run")).status, 405)
      assert.strictEqual((yield* ask(port, "GET", "/")).status, 404)
      assert.strictEqual((yield* ask(port, "GET", `/${"x".repeat(20_000)}`)).status, 431)
      for (const head of ["GET / HTTP/2.0", "GET /", "G\x01T / HTTP/1.1", "GET / HTTP/1.1\r\nA b: c", "\r\n"]) {
        assert.match(yield* raw(port, `${head}\r\n\r\n`), /^HTTP\/1.1 (400|505) /)
      }
      const twice = "POST /run HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"
      assert.match(yield* raw(port, twice), /^HTTP\/1.1 400 /)
    }), 60_000)

  it.live("lets a client send its body when it has been told to go on", () =>
    Effect.gen(function*() {
      const { port } = yield* agent()
      const body = JSON.stringify({ id: "1", language: "python", code: "print(5)", variant: "x" })
      const head = `POST /run HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n`
      const said = yield* raw(port, `${head}Expect: 100-continue\r\n\r\n`, body)
      assert.match(said, /^HTTP\/1.1 100 Continue\r\n\r\nHTTP\/1.1 200 [^]*"stdout":"5\\n"/)
    }), 60_000)

  it.live("cuts off a client that is silent or slow, and serves others meanwhile", () =>
    Effect.gen(function*() {
      const { port } = yield* agent()
      const slow = yield* Effect.forEach(
        ["", "POST /run HTTP/1.1\r\n", "POST /run HTTP/1.1\r\nContent-Length: 5\r\n\r\n{"],
        (bytes) => Effect.forkChild(raw(port, bytes), { startImmediately: true })
      )
      assert.strictEqual((yield* runs(port, "python", "print(1)")).stdout, "1\n")
      const said = yield* Effect.forEach(slow, Fiber.join)
      assert.strictEqual(said[0], "")
      assert.match(said[1] ?? "", /^HTTP\/1.1 408 /)
      assert.match(said[2] ?? "", /^HTTP\/1.1 408 /)
    }), 60_000)

  it.live("does not speak to this machine's own programs unless it is told to", () =>
    Effect.gen(function*() {
      const { port } = yield* agent()
      const question = "GET /health HTTP/1.1\r\n\r\n"
      assert.include(yield* raw(port, question), "OK")
      const inside = yield* agentFor()
      assert.strictEqual(yield* raw(inside.port, question), "")
    }), 60_000)
})
