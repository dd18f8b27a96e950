/** What the oci driver promises beyond the contract (test/conformance): users of its own, and a guest out of reach. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Outcome } from "../../src/schemas/Outcome.ts"
import * as Jobs from "./Jobs.ts"

const python = (source: string) => ({ function: "code" as const, args: { language: "python", source } })
const shell = (script: string) => ({ args: { argv: ["/bin/sh", "-c", script] } })

const state = Jobs.stateDirectory()
const run = (wanted: Jobs.Wanted) => Jobs.run("oci", wanted)

describe("jobs on oci", () => {
  afterAll(() => Jobs.remove(state))

  layer(Jobs.layer("oci", state), { excludeTestServices: true, timeout: "1 minute" })("in one executor", (it) => {
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
        assert.deepStrictEqual(ran.outcome, Outcome.cases.Exited.make({ phase: "run", code: 0 }))
        assert.notInclude(ran.stdout.toString(), "DID IT")
      }))
  })
})
