/** What one sandbox does: put, run, signal, get, kill, lost, measure, observe. */
import { Deferred, Effect, Schedule } from "effect"
import { WorkPath } from "../../schemas/Program.ts"
import { between, define, expect, same } from "../Case.ts"
import { ConformanceDriver, ConformanceHost } from "../ConformanceHost.ts"
import { nothingLeft } from "../Gone.ts"
import { attempt, done, fails, provision, run } from "../Places.ts"
import { filesOf, slowly, within } from "../Runs.ts"

const ENOENT = 2
const EACCES = 13
const EBUSY = 16
/** Ten seconds on a plain machine. */
const patiently = Schedule.spaced("50 millis").pipe(Schedule.upTo({ times: 200 }))

const path = (text: string) => WorkPath.make(text)
const exited = (code: number) => ({ _tag: "Exited", code })

/** Who hears TERM says so. The child leads a group of its own, as a daemon does; its parent waits for its word. */
const family = `
setsid sh -c 'trap "echo child" TERM; echo ready; while :; do sleep 0.05; done' &
trap 'echo main; sleep 0.5; exit 4' TERM
echo ready
while :; do sleep 0.05; done`

const isBusy = (error: { readonly _tag: string; readonly errno?: number }) =>
  error._tag === "SandboxRefused" && error.errno === EBUSY

const linesOf = (text: string) => text.split("\n").filter((line) => line !== "")

