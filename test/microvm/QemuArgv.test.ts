/** What a machine is made of, as QEMU and the jail are told: whoever changes it sees here that snapshots become invalid. */
import { assert, describe, it } from "@effect/vitest"
import * as Argv from "../../src/layers/microvm/qemu/Argv.ts"
import * as Identity from "../../src/layers/microvm/qemu/Identity.ts"
import * as Tsc from "../../src/layers/microvm/qemu/Tsc.ts"

const size = { vcpus: 2, memoryMib: 256, bootArgs: ["quiet", "stoker.wire=7070"] }
const program = "/usr/bin/qemu-system-x86_64"

const common = [
  ..."-nodefaults -no-user-config -display none -S -action reboot=shutdown,shutdown=pause,panic=pause".split(" "),
  ..."-kernel /kernel -initrd /initrd -append".split(" ")
]
const disks = (more: string) =>
  `-drive id=root,file=/root.ext4,format=raw,if=none,cache=unsafe,werror=report,rerror=report,readonly=on,file.locking=off${more} -device virtio-blk-device,drive=root -drive id=scratch,file=/scratch.img,format=raw,if=none,cache=unsafe,werror=report,rerror=report${more} -device virtio-blk-device,drive=scratch`
    .split(" ")
const rest = [
  ..."-netdev tap,id=net,fd=3 -device virtio-net-device,netdev=net,mac=06:00:a9:fe:4d:02 -device virtio-rng-device"
    .split(" "),
  ..."-chardev ringbuf,id=console,size=16384 -serial chardev:console -chardev stdio,id=qmp,signal=off".split(" "),
  ..."-mon chardev=qmp,mode=control".split(" "),
  "-sandbox",
  "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
]

describe("QEMU's command line", () => {
  it("of an emulated machine that is restored", () => {
    assert.deepStrictEqual(Argv.argv(size, { program, accelerator: "tcg", tscKhz: 2_599_998, memory: "snapshot" }), [
      program,
      ..."-M microvm,acpi=on,rtc=on,isa-serial=on,x-option-roms=off,memory-backend=ram".split(" "),
      ..."-accel tcg,thread=multi,tb-size=32 -cpu max -smp 2 -m 256M".split(" "),
      ..."-object memory-backend-file,id=ram,size=256M,mem-path=/memory,share=off".split(" "),
      ...common,
      "console=ttyS0 reboot=t panic=-1 tsc_early_khz=2599998 tsc=reliable mitigations=off quiet stoker.wire=7070",
      ...disks(""),
      ...rest,
      "-incoming",
      "defer"
    ])
  })

  it("of a virtualised machine with limits for its disks", () => {
    const limited = { ...size, diskRates: { bytesPerSec: 1000, burstBytes: 500, opsPerSec: 10, burstOps: 100 } }
    assert.deepStrictEqual(Argv.argv(limited, { program, accelerator: "kvm", tscKhz: 0, memory: "none" }), [
      program,
      ..."-M microvm,acpi=on,rtc=on,isa-serial=on,x-option-roms=off".split(" "),
      ..."-accel kvm -cpu host -smp 2 -m 256M".split(" "),
      ...common,
      "console=ttyS0 reboot=t panic=-1 quiet stoker.wire=7070",
      // A burst below the rate would be refused.
      ...disks(
        ",throttling.bps-total=1000,throttling.bps-total-max=1000,throttling.iops-total=10,throttling.iops-total-max=100,throttling.group=disks"
      ),
      ...rest
    ])
  })

  it("a template's memory is written, a limit alone is written alone", () => {
    const args = Argv.argv({ ...size, diskRates: { opsPerSec: 7 } }, {
      program,
      accelerator: "tcg",
      tscKhz: 1,
      memory: "template"
    })
    assert.include(args, "memory-backend-file,id=ram,size=256M,mem-path=/memory,share=on")
    assert.notInclude(args, "-incoming")
    assert.include(args.join(" "), ",throttling.iops-total=7,throttling.group=disks -device")
    assert.notInclude(
      Argv.argv({ ...size, diskRates: {} }, { program, accelerator: "tcg", tscKhz: 1, memory: "none" }).join(" "),
      "throttling"
    )
  })

  it("of its jail", () => {
    const spec = { gid: 8, uid: 7, initrd: "/i", kernel: "/k", netns: "/n", root: "/r", scratch: "/s" }
    const usual =
      "/confine --netns /n --tap tap0 --uid 7 --gid 8 --ro /k /kernel --ro /i /initrd --ro /r /root.ext4 --rw /s /scratch.img"
    const own = { confine: "/confine", lookonly: "/l.so" }
    assert.strictEqual(Argv.jailed(spec, { ...own, accelerator: "tcg" }).join(" "), `${usual} --`)
    assert.strictEqual(
      Argv.jailed(spec, { ...own, accelerator: "kvm", memory: { path: "/m", writable: false }, state: "/st" }).join(
        " "
      ),
      `${usual} --ro /m /memory --preload /l.so --open /st --dev /dev/kvm --`
    )
    assert.strictEqual(
      Argv.jailed(spec, { ...own, accelerator: "tcg", memory: { path: "/m", writable: true }, stateSocket: "/so" })
        .join(" "),
      `${usual} --rw /m /memory --rw /so /state.sock --`
    )
  })
})

describe("what a snapshot is bound to", () => {
  it("versions of QEMU, and what is none", () => {
    const debian = Identity.parseVersion("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright")
    assert.deepStrictEqual(debian, { text: "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", isEnough: true })
    assert.deepStrictEqual(Identity.parseVersion("QEMU emulator version 5.2.0"), { text: "5.2.0", isEnough: false })
    assert.strictEqual(Identity.parseVersion("QEMU emulator version 6.0.0")?.isEnough, true)
    assert.strictEqual(Identity.parseVersion("QEMU emulator version 10.1.0-rc1")?.isEnough, true)
    assert.isUndefined(Identity.parseVersion("Firecracker v1.16.1"))
  })

  it("a processor by model, microcode and flags", () => {
    const one =
      "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: A B\nstepping\t: 7\nmicrocode\t: 0x1\nflags\t\t: fpu vme\n"
    const other = one.replace("vme", "vme avx")
    const text = Identity.parseProcessor(`${one}\nprocessor\t: 1\n`)
    assert.match(text, /^A B\/6\/85\/7\/0x1\/[0-9a-f]{12}$/)
    assert.notStrictEqual(text, Identity.parseProcessor(other))
    assert.notStrictEqual(text, Identity.parseProcessor(one.replace("0x1", "0x2")))
    assert.strictEqual(text, Identity.parseProcessor(one))
  })

  it("the machine, and the counter's rate where the guest has that", () => {
    const version = { text: "7.2", isEnough: true }
    const of = (accelerator: Argv.Accelerator, khz: number) => Identity.identity(version, accelerator, khz)
    assert.strictEqual(of("tcg", 2_599_998), of("tcg", 2_600_002))
    assert.notStrictEqual(of("tcg", 2_599_998), of("tcg", 2_700_000))
    assert.strictEqual(of("kvm", 1), of("kvm", 2_000_000))
    assert.include(of("kvm", 0), Argv.revision)
  })

  it("a rate is a number of kHz, or nothing", () => {
    assert.strictEqual(Tsc.parse("2599998\n"), 2_599_998)
    for (const text of ["", "2599998", "12\n", "99999999999\n", "-5\n", "stoker-tsc: none\n", "999999999\n"]) {
      assert.isUndefined(Tsc.parse(text))
    }
  })
})
