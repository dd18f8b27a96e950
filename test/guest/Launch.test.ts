import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { connect } from "node:net"
import { basename, join } from "node:path"
import { encode, type LaunchRequest } from "../../src/layers/host/Launcher.ts"
import { run } from "../support/Run.ts"
import { patience, slowness } from "../support/Slowness.ts"
import { cgroup, hierarchies } from "./Cgroup.ts"
import { eventually, isAlive, launchPath, program, tempDir } from "./Native.ts"

const launch = (args: ReadonlyArray<string>, cwd?: string) =>
  Effect.promise(() => run(launchPath, args, cwd === undefined ? {} : { cwd }))

describe("launch", () => {
  for (const { kind, root } of hierarchies) {
    it.live(`a program's first look finds itself in its cgroup (${kind})`, () =>
      Effect.gen(function*() {
        const own = yield* cgroup(root)
        const { code, stdout } = yield* launch(["-g", join(own, "job/cgroup.procs"), "--", "cat", "/proc/self/cgroup"])
        assert.strictEqual(code, 0)
        assert.include(stdout, `/${basename(own)}/job\n`)
      }))
  }

  it.live("enters every cgroup that is named", () =>
    Effect.gen(function*() {
      const own = yield* Effect.forEach(hierarchies, ({ root }) => cgroup(root))
      const files = own.flatMap((path) => ["-g", join(path, "cgroup.procs")])
      const { stdout } = yield* launch([...files, "cat", "/proc/self/cgroup"])
      for (const path of own) assert.include(stdout, `/${basename(path)}\n`)
    }))

  it.live("passes arguments, environment, streams and exit code on as they are", () =>
    Effect.gen(function*() {
      const ended = yield* launch(["--", "sh", "-c", "echo \"$1\"; echo err >&2; exit 7", "sh", "-n -- x"])
      assert.deepStrictEqual(ended, { code: 7, stdout: "-n -- x\n", stderr: "err\n" })
    }))

  it.live("keeps the working directory when it enters a mount namespace, and no file of its own open", () =>
    Effect.gen(function*() {
      const dir = yield* tempDir
      const look = ["sh", "-c", "pwd; ls /proc/$$/fd"]
      const plain = yield* Effect.promise(() => run("env", look, { cwd: dir }))
      const own = yield* cgroup(hierarchies[0]?.root ?? "")
      const ended = yield* launch(["-n", "/proc/self/ns/mnt", "-g", join(own, "cgroup.procs"), "--", ...look], dir)
      assert.deepStrictEqual(ended, plain)
      assert.include(ended.stdout, `${dir}\n0\n1\n2\n`)
    }))

  it.live("any failure is one line and 125, and nothing has run", () =>
    Effect.gen(function*() {
      const dir = yield* tempDir
      const marker = join(dir, "ran")
      const failures: ReadonlyArray<readonly [args: ReadonlyArray<string>, line: string]> = [
        [["-g", "/nowhere/cgroup.procs"], "open /nowhere/cgroup.procs: No such file or directory"],
        [["-g", "/dev/full"], "write /dev/full: No space left on device"],
        [["-n", "/nowhere"], "open /nowhere: No such file or directory"],
        [["-n", "/dev/null"], "enter /dev/null: Invalid argument"],
        [["-x"], "wrong or too many options (launch [-n MOUNT_NS_PATH] [-g CGROUP_PROCS_FILE]... -- PROGRAM ARGS...)"],
        [
          ["-n", "a", "-n", "b"],
          "wrong or too many options (launch [-n MOUNT_NS_PATH] [-g CGROUP_PROCS_FILE]... -- PROGRAM ARGS...)"
        ]
      ]
      for (const [args, line] of failures) {
        const ended = yield* launch([...args, "--", "touch", marker])
        assert.deepStrictEqual(ended, { code: 125, stdout: "", stderr: `stoker-launch: ${line}\n` })
      }
      assert.isFalse(existsSync(marker))
      const missing = yield* launch(["--", "no-such-program"])
      assert.deepStrictEqual([missing.code, missing.stderr], [
        125,
        "stoker-launch: exec no-such-program: No such file or directory\n"
      ])
      assert.strictEqual((yield* launch([])).code, 125)
    }))
})

/** A server in a directory of its own. */
const server = Effect.fnUntraced(function*(...options: ReadonlyArray<string>) {
  const dir = yield* tempDir
  const socket = join(dir, "launch.sock")
  const running = yield* program(launchPath, ["--serve", socket, ...options])
  let said = ""
  running.child.stdout.on("data", (chunk: Buffer) => said += chunk.toString())
  yield* eventually(`the server is ready ${running.stderr()}`, 5, () => said === "ready\n")
  return { ...running, dir, socket }
})

