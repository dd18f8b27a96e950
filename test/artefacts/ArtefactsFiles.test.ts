import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Artefacts } from "../../src/layers/artefacts/Artefacts.ts"
import * as ArtefactsFiles from "../../src/layers/artefacts/ArtefactsFiles.ts"
import { Host } from "../../src/layers/host/Host.ts"
import * as HostLive from "../../src/layers/host/HostLive.ts"
import { layerTest } from "../../src/layers/host/HostTest.ts"
import { InstanceId } from "../../src/schemas/Ids.ts"
import { run } from "../support/Run.ts"
import { bytes, key, leave, read, suite } from "./ArtefactSuite.ts"

/** A state directory that goes with its scope. */
const folder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "stoker-artefacts-"))),
  (path) => Effect.sync(() => fs.rmSync(path, { recursive: true }))
)

const at = (state: string) => Effect.provide(ArtefactsFiles.layer.pipe(Layer.provide(layerTest({ state }))))

/** All files below it. */
const filesOf = (state: string) =>
  fs.readdirSync(state, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))

suite(
  "files",
  Layer.unwrap(Effect.map(folder, (state) => ArtefactsFiles.layer.pipe(Layer.provide(layerTest({ state })))))
)

describe("Artefacts in files", () => {
  it.live("names nothing on the host as a job does, and lets nobody else read it", () =>
    Effect.gen(function*() {
      const state = yield* folder
      yield* leave("a", { "evil/../name": bytes("x"), "/etc/passwd": bytes("y"), "a\nb": bytes("z") }).pipe(at(state))
      const files = filesOf(state)
      assert.strictEqual(files.length, 1)
      assert.match(files[0] ?? "", /\/artefacts\/([0-9a-f]{2})\/\1[0-9a-f]{30}$/)
      assert.strictEqual(fs.statSync(files[0] ?? "").mode & 0o777, 0o600)
      assert.strictEqual(yield* read("a", "evil/../name", bytes("x")).pipe(at(state)), "x")
    }))

  it.live("writes below its instance until all is there, where it goes with a dead worker", () =>
    Effect.gen(function*() {
      const state = yield* folder
      const scope = yield* Scope.make()
      const open = Effect.flatMap(Artefacts, (artefacts) => artefacts.open(key("a"))).pipe(at(state))
      const writer = yield* open.pipe(Scope.provide(scope))
      assert.deepStrictEqual(filesOf(state), [])
      yield* writer.add("x", bytes("half"))
      assert.deepStrictEqual(filesOf(state), [join(state, "instances", "wtest", "artefacts-0")])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(filesOf(state), [])
    }))

  it.live("refuses a file that is another job's, cut off, or none of ours", () =>
    Effect.gen(function*() {
      const state = yield* folder
      yield* leave("a", { x: bytes("content") }).pipe(at(state))
      const [a = ""] = filesOf(state)
      yield* leave("b", { x: bytes("content") }).pipe(at(state))
      const b = filesOf(state).find((file) => file !== a) ?? ""
      const told = Effect.flip(Effect.flatMap(Artefacts, (artefacts) =>
        artefacts.read(key("b"), { path: "x", bytes: 7, sha256: "0".repeat(64) }, { offset: 0, maxBytes: 9 }))).pipe(
          at(state)
        )
      const intact = fs.readFileSync(b)
      fs.copyFileSync(a, b)
      assert.match((yield* told).message, /is that of embedded\/local\/a, not of embedded\/local\/b/)
      for (
        const wrong of [
          intact.subarray(0, -1),
          Buffer.alloc(0),
          Buffer.from("something else"),
          Buffer.concat([intact.subarray(0, 60), intact.subarray(70)])
        ]
      ) {
        fs.writeFileSync(b, wrong)
        assert.match((yield* told).message, /is no file of artefacts/)
      }
    }))

  it.live(
    "of a killed worker are those it kept; its half-written ones go with its directory",
    () =>
      Effect.gen(function*() {
        const state = yield* folder
        const child = yield* Effect.acquireRelease(
          Effect.sync(() =>
            spawn(process.execPath, [join(import.meta.dirname, "halfway.ts"), state], {
              stdio: ["ignore", "pipe", "inherit"]
            })
          ),
          (child) => Effect.sync(() => child.kill("SIGKILL"))
        )
        const said = yield* Effect.callback<string>((resume) => {
          child.stdout.once("data", (chunk) => resume(Effect.succeed(String(chunk).trim())))
        })
        const instance = InstanceId.make(said)
        const half = join(state, "instances", instance, "artefacts-1")
        assert.include(filesOf(state), half)
        yield* Effect.callback<void>((resume) => {
          child.once("exit", () => resume(Effect.void))
          child.kill("SIGKILL")
        })
        const next = HostLive.layer({ stateDirectory: state }).pipe(Layer.provide(SecureRandom.layerWebCrypto))
        yield* Effect.gen(function*() {
          const host = yield* Host
          assert.isFalse(yield* host.isAlive(instance))
          yield* host.forget(instance)
          assert.isFalse(fs.existsSync(half))
          assert.strictEqual(yield* read("half", "x", bytes("half of it")), "ArtefactNotFound")
          assert.strictEqual(yield* read("kept", "x", bytes("whole")), "whole")
        }).pipe(Effect.provide(ArtefactsFiles.layer.pipe(Layer.provideMerge(next))))
      }),
    20_000
  )

  it.live(
    "on a full disk refuses what does not fit, keeps what does, and gives back what it took",
    () =>
      Effect.gen(function*() {
        const state = yield* folder
        const script = join(import.meta.dirname, "cramped.ts")
        // In a mount namespace of its own, with which the file system goes.
        const mounted = `mount -t tmpfs -o size=1m,mode=700 stoker-test ${state} && exec "$0" "$@"`
        const { code, stderr, stdout } = yield* Effect.promise(() =>
          run("unshare", ["--mount", "sh", "-c", mounted, process.execPath, script, state])
        )
        assert.strictEqual(code, 0, stderr)
        const saw = JSON.parse(stdout)
        assert.include(saw.first[0], "ENOSPC")
        assert.include(saw.first[1], "Free space")
        assert.include(saw.second, "ENOSPC")
        assert.include(saw.third, "ENOSPC")
        assert.deepInclude(saw, { small: "fits", after: "fits too", again: "room again", none: "ArtefactNotFound" })
      }),
    20_000
  )
})
