import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { randomBytes } from "node:crypto"
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { constants } from "node:os"
import { join } from "node:path"
import * as Protocol from "../../src/guest/Protocol.ts"
import { patience } from "../support/Slowness.ts"
import { eventually, guestPath, isAlive, jobId, look, processes, program, tempDir, workDir } from "./Native.ts"
import { asJob, session } from "./Session.ts"

const { EBUSY, EINVAL, EISDIR, ELOOP, ENOENT, ENXIO, EXDEV, EACCES, ESRCH, ENOTDIR } = constants.errno

const ofJob = () => processes(({ uid }) => uid === jobId)
const memoryKiB = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1])

/** A guest of a job with a uid of its own, outside any namespace: the subreaper. */
const guest = Effect.gen(function*() {
  const work = yield* workDir
  return { work, ...(yield* session(asJob(work))) }
})

/** A guest that is pid 1 of a pid namespace. */
const init = Effect.gen(function*() {
  const work = yield* workDir
  const command = ["--pid", "--fork", "--mount-proc", "--kill-child", guestPath, ...asJob(work)]
  return { work, ...(yield* session(command, "unshare")) }
})

const exited = (code: number) => ({ kind: "exited", code }) as const
const signalled = (signal: number) => ({ kind: "signalled", signal }) as const
const failed = (frame: Protocol.GuestFrame): readonly [errno: number, text: string] =>
  frame._tag === "Fail" ? [frame.errno, frame.text] : [0, frame._tag]

