/** Real machines, emulated: each test boots one at most, because that takes seconds. */
import { assert, describe, layer } from "@effect/vitest"
import { Clock, Effect, Exit, Scope } from "effect"
import { createHash } from "node:crypto"
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { probe } from "../../src/layers/microvm/Probe.ts"
import * as Qemu from "../../src/layers/microvm/qemu/Qemu.ts"
import { layerDrivers } from "../../src/wiring.ts"
import * as Rig from "./VmmRig.ts"

const state = mkdtempSync(join(tmpdir(), "stoker-qemu-"))

const sha256 = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex")

/** Of the mapping of a machine's memory: how its file was opened. */
const memoryFlags = (pid: number) =>
  readdirSync(`/proc/${pid}/fd`)
    .filter((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === "/memory")
    .map((fd) => /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8"))?.[1])

/** Milliseconds it took. */
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const began = yield* Clock.currentTimeMillis
    const result = yield* effect
    return { result, took: (yield* Clock.currentTimeMillis) - began }
  })

describe.skipIf(Rig.lacking() !== undefined)(`QEMU, emulated (${Rig.lacking() ?? "real"})`, () => {
  layer(layerDrivers(state, []), { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    const machines = Effect.gen(function*() {
      return { vmm: yield* Qemu.make({ accelerator: "tcg" }), place: yield* Rig.folder }
    })

    it.effect(
      "boots, is saved, and copies run at once, each another machine with memory of its own",
      () =>
        Effect.gen(function*() {
          const { place, vmm } = yield* machines
          const template = join(place, "template")
          mkdirSync(template)
          const first = yield* Rig.spec(place)
          const snapshot = yield* Effect.scoped(Effect.gen(function*() {
            const machine = yield* vmm.boot(first, { forTemplate: template })
            assert.strictEqual(yield* Rig.probe(vmm, first), "")
            const snapshot = yield* machine.save(template)
            assert.strictEqual(yield* machine.ended, "")
            return snapshot
          }))
          assert.deepStrictEqual(readdirSync(template).toSorted(), ["memory", "state"])
          assert.isBelow(statSync(join(template, "memory")).blocks * 512, 120 * 1024 ** 2) // with holes
          assert.deepStrictEqual(Rig.processesOf(first.uid), [])
          const before = sha256(join(template, "memory"))

          const scope = yield* Scope.make()
          const specs = [yield* Rig.spec(place), yield* Rig.spec(place)]
          const copies = yield* Effect.forEach(specs, (spec) =>
            Effect.gen(function*() {
              const machine = yield* vmm.restore(spec, snapshot)
              return { machine, spec, ...(yield* Rig.personalise(vmm, spec)) }
            }), { concurrency: 2 }).pipe(Scope.provide(scope))
          const [one, other] = copies
          assert.match(one?.id ?? "", /^[0-9a-f]{32}$/)
          assert.notStrictEqual(one?.id, other?.id)

          for (const { spec } of copies) {
            const [pid = 0, ...others] = Rig.processesOf(spec.uid)
            assert.deepStrictEqual(others, [])
            const status = readFileSync(`/proc/${pid}/status`, "utf8")
            for (
              const line of [
                `Gid:\t${spec.gid}\t${spec.gid}\t${spec.gid}\t${spec.gid}`,
                "Groups:\t ",
                "CapInh:\t0000000000000000",
                "CapPrm:\t0000000000000000",
                "CapEff:\t0000000000000000",
                "CapBnd:\t0000000000000000",
                "CapAmb:\t0000000000000000",
                "NoNewPrivs:\t1",
                "Seccomp:\t2"
              ]
            ) assert.include(status, `${line}\n`)
            // Opened to be read alone, though this QEMU would open it for writing.
            assert.deepStrictEqual(memoryFlags(pid).map((flags) => Number.parseInt(flags ?? "1", 8) & 3), [0])
            const inside = readdirSync(`/proc/${pid}/root`)
            for (const name of ["proc", "sys", "home", "root", "run", "tmp", "var"]) assert.notInclude(inside, name)
            assert.deepStrictEqual(readdirSync(`/proc/${pid}/root/dev`).toSorted(), ["null", "urandom", "zero"])
            assert.isFalse(existsSync(`/proc/${pid}/root/etc/passwd`))
            // The host's own, but for the tap's namespace.
            assert.notStrictEqual(readlinkSync(`/proc/${pid}/ns/net`), readlinkSync("/proc/self/ns/net"))
            assert.notStrictEqual(readlinkSync(`/proc/${pid}/ns/mnt`), readlinkSync("/proc/self/ns/mnt"))
          }

          // One is killed: it is told, and the other one does not mind.
          process.kill(Rig.processesOf(one?.spec.uid ?? -1)[0] ?? -1, "SIGKILL")
          const { took } = yield* timed(one?.machine.ended ?? Effect.void)
          assert.isBelow(took, 5000)
          assert.strictEqual(Rig.processesOf(other?.spec.uid ?? -1).length, 1)
          const closing = yield* timed(Scope.close(scope, Exit.void))
          assert.isBelow(closing.took, 5000)
          for (const { spec } of copies) assert.deepStrictEqual(Rig.processesOf(spec.uid), [])

          // It is what it was, so a third machine would be as the first ones.
          assert.strictEqual(sha256(join(template, "memory")), before)
          assert.strictEqual(statSync(join(template, "memory")).mode & 0o777, 0o444)
          const larger = yield* Effect.flip(vmm.restore(yield* Rig.spec(place, { memoryMib: 256 }), snapshot))
          assert.include(larger.message, "of a machine of another size")
          mkdirSync(join(place, "broken"))
          copyFileSync(join(template, "memory"), join(place, "broken", "memory"))
          writeFileSync(join(place, "broken", "state"), "this is no state")
          const broken = yield* timed(
            Effect.flip(vmm.restore(yield* Rig.spec(place), { directory: join(place, "broken") }))
          )
          assert.match(broken.result.message, /^qemu \(restore\): QEMU said: .*(stream|migration)/i)
          assert.isBelow(broken.took, vmm.deadlines.restoreMs)
        }),
      120_000
    )

    it.effect("a guest that panics tells its last words", () =>
      Effect.gen(function*() {
        const { place, vmm } = yield* machines
        const spec = yield* Rig.spec(place, { bootArgs: ["rdinit=/nothing"] })
        const machine = yield* vmm.boot(spec)
        const last = yield* machine.ended
        assert.match(last, /^the guest's kernel panicked: .*Unable to mount root fs/)
        assert.include(last, "the end of its console: ")
        assert.deepStrictEqual(Rig.processesOf(spec.uid), [])
        const error = yield* Effect.flip(machine.save(place))
        assert.strictEqual(error.step, "save")
      }), 90_000)

    it.effect(
      "a boot that never finishes says where it stands, however much it has said",
      () =>
        Effect.gen(function*() {
          const { place, vmm } = yield* machines
          // The guest's program waits for its host on the console, which nobody is.
          const spec = yield* Rig.spec(place, {
            bootArgs: ["rdinit=/guest", "initcall_debug", "ignore_loglevel", "loglevel=8"]
          })
          const scope = yield* Scope.make()
          const machine = yield* vmm.boot(spec).pipe(Scope.provide(scope))
          assert.include(yield* Rig.probe(vmm, spec, 4000), "4000 ms")
          const console = yield* machine.console ?? Effect.succeed("")
          assert.isAbove(console.length, 500)
          assert.isAtMost(console.length, 2000)
          assert.match(console, /initcall|init/)
          const closing = yield* timed(Scope.close(scope, Exit.void))
          assert.isBelow(closing.took, 5000)
          assert.include(yield* machine.ended, "the end of its console: ")
          assert.deepStrictEqual(Rig.processesOf(spec.uid), [])
        }),
      90_000
    )

    it.effect(
      "says at once what is wrong with a kernel, and with what else a machine needs",
      () =>
        Effect.gen(function*() {
          const { place, vmm } = yield* machines
          const file = (name: string, change: (path: string) => void) => {
            const path = join(place, name)
            copyFileSync(Rig.kernel, path)
            change(path)
            return path
          }
          const poke = (at: number, bytes: Uint8Array) => (path: string) => {
            const fd = openSync(path, "r+")
            writeSync(fd, bytes, 0, bytes.length, at)
            closeSync(fd)
          }
          const text = join(place, "text")
          writeFileSync(text, "this is no kernel")
          const cases: ReadonlyArray<readonly [string, RegExp]> = [
            [join(place, "none"), /cannot be read: ENOENT/],
            [text, /is no kernel/],
            [file("arm", poke(18, Uint8Array.of(183, 0))), /is a kernel for arm64, and this is x64/],
            [file("short", (path) => truncateSync(path, 1024 ** 2)), /is corrupt/]
          ]
          for (const [kernel, expected] of cases) {
            const spec = yield* Rig.spec(place, { kernel })
            const { result, took } = yield* timed(Effect.flip(vmm.boot(spec)))
            assert.match(result.message, expected)
            assert.include(result.remedy, "stoker image build")
            assert.isBelow(took, 5000)
          }
          // Its head is a kernel's, its code is undefined instructions.
          const kernel = file("broken", poke(2 * 1024 ** 2, Buffer.alloc(12 * 1024 ** 2, Uint8Array.of(0x0f, 0x0b))))
          // It dies with its first instruction, which once nobody heard who was not quick.
          for (let n = 0; n < 4; n++) {
            const broken = yield* Rig.spec(place, { kernel })
            const dead = yield* timed(Effect.flatMap(vmm.boot(broken), ({ ended }) => ended))
            assert.include(dead.result, "the guest ended")
            assert.isBelow(dead.took, vmm.deadlines.bootMs / 2)
          }

          const rates = yield* Effect.flip(vmm.boot(yield* Rig.spec(place, { networkRates: { bytesPerSec: 1 } })))
          assert.include(rates.remedy, "networkRates")
          const tapless = yield* Rig.spec(place, { netns: `/proc/${process.pid}/ns/net` })
          assert.match((yield* Effect.flip(vmm.boot(tapless))).reason, /stoker-confine: attach to tap0: No such device/)
          const taken = yield* Rig.spec(place)
          const template = join(place, "template")
          mkdirSync(template)
          // More than any disk has.
          const huge = { ...taken, memoryMib: 2 ** 40 }
          const full = yield* Effect.flip(vmm.boot(huge, { forTemplate: template }))
          assert.strictEqual(full.step, "save")
          assert.match(full.reason, /does not fit on the disk of .*, \d+ MiB are free/)
          assert.deepStrictEqual(readdirSync(template), [])
        }),
      90_000
    )

    it.effect(
      "the probe hears a guest, and where none can live it says how to do without",
      () =>
        Effect.gen(function*() {
          const { place, vmm } = yield* machines
          yield* probe(vmm, yield* Rig.spec(place), true)
          const usual = yield* Qemu.make({ accelerator: "kvm" })
          // A guest that is virtualised needs half a second; one that cannot be is silent for ever.
          const kvm = { ...usual, deadlines: { ...usual.deadlines, bootMs: 4000 } }
          const spec = yield* Rig.spec(place)
          const found = yield* Effect.result(probe(kvm, spec, false))
          assert.deepStrictEqual(Rig.processesOf(spec.uid), [])
          // On a host with virtualisation there is nothing more to see.
          if (found._tag === "Success") return
          assert.strictEqual(found.failure.step, "probe")
          assert.include(found.failure.remedy, "`accelerator: tcg`")
          assert.isAbove(found.failure.reason.length, 10)
        }),
      90_000
    )

    it.effect("is bound to what it runs on", () =>
      Effect.gen(function*() {
        const { vmm } = yield* machines
        const identity = yield* vmm.identity
        assert.match(identity, /^qemu \d+\.\d+.*, tcg, \d+ MHz, /)
        assert.strictEqual(yield* vmm.identity, identity)
        assert.deepStrictEqual((yield* vmm.check).map(({ status }) => status), ["ok"])
        const other = yield* Qemu.make({ accelerator: "tcg", program: "/usr/bin/true" })
        assert.match((yield* Effect.flip(other.identity)).message, /\(version\): .*which is not QEMU's/)
        const outside = yield* Qemu.make({ accelerator: "tcg", program: "/opt/qemu" })
        assert.include((yield* Effect.flip(outside.identity)).message, "does not lie below /usr")
        assert.strictEqual((yield* outside.check)[0]?.status, "missing")
      }))
  })
})