/** A connection that says `bytes`; what comes back is collected. Open at our end until `end` is called. */
const say = (socket: string, bytes: Uint8Array) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const stream = connect({ path: socket, allowHalfOpen: true })
      const chunks: Array<Buffer> = []
      stream.on("data", (chunk: Buffer) => chunks.push(chunk))
      stream.on("error", () => undefined)
      stream.once("end", () => stream.destroy())
      stream.write(bytes)
      const text = () => Buffer.concat(chunks).toString()
      const closed = Effect.suspend(() =>
        stream.closed ? Effect.succeed(text()) : Effect.callback<string>((resume) => {
          stream.once("close", () => resume(Effect.succeed(text())))
        })
      )
      return { stream, text, closed }
    }),
    ({ stream }) => Effect.sync(() => stream.destroy())
  )

const plain: LaunchRequest = { procsFiles: [], command: ["true"], stderrPath: "" }

/** What a launched program printed until it ended. */
const printed = (socket: string, request: Partial<LaunchRequest>) =>
  Effect.scoped(Effect.flatMap(say(socket, encode({ ...plain, ...request })), ({ closed }) => closed))

const fdsOf = (pid: number) => readdirSync(`/proc/${pid}/fd`).length
const statusOf = (pid: number, field: string) =>
  new RegExp(`^${field}:\\s*(\\S+)`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]