describe("a phase", () => {
  it.live("runs what was put, with exactly its own environment, in the directory asked for", () =>
    Effect.gen(function*() {
      const { put, run, work } = yield* guest
      const script = "#!/bin/sh\npwd; echo \"$1|$2\"; cat data; env | sort; umask; ulimit -c\n"
      assert.strictEqual((yield* put("deep/er/run", script, true))._tag, "Ok")
      assert.strictEqual((yield* put("deep/data", "from a file\n"))._tag, "Ok")
      const { exit, stderr, stdout } = yield* run(["er/run", "a b", "größe"], { cwd: "deep", env: { A: "1", B: "" } })
      assert.strictEqual(
        stdout.toString(),
        `${work}/deep\na b|größe\nfrom a file\nA=1\nB=\nPWD=${work}/deep\n0022\n0\n`
      )
      assert.deepStrictEqual([stderr.toString(), exit.end], ["", exited(0)])
      const { gid, mode, uid } = statSync(join(work, "deep/er/run"))
      assert.deepStrictEqual([uid, gid, mode & 0o777], [jobId, jobId, 0o755])
      assert.strictEqual(statSync(join(work, "deep/er")).mode & 0o777, 0o755)
    }))

  it.live("passes 5 MB of any bytes from its input to both streams, all of it and in order", () =>
    Effect.gen(function*() {
      const { send, shell } = yield* guest
      const data = randomBytes(5_000_000)
      send(Protocol.encodeStdin(1, data.subarray(0, 1_000_000)))
      send(Protocol.encodeStdin(2, data.subarray(1_000_000)))
      const { exit, stderr, stdout } = yield* shell("tee /dev/stderr")
      assert.isTrue(stdout.equals(data))
      assert.isTrue(stderr.equals(data))
      assert.deepStrictEqual(exit.end, exited(0))
      const second = yield* shell("cat")
      assert.strictEqual(second.stdout.length, 0, "input is for one phase")
    }))

  it.live("loses none of 10,000 small writes", () =>
    Effect.gen(function*() {
      const { run } = yield* guest
      const { stdout } = yield* run(["perl", "-e", "syswrite(STDOUT, \"$_\\n\") for 1..10000"])
      assert.strictEqual(stdout.toString(), Array.from({ length: 10_000 }, (_, i) => `${i + 1}\n`).join(""))
    }))

  it.live("ends with its program's exit code or signal, and measures it", () =>
    Effect.gen(function*() {
      const { shell } = yield* guest
      assert.deepStrictEqual((yield* shell("exit 7")).exit.end, exited(7))
      assert.deepStrictEqual((yield* shell("kill -SEGV $$")).exit.end, signalled(11))
      const { exit } = yield* shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
      assert.isAbove(exit.userMicros, 1000)
      assert.isAtLeast(exit.wallMicros, exit.userMicros / 2)
      assert.isAbove(exit.maxRssKiB, 300)
    }))

  it.live("obeys its limits", () =>
    Effect.gen(function*() {
      const { shell } = yield* guest
      const limits = { fileBytes: 4096, openFiles: 17, stackBytes: 1 << 20, cpuSeconds: 1 }
      const { stdout } = yield* shell("ulimit -n; ulimit -s; ulimit -t; head -c 9999 /dev/zero > big; wc -c < big", {
        limits
      })
      assert.strictEqual(stdout.toString(), "17\n1024\n1\n4096\n")
      assert.deepStrictEqual((yield* shell("while :; do :; done", { limits })).exit.end, signalled(24))
    }))

  it.live("that cannot be started says why, and the next one can", () =>
    Effect.gen(function*() {
      const { put, shell, start } = yield* guest
      yield* put("not-executable", "#!/bin/sh\n")
      assert.deepStrictEqual(failed(yield* start(["no-such-program", "x"])), [ENOENT, "exec no-such-program"])
      assert.deepStrictEqual(failed(yield* start(["./not-executable"])), [EACCES, "exec ./not-executable"])
      assert.deepStrictEqual(failed(yield* start(["true"], { env: { PATH: "/nowhere" } })), [ENOENT, "exec true"])
      assert.deepStrictEqual(failed(yield* start(["true"], { cwd: "nowhere" })), [ENOENT, "chdir nowhere"])
      assert.deepStrictEqual(failed(yield* start(["true"], { cwd: ".." })), [EXDEV, "chdir .."])
      assert.deepStrictEqual(failed(yield* start([])), [EINVAL, "run with these arguments"])
      assert.deepStrictEqual(failed(yield* start(["a\0b"])), [EINVAL, "run with these arguments"])
      assert.deepStrictEqual((yield* shell("exit 0")).exit.end, exited(0))
    }))

  it.live("is alone: another run and any get are refused while it lasts", () =>
    Effect.gen(function*() {
      const { ask, finish, get, put, start } = yield* guest
      yield* put("f", "x")
      yield* start(["sleep", "1000"])
      assert.deepStrictEqual(failed(yield* start(["true"])), [EBUSY, "run while a phase runs"])
      assert.deepStrictEqual(failed(yield* get("f")), [EBUSY, "get while a phase runs"])
      assert.strictEqual((yield* ask(Protocol.encodeSignal(9, 15, "main")))._tag, "Ok")
      assert.deepStrictEqual((yield* finish).exit.end, signalled(15))
      assert.strictEqual((yield* get("f"))._tag, "Data")
      assert.strictEqual(failed(yield* ask(Protocol.encodeSignal(9, 15, "all")))[0], ESRCH)
    }))

  it.live("gets a signal with its group, and what left the group only when all are meant", () =>
    Effect.gen(function*() {
      const { ask, finish, next, send, start } = yield* guest
      const said = (bytes: number) =>
        Effect.gen(function*() {
          let text = ""
          while (text.length < bytes) {
            const frame = yield* next
            if (frame._tag === "Stdout") text += Buffer.from(frame.bytes).toString()
          }
          return text
        })
      const script = "$SIG{TERM} = sub { syswrite STDOUT, 'm' }; $SIG{USR1} = sub { exit 3 };" +
        "if (!fork) { use POSIX; setsid; $SIG{TERM} = sub { exit }; syswrite STDOUT, 'u'; sleep 1000 }" +
        "syswrite STDOUT, 'u'; sleep 1 while 1"
      yield* start(["perl", "-e", script])
      assert.strictEqual(yield* said(2), "uu")
      send(Protocol.encodeSignal(1, 15, "main"))
      assert.strictEqual(yield* said(1), "m")
      assert.strictEqual(ofJob().length, 2)
      send(Protocol.encodeSignal(2, 15, "all"))
      assert.strictEqual(yield* said(1), "m")
      yield* eventually("the daemon got it", 2, () => ofJob().length === 1)
      assert.strictEqual((yield* ask(Protocol.encodeSignal(3, 10, "main")))._tag, "Ok")
      const { exit, stdout } = yield* finish
      assert.deepStrictEqual([stdout.toString(), exit.end], ["", exited(3)])
    }))
})

