/** What is said to Firecracker and its jailer, word for word, and what is made of what they say. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { chmodSync, copyFileSync, existsSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Advisories from "../../../src/layers/microvm/firecracker/Advisories.ts"
import * as Check from "../../../src/layers/microvm/firecracker/Check.ts"
import * as Jailer from "../../../src/layers/microvm/firecracker/Jailer.ts"
import { lastWords } from "../../../src/layers/microvm/firecracker/LastWords.ts"
import * as Programs from "../../../src/layers/microvm/firecracker/Programs.ts"
import * as Requests from "../../../src/layers/microvm/firecracker/Requests.ts"
import { ratesOf } from "../../../src/layers/sandbox/microvm/Sizes.ts"
import { SandboxId } from "../../../src/schemas/Ids.ts"
import { standardClass } from "../../../src/schemas/WorkerConfig.ts"
import { endpoints } from "./Fields.ts"
import { checkBody } from "./StandIn.ts"
import { folder, programs } from "./World.ts"

const lines = (calls: ReadonlyArray<Requests.Call>) =>
  calls.map(({ body, method, path }) => `${method} ${path} ${body}`)

const spec: Requests.BootSpec = {
  vcpus: 1,
  memoryMib: 128,
  bootArgs: ["quiet", "loglevel=3", "stoker.ip=169.254.77.2/30,169.254.77.1", "stoker.wire=7070"]
}

const LIMITED = `{"rate_limiter":{"size":16384,"refill_time":10000}}`
const RESTORED = [
  `PUT /logger {"level":"Warning","show_level":true}`,
  `PUT /metrics {"metrics_path":"/metrics"}`,
  `PUT /serial ${LIMITED}`
]
const LOAD =
  `PUT /snapshot/load {"snapshot_path":"/snapshot/state","mem_backend":{"backend_type":"File","backend_path":"/snapshot/memory"},"track_dirty_pages":false,"resume_vm":true}`

describe("the calls", () => {
  it("of a boot by TCP, word for word", () => {
    assert.deepStrictEqual(lines(Requests.boot(spec, "tcp", [1, 16, 1])), [
      ...RESTORED,
      `PUT /machine-config {"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false}`,
      `PUT /boot-source {"kernel_image_path":"/kernel","initrd_path":"/initrd","boot_args":"reboot=k panic=1 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce quiet loglevel=3 stoker.ip=169.254.77.2/30,169.254.77.1 stoker.wire=7070"}`,
      `PUT /drives/rootfs {"drive_id":"rootfs","is_root_device":true,"is_read_only":true,"path_on_host":"/root.ext4","cache_type":"Unsafe","io_engine":"Sync"}`,
      `PUT /drives/scratch {"drive_id":"scratch","is_root_device":false,"is_read_only":false,"path_on_host":"/scratch.img","cache_type":"Unsafe","io_engine":"Sync"}`,
      `PUT /network-interfaces/eth0 {"iface_id":"eth0","host_dev_name":"tap0","guest_mac":"06:00:a9:fe:4d:02"}`,
      `PUT /entropy {"rate_limiter":{"bandwidth":{"size":65536,"refill_time":1000}}}`,
      `PUT /actions {"action_type":"InstanceStart"}`
    ])
  })

  it("of a boot by vsock: the device before the start, and the guest told of it alone", () => {
    const calls = lines(Requests.boot(spec, "vsock", [1, 16, 1]))
    assert.include(calls, `PUT /vsock {"guest_cid":3,"uds_path":"/run/v.sock"}`)
    assert.match(calls.join("\n"), /stoker\.vsock=7070"/)
    assert.notMatch(calls.join("\n"), /stoker\.wire/)
    assert.match(calls.at(-1) ?? "", /InstanceStart/)
  })

  it("of a restore: what a snapshot does not hold, and the load", () => {
    assert.deepStrictEqual(lines(Requests.restore([1, 16, 1])), [...RESTORED, LOAD])
    assert.deepStrictEqual(lines(Requests.restore([1, 15, 1])), [...RESTORED.slice(0, 2), LOAD])
  })

  it("of a save", () => {
    assert.deepStrictEqual(lines(Requests.save), [
      `PATCH /vm {"state":"Paused"}`,
      `PUT /snapshot/create {"snapshot_type":"Full","snapshot_path":"/snapshot/state","mem_file_path":"/snapshot/memory"}`
    ])
  })

  it("rates are buckets: a second's worth at once unless a burst is named", () => {
    assert.isUndefined(Requests.limiterOf(undefined))
    assert.isUndefined(Requests.limiterOf({ burstBytes: 5 }))
    assert.deepStrictEqual(Requests.limiterOf({ bytesPerSec: 1000 }), { bandwidth: { size: 1000, refill_time: 1000 } })
    assert.deepStrictEqual(Requests.limiterOf({ opsPerSec: 3, burstOps: 1 }), { ops: { size: 1, refill_time: 333 } })
    // A burst that is there again at once still takes time to be so.
    assert.deepStrictEqual(Requests.limiterOf({ bytesPerSec: 10_000, burstBytes: 1 })?.bandwidth?.refill_time, 1)
    assert.deepStrictEqual(
      Requests.limiterOf(
        ratesOf({ ...standardClass("fc", "firecracker"), machine: { diskRates: "codebench" } }).diskRates
      ),
      {
        bandwidth: { size: 1_048_576, refill_time: 500 },
        ops: { size: 100, refill_time: 1000 }
      }
    )
    const both = Requests.boot({ ...spec, networkRates: { bytesPerSec: 8 } }, "tcp", [1, 16, 1])
    const card = both.find(({ path }) => path.startsWith("/network"))?.body ?? ""
    assert.match(
      card,
      /"rx_rate_limiter":\{"bandwidth":\{"size":8,"refill_time":1000\}\},"tx_rate_limiter":\{"bandwidth"/
    )
  })

  it("a machine outside of the API's ranges is an error of ours", () => {
    for (
      const wrong of [{ vcpus: 0 }, { vcpus: 33 }, { memoryMib: 0 }, { memoryMib: 1.5 }, {
        bootArgs: ["x".repeat(2048)]
      }]
    ) {
      assert.throws(() => Requests.boot({ ...spec, ...wrong }, "tcp", [1, 16, 1]))
    }
  })

  it("fit into what the API takes, and every field is one of the version's", () => {
    for (const version of [[1, 14, 1], [1, 15, 1], [1, 16, 1]]) {
      const rates = { bytesPerSec: 1, opsPerSec: 1 }
      const calls = [
        ...Requests.boot({ ...spec, diskRates: rates, networkRates: rates }, "vsock", version),
        ...Requests.restore(version),
        ...Requests.save
      ]
      for (const { body, method, path } of calls) {
        const [, first = ""] = path.split("/")
        const endpoint = endpoints[`${method} ${path}`] ?? endpoints[`${method} /${first}/*`]
        assert.isDefined(endpoint, path)
        assert.isBelow(Buffer.byteLength(body), Requests.MOST_BODY_BYTES)
        if (endpoint !== undefined) checkBody(endpoint.body, JSON.parse(body), version)
      }
    }
  })
})

const V1 = `24 30 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
25 30 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw`
const V2 = `24 30 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw`

describe("the jailer's command line", () => {
  const command = (procsFiles: ReadonlyArray<string>, mountinfo: string) =>
    Jailer.command({
      jailer: "/usr/bin/jailer",
      program: "/opt/firecracker-v1.16.1-x86_64",
      spec: {
        uid: 70_001,
        gid: 70_002,
        netns: "/proc/9/root/run/netns/x",
        directory: "/state/m",
        id: machineId,
        procsFiles
      },
      mountinfo,
      fileBytes: 2 ** 30
    }).join(" ")
  const machineId = Schema.decodeSync(SandboxId)("abc123")
  const begin =
    `unshare --pid --fork --kill-child -- /usr/bin/jailer --id ${machineId} --exec-file /opt/firecracker-v1.16.1-x86_64 ` +
    "--uid 70001 --gid 70002 --chroot-base-dir /state/m/jail --netns /proc/9/root/run/netns/x "
  const end = " --resource-limit no-file=1024 --resource-limit fsize=1090519040 -- --api-sock /run/firecracker.socket"

  it("on a host with cgroup v2 alone names the machine's own group, so that it is moved nowhere else", () => {
    assert.strictEqual(
      command(["/sys/fs/cgroup/system.slice/stoker-i/abc/cgroup.procs"], V2),
      `${begin}--cgroup-version 2 --parent-cgroup system.slice/stoker-i/abc${end}`
    )
  })

  it("elsewhere names none: the process is in its groups already", () => {
    const v1 = ["/sys/fs/cgroup/memory/stoker-i/abc/cgroup.procs", "/sys/fs/cgroup/cpu/stoker-i/abc/cgroup.procs"]
    for (const procs of [v1, v1.slice(0, 1), []]) {
      assert.strictEqual(command(procs, V1), `${begin}--cgroup-version 1${end}`)
    }
  })

  it("its jail is named after the program's file", () => {
    const { base, root, run } = Jailer.foldersOf({ id: machineId, directory: "/state/m" }, "/opt/fc-1.16")
    assert.deepStrictEqual([base, root, run], [
      "/state/m/jail",
      `/state/m/jail/fc-1.16/${machineId}/root`,
      `/state/m/jail/fc-1.16/${machineId}/root/run`
    ])
  })

  it("its processes are known by their user, or by what they were started with", () => {
    const its = { id: machineId, uid: 70_001 }
    const status = (uid: number, state = "S (sleeping)", threads = 1) =>
      `Name:\tx\nState:\t${state}\nUid:\t${uid}\t${uid}\t${uid}\t${uid}\nThreads:\t${threads}\n`
    const argv = (...words: ReadonlyArray<string>) => `${words.join("\u0000")}\u0000`
    assert.strictEqual(Jailer.roleOf(its, status(70_001), argv("/firecracker")), "vmm")
    assert.strictEqual(Jailer.roleOf(its, status(0), argv("/usr/bin/jailer", "--id", machineId)), "vmm")
    assert.strictEqual(Jailer.roleOf(its, status(0), argv("unshare", "--", "jailer", "--id", machineId)), "waiter")
    assert.strictEqual(Jailer.roleOf(its, status(0), argv("jailer", "--id", `${machineId}x`)), "none")
    assert.strictEqual(Jailer.roleOf(its, status(700_011), argv("/firecracker")), "none")
    assert.strictEqual(Jailer.roleOf(its, status(70_001, "Z (zombie)"), ""), "none")
    // Its first thread is gone, others still hold its memory.
    assert.strictEqual(Jailer.roleOf(its, status(70_001, "Z (zombie)", 3), ""), "vmm")
  })
})

describe("versions", () => {
  it("are read from what both programs say of themselves", () => {
    assert.deepStrictEqual(Advisories.parseVersion("firecracker", "Firecracker v1.16.1\n\n"), [1, 16, 1])
    assert.deepStrictEqual(Advisories.parseVersion("jailer", "Jailer v1.16.1\n\n"), [1, 16, 1])
    assert.deepStrictEqual(Advisories.parseVersion("firecracker", "Firecracker v1.17.0-dev\n"), [1, 17, 0])
    for (const other of ["", "Jailer v1.16.1", "Firecracker 1.16", "QEMU emulator version 7.2.1"]) {
      assert.isUndefined(Advisories.parseVersion("firecracker", other), other)
    }
  })

  it("with a hole that reaches a machine are refused with where it is mended, old ones too; others are told", () => {
    assert.match(
      Advisories.refusal("jailer", [1, 14, 0]) ?? "",
      /^jailer 1\.14\.0 has CVE-2026-1386 \(.*; fixed in 1\.13\.2 and 1\.14\.1\)$/
    )
    assert.match(Advisories.refusal("jailer", [1, 13, 2]) ?? "", /1\.13\.2 is too old, 1\.14 is the least/)
    assert.match(Advisories.refusal("firecracker", [1, 13, 9]) ?? "", /too old/)
    for (const program of ["firecracker", "jailer"] as const) {
      for (const version of [[1, 14, 1], [1, 15, 0], [1, 16, 1], [2, 0, 0]]) {
        assert.isUndefined(Advisories.refusal(program, version), `${program} ${version.join(".")}`)
      }
    }
    const known = (version: ReadonlyArray<number>) => Advisories.holesOf("firecracker", version).map(({ id }) => id)
    assert.deepStrictEqual(known([1, 14, 3]), ["CVE-2026-5747", "firecracker#5762"])
    assert.deepStrictEqual(known([1, 14, 4]), ["firecracker#5762"])
    assert.deepStrictEqual(known([1, 15, 0]), ["CVE-2026-5747", "firecracker#5762"])
    assert.deepStrictEqual(known([1, 15, 1]), ["firecracker#5762"])
    assert.deepStrictEqual(known([1, 16, 0]), [])
    assert.match(Advisories.remarks("firecracker", [1, 15, 0]), /CVE-2026-5747.*out of reach: .*--enable-pci/)
  })

  it.live("programs that are missing, foreign, old or full of holes are refused, with what to install", () =>
    Effect.gen(function*() {
      const place = yield* folder
      const refused = (env: Programs.Environment) =>
        Effect.map(Effect.flip(Programs.ready(env)), ({ message }) => message)
      assert.match(
        yield* refused({ PATH: place }),
        /firecracker: there is no such program\. Install the release .*STOKER_FIRECRACKER/
      )
      const good = programs(place)
      assert.match(
        yield* refused({ ...good, STOKER_JAILER: "/nowhere/jailer" }),
        /\/nowhere\/jailer: there is no such program/
      )
      assert.match(yield* refused({ ...good, STOKER_JAILER: good.STOKER_FIRECRACKER }), /which is not jailer's/)
      assert.match(
        yield* refused({ ...good, STOKER_FIRECRACKER: "/bin/true" }),
        /\/bin\/true --version said "true .*which is not/
      )
      assert.match(yield* refused({ ...good, STOKER_FIRECRACKER: "/bin/false" }), /\/bin\/false --version failed/)
      assert.match(yield* refused(programs(place, { version: "1.10.1" })), /firecracker 1\.10\.1 is too old/)
      assert.match(yield* refused(programs(place, { jailerVersion: "1.14.0" })), /jailer 1\.14\.0 has CVE-2026-1386/)
      // The worker knows a VMM by its program's name when it looks whether it is confined.
      copyFileSync(good.STOKER_FIRECRACKER, join(place, "fc"))
      chmodSync(join(place, "fc"), 0o755)
      assert.match(
        yield* refused({ ...programs(place), STOKER_FIRECRACKER: join(place, "fc") }),
        /fc does not begin with firecracker/
      )
      // By the PATH, and by a link: the real file counts.
      programs(place)
      const found = yield* Programs.ready({ PATH: `relative:${place}` })
      assert.deepStrictEqual([found.firecracker, found.version], [join(place, "firecracker"), [1, 16, 1]])
    }))

  it("of a processor: what a snapshot depends on", () => {
    const text = (flags: string, microcode: string) =>
      `processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 106\nmodel name\t: Xeon\nstepping\t: 6\nmicrocode\t: ${microcode}\nflags\t\t: ${flags}\n\nprocessor\t: 1\nflags\t\t: other\n`
    const one = Programs.processorOf(text("fpu sse", "0x1"))
    assert.match(one, /^Xeon GenuineIntel\/6\/106\/6\/0x1 flags [0-9a-f]{16}$/)
    assert.notStrictEqual(Programs.processorOf(text("fpu", "0x1")), one)
    assert.notStrictEqual(Programs.processorOf(text("fpu sse", "0x2")), one)
  })
})

describe("last words", () => {
  it("name what an exit code means", () => {
    assert.strictEqual(lastWords("", "", ""), "it ended")
    assert.match(
      lastWords("", "x [main:ERROR] Firecracker exiting with error. exit_code=148\n", ""),
      /^it ended with 148 \(a system call outside/
    )
    assert.match(
      lastWords("Error: RunWithApi(MicroVMStoppedWithError(BadSyscall))", "", ""),
      /^it ended with BadSyscall/
    )
    assert.match(lastWords("", "exit_code=151", ""), /SIGXFSZ: a file grew beyond/)
    assert.match(lastWords("", "exit_code=99", ""), /^it ended with 99; /)
  })

  it("are bounded and printable, whatever a guest wrote to its serial port", () => {
    const words = lastWords("", `${"x".repeat(9000)}\u001b[2J\u0000`, "")
    assert.isBelow(words.length, 1600)
    assert.notInclude(words, "\u001b")
    assert.notInclude(words, "\u0000")
  })

  it("tell what the last metrics counted, if they are metrics", () => {
    const line = (faults: number, panics: number) =>
      JSON.stringify({ seccomp: { num_faults: faults, more: 1 }, vmm: { panic_count: panics }, other: {} })
    assert.match(
      lastWords("", "", `${line(9, 0)}\n${line(2, 1)}\n`),
      /2 system calls outside of its filter; it panicked/
    )
    assert.strictEqual(lastWords("", "", `${line(0, 0)}\n`), "it ended")
    assert.strictEqual(lastWords("", "", `{"seccomp":`), "it ended")
  })
})

describe("what doctor says", () => {
  it.live("of programs and of what is known against them", () =>
    Effect.gen(function*() {
      const place = yield* folder
      const env = { PATH: "/usr/bin:/bin", ...programs(place, { version: "1.15.0" }) }
      const lines = yield* Check.check(env, place)
      assert.deepStrictEqual(lines.map(({ name }) => name), ["firecracker", "jailer", "user", "kvm", "cgroups", "jail"])
      assert.match(lines[0]?.detail ?? "", /1\.15\.0, CVE-2026-5747/)
      assert.strictEqual(lines[2]?.status, "ok")
      const [missing] = yield* Check.check({ PATH: "" }, place)
      assert.strictEqual(missing?.status, "missing")
      assert.match(missing?.remedy ?? "", /Install the release/)
    }))

  it.live("an open /dev/kvm is no proof, and what is no device is not even that", () =>
    Effect.gen(function*() {
      const place = yield* folder
      const file = join(place, "kvm")
      assert.strictEqual(Check.checkKvm(file).status, "missing")
      writeFileSync(file, "")
      chmodSync(file, 0o666)
      assert.isTrue(existsSync(file))
      assert.match(Check.checkKvm(file).detail, /is no device/)
      assert.match(Check.checkKvm("/dev/null").detail, /no proof/)
    }))

  it("of the file system that jails lie on", () => {
    const mounts = [
      "20 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw",
      "30 20 0:50 / /var rw,nodev,noexec - tmpfs tmpfs rw",
      "31 20 0:51 / /var/lib/good rw - ext4 x rw"
    ].join("\n")
    assert.strictEqual(Check.checkFileSystem(mounts, "/srv/stoker").status, "ok")
    assert.strictEqual(Check.checkFileSystem(mounts, "/var/lib/good/x").status, "ok")
    const bad = Check.checkFileSystem(mounts, "/var/lib/stoker")
    assert.match(bad.detail, /nodev and noexec/)
    assert.match(bad.remedy ?? "", /mount -o remount,dev,exec \/var/)
  })

  it("of cgroups", () => {
    assert.strictEqual(Check.checkCgroups(V2).status, "ok")
    assert.strictEqual(Check.checkCgroups(V1).status, "warning")
  })
})
