/** The way to a machine's guest, with guests of our own at its other end. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { randomBytes } from "node:crypto"
import { createServer, type Server, type Socket } from "node:net"
import { dirname, join } from "node:path"
import { run } from "../support/Run.ts"
import { patience } from "../support/Slowness.ts"
import { eventually, program, tempDir, wirePath } from "./Native.ts"

const netns = "/proc/self/ns/net"

interface Peer {
  readonly server: Server
  /** Of those that said something, in order. */
  readonly sockets: Array<Socket>
  readonly heard: () => Buffer
  readonly ended: () => boolean
}

/** A guest, listening; half-closed like ours. */
const peer = (listen: (server: Server, done: () => void) => void, first?: (socket: Socket, chunk: Buffer) => Buffer) =>
  Effect.acquireRelease(
    Effect.callback<Peer>((resume) => {
      const sockets: Array<Socket> = []
      const chunks: Array<Buffer> = []
      let ended = false
      const server = createServer({ allowHalfOpen: true }, (socket) => {
        socket.on("error", () => {})
        let greeted = first === undefined
        socket.on("data", (chunk: Buffer) => {
          const rest = greeted ? chunk : first?.(socket, chunk) ?? chunk
          greeted = true
          if (!sockets.includes(socket)) sockets.push(socket)
          chunks.push(rest)
        })
        socket.on("end", () => {
          if (sockets.includes(socket)) ended = true
          else socket.destroy()
        })
      })
      listen(
        server,
        () => resume(Effect.succeed({ server, sockets, heard: () => Buffer.concat(chunks), ended: () => ended }))
      )
    }),
    ({ server, sockets }) =>
      Effect.callback<void>((resume) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => resume(Effect.void))
      })
  )

const portOf = (server: Server) => {
  const address = server.address()
  return typeof address === "object" && address !== null ? address.port : 0
}

const tcp = Effect.gen(function*() {
  const guest = yield* peer((server, done) => server.listen(0, "127.0.0.1", done))
  const args = ["--netns", netns, "--connect", `127.0.0.1:${portOf(guest.server)}`, "--within", `${patience(5000)}`]
  return { ...guest, args }
})

/** Firecracker's side of a vsock: it answers a CONNECT to port 7070, and hangs up on any other. */
const vsock = Effect.gen(function*() {
  const path = join(yield* tempDir, "v.sock")
  const guest = yield* peer((server, done) => server.listen(path, done), (socket, chunk) => {
    const line = chunk.indexOf("\n") + 1
    if (chunk.subarray(0, line).toString() !== "CONNECT 7070\n") socket.destroy()
    else socket.write("OK 1073741824\nhello")
    return chunk.subarray(line)
  })
  return { ...guest, path, args: ["--vsock", path, "--port", "7070", "--within", `${patience(5000)}`] }
})

const outputOf = (running: { readonly child: { readonly stdout: NodeJS.ReadableStream } }) => {
  const chunks: Array<Buffer> = []
  running.child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk))
  return () => Buffer.concat(chunks)
}

const usage = /^usage: wire /