for (const [kind, make] of [["as subreaper", guest], ["as pid 1", init]] as const) {
  describe(`what a phase leaves behind, ${kind}`, () => {
    it.live("a daemonised grandchild that holds stdout neither delays the end nor survives it", () =>
      Effect.gen(function*() {
        const { shell } = yield* make
        const daemon = "setsid sh -c 'trap \"\" TERM HUP; echo up; : >up; sleep 1000; :' &"
        const script = `${daemon} until [ -e up ]; do sleep 0.01; done; echo end`
        const { exit, stdout } = yield* shell(script)
        assert.strictEqual(stdout.toString(), "up\nend\n")
        assert.deepStrictEqual(exit.end, exited(0))
        assert.isBelow(exit.wallMicros, patience(2000) * 1000)
        assert.deepStrictEqual(ofJob(), [])
      }))

    it.live("a fork bomb is over when its main process is, and the next phase runs", () =>
      Effect.gen(function*() {
        const { shell } = yield* make
        const bomb = "f() { f & f; }; f"
        const { exit } = yield* shell(`prlimit --nproc=60 sh -c '${bomb}' 2>/dev/null & sleep 0.3; exit 5`)
        assert.deepStrictEqual(exit.end, exited(5))
        assert.deepStrictEqual(ofJob(), [])
        assert.strictEqual((yield* shell("echo fine")).stdout.toString(), "fine\n")
      }))

    it.live("every process is gone within a second of the host closing the pipe", () =>
      Effect.gen(function*() {
        const { child, ended, next, start } = yield* make
        yield* start([
          "sh",
          "-c",
          "setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) ; echo up; sleep 1000"
        ])
        assert.strictEqual((yield* next)._tag, "Stdout")
        yield* eventually("all of them run", 5, () => ofJob().length >= 5)
        child.stdin.end()
        yield* eventually("the job is gone", 1, () => ofJob().length === 0)
        assert.deepStrictEqual(yield* ended, { code: 0, signal: null })
      }))

    it.live("the guest ends with the reader of its output, too", () =>
      Effect.gen(function*() {
        const { child, ended, next, start } = yield* make
        yield* start(["yes"])
        yield* next
        child.stdout.destroy()
        yield* eventually("the job is gone", 1, () => ofJob().length === 0)
        assert.deepStrictEqual(yield* ended, { code: 0, signal: null })
      }))

    it.live("SHUTDOWN is answered when nobody is left", () =>
      Effect.gen(function*() {
        const { ended, next, send, start } = yield* make
        yield* start(["sh", "-c", "trap '' TERM; setsid sleep 1000 & wait"])
        send(Protocol.encodeShutdown(77))
        assert.deepStrictEqual(yield* next, { _tag: "Ok", seq: 77 })
        assert.deepStrictEqual(ofJob(), [])
        assert.deepStrictEqual(yield* ended, { code: 0, signal: null })
      }))
  })
}

