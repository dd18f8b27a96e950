/** A machine whose root is an enemy's, from its first process on: what its VMM, its disks and the host are afterwards. */
import { afterAll, assert, describe, it, layer } from "@effect/vitest"
import { Effect, Exit, Schedule, Scope } from "effect"
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Qemu from "../../src/layers/microvm/qemu/Qemu.ts"
import { Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { layerDrivers } from "../../src/wiring.ts"
import * as MachineRig from "../microvm/Rig.ts"
import * as Rig from "../microvm/VmmRig.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"
import * as Machines from "./Machines.ts"

const MiB = 1024 * 1024
const state = mkdtempSync(join(tmpdir(), "stoker-hostile-"))
const sha256 = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex")
const status = (pid: number, field: string) =>
  new RegExp(`^${field}:[\\t ]*(.*)$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? ""
const namespaceOf = (pid: number | "self", kind: string) => readlinkSync(`/proc/${pid}/ns/${kind}`)
const fds = (pid: number) => readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))

/** The limit of a process's cgroup, by its names in version 2 and 1 of them. */
const limitOf = (pid: number, controller: string, v2: string, v1: string) => {
  const groups = readFileSync(`/proc/${pid}/cgroup`, "utf8").trim().split("\n").map((line) => line.split(":"))
  const own = groups.find(([, controllers = ""]) => controllers.split(",").includes(controller))
  const path = own === undefined
    ? join("/sys/fs/cgroup", groups.find(([id]) => id === "0")?.[2] ?? "", v2)
    : join("/sys/fs/cgroup", controller, own[2] ?? "", v1)
  return Number(readFileSync(path, "utf8"))
}

const hostileInitrd = (place: string) => {
  const program = join(place, "hostile")
  execFileSync("cc", ["-static", "-O2", "-o", program, join(import.meta.dirname, "programs", "machine.c")])
  return Rig.writeInitrd(join(place, "hostile-initrd"), readFileSync(program))
}

describe.skipIf(Rig.lacking() !== undefined)(`a hostile machine (${Rig.lacking() ?? "real"})`, () => {
  layer(layerDrivers(state, []), { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    it.effect(
      Machines.title,
      () =>
        Effect.gen(function*() {
          const vmm = yield* Qemu.make({ accelerator: "tcg" })
          const place = yield* Rig.folder
          const before = sha256(Rig.root)
          const initrd = hostileInitrd(place)
          const spec = yield* Rig.spec(place, { initrd, bootArgs: ["console=ttyS0"] })
          const scratchBytes = statSync(spec.scratch).size
          const scope = yield* Scope.make()
          yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
          const machine = yield* vmm.boot(spec).pipe(Scope.provide(scope))
          const console = machine.console ?? Effect.die("no console")
          const said = yield* Effect.repeat(console, {
            until: (text) => text.includes("all done"),
            schedule: Schedule.spaced("200 millis")
          }).pipe(Effect.timeout(patience(90_000)))
          const answer = (what: string) => new RegExp(`^${what}: (.*)$`, "m").exec(said)?.[1]?.trim()

          // The image that all machines share.
          for (const what of ["write", "discard", "zero"]) assert.match(answer(`${what} the root`) ?? "", /^E/, said)
          assert.strictEqual(sha256(Rig.root), before)
          // Its disk has an end, and the file with it.
          assert.strictEqual(answer("scratch"), `${scratchBytes} of ${scratchBytes}`, said)
          assert.match(answer("write behind it") ?? "", /^E/)
          assert.match(answer("make it larger") ?? "", /^E/)
          const file = statSync(spec.scratch)
          assert.strictEqual(file.size, scratchBytes)
          assert.isAtMost(file.blocks * 512, scratchBytes + MiB)
          assert.isAbove(Number(answer("memory")), 32 * MiB)

          // Its console takes all that is said, and keeps its end.
          yield* Effect.sleep("3 seconds")
          const flood = yield* console
          assert.match(flood, /!{1000}$/)
          assert.isAtMost(flood.length, 2000)
          const [pid = 0, ...others] = Rig.processesOf(spec.uid)
          assert.deepStrictEqual(others, [])
          const rss = Number.parseInt(status(pid, "VmRSS")) * 1024
          assert.isAtMost(rss, (spec.memoryMib + 288) * MiB)

          // What it would break out into.
          for (const kind of ["mnt", "net", "ipc"]) {
            assert.notStrictEqual(namespaceOf(pid, kind), namespaceOf("self", kind))
          }
          for (const field of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
            assert.match(status(pid, field), /^0+$/, field)
          }
          assert.deepStrictEqual([status(pid, "NoNewPrivs"), status(pid, "Seccomp"), status(pid, "Groups")], [
            "1",
            "2",
            ""
          ])
          assert.deepStrictEqual(status(pid, "Uid").split("\t"), Array(4).fill(String(spec.uid)))
          const seen = readdirSync(`/proc/${pid}/root`).toSorted()
          const system = ["bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr"]
          assert.deepStrictEqual(
            seen.filter((name) => !system.includes(name)),
            [
              "dev",
              "etc",
              "initrd",
              "kernel",
              "root.ext4",
              "scratch.img"
            ]
          )
          assert.deepStrictEqual(readdirSync(`/proc/${pid}/root/dev`).toSorted(), ["null", "urandom", "zero"])
          // Files of its own, where its words go, and things without a name.
          const held = fds(pid).filter((to) => !/^(anon_inode|pipe|socket|\/dmabuf):/.test(to))
          const mayHold = ["/root.ext4", "/scratch.img", "/dev/net/tun", "/dev/null", "/dev/zero", "/dev/urandom"]
          assert.deepStrictEqual(held.filter((to) => !mayHold.includes(to) && !to.startsWith("/memfd:said")), [])

          const began = performance.now()
          yield* Scope.close(scope, Exit.void)
          assert.isBelow(performance.now() - began, patience(10_000))
          assert.deepStrictEqual(Rig.processesOf(spec.uid), [])
        }),
      patience(180_000)
    )
  })
})

describe.skipIf(Rig.lacking() !== undefined)(`machines of one worker (${Rig.lacking() ?? "real"})`, () => {
  const state = Jobs.stateDirectory()
  const seen = new Set<string>()
  afterAll(() => {
    const left = MachineRig.left(state, [...seen])
    Jobs.remove(state)
    assert.deepStrictEqual(left, [])
  })

  it.live(
    Machines.bounded,
    () =>
      Effect.scoped(Effect.gen(function*() {
        const [driver] = yield* Drivers
        if (driver === undefined) return yield* Effect.die("no driver")
        const own = MachineRig.machineClass({ snapshot: false })
        const disk = { bytes: own.defaults.diskBytes, inodes: own.defaults.diskInodes }
        yield* Effect.all([driver.provision(own, disk), driver.provision(own, disk)])
        for (const id of MachineRig.rows(state)) seen.add(id)
        const pids = MachineRig.vmms([...seen])
        assert.strictEqual(pids.length, 2)
        const users = pids.map((pid) => status(pid, "Uid").split("\t")[0])
        assert.strictEqual(new Set(users).size, 2)
        assert.notInclude(users, "0")
        for (const pid of pids) {
          // Of 64 MiB for jobs: 96 for the guest's kernel, 288 for QEMU.
          assert.isAtMost(limitOf(pid, "memory", "memory.max", "memory.limit_in_bytes"), (64 + 2 + 96 + 2 + 288) * MiB)
          assert.isAtMost(limitOf(pid, "pids", "pids.max", "pids.max"), 200)
          assert.strictEqual(status(pid, "Seccomp"), "2")
        }
      })).pipe(Effect.provide(layerDrivers(state, ["qemu"]))),
    patience(120_000)
  )
})
