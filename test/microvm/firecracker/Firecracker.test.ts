import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { execFileSync } from "node:child_process"
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import * as Jail from "../../../src/layers/microvm/firecracker/Jail.ts"
import { foldersOf } from "../../../src/layers/microvm/firecracker/Jailer.ts"
import { pidsOf } from "../../../src/layers/microvm/firecracker/Process.ts"
import type { MachineSpec, Vmm } from "../../../src/layers/microvm/Vmm.ts"
import { callsOf, folder, host, jailOf, machine, snapshotFolder, type StandInOptions } from "./World.ts"

const names = (spec: MachineSpec) => callsOf(spec).map(({ call }) => call)

const BOOT = [
  "GET /",
  "PUT /logger",
  "PUT /metrics",
  "PUT /serial",
  "PUT /machine-config",
  "PUT /boot-source",
  "PUT /drives/rootfs",
  "PUT /drives/scratch",
  "PUT /network-interfaces/eth0",
  "PUT /entropy",
  "PUT /actions"
]

/** Boots, tells why not, and leaves no process. */
const refused = Effect.fnUntraced(function*(vmm: Vmm, spec: MachineSpec) {
  const error = yield* Effect.flip(Effect.scoped(vmm.boot(spec)))
  assert.deepStrictEqual(pidsOf(spec), [], "a process is left")
  return error
})

const template = Effect.fnUntraced(function*(vmm: Vmm, place: string, image: string, more?: Partial<MachineSpec>) {
  const spec = machine(place, image, more)
  const directory = snapshotFolder(place)
  const snapshot = yield* Effect.scoped(Effect.gen(function*() {
    const booted = yield* vmm.boot(spec, { forTemplate: directory })
    return yield* booted.save(directory)
  }))
  copyFileSync(spec.scratch, join(directory, "scratch.img"))
  return { spec, snapshot }
})