describe("backpressure", () => {
  it.live("a host that reads nothing costs bounded memory, blocks the job, and can still stop it", () =>
    Effect.gen(function*() {
      const { child, finish, next, pid, send, start } = yield* guest
      const started = yield* start(["sh", "-c", "yes & yes >&2"])
      assert.strictEqual(started._tag, "Started")
      yield* next
      child.stdout.pause()
      const cpu = () =>
        ofJob().map((job) => readFileSync(`/proc/${job}/stat`, "utf8").split(") ")[1]?.split(" ").slice(11, 13))
      let before = ""
      let same = 0
      yield* eventually("the job is blocked", 10, () => {
        const now = JSON.stringify(cpu())
        same = now === before ? same + 1 : 0
        before = now
        return same > 40
      })
      assert.isBelow(memoryKiB(pid), 2048)
      send(Protocol.encodeSignal(5, 9, "all"))
      yield* eventually("the job is stopped although nobody reads", 2, () => ofJob().length === 0)
      child.stdout.resume()
      while (true) {
        const frame = yield* next
        if (frame._tag === "Stdout" || frame._tag === "Stderr") continue
        assert.deepStrictEqual(frame, { _tag: "Ok", seq: 5 })
        break
      }
      const { exit } = yield* finish
      assert.deepStrictEqual(exit.end, signalled(9))
    }))

  it.live("a reader that comes back after the end gets all that was written before it", () =>
    Effect.gen(function*() {
      const { child, finish, next, put, send, start } = yield* guest
      yield* start(["sh", "-c", "until [ -e go ]; do sleep 0.01; done; head -c 700000 /dev/zero; echo end"])
      child.stdout.pause()
      send(Result.getOrThrow(Protocol.encodePut(1, { path: "go", data: Buffer.alloc(0), executable: false })).parts)
      yield* eventually("the job is done although nobody reads", 5, () => ofJob().length === 0)
      child.stdout.resume()
      assert.strictEqual((yield* next)._tag, "Ok")
      const { exit, stdout } = yield* finish
      assert.deepStrictEqual([stdout.length, stdout.subarray(-4).toString()], [700_004, "end\n"])
      assert.deepStrictEqual(exit.end, exited(0))
      assert.strictEqual((yield* put("after", "x"))._tag, "Ok")
    }))

  it.live("an idle guest is small, also after big files passed through it", () =>
    Effect.gen(function*() {
      const { get, pid, put } = yield* guest
      const data = randomBytes(1_000_000)
      assert.strictEqual((yield* put("big", data))._tag, "Ok")
      const read: Array<Uint8Array> = []
      for (let offset = 0; offset < data.length;) {
        const frame = yield* get("big", offset)
        if (frame._tag !== "Data") return assert.fail(JSON.stringify(frame))
        assert.deepStrictEqual([frame.fileSize, frame.mode], [data.length, 0o644])
        read.push(frame.bytes)
        offset += frame.bytes.length
      }
      assert.isTrue(Buffer.concat(read).equals(data))
      assert.isBelow(memoryKiB(pid), 1100)
    }))
})

