import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Option, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { copyFileSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Host } from "../../src/layers/host/Host.ts"
import * as HostLive from "../../src/layers/host/HostLive.ts"
import * as Launcher from "../../src/layers/host/Launcher.ts"
import * as Native from "../../src/layers/host/Native.ts"
import { Watchdog } from "../../src/layers/host/Watchdog.ts"
import * as HostSandbox from "../../src/layers/sandbox/HostSandbox.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import { layerDrivers } from "../../src/wiring.ts"
import { eventually, isAlive, look } from "../guest/Native.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "stoker-launcher-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const watchdog = Layer.succeed(
  Watchdog,
  Watchdog.of({ mountNamespace: Option.some("/proc/self/ns/mnt"), died: Effect.never })
)

/** A launcher of a worker that has nothing else. */
const start = Effect.fnUntraced(function*(state: string) {
  const context = yield* Layer.build(
    Layer.fresh(Launcher.layer).pipe(
      Layer.provideMerge(Layer.mergeAll(Native.layer, watchdog)),
      Layer.provideMerge(HostLive.layer({ stateDirectory: state })),
      Layer.provide(SecureRandom.layerWebCrypto)
    )
  )
  return yield* Effect.gen(function*() {
    const host = yield* Host
    const launcher = yield* Launcher.Launcher
    const directory = host.paths.instance(host.instance)
    let made = 0
    const how = (sealed: boolean) => (...command: ReadonlyArray<string>) =>
      launcher.launch({ procsFiles: [], command, stderrPath: Launcher.saidOf(directory, `s${made++}`), sealed })
    return { directory, died: launcher.died, launch: how(false), launchSealed: how(true) }
  }).pipe(Effect.provide(context))
})

/** All that a process says until it ends. */
const words = ({ ended, stream }: Launcher.LaunchedProcess) => {
  let text = ""
  stream.on("data", (chunk: Buffer) => text += chunk.toString())
  return Effect.map(ended, () => text)
}

/** The launcher's own pid: the parent of what it launches. */
const pidOf = (launch: (...command: ReadonlyArray<string>) => Effect.Effect<Launcher.LaunchedProcess, unknown>) =>
  Effect.map(Effect.flatMap(launch("sh", "-c", "echo $PPID"), words), Number)

