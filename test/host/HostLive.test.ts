import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Host } from "../../src/layers/host/Host.ts"
import * as HostLive from "../../src/layers/host/HostLive.ts"
import { mountsBelow } from "../../src/layers/host/Mounts.ts"
import { InstanceId } from "../../src/schemas/Ids.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "stoker-host-"))),
  (path) => Effect.sync(() => fs.rmSync(path, { recursive: true, force: true }))
)

/** One more instance in the state directory, until its scope closes. */
const start = (state: string) =>
  Effect.map(
    Layer.build(
      Layer.fresh(HostLive.layer({ stateDirectory: state })).pipe(Layer.provide(SecureRandom.layerWebCrypto))
    ),
    (context) => Effect.provide(Host, context)
  ).pipe(Effect.flatten)

/** The same in a process of its own, which can be stopped and killed. */
const startProcess = (state: string) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [join(import.meta.dirname, "instance.ts"), state], {
        stdio: ["ignore", "pipe", "inherit"]
      })
    ),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  ).pipe(
    Effect.flatMap((child) =>
      Effect.callback<{ readonly child: typeof child; readonly instance: InstanceId }>((resume) => {
        child.stdout.once(
          "data",
          (line) => resume(Effect.succeed({ child, instance: InstanceId.make(String(line).trim()) }))
        )
      })
    )
  )

type Child = Effect.Success<ReturnType<typeof startProcess>>["child"]

/** Sends a signal and waits until it has done its work. */
const kill = (child: Child) =>
  Effect.callback<void>((resume) => {
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })

const freeze = (child: Child) =>
  Effect.suspend(() => {
    child.kill("SIGSTOP")
    const stopped: Effect.Effect<void> = Effect.suspend(() =>
      / T /.test(fs.readFileSync(`/proc/${child.pid}/stat`, "utf8"))
        ? Effect.void
        : Effect.andThen(Effect.yieldNow, stopped)
    )
    return stopped
  })

const refusal = (state: string) => Effect.scoped(Effect.flip(start(state)))