describe("files", () => {
  it.live("are replaced, appended to, read in parts, and empty ones exist", () =>
    Effect.gen(function*() {
      const { get, put } = yield* guest
      yield* put("f", "a longer text")
      yield* put("f", "short")
      assert.deepInclude(yield* get("f", 1, 3), { _tag: "Data", fileSize: 5, bytes: Buffer.from("hor") })
      assert.deepInclude(yield* get("f", 99), { _tag: "Data", fileSize: 5, bytes: Buffer.alloc(0) })
      yield* put("empty", "")
      assert.deepInclude(yield* get("empty"), { _tag: "Data", fileSize: 0 })
      assert.deepStrictEqual(failed(yield* get("none")), [ENOENT, "get none"])
    }))

  it.live("never lead out of the work directory, through a link, or into a wait", () =>
    Effect.gen(function*() {
      const { get, put, shell, work } = yield* guest
      const outside = yield* tempDir
      writeFileSync(join(outside, "secret"), "secret", { mode: 0o666 })
      mkdirSync(join(outside, "dir"), { mode: 0o777 })
      symlinkSync(join(outside, "secret"), join(work, "link"))
      symlinkSync(outside, join(work, "dirlink"))
      const made = yield* shell(
        "mkfifo fifo; mkdir dir; ln -s dir inner; ln -s /proc/self/fd magic; perl -e " +
          "'use Socket; socket(S,AF_UNIX,SOCK_STREAM,0); bind(S, sockaddr_un(\"sock\"))'"
      )
      assert.strictEqual(made.stderr.toString(), "")
      const refused: ReadonlyArray<readonly [path: string, get: number, put: number]> = [
        ["", EINVAL, EINVAL],
        ["/etc/passwd", EXDEV, EXDEV],
        ["..", EXDEV, EXDEV],
        ["../x", EXDEV, EXDEV],
        ["dir/../../x", EXDEV, EXDEV],
        ["a\0b", EINVAL, EINVAL],
        ["link", ELOOP, ELOOP],
        ["dirlink/secret", ELOOP, ELOOP],
        ["dirlink/dir/new", ELOOP, ELOOP],
        ["dirlink/made/new", ELOOP, ELOOP],
        ["inner/new", ELOOP, ELOOP],
        ["magic/0", ELOOP, ELOOP],
        ["dir", EISDIR, EISDIR],
        ["fifo", EINVAL, ENXIO],
        ["sock", ENXIO, ENXIO],
        ["fifo/x", ENOTDIR, ENOTDIR]
      ]
      for (const [path, onGet, onPut] of refused) {
        assert.strictEqual(failed(yield* get(path))[0], onGet, `get ${path}`)
        assert.strictEqual(failed(yield* put(path, "x"))[0], onPut, `put ${path}`)
      }
      assert.strictEqual(readFileSync(join(outside, "secret"), "utf8"), "secret")
    }))

  it.live("are out of reach for the guest where they are for the job", () =>
    Effect.gen(function*() {
      const { get, put, work } = yield* guest
      mkdirSync(join(work, "root"), { mode: 0o755 })
      writeFileSync(join(work, "root", "key"), "key", { mode: 0o600 })
      assert.strictEqual(failed(yield* get("root/key"))[0], EACCES)
      assert.strictEqual(failed(yield* put("root/key", "x"))[0], EACCES)
      assert.strictEqual(failed(yield* put("root/new/deep", "x"))[0], EACCES)
    }))

  it.live("put while a phase runs do not wait for a fifo it holds open", () =>
    Effect.gen(function*() {
      const { ask, finish, next, put, start } = yield* guest
      yield* start(["sh", "-c", "mkfifo f; exec 3<>f; echo up; sleep 1000"])
      assert.strictEqual((yield* next)._tag, "Stdout")
      assert.deepStrictEqual(failed(yield* put("f", "x")), [EINVAL, "put f"])
      yield* ask(Protocol.encodeSignal(1, 9, "all"))
      yield* finish
    }))
})

describe("a hostile job", () => {
  it.live("cannot signal, trace, read or imitate the guest", () =>
    Effect.gen(function*() {
      const { pid, shell } = yield* guest
      const attach = process.arch === "arm64" ? 117 : 101
      const { stdout } = yield* shell(`
        for s in KILL TERM STOP SEGV CHLD; do kill -$s ${pid} 2>/dev/null && echo "signalled $s"; done
        for f in mem environ maps auxv fd/0 fd/1 exe cwd/x root; do cat /proc/${pid}/$f >/dev/null 2>&1 && echo "read $f"; done
        ls /proc/${pid}/fd 2>/dev/null; readlink /proc/${pid}/exe
        (echo fake > /proc/${pid}/fd/1) 2>/dev/null && echo "wrote"
        perl -e 'syscall(${attach}, 16, ${pid}, 0, 0) == 0 and print "traced\\n"'
        ls /proc/self/fd | sort -n | tr '\\n' ' '
        grep -E 'Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Groups' /proc/self/status | tr -s ' \\t\\n' ' '`)
      // 3 is the directory that ls itself reads.
      const zero = "0000000000000000"
      assert.strictEqual(
        stdout.toString(),
        `0 1 2 3 Groups: CapInh: ${zero} CapPrm: ${zero} CapEff: ${zero} CapAmb: ${zero} NoNewPrivs: 1 `
      )
      assert.isTrue(isAlive(pid))
    }))

  it.live("cannot signal a guest that is pid 1, and can be ended when it has stopped itself", () =>
    Effect.gen(function*() {
      const { ask, finish, shell, start } = yield* init
      yield* start(["sh", "-c", "kill -KILL 1 || echo refused; kill -TERM -1; echo tried > done; kill -STOP $$"])
      yield* eventually("it has stopped itself", 2, () => ofJob().some((pid) => look(pid)?.state === "T"))
      yield* ask(Protocol.encodeSignal(1, 9, "all"))
      const { exit, stdout } = yield* finish
      assert.deepStrictEqual([stdout.toString(), exit.end], ["refused\n", signalled(9)])
      assert.strictEqual((yield* shell("cat done")).stdout.toString(), "tried\n")
    }))
})