describe("Launcher", () => {
  it.live("what it runs is of no terminal: the Ctrl-C that lets a worker drain ends none of its sandboxes", () =>
    Effect.gen(function*() {
      const { launch } = yield* start(yield* folder)
      const [pid, group, session] =
        (yield* Effect.flatMap(launch("sh", "-c", "cut -d' ' -f1,5,6 /proc/$$/stat"), words)).trim().split(" ")
      assert.deepStrictEqual([group, session], [pid, pid])
    }))

  it.live("runs a sealed program from memory, the new one when its file is replaced, a script as it is", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const { launch, launchSealed } = yield* start(yield* folder)
      const said = (launched: ReturnType<typeof launch>) => Effect.flatMap(launched, words)
      const own = ["readlink", "/proc/self/exe"] as const
      assert.match(yield* said(launch(...own)), /^\/.*\/readlink\n$/)
      assert.match(yield* said(launchSealed(...own)), /^\/memfd:/)
      const program = join(path, "program")
      copyFileSync("/bin/echo", program)
      assert.strictEqual(yield* said(launchSealed(program, "one")), "one\n")
      rmSync(program)
      copyFileSync("/bin/printf", program)
      assert.strictEqual(yield* said(launchSealed(program, "two%s", "three")), "twothree")
      rmSync(program)
      writeFileSync(program, "#!/bin/sh\necho script $1\n", { mode: 0o755 })
      assert.strictEqual(yield* said(launchSealed(program, "x")), "script x\n")
      const missing = yield* launchSealed(join(path, "none"))
      assert.strictEqual(yield* words(missing), "")
      assert.include(yield* missing.said, "none: No such file or directory")
      // What runs from it cannot write to it.
      const write = "import os\ntry: os.open('/proc/self/exe', os.O_RDWR)\nexcept OSError as e: print(e.errno)"
      assert.match(yield* said(launchSealed("python3", "-c", write)), /^\d+\n$/)
    }))

  it.live("gives a process' stdio as a stream, its end and its last words", () =>
    Effect.gen(function*() {
      const { launch } = yield* start(yield* folder)
      const echo = yield* launch("sh", "-c", "cat; echo last; echo ' why ' >&2; exit 3")
      const all = yield* Effect.forkChild(words(echo), { startImmediately: true })
      echo.stream.end("first ")
      assert.strictEqual(yield* Fiber.join(all), "first last\n")
      yield* echo.ended
      assert.strictEqual(yield* echo.said, "why")
      const silent = yield* launch("true")
      assert.deepStrictEqual([yield* words(silent), yield* silent.said], ["", ""])
      const missing = yield* launch("no-such-program")
      assert.strictEqual(yield* words(missing), "")
      assert.strictEqual(yield* missing.said, "stoker-launch: exec no-such-program: No such file or directory")
      const verbose = yield* launch("sh", "-c", "yes é | head -c 99999 >&2; echo end >&2")
      yield* words(verbose)
      const tail = yield* verbose.said
      assert.deepStrictEqual([tail.length, tail.endsWith("é\nend")], [2000, true])
      const refused = yield* launch("echo", "a\0b")
      assert.deepStrictEqual([yield* words(refused), yield* refused.said], ["", ""])
    }))

  it.live("a closed scope leaves no launcher, not even one that was stopped", () =>
    Effect.gen(function*() {
      for (const isStopped of [false, true]) {
        const scope = yield* Scope.make()
        const { launch } = yield* start(yield* folder).pipe(Scope.provide(scope))
        const pid = yield* pidOf(launch)
        assert.include(look(pid)?.command, "--serve")
        if (isStopped) process.kill(pid, "SIGSTOP")
        yield* Scope.close(scope, Exit.void)
        yield* eventually("the launcher is gone", 1, () => !isAlive(pid))
      }
    }), 10_000)

  it.live("its death is told, and nothing is launched from then on", () =>
    Effect.gen(function*() {
      const { died, launch } = yield* start(yield* folder)
      process.kill(yield* pidOf(launch), "SIGKILL")
      const error = yield* Effect.flip(died)
      assert.include(error.message, "it ended (SIGKILL)")
      assert.match((yield* Effect.flip(launch("true"))).message, /launch true: .*ECONNREFUSED/)
    }))

  it.live("works below a path that is too long for a unix socket", () =>
    Effect.gen(function*() {
      const { directory, launch } = yield* start(join(yield* folder, "x".repeat(100), "y".repeat(100)))
      assert.strictEqual(yield* Effect.flatMap(launch("echo", "deep"), words), "deep\n")
      assert.isTrue(existsSync(join(directory, "launch.sock")))
    }))

  it.live("says why it cannot start", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const broken = Layer.effect(
        Watchdog,
        Effect.map(Host, (host) => {
          writeFileSync(join(host.paths.instance(host.instance), "launch.sock"), "")
          return Watchdog.of({ mountNamespace: Option.none(), died: Effect.never })
        })
      )
      const error = yield* Layer.build(
        Layer.fresh(Launcher.layer).pipe(
          Layer.provide(Layer.mergeAll(Native.layer, broken)),
          Layer.provide(HostLive.layer({ stateDirectory: state })),
          Layer.provide(SecureRandom.layerWebCrypto)
        )
      ).pipe(Effect.flip)
      assert.match(String(error), /stoker-launch: listen at launch\.sock: Address (already )?in use/)
    }))

  it.live(
    "what a runtime said is the reason why there is no sandbox, and goes with the sandbox",
    () =>
      Effect.gen(function*() {
        const state = yield* folder
        yield* Effect.gen(function*() {
          const hosted = yield* HostSandbox.make
          const directory = hosted.instancePath(hosted.host.instance)
          const failed = yield* Effect.flip(Effect.scoped(hosted.provision({
            driver: "oci",
            ownPids: 2,
            sealed: true,
            command: (id) => ["crun", "--root", join(directory, "crun"), "run", "--bundle", "/nowhere", id],
            paths: () => [],
            verify: () => Effect.void
          }, standardClass("oci", "oci"))))
          assert.strictEqual(failed.step, "start")
          assert.match(failed.reason, /it ended: .*\/nowhere/)
          assert.deepStrictEqual(readdirSync(join(directory, "said")), [])
        }).pipe(Effect.provide(layerDrivers(state, [])))
        assert.deepStrictEqual(readdirSync(join(state, "instances")), [])
      }),
    10_000
  )
})
