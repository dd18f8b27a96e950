/** Machines that go wrong, through the driver, on real QEMU: a guest that lies, hangs or dies, and a host that lacks something. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { execFileSync } from "node:child_process"
import { readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { version } from "../../src/guest/Protocol.ts"
import { Native } from "../../src/layers/host/Native.ts"
import * as Microvm from "../../src/layers/sandbox/Microvm.ts"
import { type Driver, Drivers, type ProvisionFailed, type Sandbox } from "../../src/layers/sandbox/Sandbox.ts"
import type { SandboxClass } from "../../src/schemas/SandboxClass.ts"
import * as Rig from "../microvm/Rig.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"
import { projectRoot } from "../support/Tree.ts"

const LIMIT = patience(240_000)

/** An init that does this instead of what it is asked (`test/microvm/liar.c`). */
const liar = (folder: string, lie: number): string => {
  const path = join(folder, `liar-${lie}`)
  const below = (...parts: ReadonlyArray<string>) => join(projectRoot, ...parts)
  const sources = readdirSync(below("native/init"))
    .filter((name) => name.endsWith(".c") && name !== "personalise.c")
    .map((name) => below("native/init", name))
  const flags = ["-std=gnu11", "-O1", "-static", `-I${below("native/init")}`, `-DLIE=${lie}`, `-DPROTOCOL=${version}`]
  execFileSync("cc", [...flags, "-o", path, below("native/init.c"), ...sources, below("test/microvm/liar.c")])
  return path
}

/** What becomes of a machine of this class, and that nothing of it stays. */
const provision = (
  driver: Driver,
  sandboxClass: SandboxClass
): Effect.Effect<Sandbox, ProvisionFailed, Scope.Scope> => {
  const { diskBytes: bytes, diskInodes: inodes } = sandboxClass.defaults
  return driver.provision(sandboxClass, { bytes, inodes })
}

const booted = Rig.machineClass({ snapshot: false })
const copied = Rig.machineClass()

const lies: ReadonlyArray<readonly [lie: number, name: string, expected: RegExp]> = [
  [1, "says another token", /was personalised, but.*token/],
  [2, "has another clock", /was personalised, but.*clock/],
  [3, "says what is no frame", /frame/],
  [4, "never stops to speak", /did not answer a limit within 10 seconds/],
  [5, "is ready and then silent", /did not answer a limit within 10 seconds/],
  [6, "panics", /its VMM ended: the guest's kernel panicked.*the last words of a liar/s],
  [7, "never comes up", /not reached|within 60000 ms/]
]

describe("a machine", () => {
  const state = Jobs.stateDirectory()
  afterAll(() => {
    const left = Rig.left(state, [])
    Jobs.remove(state)
    assert.deepStrictEqual(left, [])
  })

  /** Of machines: the driver's own row, in which it makes networks, stays as long as the driver. */
  const remains = () => Rig.left(state, Rig.rows(state)).filter((what) => !what.startsWith("row "))

  layer(Jobs.layerOf(booted, state), { excludeTestServices: true, timeout: LIMIT })("of QEMU", (it) => {
    for (const [lie, name, expected] of lies) {
      it.effect(`whose guest ${name} is destroyed, with the reason`, () =>
        Effect.gen(function*() {
          const native = yield* Native
          const driver = yield* Microvm.make("qemu").pipe(
            Effect.provideService(Native, { ...native, init: liar(state, lie) })
          )
          const before = process.memoryUsage().rss
          const error = yield* Effect.flip(Effect.scoped(provision(driver, booted)))
          assert.match(error.reason, expected)
          assert.deepStrictEqual(remains(), [])
          assert.isBelow(process.memoryUsage().rss - before, 128 * 1024 * 1024)
        }), LIMIT)
    }

    it.effect("that cannot be restored is booted, and its template goes", () =>
      Effect.gen(function*() {
        const [driver] = yield* Drivers
        if (driver?.prepare === undefined) return yield* Effect.die("no driver")
        yield* driver.prepare(copied)
        const templates = join(state, "machine-templates")
        const made = () => readdirSync(templates).filter((name) => /^[0-9a-f]{32}$/.test(name))
        const [name = ""] = made()
        // This worker has read it through already, and believes it.
        writeFileSync(join(templates, name, "state"), "this is no state")
        yield* Effect.scoped(Effect.gen(function*() {
          const sandbox = yield* provision(driver, copied)
          assert.strictEqual(Rig.vmms([sandbox.id]).length, 1)
        }))
        assert.deepStrictEqual(made(), [])
        yield* driver.prepare(copied)
        assert.deepStrictEqual(made(), [name])
      }), LIMIT)

    it.effect("whose VMM is held up ends its job by the clock", () =>
      Effect.gen(function*() {
        const { outcome } = yield* Jobs.runIn(booted, {
          args: { command: "sh -c 'echo begun; sleep 1000'" },
          limits: { wallMs: patience(20_000) },
          onOutput: () =>
            Effect.sync(() => {
              for (const pid of Rig.vmms(Rig.rows(state))) process.kill(pid, "SIGSTOP")
            })
        })
        assert.strictEqual(outcome._tag, "TimedOut")
        assert.deepStrictEqual(remains(), [])
      }), LIMIT)

    it.effect("is refused where no guest is virtualised, and told how to do without", () =>
      Effect.gen(function*() {
        const [driver] = yield* Drivers
        if (driver?.prepare === undefined) return yield* Effect.die("no driver")
        const result = yield* Effect.result(driver.prepare(Rig.machineClass({ accelerator: "kvm" })))
        assert.deepStrictEqual(remains(), [])
        // On a host with virtualisation there is nothing more to see.
        if (result._tag === "Success") return
        assert.match(result.failure.remedy, /"accelerator": "tcg"|accelerator: tcg/)
      }), LIMIT)
  })
})