describe("a malformed request", () => {
  const frames: ReadonlyArray<readonly [what: string, bytes: Buffer, why: RegExp]> = [
    ["a length above 1 MiB", Buffer.from([1, 0, 16, 0, 1, 0, 0, 0, 0]), /above 1 MiB/],
    ["an unknown type", Buffer.from([0, 0, 0, 0, 0x81, 0, 0, 0, 0]), /unknown frame type/],
    ["a string longer than its frame", Buffer.from([5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 255, 255, 255, 255]), /PUT/],
    ["a RUN that ends early", Buffer.from([4, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), /RUN/],
    ["a SIGNAL of the wrong size", Buffer.from([1, 0, 0, 0, 4, 0, 0, 0, 0, 9]), /SIGNAL/]
  ]
  for (const [what, bytes, why] of frames) {
    it.live(`${what} ends the guest and its job with 70 and a message`, () =>
      Effect.gen(function*() {
        const { child, ended, start, stderr } = yield* guest
        yield* start(["sleep", "1000"])
        child.stdin.write(bytes)
        assert.deepStrictEqual(yield* ended, { code: 70, signal: null })
        yield* eventually("its last words", 1, () => why.test(stderr()))
        assert.deepStrictEqual(ofJob(), [])
      }))
  }

  it.live("random requests end in answers or in 70, never in a crash", () =>
    Effect.gen(function*() {
      const work = yield* workDir
      for (let round = 0; round < 40; round++) {
        const seed = randomBytes(2000)
        const running = yield* program(guestPath, asJob(work))
        for (let at = 0; at + 40 < seed.length; at += 40) {
          const size = seed.readUInt8(at) % 30
          const type = 1 + (seed.readUInt8(at + 1) % 5)
          running.child.stdin.write(Buffer.from([size, 0, 0, 0, type, 0, 0, 0, 0]))
          // Lengths of strings are made small, so that some frames parse.
          const payload = seed.subarray(at + 2, at + 2 + size).map((byte, i) =>
            i % 4 === 0 ? byte % 9 : byte < 128 ? 0 : byte
          )
          running.child.stdin.write(payload)
        }
        running.child.stdin.end()
        running.child.stdout.resume()
        const { code, signal } = yield* running.ended
        assert.isTrue(signal === null && (code === 70 || code === 0), `${code} ${signal} for ${seed.toString("hex")}`)
      }
      assert.deepStrictEqual(ofJob(), [])
    }))

  it.live("wrong arguments and a missing work directory are told before anything else", () =>
    Effect.gen(function*() {
      for (
        const [args, code, why] of [
          [[], 64, /usage/],
          [["--work", "/", "--uid", "1"], 64, /usage/],
          [["--work", "/", "--uid", "x", "--gid", "1"], 64, /usage/],
          [["--work", "/nowhere"], 71, /\/nowhere: No such file/]
        ] as const
      ) {
        const { ended, stderr } = yield* program(guestPath, args)
        assert.strictEqual((yield* ended).code, code)
        yield* eventually("its last words", 1, () => why.test(stderr()))
      }
    }))
})
