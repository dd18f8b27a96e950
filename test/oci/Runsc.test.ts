import { afterAll, assert, describe, it as plain, layer } from "@effect/vitest"
import { Effect } from "effect"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { parseVersion } from "../../src/layers/sandbox/oci/Runsc.ts"
import { ClassName } from "../../src/schemas/Ids.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import type { SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import * as Jobs from "../sandbox/Jobs.ts"

const MiB = 1024 * 1024
const state = Jobs.stateDirectory()
const gvisor: SandboxClass = { ...standardClass("oci", "oci"), name: ClassName.make("gvisor"), runtime: "runsc" }
const run = (wanted: Jobs.Wanted) => Jobs.runIn(gvisor, wanted)
const shell = (script: string) => ({ args: { argv: ["/bin/sh", "-c", script] } })
const python = (source: string) => ({ function: "code" as const, args: { language: "python", source } })
const exited = (code: number) => Outcome.cases.Exited.make({ phase: "run", code })

describe("sandboxes by runsc", () => {
  afterAll(() => Jobs.remove(state))

  layer(Jobs.layerOf(gvisor, state), { excludeTestServices: true, timeout: "1 minute" })("in one executor", (it) => {
    it.effect("run on gVisor's kernel, not on the host's", () =>
      Effect.gen(function*() {
        const ran = yield* run(shell("cat /proc/version; dmesg; id -u; cat /proc/self/status"))
        assert.strictEqual(ran.outcome._tag, "Exited", JSON.stringify(ran))
        assert.include(ran.stdout.toString(), "gVisor")
        assert.notInclude(ran.stdout.toString(), readFileSync("/proc/version", "utf8").trim())
        assert.match(ran.stdout.toString(), /^1000$/m)
        assert.match(ran.stdout.toString(), /^CapEff:\s+0000000000000000$/m)
      }))

    it.effect("a C program is compiled and run", () =>
      Effect.gen(function*() {
        const ran = yield* run({
          function: "code",
          args: {
            language: "c",
            source: `#include <stdio.h>\nint main(){char s[9];puts(fgets(s,9,stdin));}`,
            stdin: "in"
          }
        })
        assert.deepStrictEqual(ran.outcome, exited(0), JSON.stringify(ran.stderr.toString()))
        assert.strictEqual(ran.stdout.toString(), "in\n")
        assert.deepStrictEqual(ran.phases, ["compile", "run"])
      }))

    it.effect("five megabytes of output arrive byte for byte, and artefacts come back", () =>
      Effect.gen(function*() {
        const ran = yield* run({
          ...python(
            "import sys\nopen('a','w').write('hi')\nfor i in range(5): sys.stdout.buffer.write(bytes((i*j)%251 for j in range(1048576)))"
          ),
          artefacts: ["a"]
        })
        const expected = Buffer.concat(
          [0, 1, 2, 3, 4].map((i) => Buffer.from(Array.from({ length: MiB }, (_, j) => (i * j) % 251)))
        )
        assert.deepStrictEqual(ran.outcome, exited(0))
        assert.isTrue(expected.equals(ran.stdout))
        assert.strictEqual(ran.artefacts.get("a")?.toString(), "hi")
      }), 60_000)

    it.effect("limits hold: memory, processor time, elapsed time, a stop", () =>
      Effect.gen(function*() {
        const hog = yield* run({
          ...python("x = bytearray(300*1024*1024)\nprint(len(x))"),
          limits: { memoryBytes: 64 * MiB }
        })
        assert.deepStrictEqual(hog.outcome, Outcome.cases.OutOfMemory.make({ phase: "run", limitBytes: 64 * MiB }))
        const looping = yield* run({ ...shell("while :; do :; done"), limits: { cpuMs: 1000, wallMs: 20_000 } })
        assert.deepStrictEqual(
          looping.outcome,
          Outcome.cases.TimedOut.make({ phase: "run", limit: "cpu", limitMs: 1000 })
        )
        const sleeping = yield* run({ ...shell("sleep 100"), limits: { wallMs: 500 } })
        assert.deepStrictEqual(
          sleeping.outcome,
          Outcome.cases.TimedOut.make({ phase: "run", limit: "wall", limitMs: 500 })
        )
        const stopped = yield* run({
          ...shell("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"),
          onOutput: (_, stop) => stop
        })
        assert.deepStrictEqual(stopped.outcome, Outcome.cases.Stopped.make({ reason: "enough" }))
        assert.strictEqual(stopped.stdout.toString(), "up\nbye\n")
      }), 60_000)

    it.effect("there is no network, a full workspace is the program's error, and the root is read-only", () =>
      Effect.gen(function*() {
        const ran = yield* run({
          ...python([
            "import os, socket",
            "try: socket.create_connection(('192.0.2.1', 80), 2)",
            "except OSError as e: print(e.strerror)",
            "try: open('/usr/bin/new', 'w')",
            "except OSError as e: print(e.strerror)",
            "try: open('big', 'wb').write(b'x' * (8 << 20))",
            "except OSError as e: print(e.strerror)",
            "print(os.listdir('/work'))"
          ].join("\n")),
          limits: { diskBytes: 4 * MiB }
        })
        assert.deepStrictEqual(ran.outcome, exited(0), ran.stderr.toString())
        assert.strictEqual(
          ran.stdout.toString(),
          "No route to host\nPermission denied\nNo space left on device\n['main.py', 'big']\n"
        )
      }))

    it.effect("the guest is out of the job's reach", () =>
      Effect.gen(function*() {
        const ran = yield* run(python([
          "import os, ctypes",
          "def tried(name, f):",
          "  try: print(name, 'DONE', f())",
          "  except OSError as e: print(name, e.strerror)",
          "tried('kill', lambda: os.kill(1, 9))",
          "tried('fd', lambda: os.readlink('/proc/1/fd/0'))",
          "tried('open', lambda: os.open('/proc/1/fd/1', os.O_WRONLY))",
          "tried('mem', lambda: os.open('/proc/1/mem', os.O_RDWR))",
          "tried('guest', lambda: os.open('/.stoker/guest', os.O_RDONLY))",
          "libc = ctypes.CDLL(None, use_errno=True)",
          "print('ptrace', libc.ptrace(16, 1, 0, 0), os.strerror(ctypes.get_errno()))",
          "print(os.getresuid(), os.getgroups())"
        ].join("\n")))
        assert.deepStrictEqual(ran.outcome, exited(0), ran.stderr.toString())
        const said = ran.stdout.toString().replace(/host:\[\d+\]/, "host:[?]").trim().split("\n")
        assert.deepStrictEqual(said, [
          "kill Operation not permitted",
          // That they are there may be seen; they are sockets, which nobody opens by a name.
          "fd DONE host:[?]",
          "open No such device or address",
          "mem Permission denied",
          "guest Permission denied",
          "ptrace -1 Operation not permitted",
          "(1000, 1000, 1000) []"
        ])
      }))

    it.effect("a fork bomb takes its sandbox with it, and that is the job's doing", () =>
      Effect.gen(function*() {
        const bomb = yield* run({ ...shell("f(){ f|f& };f; sleep 100"), limits: { pids: 32, wallMs: 10_000 } })
        const isTold = bomb.outcome._tag === "TimedOut" ||
          (bomb.outcome._tag === "Signalled" && bomb.outcome.signal === 9)
        assert.isTrue(isTold, JSON.stringify(bomb.outcome))
        assert.isAbove(bomb.usage.phases[0]?.pidsRefused ?? 0, 0)
        // The next one is well.
        assert.deepStrictEqual((yield* run(shell("true"))).outcome, exited(0))
      }), 60_000)

    it.effect("files are not counted, but what they take is the job's memory", () =>
      Effect.gen(function*() {
        const many = python("n=0\nwhile True:\n  open(f'f{n}','w')\n  n+=1\n  if n % 10000 == 0: print(n, flush=True)")
        const ran = yield* run({
          ...many,
          limits: { diskInodes: 256, memoryBytes: 32 * MiB, wallMs: 60_000, cpuMs: 60_000 }
        })
        assert.deepStrictEqual(ran.outcome, Outcome.cases.OutOfMemory.make({ phase: "run", limitBytes: 32 * MiB }))
        assert.include(ran.stdout.toString(), "10000")
      }), 90_000)

    it.effect("leave nothing", () =>
      Effect.gen(function*() {
        const before = Jobs.held(state)
        yield* run(shell("(setsid sleep 1000 &); true"))
        yield* run({ ...shell("sleep 100"), limits: { wallMs: 300 } })
        assert.deepStrictEqual(Jobs.held(state), before)
        const left = readdirSync(join(state, "instances")).flatMap((instance) =>
          readdirSync(join(state, "instances", instance, "runsc"))
        )
        assert.deepStrictEqual(left, [])
      }))
  })

  plain("versions of Debian and of upstream are read", () => {
    assert.strictEqual(parseVersion("runsc version 0.0~20221219.0\nspec: 1.0.2-dev\n"), 20_221_219)
    assert.strictEqual(parseVersion("runsc version release-20240318.0\nspec: 1.1.0-rc.1\n"), 20_240_318)
    assert.strictEqual(parseVersion("runsc version VERSION_MISSING\n"), undefined)
    assert.strictEqual(parseVersion("crun version 1.8.1\n"), undefined)
  })
})
