/** What a job may do to us, and what must come of it: one suite for every driver of this host. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import type { Capability } from "../../src/layers/sandbox/Sandbox.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import type { DriverName } from "../../src/schemas/SandboxClass.ts"
import { patience } from "../support/Slowness.ts"
import * as Jobs from "./Jobs.ts"

const MiB = 1024 * 1024

const exited = (code: number, phase: "compile" | "run" = "run") => Outcome.cases.Exited.make({ phase, code })
const python = (source: string) => ({ function: "code" as const, args: { language: "python", source } })
const c = (source: string) => ({ function: "code" as const, args: { language: "c", source } })
const shell = (script: string) => ({ args: { argv: ["/bin/sh", "-c", script] } })

export const suite = (driver: DriverName, capabilities: ReadonlySet<Capability>) => {
  const state = Jobs.stateDirectory()
  const run = (wanted: Jobs.Wanted) => Jobs.run(driver, wanted)

  describe(`jobs on ${driver}`, () => {
    afterAll(() => Jobs.remove(state))

    layer(Jobs.layer(driver, state), { excludeTestServices: true, timeout: patience(60_000) })((it) => {
      it.effect("a C program is compiled and run, its phases measured apart", () =>
        Effect.gen(function*() {
          const ran = yield* run(c(`#include <stdio.h>\nint main(){printf("Hello, %s!\\n","World");return 0;}`))
          assert.deepStrictEqual(ran.outcome, exited(0))
          assert.strictEqual(ran.stdout.toString(), "Hello, World!\n")
          assert.deepStrictEqual(ran.usage.phases.map(({ phase }) => phase), ["compile", "run"])
          const [compile, program] = ran.usage.phases
          assert.isAbove(compile?.cpuMicros ?? 0, program?.cpuMicros ?? Number.POSITIVE_INFINITY)
          assert.isAbove(compile?.memoryPeakBytes ?? 0, program?.memoryPeakBytes ?? Number.POSITIVE_INFINITY)
        }))

      it.effect("what does not compile is not run, and the compiler's words are there", () =>
        Effect.gen(function*() {
          const ran = yield* run(c("int main( { return 0; }"))
          assert.deepStrictEqual(ran.outcome, exited(1, "compile"))
          assert.include(ran.stderr.toString(), "error:")
          assert.deepStrictEqual(ran.phases, ["compile"])
        }))

      it.effect("stdin, arguments, environment, exit code and both streams are exact", () =>
        Effect.gen(function*() {
          const source =
            `import sys, os\nsys.stdout.buffer.write(sys.stdin.buffer.read())\nsys.stderr.write(sys.argv[1] + os.environ["X"])\nsys.exit(42)`
          const ran = yield* run({
            function: "code",
            args: { language: "python", source, stdin: "a\u0000b\nc", args: ["two words"], env: { X: "=é" } }
          })
          assert.deepStrictEqual(ran.outcome, exited(42))
          assert.strictEqual(ran.stdout.toString(), "a\u0000b\nc")
          assert.strictEqual(ran.stderr.toString(), "two words=é")
        }))

      it.effect("five megabytes of output arrive byte for byte", () =>
        Effect.gen(function*() {
          const ran = yield* run(
            python(
              "import sys\nfor i in range(5): sys.stdout.buffer.write(bytes((i*j)%251 for j in range(1048576)))"
            )
          )
          const expected = Buffer.concat(
            [0, 1, 2, 3, 4].map(() => Buffer.alloc(MiB)).map(
              (part, i) => {
                for (let j = 0; j < part.length; j++) part[j] = (i * j) % 251
                return part
              }
            )
          )
          assert.deepStrictEqual(ran.outcome, exited(0))
          assert.isTrue(expected.equals(ran.stdout))
        }), patience(60_000))

      it.effect("a crash is told by its signal", () =>
        Effect.gen(function*() {
          const ran = yield* run(c("int main(){*(volatile int*)0=1;}"))
          assert.deepStrictEqual(ran.outcome, Outcome.cases.Signalled.make({ phase: "run", signal: 11 }))
        }))

      it.effect("a program that is not there is refused with its name", () =>
        Effect.gen(function*() {
          const ran = yield* run({ args: { argv: ["no-such-program"] } })
          assert.strictEqual(ran.outcome._tag, "Rejected")
          assert.include(JSON.stringify(ran.outcome), "no-such-program")
        }))

      it.effect("an endless loop ends at its CPU limit, a sleeper at its wall limit", () =>
        Effect.gen(function*() {
          const looping = yield* run({
            ...shell("while :; do :; done"),
            limits: { cpuMs: 300, wallMs: Jobs.wallOf(10_000) }
          })
          assert.deepStrictEqual(
            looping.outcome,
            Outcome.cases.TimedOut.make({ phase: "run", limit: "cpu", limitMs: 300 })
          )
          assert.isBelow(looping.usage.phases[0]?.cpuMicros ?? 0, 1_500_000)
          const sleeping = yield* run({ ...shell("sleep 100"), limits: { wallMs: 300 } })
          assert.deepStrictEqual(
            sleeping.outcome,
            Outcome.cases.TimedOut.make({ phase: "run", limit: "wall", limitMs: 300 })
          )
        }))

      it.effect("a memory hog is OutOfMemory, also when only its child was killed", () =>
        Effect.gen(function*() {
          const hog = "x = bytearray(200*1024*1024)\nprint(len(x))"
          const limits = { memoryBytes: 64 * MiB }
          const expected = Outcome.cases.OutOfMemory.make({ phase: "run", limitBytes: 64 * MiB })
          const alone = yield* run({ ...python(hog), limits })
          assert.deepStrictEqual(alone.outcome, expected)
          const child = yield* run({
            ...python(`import os,sys\npid=os.fork()\nif pid==0:\n  x=bytearray(200*1024*1024)\nos.wait()\nsys.exit(3)`),
            limits
          })
          assert.deepStrictEqual(child.outcome, expected)
        }))

      it.effect("a fork bomb is held at its limit and leaves nothing", () =>
        Effect.gen(function*() {
          const ran = yield* run({
            ...python(
              "import os\nn=0\nwhile True:\n  try:\n    pid=os.fork()\n  except OSError:\n    print('refused'); break\n  if pid==0:\n    import time; time.sleep(100)\n  n+=1"
            ),
            limits: { pids: 32, wallMs: Jobs.wallOf(5000) }
          })
          assert.deepStrictEqual(ran.outcome, exited(0))
          assert.include(ran.stdout.toString(), "refused")
          assert.isAtMost(ran.usage.phases[0]?.pidsPeak ?? 0, 33)
          const bomb = yield* run({ ...shell("f(){ f|f& };f; sleep 100"), limits: { pids: 32, wallMs: 1000 } })
          assert.isTrue(["TimedOut", "Exited"].includes(bomb.outcome._tag), bomb.outcome._tag)
        }), patience(60_000))

      it.effect("a grandchild in the background that holds stdout does not outlive its job", () =>
        Effect.gen(function*() {
          const began = performance.now()
          const ran = yield* run(shell("(setsid sleep 1000 &) ; echo started"))
          assert.deepStrictEqual(ran.outcome, exited(0))
          assert.strictEqual(ran.stdout.toString(), "started\n")
          assert.isBelow(performance.now() - began, patience(5000))
        }))

      it.effect("a stop is TERM, and KILL for who ignores it", () =>
        Effect.gen(function*() {
          const onOutput = (_: string, stop: Effect.Effect<void>) => stop
          const polite = yield* run({
            ...shell("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"),
            onOutput
          })
          assert.deepStrictEqual(polite.outcome, Outcome.cases.Stopped.make({ reason: "enough" }))
          assert.strictEqual(polite.stdout.toString(), "up\nbye\n")
          const deaf = yield* run({ ...shell("trap '' TERM; echo up; while :; do sleep 0.05; done"), onOutput })
          assert.deepStrictEqual(deaf.outcome, Outcome.cases.Stopped.make({ reason: "enough" }))
        }))

      it.effect("endless output ends at the limit when the policy is kill", () =>
        Effect.gen(function*() {
          const ran = yield* run({ ...shell("yes"), limits: { outputBytes: MiB, outputPolicy: "kill" } })
          assert.deepStrictEqual(
            ran.outcome,
            Outcome.cases.OutputExceeded.make({ phase: "run", stream: "stdout", limitBytes: MiB })
          )
        }))

      it.effect("a file over its size limit is the program's signal", () =>
        Effect.gen(function*() {
          const ran = yield* run({
            ...python("open('big','wb').write(b'x'*2000000)"),
            limits: { fileBytes: MiB }
          })
          // Python ignores SIGXFSZ and gets EFBIG.
          assert.deepStrictEqual(ran.outcome, exited(1))
          assert.include(ran.stderr.toString(), "File too large")
        }))

      it.effect("artefacts come back; what is none, or points out of the workspace, does not, and says why", () =>
        Effect.gen(function*() {
          const ran = yield* run({
            ...shell(
              "mkdir d; printf hi > d/a; : > empty; ln -s /etc/shadow link; ln -s /etc up; mkfifo pipe; "
                + "truncate -s 10G sparse; ln -s d/a inside"
            ),
            limits: { fileBytes: 20 * 1024 * MiB },
            ceiling: { fileBytes: 20 * 1024 * MiB },
            artefacts: ["d/a", "empty", "link", "up/shadow", "inside", "pipe", "d", "sparse", "d/a/b", "absent"]
          })
          assert.deepStrictEqual(ran.outcome, exited(0))
          assert.deepStrictEqual([...ran.artefacts].map(([path, bytes]) => [path, bytes.toString()]), [
            ["d/a", "hi"],
            ["empty", ""]
          ])
          assert.deepStrictEqual([...ran.missing.keys()], [
            "link",
            "up/shadow",
            "inside",
            "pipe",
            "d",
            "sparse",
            "d/a/b",
            "absent"
          ])
          for (const path of ["link", "up/shadow", "inside"]) assert.include(ran.missing.get(path), "symbolic link")
          for (const path of ["pipe", "d"]) assert.include(ran.missing.get(path), "not a regular file")
          for (const path of ["d/a/b", "absent"]) assert.include(ran.missing.get(path), "no such file")
          assert.include(ran.missing.get("sparse"), "too large")
        }))

      it.effect("artefacts are bounded together, and a small one still comes after one that is too large", () =>
        Effect.gen(function*() {
          const ran = yield* run({
            ...shell("head -c 600000 /dev/zero > a; head -c 600000 /dev/zero > b; head -c 400000 /dev/zero > c"),
            artefactBytes: 1_000_000,
            artefacts: ["a", "b", "c"]
          })
          assert.deepStrictEqual([...ran.artefacts].map(([path, { length }]) => `${path} ${length}`), [
            "a 600000",
            "c 400000"
          ])
          assert.include(ran.missing.get("b"), "400000 left of the 1000000")
        }))

      it.effect("what a job had written when its time was up, when it died or was stopped, comes back", () =>
        Effect.gen(function*() {
          const late = yield* run({
            ...shell("echo part > out; sleep 60"),
            limits: { wallMs: 500 },
            artefacts: ["out"]
          })
          assert.strictEqual(late.outcome._tag, "TimedOut")
          assert.strictEqual(late.artefacts.get("out")?.toString(), "part\n")
          const died = yield* run({ ...shell("echo part > out; kill -9 $$"), artefacts: ["out"] })
          assert.strictEqual(died.outcome._tag, "Signalled")
          assert.strictEqual(died.artefacts.get("out")?.toString(), "part\n")
          const stopped = yield* run({
            ...shell("echo part > out; echo go; sleep 60"),
            artefacts: ["out"],
            onOutput: (_, stop) => stop
          })
          assert.strictEqual(stopped.outcome._tag, "Stopped")
          assert.strictEqual(stopped.artefacts.get("out")?.toString(), "part\n")
        }))

      if (capabilities.has("disk-limit")) {
        it.effect("a full workspace is the program's error, in bytes and in inodes", () =>
          Effect.gen(function*() {
            const bytes = yield* run({
              ...shell("head -c 100000000 /dev/zero > big; echo $?"),
              limits: { diskBytes: 4 * MiB, fileBytes: 512 * MiB }
            })
            assert.include(bytes.stderr.toString(), "No space left")
            const inodes = yield* run({
              ...python(
                "import os\ntry:\n  for i in range(10000): open(f'f{i}','w')\nexcept OSError as e: print(e.strerror)"
              ),
              limits: { diskInodes: 256 }
            })
            assert.include(inodes.stdout.toString(), "No space left")
          }))
      }

      if (capabilities.has("isolation")) {
        it.effect("the sandbox has no network, no capability, no host process, no writable root", () =>
          Effect.gen(function*() {
            const ran = yield* run(shell(
              "cat /proc/net/dev | wc -l; grep CapEff /proc/self/status; ls /proc | grep -c '^[0-9]'; touch /usr/x /x; ls /home /var /sys; unshare -U true; mount -t tmpfs x /tmp"
            ))
            const [devices, capabilitiesLine, processes] = ran.stdout.toString().split("\n")
            assert.strictEqual(devices?.trim(), "3")
            assert.match(capabilitiesLine ?? "", /CapEff:\s+0000000000000000/)
            assert.isAtMost(Number(processes), 6)
            const refusals = ran.stderr.toString()
            assert.include(refusals, "touch: cannot touch '/usr/x': Read-only file system")
            assert.include(refusals, "touch: cannot touch '/x': Read-only file system")
            assert.match(refusals, /unshare.*Operation not permitted/)
            assert.match(refusals, /mount.*(permission denied|not permitted|must be superuser)/i)
          }))

        it.effect("what the kernel counts for each user, no job can take from another one or from the host", () =>
          Effect.gen(function*() {
            const map = () => run(shell("cat /proc/self/uid_map; sleep 1"))
            const maps = yield* Effect.all([map(), map()], { concurrency: 2 })
            const [one, other] = maps.map(({ stdout }) => stdout.toString().trim().split(/\s+/)[1])
            assert.notStrictEqual(one, other)
            assert.isAbove(Number(one), 0x6fff_ffff)
            const watching = yield* run(python(
              "import ctypes,errno\nc=ctypes.CDLL(None,use_errno=True)\nfor f in (c.inotify_init, lambda: c.inotify_init1(0)): print(f(), errno.errorcode[ctypes.get_errno()])"
            ))
            assert.strictEqual(watching.stdout.toString(), "-1 EMFILE\n-1 EMFILE\n")
          }))

        it.effect("a job that holds all descriptors in flight it may leaves the next one its own", () =>
          Effect.gen(function*() {
            const flood = (before: number, after: number) =>
              run(python(
                `import array,os,socket,time\ntime.sleep(${before})\nheld=0; keep=[]\ntry:\n  for i in range(40):\n    pair=socket.socketpair(); keep.append(pair); f=os.open('/dev/null',0)\n    for j in range(20):\n      pair[0].sendmsg([b'x'],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,array.array('i',[f]*50))]); held+=50\nexcept OSError as e: print(held, e.errno, flush=True)\ntime.sleep(${after})`
              ))
            const both = yield* Effect.all([flood(0, 2), flood(1, 0)], { concurrency: 2 })
            const [first, second] = both.map(({ stdout }) => stdout.toString())
            assert.match(first ?? "", /^[1-9]\d* 109\n$/)
            assert.strictEqual(second, first)
          }))

        it.effect("the job cannot signal, trace or read the guest", () =>
          Effect.gen(function*() {
            const ran = yield* run(python(
              "import os,signal\nfor f in (lambda: os.kill(1, signal.SIGKILL), lambda: open('/proc/1/mem','rb'), lambda: os.readlink('/proc/1/exe'), lambda: os.listdir('/proc/1/fd'), lambda: open('/.stoker/guest','rb')):\n  try:\n    f(); print('DID IT')\n  except OSError as e: print(type(e).__name__)"
            ))
            assert.deepStrictEqual(ran.outcome, exited(0))
            assert.notInclude(ran.stdout.toString(), "DID IT")
          }))
      }

      it.effect("nothing is held when all of it is over", () =>
        Effect.gen(function*() {
          const { ledger, ...counts } = Jobs.held(state)
          assert.deepStrictEqual(ledger, [])
          assert.strictEqual(counts.crun, 0)
          assert.strictEqual(counts.mounts, 0)
        }))
    })
  })
}