describe("launch --serve", () => {
  it.live("a program's first look finds itself in every cgroup that is named", () =>
    Effect.gen(function*() {
      const { socket } = yield* server("-n", "/proc/self/ns/mnt")
      const own = yield* Effect.forEach(hierarchies, ({ root }) => cgroup(root))
      const procsFiles = own.map((path) => join(path, "job/cgroup.procs"))
      const text = yield* printed(socket, { procsFiles, command: ["cat", "/proc/self/cgroup"] })
      for (const path of own) assert.include(text, `/${basename(path)}/job\n`)
    }))

  it.live("a program has the connection, its arguments, and nothing of the server", () =>
    Effect.gen(function*() {
      const { dir, pid, socket } = yield* server("-n", "/proc/self/ns/mnt")
      assert.strictEqual(statSync(socket).mode & 0o777, 0o600)
      assert.strictEqual(yield* printed(socket, { command: ["cat", "/proc/self/environ"] }), "")
      assert.strictEqual(yield* printed(socket, { command: ["pwd"] }), "/\n")
      assert.strictEqual(yield* printed(socket, { command: ["ls", "/proc/self/fd"] }), "0\n1\n2\n3\n")
      assert.strictEqual(yield* printed(socket, { command: ["printf", "%s|", "-n -- x", "", "ü"] }), "-n -- x||ü|")
      const signals = yield* printed(socket, { command: ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"] })
      assert.strictEqual(signals, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n")
      const said = join(dir, "said")
      assert.strictEqual(
        yield* printed(socket, { command: ["sh", "-c", "echo err >&2; echo out"], stderrPath: said }),
        "out\n"
      )
      assert.strictEqual(readFileSync(said, "utf8"), "err\n")
      assert.strictEqual(statSync(said).mode & 0o777, 0o600)
      assert.isTrue(isAlive(pid))
    }))

  it.live("what follows the request is the program's, and our end its end of file, not the end of its words", () =>
    Effect.gen(function*() {
      const { socket } = yield* server()
      const request = encode({ ...plain, command: ["sh", "-c", "cat; echo last"] })
      const { closed, stream } = yield* say(socket, Buffer.concat([request, Buffer.from("first ")]))
      stream.end("second ")
      assert.strictEqual(yield* closed, "first second last\n")
    }))

  it.live("a program's end closes its connection on both sides, though others hold it, and loses nothing it said", () =>
    Effect.gen(function*() {
      const { socket } = yield* server()
      const script = "exec 3<&0; cat <&3 >/dev/null & echo $!; head -c 100000 /dev/zero | tr '\\0' x; exit 3"
      const [line, rest] = (yield* printed(socket, { command: ["sh", "-c", script] })).split("\n")
      assert.strictEqual(rest, "x".repeat(100_000))
      yield* eventually("who was left has heard the end of file", 1, () => !isAlive(Number(line)))
    }))

  it.live("any failure is one line in the program's own file, and nothing has run", () =>
    Effect.gen(function*() {
      const { dir, socket, stderr } = yield* server()
      const marker = join(dir, "ran")
      const stderrPath = join(dir, "said")
      const failures: ReadonlyArray<readonly [request: Partial<LaunchRequest>, line: string]> = [
        [{ procsFiles: ["/nowhere/cgroup.procs"] }, "open /nowhere/cgroup.procs: No such file or directory"],
        [{ procsFiles: ["/dev/full"] }, "write /dev/full: No space left on device"],
        [{ command: ["no-such-program"] }, "exec no-such-program: No such file or directory"]
      ]
      for (const [index, [request, line]] of failures.entries()) {
        const said = `${stderrPath}${index}`
        assert.strictEqual(yield* printed(socket, { command: ["touch", marker], stderrPath: said, ...request }), "")
        assert.strictEqual(readFileSync(said, "utf8"), `stoker-launch: ${line}\n`)
        // Never over what another one said.
        yield* printed(socket, { command: ["sh", "-c", "echo other >&2"], stderrPath: said })
        assert.strictEqual(readFileSync(said, "utf8"), `stoker-launch: ${line}\n`)
      }
      assert.isFalse(existsSync(marker))
      assert.strictEqual(stderr(), "")
    }))

  it.live("what a program said is a file only if it said something, its end, and if somebody still listens", () =>
    Effect.gen(function*() {
      const { dir, pid, socket } = yield* server()
      const before = fdsOf(pid)
      const asked = (script: string, name: string) =>
        encode({ ...plain, command: ["sh", "-c", script], stderrPath: join(dir, name) })
      yield* Effect.flatMap(say(socket, asked("echo out", "silent")), ({ closed }) => closed)
      yield* Effect.flatMap(say(socket, asked("seq 9999 >&2", "long")), ({ closed }) => closed)
      const { stream } = yield* say(socket, asked("cat; echo too late >&2", "late"))
      stream.destroy()
      yield* eventually("it holds nothing of them", 2, () => fdsOf(pid) === before)
      assert.deepStrictEqual(readdirSync(dir).filter((name) => ["silent", "long", "late"].includes(name)), ["long"])
      const long = readFileSync(join(dir, "long"), "utf8")
      assert.deepStrictEqual([long.length, long.endsWith("9998\n9999\n")], [8192, true])
    }))

  it.live("does not start where it could not launch as asked", () =>
    Effect.gen(function*() {
      const dir = yield* tempDir
      for (
        const [args, line] of [
          [[join(dir, "s"), "-n", "/dev/null"], "enter /dev/null: "],
          [[join(dir, "s"), "-n", "/nowhere"], "open /nowhere: No such file or directory"],
          [[join(dir, "x".repeat(120))], "listen at "],
          [["/nowhere/s"], "listen at /nowhere/s: No such file or directory"]
        ] as const
      ) {
        const ended = yield* launch(["--serve", ...args])
        assert.deepStrictEqual([ended.code, ended.stdout], [125, ""])
        assert.include(ended.stderr, `stoker-launch: ${line}`)
      }
    }))

  it.live("two hundred at once, each with its own stream", () =>
    Effect.gen(function*() {
      const { socket } = yield* server()
      const all = Array.from({ length: 200 }, (_, index) => index)
      const texts = yield* Effect.forEach(all, (index) => printed(socket, { command: ["echo", `${index}`] }), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(texts, all.map((index) => `${index}\n`))
    }), patience(20_000))

  it.live("closes on what is no request, and goes on", () =>
    Effect.gen(function*() {
      const { dir, pid, socket, stderr } = yield* server()
      const marker = join(dir, "ran")
      const good = encode({ procsFiles: ["/dev/null"], command: ["touch", marker], stderrPath: "" })
      const framed = (body: Uint8Array) => {
        const head = Buffer.alloc(4)
        head.writeUInt32LE(body.length)
        return Buffer.concat([head, body])
      }
      const changed = (offset: number, value: number) => {
        const copy = Buffer.from(good)
        copy.writeUInt32LE(value, offset)
        return copy
      }
      const sealedAt = 4 + 4 + 4 + "/dev/null".length + 4
      const commandAt = sealedAt + 4
      const bad = [
        framed(new Uint8Array()),
        framed(good.subarray(4, good.length - 1)),
        framed(Buffer.concat([good.subarray(4), Buffer.alloc(1)])),
        framed(new Uint8Array(64).fill(255)),
        changed(0, 65_537),
        changed(0, 0xffff_ffff),
        changed(4, 65),
        changed(4, 0xffff_ffff),
        changed(8, 0xffff_fff0),
        changed(sealedAt, 2),
        changed(commandAt, 0),
        changed(commandAt, 0xffff_ffff),
        encode({ ...plain, command: [] }),
        encode({ ...plain, command: [""] }),
        encode({ ...plain, command: Array.from({ length: 257 }, () => "true") }),
        encode({ ...plain, command: ["touch", `${marker}\0x`] }),
        encode({ ...plain, procsFiles: Array.from({ length: 65 }, () => "/dev/null"), command: ["touch", marker] }),
        encode({ ...plain, command: ["touch", marker, "x".repeat(65_536)] })
      ]
      yield* Effect.forEach(
        Array.from({ length: 100 }),
        () =>
          Effect.map(Random.nextIntBetween(1, 200), (size) => Buffer.alloc(size)).pipe(
            Effect.flatMap((body) =>
              Effect.forEach(body, () => Random.nextIntBetween(0, 256)).pipe(
                Effect.map((bytes) => framed(Buffer.from(bytes)))
              )
            ),
            Effect.map((frame) => bad.push(frame))
          )
      ).pipe(Random.withSeed("launch"))
      const before = fdsOf(pid)
      for (const bytes of bad) {
        assert.strictEqual(yield* Effect.scoped(Effect.flatMap(say(socket, bytes), ({ closed }) => closed)), "")
      }
      assert.isFalse(existsSync(marker))
      assert.deepStrictEqual([yield* printed(socket, { command: ["echo", "on"] }), stderr()], ["on\n", ""])
      yield* eventually("it has closed them all", 1, () => fdsOf(pid) === before)
    }), patience(20_000))

  it.live("waits for the slow without keeping others waiting, and for five seconds only", () =>
    Effect.gen(function*() {
      const { pid, socket } = yield* server()
      const before = fdsOf(pid)
      // As many as a machine connects well within the five seconds.
      const many = Math.ceil(300 / slowness)
      const silent = yield* Effect.forEach(Array.from({ length: many }), () => say(socket, new Uint8Array()))
      const request = encode({ ...plain, command: ["echo", "slow"] })
      const slow = yield* say(socket, request.subarray(0, 2))
      yield* eventually("they are connected", 2, () => fdsOf(pid) === before + many + 1)
      assert.strictEqual(yield* printed(socket, { command: ["echo", "quick"] }), "quick\n")
      slow.stream.write(request.subarray(2, 7))
      assert.strictEqual(yield* printed(socket, { command: ["echo", "quick"] }), "quick\n")
      slow.stream.write(request.subarray(7))
      assert.strictEqual(yield* slow.closed, "slow\n")
      assert.isFalse(silent.some(({ stream }) => stream.closed))
      yield* eventually("the silent are closed", 7, () => silent.every(({ stream }) => stream.closed))
      yield* eventually("nothing of them is held", 1, () => fdsOf(pid) === before)
    }), patience(20_000))

  it.live("is gone within a second of its worker's SIGKILL; what it launched lives on its own link", () =>
    Effect.gen(function*() {
      const dir = yield* tempDir
      const worker = yield* program("sh", [
        "-c",
        `cd ${dir}; mkfifo pipe; ${launchPath} --serve s <pipe >said & echo $! > pid; exec 9>pipe
        until grep -q ready said; do sleep 0.01; done; echo up > up; read forever`
      ])
      yield* eventually("the worker is up", 5, () => existsSync(join(dir, "up")))
      const pid = Number(readFileSync(join(dir, "pid"), "utf8"))
      const { closed, stream, text } = yield* say(
        join(dir, "s"),
        encode({ ...plain, command: ["sh", "-c", "echo $$; exec cat"] })
      )
      yield* eventually("the job runs", 5, () => text() !== "")
      const job = Number(text())
      worker.child.kill("SIGKILL")
      yield* eventually("the server is gone", 1, () => !isAlive(pid))
      assert.isTrue(isAlive(job))
      stream.end("still here")
      assert.strictEqual(yield* closed, `${job}\nstill here`)
      yield* eventually("the job ended by its link", 1, () => !isAlive(job))
    }))

  it.live("a terminal's signals do not end it", () =>
    Effect.gen(function*() {
      const { child, pid, socket } = yield* server()
      for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGPIPE"] as const) {
        child.kill(signal)
        assert.strictEqual(yield* printed(socket, { command: ["echo", signal] }), `${signal}\n`)
      }
      assert.isTrue(isAlive(pid))
    }))

  it.live("five hundred launches leave no descriptor, no dead child and no memory", () =>
    Effect.gen(function*() {
      const { child, ended, pid, socket } = yield* server()
      yield* printed(socket, {})
      const before = fdsOf(pid)
      yield* Effect.forEach(Array.from({ length: 500 }), () => printed(socket, {}), { concurrency: 20 })
      const children = () => readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
      yield* eventually("all is closed and reaped", 2, () => fdsOf(pid) === before && children() === "")
      assert.isBelow(Number(statusOf(pid, "VmRSS")), 1536)
      child.stdin.end()
      assert.deepStrictEqual(yield* ended, { code: 0, signal: null })
    }), patience(20_000))
})