describe("Firecracker", { timeout: 120_000 }, () => {
  it.live("boots a machine in a jail of its own user, by the calls in their order, and its scope ends it", () =>
    Effect.gen(function*() {
      const { image, place, vmm } = yield* host()
      const spec = machine(place, image, { diskRates: { bytesPerSec: 2048, burstBytes: 1024, opsPerSec: 100 } })
      const scope = yield* Scope.make()
      const booted = yield* Scope.provide(vmm.boot(spec), scope)
      assert.deepStrictEqual(names(spec), BOOT)
      const bodies = new Map(callsOf(spec).map(({ body, call }) => [call, body]))
      assert.deepStrictEqual(bodies.get("PUT /machine-config"), {
        vcpu_count: 2,
        mem_size_mib: 16,
        smt: false,
        track_dirty_pages: false
      })
      assert.deepStrictEqual(bodies.get("PUT /drives/scratch"), {
        drive_id: "scratch",
        is_root_device: false,
        is_read_only: false,
        path_on_host: "/scratch.img",
        cache_type: "Unsafe",
        io_engine: "Sync",
        rate_limiter: { bandwidth: { size: 1024, refill_time: 500 }, ops: { size: 100, refill_time: 1000 } }
      })
      const jail = jailOf(spec)
      // Shared files are the host's: readable for the machine's user, and nothing more. Its disk is its own.
      for (const file of ["kernel", "initrd", "root.ext4"]) {
        const found = statSync(join(jail, file))
        assert.deepStrictEqual([found.uid, found.mode & 0o022, found.mode & 0o004], [0, 0, 0o004], file)
      }
      assert.strictEqual(statSync(join(jail, "root.ext4")).ino, statSync(spec.root).ino)
      const disk = statSync(join(jail, "scratch.img"))
      assert.deepStrictEqual([disk.uid, disk.gid, disk.mode & 0o777], [spec.uid, spec.gid, 0o600])
      // What it came from is above the jail, closed to the machine's user.
      assert.strictEqual(statSync(join(spec.directory, "jail")).mode & 0o777, 0o700)
      assert.isNotEmpty(pidsOf(spec))
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(pidsOf(spec), [])
      assert.match(yield* booted.ended, /^it ended/)
      assert.deepStrictEqual(vmm.leftovers(spec), [])
    }))

  it.live("is in a process namespace of its own, and its output ends with it alone", () =>
    Effect.gen(function*() {
      const { image, place, vmm } = yield* host()
      const spec = machine(place, image)
      yield* vmm.boot(spec)
      // The process that was the jailer is number 1 there.
      assert.strictEqual(readFileSync(join(jailOf(spec), "firecracker.pid"), "utf8"), "1")
      const words: ReadonlyArray<string> = JSON.parse(readFileSync(join(jailOf(spec), "arguments"), "utf8"))
      assert.include(words, "--netns")
    }))

  it.live("a machine is saved and restored at the same paths, as another user, and as often as one likes", () =>
    Effect.gen(function*() {
      const { image, place, vmm } = yield* host()
      const { snapshot, spec } = yield* template(vmm, place, image)
      assert.deepStrictEqual(names(spec).slice(-2), ["PATCH /vm", "PUT /snapshot/create"])
      assert.deepStrictEqual(pidsOf(spec), [])
      for (const file of ["state", "memory"]) {
        const found = statSync(join(snapshot.directory, file))
        assert.deepStrictEqual([found.uid, found.mode & 0o777], [0, 0o444], file)
      }
      assert.strictEqual(statSync(join(snapshot.directory, "memory")).size, 16 * 2 ** 20)
      for (let n = 0; n < 2; n++) {
        const clone = machine(place, image)
        copyFileSync(join(snapshot.directory, "scratch.img"), clone.scratch)
        yield* vmm.restore(clone, snapshot)
        assert.deepStrictEqual(names(clone), [
          "GET /",
          "PUT /logger",
          "PUT /metrics",
          "PUT /serial",
          "PUT /snapshot/load"
        ])
        assert.isFalse(existsSync(join(jailOf(clone), "kernel")))
        assert.strictEqual(
          statSync(join(jailOf(clone), "snapshot/memory")).ino,
          statSync(join(snapshot.directory, "memory")).ino
        )
        const memory = statSync(join(jailOf(clone), "snapshot"))
        assert.deepStrictEqual([memory.uid, memory.mode & 0o777], [0, 0o755])
      }
    }))

  it.live("a machine that was not booted for a template is not saved", () =>
    Effect.gen(function*() {
      const { image, place, vmm } = yield* host()
      const spec = machine(place, image)
      const booted = yield* vmm.boot(spec)
      const error = yield* Effect.flip(booted.save(snapshotFolder(place)))
      assert.match(error.message, /firecracker \(save\): this machine was not booted to be saved/)
    }))

  it.live("a failed load ends the process; why is told in the API's words, with what to do", () =>
    Effect.gen(function*() {
      const { image, place, vmm } = yield* host()
      const { snapshot } = yield* template(vmm, place, image)
      const clone = machine(place, image)
      copyFileSync(join(snapshot.directory, "scratch.img"), clone.scratch)
      // Taken by another version.
      const state = join(snapshot.directory, "state")
      const text = readFileSync(state, "utf8")
      rmSync(state)
      writeFileSync(state, text.replace("10.0.0", "7.0.0"))
      const error = yield* Effect.flip(Effect.scoped(vmm.restore(clone, snapshot)))
      assert.strictEqual(error.step, "restore")
      assert.match(error.reason, /PUT \/snapshot\/load: .*Invalid snapshot version: 7\.0\.0/)
      assert.match(error.remedy, /template/)
      assert.deepStrictEqual(pidsOf(clone), [])
    }))

  it.live("a snapshot that is not whole is no snapshot", () =>
    Effect.gen(function*() {
      const { image, place, vmm } = yield* host()
      const clone = machine(place, image)
      const error = yield* Effect.flip(Effect.scoped(vmm.restore(clone, { directory: snapshotFolder(place) })))
      assert.match(error.message, /firecracker \(restore\): .*state does not come into the jail: ENOENT/)
    }))

  it.live("what a VMM left in place of its snapshot is not taken for one", () =>
    Effect.gen(function*() {
      const place = yield* folder
      const secret = join(place, "secret")
      writeFileSync(secret, "of the host", { mode: 0o600 })
      const attempt = (make: (file: string) => void) =>
        Effect.gen(function*() {
          const spec = machine(place, place)
          const jail = foldersOf(spec, "/usr/bin/firecracker")
          mkdirSync(join(jail.root, "snapshot"), { recursive: true })
          writeFileSync(join(jail.root, "snapshot/memory"), "memory")
          make(join(jail.root, "snapshot/state"))
          const directory = snapshotFolder(place)
          const error = yield* Effect.flip(Jail.collect(spec, jail, directory))
          assert.match(error.message, /firecracker \(save\): the snapshot does not come out of the jail/)
          assert.isFalse(existsSync(join(directory, "state")))
        })
      yield* attempt((file) => symlinkSync(secret, file))
      yield* attempt((file) => linkSync(secret, file))
      yield* attempt((file) => mkdirSync(file))
      yield* attempt((file) => writeFileSync(file, "not by the machine's user"))
      yield* attempt((file) => execFileSync("mkfifo", [file]))
      assert.deepStrictEqual([statSync(secret).uid, statSync(secret).mode & 0o777], [0, 0o600])
      // And its files are not waited for, nor followed.
      execFileSync("mkfifo", [join(place, "fifo")])
      symlinkSync(secret, join(place, "link"))
      assert.strictEqual(yield* Effect.promise(() => Jail.readTail(join(place, "fifo"), 10)), "")
      assert.strictEqual(yield* Effect.promise(() => Jail.readTail(join(place, "link"), 10)), "")
      assert.strictEqual(yield* Effect.promise(() => Jail.readTail(secret, 4)), "host")
    }))

  it.live("a missing image, kernel or disk is named with what to do", () =>
    Effect.gen(function*() {
      const { image, place, vmm } = yield* host()
      for (const field of ["kernel", "initrd", "root", "scratch"] as const) {
        const error = yield* refused(vmm, machine(place, image, { [field]: join(place, "no such") }))
        assert.strictEqual(error.step, "boot")
        assert.match(error.reason, /no such does not come into the jail: ENOENT/, field)
        assert.match(error.remedy, /image list/)
      }
    }))

  it.live("a machine that the API has no numbers for is refused before anything is made", () =>
    Effect.gen(function*() {
      const { image, place, vmm } = yield* host()
      const spec = machine(place, image, { vcpus: 33 })
      const error = yield* refused(vmm, spec)
      assert.match(error.reason, /no such machine: .*1 to 32 processors/s)
      assert.isFalse(existsSync(join(spec.directory, "jail")))
    }))

  it.live("vsock is a device more, and what the guest is told", () =>
    Effect.gen(function*() {
      const { image, place, vmm } = yield* host({}, { wire: "vsock" })
      const { snapshot, spec } = yield* template(vmm, place, image)
      const bodies = new Map(callsOf(spec).map(({ body, call }) => [call, body]))
      assert.deepStrictEqual(bodies.get("PUT /vsock"), { guest_cid: 3, uds_path: "/run/v.sock" })
      assert.match(JSON.stringify(bodies.get("PUT /boot-source")), /stoker\.vsock=7070/)
      assert.notMatch(JSON.stringify(bodies.get("PUT /boot-source")), /stoker\.wire/)
      const clone = machine(place, image)
      copyFileSync(join(snapshot.directory, "scratch.img"), clone.scratch)
      yield* vmm.restore(clone, snapshot)
      const socket = join(jailOf(clone), "run/v.sock")
      assert.isTrue(statSync(socket).isSocket())
      assert.deepStrictEqual(vmm.wire(clone, 500, "probe"), [
        "/usr/lib/wire",
        "--vsock",
        socket,
        "--port",
        "7070",
        "--within",
        "500",
        "--probe"
      ])
    }))

  it.live("the wire by TCP enters the machine's namespace", () =>
    Effect.gen(function*() {
      const { image, place, vmm } = yield* host()
      assert.deepStrictEqual(vmm.wire(machine(place, image, { netns: "/run/netns/x" }), 250), [
        "/usr/lib/wire",
        "--netns",
        "/run/netns/x",
        "--connect",
        "169.254.77.2:7070",
        "--within",
        "250"
      ])
    }))

  it.live("a folder deeper than a socket's path can say is as good as any", () =>
    Effect.gen(function*() {
      const { image, place, vmm } = yield* host()
      const deep = join(place, "d".repeat(120), "e".repeat(120))
      mkdirSync(deep, { recursive: true })
      yield* vmm.boot(machine(deep, image))
    }))

  it.live("an older version gets no field that it does not know", () =>
    Effect.gen(function*() {
      const { image, place, vmm } = yield* host({ version: "1.15.1" })
      const spec = machine(place, image)
      yield* vmm.boot(spec)
      assert.deepStrictEqual(names(spec), BOOT.filter((name) => name !== "PUT /serial"))
    }))

  it.live("identity names program, format, processor and kernel, and changes with the program's content", () =>
    Effect.gen(function*() {
      const first = yield* (yield* host()).vmm.identity
      assert.match(
        first,
        /^firecracker 1\.16\.1 [0-9a-f]{16}; snapshots v10\.0\.0; kvm; .+ flags [0-9a-f]{16}; linux \d/
      )
      assert.strictEqual(yield* (yield* host()).vmm.identity, first)
      const { env, vmm } = yield* host()
      writeFileSync(env.STOKER_FIRECRACKER, `${readFileSync(env.STOKER_FIRECRACKER, "utf8")}# patched\n`)
      assert.notStrictEqual(yield* vmm.identity, first)
    }))

  describe("an API that misbehaves", () => {
    const attempt = (options: StandInOptions, callMs = 60_000, bootMs = 60_000) =>
      Effect.gen(function*() {
        const { image, place, vmm } = yield* host(options, { callMs, deadlines: { bootMs } })
        return yield* refused(vmm, machine(place, image))
      })

    for (const call of BOOT) {
      it.live(`the process ends at ${call}: its last words are told at once`, () =>
        Effect.gen(function*() {
          const error = yield* attempt({ fault: `die ${call}` })
          assert.strictEqual(error.step, "boot")
          assert.match(error.reason, /it ended with 148 \(a system call outside of its seccomp filter\)/)
          assert.match(error.reason, /bad syscall/)
        }))
    }

    it.live("no answer: the call is named, and the process is ended", () =>
      Effect.gen(function*() {
        const error = yield* attempt({ fault: "hang PUT /drives/scratch" }, 1500)
        assert.match(error.reason, /^PUT \/drives\/scratch: no answer within 1500 ms$/)
      }))

    it.live("it never listens", () =>
      Effect.gen(function*() {
        const error = yield* attempt({ fault: "mute" }, 60_000, 1500)
        assert.match(error.reason, /^GET \/: nothing listens within 1500 ms$/)
      }))

    it.live("what answers is no HTTP", () =>
      Effect.gen(function*() {
        const error = yield* attempt({ fault: "garbage PUT /boot-source" })
        assert.match(error.reason, /^PUT \/boot-source: the answer is no HTTP/)
      }))

    it.live("an answer without end is not kept", () =>
      Effect.gen(function*() {
        const error = yield* attempt({ fault: "huge PUT /boot-source" })
        assert.match(error.reason, /^PUT \/boot-source: the answer is longer than 65536 bytes$/)
      }))

    it.live("an answer breaks off", () =>
      Effect.gen(function*() {
        const error = yield* attempt({ fault: "half PUT /entropy" }, 2000)
        assert.match(error.reason, /^PUT \/entropy: /)
      }))

    it.live("it refuses: its words, and a remedy for what they name", () =>
      Effect.gen(function*() {
        const error = yield* attempt({ fault: "refuse PUT /actions" })
        assert.match(error.reason, /^PUT \/actions: Start microvm error: Error creating KVM object/)
        assert.match(error.remedy, /stoker doctor/)
      }))

    it.live("it floods its output: the machine boots all the same, and little of it is kept", () =>
      Effect.gen(function*() {
        const { image, place, vmm } = yield* host({ fault: "chatter PUT /entropy" })
        const spec = machine(place, image)
        const scope = yield* Scope.make()
        const booted = yield* Scope.provide(vmm.boot(spec), scope)
        yield* Scope.close(scope, Exit.void)
        assert.isBelow((yield* booted.ended).length, 4000)
      }))
  })
})