describe("wire", () => {
  it("says how it is used", async () => {
    const lines = [
      [],
      ["--netns", netns, "--connect", "127.0.0.1:1"],
      ["--netns", netns, "--connect", "127.0.0.1", "--within", "1"],
      ["--netns", netns, "--connect", "localhost:1", "--within", "1"],
      ["--netns", netns, "--connect", "127.0.0.1:65536", "--within", "1"],
      ["--netns", netns, "--within", "1"],
      ["--vsock", "x", "--within", "1"],
      ["--vsock", "x", "--port", "1", "--netns", netns, "--connect", "127.0.0.1:1", "--within", "1"],
      ["--vsock", "x", "--port", "-1", "--within", "1"],
      ["--vsock", "x", "--port", "1", "--within", "1", "more"]
    ]
    for (const args of lines) {
      const { code, stderr, stdout } = await run(wirePath, args)
      assert.deepStrictEqual([code, stdout], [64, ""], args.join(" "))
      assert.match(stderr, usage)
    }
  })

  it("says what it could not try, and when it gave up", async () => {
    const missing = await run(wirePath, ["--netns", "/nowhere", "--connect", "127.0.0.1:1", "--within", "10"])
    assert.deepStrictEqual(missing, {
      code: 71,
      stdout: "",
      stderr: "stoker-wire: open /nowhere: No such file or directory\n"
    })
    const wrong = await run(wirePath, ["--netns", "/proc/self/ns/uts", "--connect", "127.0.0.1:1", "--within", "10"])
    assert.strictEqual(wrong.code, 71)
    assert.match(wrong.stderr, /^stoker-wire: enter the network namespace .*: Invalid argument\n$/)
    const refused = await run(wirePath, ["--netns", netns, "--connect", "127.0.0.1:1", "--within", "50"])
    assert.deepStrictEqual(refused, {
      code: 69,
      stdout: "",
      stderr: "stoker-wire: the guest did not answer on 127.0.0.1:1 within 50 ms (Connection refused)\n"
    })
    const absent = await run(wirePath, ["--vsock", "/nowhere", "--port", "7070", "--within", "50"])
    assert.strictEqual(absent.code, 69)
    assert.match(absent.stderr, /did not answer on \/nowhere within 50 ms \(No such file/)
    const long = await run(wirePath, ["--vsock", "x".repeat(200), "--port", "7070", "--within", "50"])
    assert.strictEqual(long.code, 71)
  })

  it.live("reaches a socket in a folder that is deeper than a socket's address can say", () =>
    Effect.gen(function*() {
      const { path } = yield* vsock
      const deep = `${dirname(path)}/${"./".repeat(80)}v.sock`
      const { code, stderr } = yield* Effect.promise(() =>
        run(wirePath, ["--vsock", deep, "--port", "7070", "--within", `${patience(5000)}`, "--probe"])
      )
      assert.deepStrictEqual([code, stderr], [0, ""])
      const nowhere = `/no/such/folder/${"./".repeat(80)}v.sock`
      const lost = yield* Effect.promise(() => run(wirePath, ["--vsock", nowhere, "--port", "1", "--within", "50"]))
      assert.strictEqual(lost.code, 71)
    }))

  for (const [kind, make, greeting] of [["TCP", tcp, ""], ["vsock", vsock, "hello"]] as const) {
    it.live(`over ${kind} passes megabytes both ways at once, unchanged`, () =>
      Effect.gen(function*() {
        const { args, heard, sockets } = yield* make
        const running = yield* program(wirePath, args)
        const said = outputOf(running)
        const [there, back] = [randomBytes(5_000_000), randomBytes(5_000_000)]
        running.child.stdin.write(there)
        yield* eventually("it is connected", 5, () => sockets.length === 1)
        sockets[0]?.write(back)
        yield* eventually("all is there", 20, () => heard().length === there.length && said().length >= back.length)
        assert.isTrue(heard().equals(there))
        assert.isTrue(said().equals(Buffer.concat([Buffer.from(greeting), back])))
      }))

    it.live(`over ${kind} passes on the end of its input, and what the guest still says`, () =>
      Effect.gen(function*() {
        const { args, ended, heard, sockets } = yield* make
        const running = yield* program(wirePath, args)
        const said = outputOf(running)
        running.child.stdin.end("last words")
        yield* eventually("the guest knows", 5, () => ended())
        assert.strictEqual(heard().toString(), "last words")
        sockets[0]?.end("farewell")
        assert.deepStrictEqual(yield* running.ended, { code: 0, signal: null })
        yield* eventually("it is said", 5, () => said().toString() === `${greeting}farewell`)
        assert.strictEqual(running.stderr(), "")
      }))

    it.live(`over ${kind} ends when the guest hangs up, though its input is open`, () =>
      Effect.gen(function*() {
        const { args, sockets } = yield* make
        const running = yield* program(wirePath, args)
        running.child.stdin.write("beginning")
        yield* eventually("it is connected", 5, () => sockets.length === 1)
        sockets[0]?.end()
        assert.deepStrictEqual(yield* running.ended, { code: 0, signal: null })
      }))

    it.live(`over ${kind} probes without a word, and ends at once`, () =>
      Effect.gen(function*() {
        const { args, heard } = yield* make
        const { code, stderr, stdout } = yield* Effect.promise(() => run(wirePath, [...args, "--probe"]))
        assert.deepStrictEqual([code, stderr, stdout, heard().length], [0, "", "", 0])
      }))
  }

  it.live("waits for a guest that comes later, and ends when nobody reads what it says", () =>
    Effect.gen(function*() {
      const path = join(yield* tempDir, "late.sock")
      const running = yield* program(wirePath, ["--vsock", path, "--port", "1", "--within", `${patience(10_000)}`])
      yield* Effect.sleep("200 millis")
      const late = yield* peer((server, done) => server.listen(path, done), (socket, chunk) => {
        socket.write("OK 1\n")
        return chunk.subarray(chunk.indexOf("\n") + 1)
      })
      running.child.stdin.write("beginning")
      yield* eventually("it is connected", 5, () => late.sockets.length === 1)
      running.child.stdout.destroy()
      late.sockets[0]?.write("to nobody")
      assert.deepStrictEqual(yield* running.ended, { code: 0, signal: null })
    }))

  it.live("holds no more than its buffers when the guest does not listen", () =>
    Effect.gen(function*() {
      const { args, sockets } = yield* tcp
      const running = yield* program(wirePath, args)
      running.child.stdin.write("beginning")
      yield* eventually("it is connected", 5, () => sockets.length === 1)
      sockets[0]?.pause()
      let taken = 0
      const piece = Buffer.alloc(1 << 20)
      const more = () => {
        running.child.stdin.write(piece, () => {
          taken += 1
          if (taken < 64) more()
        })
      }
      more()
      let before = -1
      yield* eventually("nothing moves any more", 20, () => {
        const still = before === taken && taken > 0
        before = taken
        return still
      }).pipe(Effect.andThen(Effect.sleep("300 millis")))
      assert.isBelow(taken, 32)
      sockets[0]?.resume()
      yield* eventually("all of it comes", 20, () => taken === 64)
    }))

  it.live("is nobody, and can become nobody else, once it is connected", () =>
    Effect.gen(function*() {
      const { args, sockets } = yield* tcp
      const running = yield* program(wirePath, [...args, "--uid", "64123", "--gid", "64124"])
      running.child.stdin.write("beginning")
      yield* eventually("it is connected", 5, () => sockets.length === 1)
      const status = (yield* Effect.promise(() => run("cat", [`/proc/${running.pid}/status`]))).stdout
      assert.match(status, /^Uid:\t64123\t64123\t64123\t64123$/m)
      assert.match(status, /^Gid:\t64124\t64124\t64124\t64124$/m)
      assert.match(status, /^Groups:\t *$/m)
      assert.match(status, /^CapPrm:\t0{16}$/m)
      assert.match(status, /^CapEff:\t0{16}$/m)
      assert.match(status, /^NoNewPrivs:\t1$/m)
    }))

  it.live("says what a Firecracker says that does not know it", () =>
    Effect.gen(function*() {
      const { path } = yield* vsock
      const { code, stderr } = yield* Effect.promise(() =>
        run(wirePath, ["--vsock", path, "--port", "9", "--within", "100"])
      )
      assert.strictEqual(code, 69)
      assert.match(stderr, /within 100 ms \((Connection refused|Connection reset by peer)\)/)
    }))

  it.live("puts the time into a PERSONALISE as it leaves, and into nothing else", () =>
    Effect.gen(function*() {
      const frame = Buffer.alloc(60, 0xaa)
      frame.writeUInt32LE(51, 0)
      frame[4] = 0x20
      for (const cut of [1, 12, 24, 60]) {
        const { args, heard } = yield* tcp
        const running = yield* program(wirePath, args)
        const before = Date.now()
        running.child.stdin.write(frame.subarray(0, cut))
        yield* Effect.sleep("50 millis")
        running.child.stdin.write(Buffer.concat([frame.subarray(cut), frame]))
        yield* eventually("both are there", 5, () => heard().length === 120)
        const first = heard().subarray(0, 60)
        const millis = Number(first.readBigInt64LE(13)) * 1000 + first.readUInt32LE(21) / 1e6
        assert.isAtLeast(millis, before)
        assert.isAtMost(millis, Date.now() + 1)
        assert.isTrue(first.subarray(0, 13).equals(frame.subarray(0, 13)))
        assert.isTrue(first.subarray(25).equals(frame.subarray(25)))
        assert.isTrue(heard().subarray(60).equals(frame))
      }
      // HTTP's fifth byte may be the same; once a CodeBench agent was sent a request with the time in it.
      const other = yield* tcp
      const request = "POST /run HTTP/1.0\r\nHost: localhost\r\n\r\n"
      const asking = yield* program(wirePath, other.args)
      asking.child.stdin.write(request)
      yield* eventually("it is there", 5, () => other.heard().length === request.length)
      assert.strictEqual(other.heard().toString(), request)
      // Not one: it leaves as it is, however short.
      const { args, heard } = yield* tcp
      const running = yield* program(wirePath, args)
      running.child.stdin.write("short")
      yield* eventually("it is there", 5, () => heard().toString() === "short")
      running.child.stdin.write(" and more")
      yield* eventually("all is there", 5, () => heard().toString() === "short and more")
    }))
})