export const contract = [
  define(
    "a sandbox says whose it is, and where it can be found",
    [],
    Effect.scoped(Effect.gen(function*() {
      const driver = yield* ConformanceDriver
      const sandbox = yield* provision
      yield* same("its driver", sandbox.driver, driver.name)
      yield* expect("an id and a place", sandbox.id !== "" && sandbox.place !== "", [sandbox.id, sandbox.place])
    }))
  ),

  define(
    "files are put as they are, with their modes, and read back",
    [],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      const all = Uint8Array.from({ length: 300_000 }, (_, index) => (index * 31) % 256)
      yield* done(
        "put",
        sandbox.put([...filesOf({ "a/b/all": all, empty: "" }), ...filesOf({ tool: "#!/bin/sh\n" }, true)])
      )
      const { stdout } = yield* run(sandbox, "stat -c '%a %s' a/b/all empty tool")
      yield* same("modes and sizes", stdout, "644 300000\n644 0\n755 10\n")
      const back = yield* done("get", sandbox.get(path("a/b/all"), 300_000))
      yield* expect("the same bytes", Buffer.from(back).equals(all), `${back.length} bytes`)
      yield* same("an empty file", (yield* done("get", sandbox.get(path("empty"), 10))).length, 0)
      const empty = yield* done("put of nothing", sandbox.put([]))
      yield* same("put of nothing", empty, undefined)
    }))
  ),

  define(
    "a file put again is the new one, whole",
    [],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      yield* done("put", sandbox.put(filesOf({ file: "a long first text" })))
      yield* done("put", sandbox.put(filesOf({ file: "short" })))
      yield* same("the file", Buffer.from(yield* done("get", sandbox.get(path("file"), 100))).toString(), "short")
    }))
  ),

  define(
    "files are the program's own: it may change and remove them",
    [],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      yield* done("put", sandbox.put(filesOf({ "a/file": "x", other: "y" })))
      const script = "echo z >> a/file && chmod 600 a/file && rm -r other && touch a/new && cat a/file"
      const { exit, stderr, stdout } = yield* run(sandbox, script)
      yield* same("the exit, and the file", [exit, stderr, stdout], [exited(0), "", "xz\n"])
    }))
  ),

  define(
    "get refuses what is not there, no regular file, outside, or too large, and the sandbox is well after it",
    [],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      yield* run(sandbox, "mkdir d; mkfifo pipe; ln -s /etc/passwd link; ln -s /etc out; printf 12345 > five")
      yield* fails("get of nothing", sandbox.get(path("absent"), 100), "SandboxRefused", ENOENT)
      for (const name of ["d", "pipe", "link", "out/passwd"]) {
        yield* fails(`get of ${name}`, sandbox.get(path(name), 100_000), "SandboxRefused")
      }
      yield* fails("get of five bytes where four are allowed", sandbox.get(path("five"), 4), "SandboxRefused")
      yield* same("five", Buffer.from(yield* done("get", sandbox.get(path("five"), 5))).toString(), "12345")
    }))
  ),

  define(
    "put refuses what leads out of the workspace, and writes nothing there",
    [],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      yield* run(sandbox, "mkdir -p inner; ln -s \"$TMPDIR/..\" out; ln -s /tmp tmp")
      yield* fails("put below a link out", sandbox.put(filesOf({ "tmp/stoker-conformance": "x" })), "SandboxRefused")
      yield* fails("put below a link up", sandbox.put(filesOf({ "out/stoker-conformance": "x" })), "SandboxRefused")
      const { exit } = yield* run(sandbox, "test ! -e /tmp/stoker-conformance && test ! -e out/stoker-conformance")
      yield* same("the exit of who looks for it", exit, exited(0))
    }))
  ),

  define(
    "phases follow each other in one workspace, each with its own exit",
    [],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      const first = yield* run(sandbox, "echo one; echo kept > file; echo err >&2; exit 3")
      yield* same("the first", [first.exit, first.stdout, first.stderr], [exited(3), "one\n", "err\n"])
      const second = yield* run(sandbox, "cat file - ; kill -6 $$", { stdin: "in" })
      yield* same("the second", [second.exit, second.stdout], [{ _tag: "Signalled", signal: 6 }, "kept\nin"])
    }))
  ),

  define(
    "a phase has ended when none of its processes is alive",
    [],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      const first = yield* run(
        sandbox,
        "(setsid sh -c 'trap \"\" TERM HUP; while :; do date +%N > beat; sleep 0.02; done' &); until test -s beat; do sleep 0.02; done; echo on"
      )
      yield* same("stdout", first.stdout, "on\n")
      const wait = (yield* slowly(300)) / 1000
      const { stdout } = yield* run(sandbox, `rm -f beat; sleep ${wait}; test -e beat && echo alive || echo dead`)
      yield* same("the process left behind", stdout, "dead\n")
    }))
  ),

  define(
    "run refuses a program that is not there or may not be executed, and the sandbox is well after it",
    [],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      yield* done("put", sandbox.put(filesOf({ plain: "#!/bin/sh\n" })))
      yield* fails("no such program", attempt(sandbox, { argv: ["no-such-program"] }), "SandboxRefused", ENOENT)
      yield* fails("no such path", attempt(sandbox, { argv: ["./absent"] }), "SandboxRefused", ENOENT)
      yield* fails("not executable", attempt(sandbox, { argv: ["./plain"] }), "SandboxRefused", EACCES)
      yield* same("a phase after them", (yield* run(sandbox, "echo well")).stdout, "well\n")
    }))
  ),

  define(
    "a signal for main reaches the main process and nobody outside its group",
    [],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      let isSent = false
      const { exit, stdout } = yield* run(sandbox, family, {
        onOutput: (text) => {
          if (isSent || linesOf(text).length < 2) return Effect.void
          isSent = true
          return sandbox.signal(15, "main")
        }
      })
      yield* same("who heard it", [exit, linesOf(stdout)], [exited(4), ["ready", "ready", "main"]])
    }))
  ),

  define(
    "a signal for all reaches every process of the phase, and the sandbox outlives it",
    [],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      let sent = 0
      const both = yield* run(sandbox, family, {
        onOutput: (text) => {
          if (sent > 0 || linesOf(text).length < 2) return Effect.void
          sent += 1
          return sandbox.signal(15, "all")
        }
      })
      yield* same("who heard it", linesOf(both.stdout).toSorted(), ["child", "main", "ready", "ready"])
      const killed = yield* run(sandbox, "(setsid sleep 1000 &); echo up; sleep 1000", {
        onOutput: () => sandbox.signal(9, "all")
      })
      yield* same("the exit", killed.exit, { _tag: "Signalled", signal: 9 })
      yield* same("a phase after it", (yield* run(sandbox, "echo well")).stdout, "well\n")
    }))
  ),

  define(
    "a phase that nobody follows any more is ended, and the sandbox is well after it",
    [],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      yield* within(200, run(sandbox, "trap '' TERM HUP INT; while :; do date +%N > beat; sleep 0.02; done"))
      const wait = (yield* slowly(300)) / 1000
      // Refused while the old one's processes are being killed.
      const next = attempt(sandbox, `rm -f beat; sleep ${wait}; test -e beat && echo alive || echo dead`)
      const ran = yield* next.pipe(
        Effect.retry({ while: isBusy, schedule: patiently }),
        Effect.catchTags({
          SandboxLost: ({ message }) => Effect.succeed({ stdout: message }),
          SandboxRefused: ({ message }) => Effect.succeed({ stdout: message })
        })
      )
      yield* same("its process", ran.stdout, "dead\n")
    }))
  ),

  define(
    "kill ends everything at once: the phase is lost or told as killed, whatever comes after it fails as lost",
    [],
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const sandbox = yield* provision
        const killing = attempt(sandbox, "trap '' TERM; (setsid sleep 1000 &); echo up; sleep 1000", {
          onOutput: () => sandbox.kill
        })
        // Who counts from outside can still say what the phase used.
        const told = killing.pipe(
          Effect.map(({ exit }) => exit._tag === "Signalled" ? `signal ${exit.signal}` : `exit ${exit.code}`),
          Effect.catchTags({
            SandboxLost: ({ _tag }) => Effect.succeed(_tag),
            SandboxRefused: ({ _tag }) => Effect.succeed(_tag)
          }),
          Effect.flatMap((seen) =>
            expect("a phase that is killed: SandboxLost or signal 9", ["SandboxLost", "signal 9"].includes(seen), seen)
          )
        )
        yield* within(20_000, told).pipe(
          Effect.flatMap(() => within(20_000, sandbox.lost ?? Effect.succeed({ _tag: "SandboxLost" } as const))),
          Effect.flatMap((lost) => same("lost", lost?._tag, "SandboxLost"))
        )
        yield* fails("put", sandbox.put(filesOf({ a: "x" })), "SandboxLost")
        yield* fails("get", sandbox.get(path("a"), 10), "SandboxLost")
        yield* fails("signal", sandbox.signal(9, "all"), "SandboxLost")
        yield* fails("run", attempt(sandbox, "true"), "SandboxLost")
        yield* sandbox.kill
      }))
      yield* nothingLeft
    })
  ),

  define(
    "kill of an idle sandbox is told by lost, which never ends while one is well",
    [],
    Effect.scoped(Effect.gen(function*() {
      const [well, ill] = [yield* provision, yield* provision]
      const told = yield* Deferred.make<string>()
      if (well.lost !== undefined) {
        yield* Effect.forkScoped(Effect.flatMap(well.lost, ({ reason }) => Deferred.succeed(told, reason)))
      }
      yield* run(well, "kill -9 $$")
      yield* ill.kill
      if (ill.lost !== undefined) {
        const lost = yield* within(20_000, ill.lost)
        yield* expect(
          "lost with reason and remedy",
          lost !== undefined && lost.reason !== "" && lost.remedy !== "",
          lost
        )
      }
      yield* same("a phase of the other", (yield* run(well, "echo well")).stdout, "well\n")
      yield* expect("the other not to be told lost", !Deferred.isDoneUnsafe(told), "it is")
    }))
  ),

  define(
    "measure and observe tell what is used now, and ask for nothing",
    ["usage"],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      const before = yield* sandbox.measure
      yield* run(sandbox, {
        python: "import time\nend = time.thread_time() + 0.3\nwhile time.thread_time() < end: pass"
      })
      const after = yield* sandbox.measure
      const burnt = (after.cpuMicros ?? 0) - (before.cpuMicros ?? 0)
      yield* between("microseconds of CPU between both", burnt, 300_000, 300_000 + (yield* slowly(3000)) * 1000)
      if (sandbox.observe === undefined) return
      const seen = yield* sandbox.observe
      yield* between("cpuMicros", seen.cpuMicros ?? 300_000, 300_000)
      yield* same("processes of the job while none runs", seen.pids ?? 0, 0)
    }))
  ),

  define(
    "a sandbox that was killed is still measured without failing",
    [],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      yield* sandbox.kill
      yield* sandbox.measure
      yield* sandbox.observe ?? Effect.void
    }))
  ),

  define(
    "limits that the driver does not hold are refused by name, those it holds accepted",
    [],
    Effect.gen(function*() {
      const driver = yield* ConformanceDriver
      const { sandboxClass } = yield* ConformanceHost
      const accepts = driver.accepts
      if (accepts === undefined) return
      const accepted = (limits: object) => Effect.result(accepts(sandboxClass, { ...sandboxClass.defaults, ...limits }))
      yield* same("the class's own limits", (yield* accepted({}))._tag, "Success")
      const optional = [
        ["cpu-weight", { cpuWeight: 50 }, "cpuWeight"],
        ["memory-high", { memoryHighBytes: 2 ** 25 }, "memoryHighBytes"],
        ["swap", { swapBytes: 2 ** 25 }, "swapBytes"],
        ["oom-group", { oomGroup: true }, "oomGroup"]
      ] as const
      for (const [need, limits, name] of optional) {
        const result = yield* accepted(limits)
        const isHeld = driver.capabilities.has(need)
        const refused = result._tag === "Failure" ? result.failure : undefined
        const isRight = isHeld ? refused === undefined : refused?.limit === name && refused.remedy !== ""
        yield* expect(`${name} to be ${isHeld ? "accepted" : "refused by name, with a remedy"}`, isRight, result)
      }
    })
  )
]