describe("Host", () => {
  it.live("gives each instance a name, a private directory, and sight of the others", () =>
    Effect.gen(function*() {
      const state = join(yield* folder, "deep", "state")
      const one = yield* start(state)
      const two = yield* start(state)
      assert.match(one.instance, /^w[a-z0-9]{10}$/)
      assert.notStrictEqual(one.instance, two.instance)
      assert.deepStrictEqual(yield* one.others, [two.instance])
      assert.deepStrictEqual(yield* two.others, [one.instance])
      assert.isTrue(yield* one.isAlive(two.instance))
      assert.isTrue(yield* one.isAlive(one.instance))
      assert.isFalse(yield* one.isAlive(InstanceId.make("wnobody")))
      for (const path of [state, one.paths.instance(one.instance)]) {
        assert.strictEqual(fs.statSync(path).mode & 0o777, 0o700)
      }
    }))

  it.live("leaves nothing when it ends and had no sandboxes", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const two = yield* start(state)
      const scope = yield* Scope.make()
      const one = yield* start(state).pipe(Scope.provide(scope))
      fs.mkdirSync(join(one.paths.instance(one.instance), "sandboxes"))
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* two.others, [])
      assert.isFalse(yield* two.isAlive(one.instance))
      assert.deepStrictEqual(fs.readdirSync(join(state, "starting")), [])
    }))

  it.live("leaves its directory to the janitor when something is left of a sandbox", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const two = yield* start(state)
      const scope = yield* Scope.make()
      const one = yield* start(state).pipe(Scope.provide(scope))
      const left = join(one.paths.instance(one.instance), "s1", "rootfs")
      fs.mkdirSync(left, { recursive: true })
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(fs.existsSync(left))
      assert.deepStrictEqual(yield* two.others, [one.instance])
      assert.isFalse(yield* two.isAlive(one.instance))
      yield* two.forget(one.instance)
      assert.deepStrictEqual(yield* two.others, [])
    }))

  it.live("sees a killed process dead, and a stopped one alive however many ask", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const host = yield* start(state)
      const { child, instance } = yield* startProcess(state)
      assert.isTrue(yield* host.isAlive(instance))
      yield* freeze(child)
      // More than its backlog holds: from then on the kernel answers EAGAIN.
      for (let asked = 0; asked < 600; asked++) assert.isTrue(yield* host.isAlive(instance))
      const refused = yield* Effect.callback<string | undefined>((resume) => {
        connect({ path: join(host.paths.instance(instance), "lock.sock") })
          .once("error", (error: NodeJS.ErrnoException) => resume(Effect.succeed(error.code)))
          .once("connect", () => resume(Effect.undefined))
      })
      assert.strictEqual(refused, "EAGAIN")
      yield* kill(child)
      assert.isFalse(yield* host.isAlive(instance))
      assert.deepStrictEqual(yield* host.others, [instance])
      yield* host.forget(instance)
      assert.deepStrictEqual(yield* host.others, [])
    }), 20_000)

  it.live("never shows an instance that is not alive yet", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const janitor = yield* start(state)
      let seen = 0
      const progress = { isStarting: true }
      const looking = yield* Effect.forkChild(Effect.gen(function*() {
        while (progress.isStarting) {
          for (const other of yield* janitor.others) {
            // Gone again is no contradiction: its directory is then gone, too.
            if (!(yield* janitor.isAlive(other)) && fs.existsSync(janitor.paths.instance(other))) {
              return assert.fail(`${other} looked dead`)
            }
            seen++
          }
          yield* Effect.yieldNow
        }
      }))
      const scope = yield* Scope.make()
      yield* Effect.forEach(Array.from({ length: 50 }), () => start(state).pipe(Scope.provide(scope)), {
        concurrency: 5
      })
      progress.isStarting = false
      yield* Fiber.join(looking)
      assert.isAbove(seen, 0)
      yield* Scope.close(scope, Exit.void)
    }), 20_000)

  it.live("forgets the dead only, and once however many janitors do it", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const one = yield* start(state)
      const two = yield* start(state)
      assert.match((yield* Effect.flip(one.forget(two.instance))).message, /is alive/)
      assert.match((yield* Effect.flip(one.forget(one.instance))).message, /is alive/)
      const dead = InstanceId.make("wdead")
      for (let index = 0; index < 200; index++) {
        fs.mkdirSync(join(one.paths.instance(dead), `s${index}`, "a", "b"), { recursive: true })
      }
      yield* Effect.all([one.forget(dead), two.forget(dead), one.forget(dead)], { concurrency: "unbounded" })
      assert.isFalse(fs.existsSync(one.paths.instance(dead)))
      yield* one.forget(dead)
    }))

  it.live("forgets an instance without following its symlinks or emptying what is mounted there", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const outside = yield* folder
      fs.writeFileSync(join(outside, "precious"), "")
      const host = yield* start(state)
      const dead = InstanceId.make("wdead")
      fs.mkdirSync(host.paths.instance(dead))
      fs.symlinkSync(outside, join(host.paths.instance(dead), "link"))
      yield* host.forget(dead)
      assert.isTrue(fs.existsSync(join(outside, "precious")))
      const mountinfo =
        `36 35 98:0 / ${state}/instances/wdead/a\\040b rw - tmpfs tmpfs rw\n40 35 98:0 / ${state}/instances/wdead2 rw - a b rw`
      assert.deepStrictEqual(mountsBelow(mountinfo, host.paths.instance(dead)), [`${host.paths.instance(dead)}/a b`])
    }))

  it.live("works below a path that is too long for a unix socket", () =>
    Effect.gen(function*() {
      const state = join(yield* folder, "x".repeat(100), "y".repeat(100))
      const one = yield* start(state)
      const scope = yield* Scope.make()
      const two = yield* start(state).pipe(Scope.provide(scope))
      assert.isTrue(yield* one.isAlive(two.instance))
      assert.isFalse(yield* one.isAlive(InstanceId.make("wnobody")))
      const { child, instance } = yield* startProcess(state)
      assert.isTrue(yield* one.isAlive(instance))
      yield* kill(child)
      assert.isFalse(yield* one.isAlive(instance))
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* one.others, [instance])
    }))

  it.live("says what is wrong with a state directory, and what to do", () =>
    Effect.gen(function*() {
      const state = yield* folder
      fs.writeFileSync(join(state, "file"), "")
      const file = yield* refusal(join(state, "file"))
      assert.include(file.message, join(state, "file"))
      const below = yield* refusal(join(state, "file", "below"))
      assert.match(below.message, /ENOTDIR.*Remove the file/)
      fs.mkdirSync(join(state, "open"))
      fs.chmodSync(join(state, "open"), 0o777)
      assert.match((yield* refusal(join(state, "open"))).message, /mode 777.*chmod 700/)
      const readOnly = yield* refusal("/proc/stoker")
      assert.include(readOnly.message, "/proc/stoker")
    }))

  it.live("clears away what a start left that never came to listen", () =>
    Effect.gen(function*() {
      const state = yield* folder
      yield* Effect.scoped(start(state))
      const old = join(state, "starting", "wold")
      const young = join(state, "starting", "wyoung")
      for (const path of [old, young]) fs.mkdirSync(path)
      fs.utimesSync(old, 0, 0)
      yield* start(state)
      assert.deepStrictEqual(fs.readdirSync(join(state, "starting")), ["wyoung"])
    }))
})
