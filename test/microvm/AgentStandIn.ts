/** Agents that are not ours: a faithful copy of the old one's behaviour on the wire, and hostile ones. */
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer as createHttp, type IncomingMessage, type ServerResponse } from "node:http"
import { connect, createServer, type Server, type Socket } from "node:net"
import { constants, tmpdir } from "node:os"
import { join } from "node:path"
import { AGENT_PORT, make } from "../../src/layers/sandbox/microvm/CodeBenchAgent.ts"
import { SandboxLost } from "../../src/layers/sandbox/Sandbox.ts"

const listening = (server: Server) =>
  Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : AGENT_PORT))
      })
    }),
    () => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
  )

/** Go's names of the signals the tests use. */
const names: Readonly<Record<string, string>> = {
  SIGKILL: "killed",
  SIGSEGV: "segmentation fault",
  SIGABRT: "aborted (core dumped)"
}

const runOne = (program: string, args: ReadonlyArray<string>) =>
  new Promise<{ error: string; stdout: string; stderr: string; micros: number }>((resolve) => {
    const began = process.hrtime.bigint()
    execFile(program, args, { maxBuffer: 64 * 1024 * 1024, encoding: "utf8" }, (error, stdout, stderr) => {
      const micros = Number((process.hrtime.bigint() - began) / 1000n)
      const words = error === null
        ? ""
        : error.signal
        ? `signal: ${names[error.signal] ?? error.signal}`
        : error.code === "ENOENT"
        ? `exec: "${program}": executable file not found in $PATH`
        : `exit status ${error.code}`
      resolve({ error: words, stdout, stderr, micros })
    })
  })

/** As encoding/json of Go writes it: `<`, `>` and `&` escaped, a line feed at the end, no length for a large body. */
const answer = (response: ServerResponse, status: number, body: object) => {
  const text = JSON.stringify(body).replaceAll(
    /[<>&\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
  )
  response.writeHead(status, { "Content-Type": "application/json; charset=UTF-8" })
  response.end(`${text}\n`)
}

const handle = async (folder: string, request: IncomingMessage, response: ServerResponse) => {
  if (request.method === "GET" && request.url === "/health") {
    response.writeHead(200, { "Content-Type": "text/plain; charset=UTF-8" })
    return response.end("OK")
  }
  const parts: Array<Buffer> = []
  for await (const part of request) parts.push(part as Buffer)
  const { code, id, language, variant } = JSON.parse(Buffer.concat(parts).toString()) as Record<string, string>
  const absent = Object.entries({ ID: id, Code: code, Language: language, Variant: variant }).filter(([, text]) =>
    !text
  )
  if (absent.length > 0) {
    const message = absent.map(([name]) =>
      `Key: 'runReq.${name}' Error:Field validation for '${name}' failed on the 'required' tag`
    ).join("\n")
    return answer(response, 400, { message: `code=400, message=${message}` })
  }
  const source = join(folder, id ?? "")
  writeFileSync(source, code ?? "")
  const compilers: Readonly<Record<string, readonly [string, ...Array<string>]>> = {
    c: ["gcc", "-x", "c", source, "-o", `${source}.out`],
    cpp: ["g++", "-x", "c++", source, "-o", `${source}.out`]
  }
  const [compiler, ...args] = compilers[language ?? ""] ?? []
  if (compiler === undefined && language !== "python") return answer(response, 400, { message: "Invalid language" })
  if (compiler !== undefined) {
    const { error, stderr, stdout } = await runOne(compiler, args)
    if (error !== "") {
      const zero = { exec_duration: 0, mem_usage: 0 }
      return answer(response, 400, { message: "Failed to compile", error, stdout, stderr, ...zero })
    }
  }
  const { error, micros, stderr, stdout } = compiler === undefined
    ? await runOne("python3", [source])
    : await runOne(`${source}.out`, [])
  const measures = { exec_duration: micros, mem_usage: 1234 }
  return error === ""
    ? answer(response, 200, { message: "Success", error, stdout, stderr, ...measures })
    : answer(response, 400, { message: "Failed to run", error, stdout, stderr, ...measures })
}

/** Its port. What it writes goes with the scope. */
export const faithful = Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "stoker-agent-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  return yield* listening(createHttp((request, response) => void handle(folder, request, response)))
})

/** One that does with each connection what the test says once a request has begun to come. Its port. */
export const hostile = (does: (socket: Socket, number: number) => void) =>
  Effect.suspend(() => {
    let count = 0
    const sockets = new Set<Socket>()
    const server = createServer((socket) => {
      sockets.add(socket)
      socket.on("close", () => sockets.delete(socket))
      socket.on("error", () => {})
      socket.once("data", () => does(socket, ++count))
    })
    return Effect.tap(listening(server), () =>
      Effect.addFinalizer(() =>
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
        })
      ))
  })

/** Our driver of an agent on a port of this machine. `open` counts its connections. */
export const driving = (port: number) => {
  const sockets = new Set<Socket>()
  const connecting = Effect.acquireRelease(
    Effect.callback<Socket, SandboxLost>((resume) => {
      const socket = connect(port, "127.0.0.1")
      sockets.add(socket)
      socket.on("close", () => sockets.delete(socket))
      socket.once("connect", () => resume(Effect.succeed(socket)))
      socket.once(
        "error",
        ({ message }) => resume(Effect.fail(new SandboxLost({ driver: "qemu", reason: message, remedy: "none" })))
      )
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )
  return { ...make("qemu", connecting), open: () => sockets.size }
}

/** The number of a signal by its name. */
export const signalOf = (name: keyof typeof constants.signals) => constants.signals[name]
