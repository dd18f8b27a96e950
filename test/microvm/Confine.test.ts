/** The jail of a VMM, with a shell in its place. It is started as the worker starts it, in the watchdog's mount namespace. */
import { assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Native } from "../../src/layers/host/Native.ts"
import { TAP } from "../../src/layers/microvm/Vmm.ts"
import { layerDrivers } from "../../src/wiring.ts"
import * as Rig from "./VmmRig.ts"

const state = mkdtempSync(join(tmpdir(), "stoker-confine-"))
const user = 0x7000_1234

/** What it says after its pid, on both streams. */
const run = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
  const { confine } = yield* Native
  const said = yield* Effect.flatMap(Rig.launch([confine, ...args]), Rig.words)
  const [first = "", ...rest] = said.stdout.split("\n")
  return { pid: first, stdout: rest.join("\n"), stderr: said.stderr }
})

const usual = (netns: string) => ["--netns", netns, "--tap", TAP, "--uid", String(user), "--gid", String(user)]

const shell = (script: string) => ["--", "/bin/sh", "-c", script]

/** The shell is not shown /proc, so it is asked by the tests' own. */
const sleeping = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
  const { confine } = yield* Native
  const { stream } = yield* Rig.launch([confine, ...args, ...shell("echo up; read line")])
  const text = yield* Effect.callback<string>((resume) => {
    let said = ""
    stream.on("data", (chunk: Buffer) => {
      said += chunk.toString()
      if (said.endsWith("up\n")) resume(Effect.succeed(said))
    })
  })
  return Number(/^\{"pid":(\d+)\}\n/.exec(text)?.[1])
})

describe.skipIf(process.getuid?.() !== 0)("confine", () => {
  layer(layerDrivers(state, []), { excludeTestServices: true, timeout: "30 seconds" })((it) => {
    it.effect("a program sees the system's programs and what is named, and can write only where it may", () =>
      Effect.gen(function*() {
        const place = yield* Rig.folder
        const netns = yield* Rig.namespace
        for (const name of ["read", "write"]) {
          writeFileSync(join(place, name), `${name}\n`)
          chmodSync(join(place, name), 0o666)
        }
        const script = [
          "ls / /dev /etc",
          "cat /deep/er/read",
          "echo more 2>&1 >> /write && cat /write",
          "for path in /deep/er/read /usr/x /x /dev/x /lib/x; do (echo no >> $path) 2>/dev/null && echo wrote $path; done",
          "echo own > /dev/null && head -c 2 /dev/zero | wc -c",
          `ls -d ${place} /proc/self /home /root /run /sys /tmp 2>/dev/null`,
          "id -u; id -g; id -G; env",
          "true"
        ].join("\n")
        const { pid, stderr, stdout } = yield* run(
          ...usual(netns),
          "--ro",
          join(place, "read"),
          "/deep/er/read",
          "--rw",
          join(place, "write"),
          "/write",
          ...shell(script)
        )
        assert.match(pid, /^\{"pid":\d+\}$/)
        assert.strictEqual(stderr, "")
        const lines = stdout.split("\n")
        const listed = lines.slice(lines.indexOf("/:") + 1, lines.indexOf("/dev:")).filter((name) => name !== "")
        const system = ["bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr"]
        assert.deepStrictEqual(listed.filter((name) => !system.includes(name)), ["deep", "write"])
        assert.deepStrictEqual(lines.slice(lines.indexOf("/dev:") + 1, lines.indexOf("/etc:")), [
          "null",
          "urandom",
          "zero",
          ""
        ])
        assert.deepStrictEqual(lines.slice(lines.indexOf("read")), [
          "read",
          "write",
          "more",
          "2",
          String(user),
          String(user),
          String(user),
          ...lines.slice(-2).filter((line) => line.startsWith("PWD=")),
          ""
        ])
        assert.strictEqual(readFileSync(join(place, "read"), "utf8"), "read\n")
        assert.strictEqual(readFileSync(join(place, "write"), "utf8"), "write\nmore\n")
      }))

    it.effect("it is another user without any right, holds the tap and what was opened, and nothing else", () =>
      Effect.gen(function*() {
        const place = yield* Rig.folder
        const netns = yield* Rig.namespace
        const secret = join(place, "secret")
        writeFileSync(secret, "for root alone", { mode: 0o400 })
        const pid = yield* sleeping(...usual(netns), "--open", secret)
        const status = readFileSync(`/proc/${pid}/status`, "utf8")
        for (const name of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
          assert.match(status, new RegExp(`^${name}:\t0{16}$`, "m"))
        }
        assert.match(status, /^NoNewPrivs:\t1$/m)
        assert.match(status, new RegExp(`^Uid:(\t${user}){4}$`, "m"))
        assert.match(status, /^Groups:\t $/m)
        assert.match(readFileSync(`/proc/${pid}/limits`, "utf8"), /^Max core file size +1 +1 /m)
        const mounts = readFileSync(`/proc/${pid}/mountinfo`, "utf8").trim().split("\n").map((line) => line.split(" "))
        for (const [, , , , at = "", options = ""] of mounts) {
          assert.include(options.split(","), "ro", at)
          assert.include(options.split(","), "nosuid", at)
        }
        const fds = execFileSync("ls", ["-l", `/proc/${pid}/fd`], { encoding: "utf8" }).trim().split("\n").slice(1)
          .map((line) => line.replace(/^.* (\d+ -> .*)$/, "$1"))
        assert.deepStrictEqual(fds.map((fd) => fd.replace(/ -> (socket|\/memfd):.*$/, "")), [
          "0",
          "1",
          "2",
          "3 -> /dev/net/tun",
          `4 -> ${secret}`
        ])
        // By the interface itself: while it is held there is a carrier.
        const carrier = () =>
          execFileSync("nsenter", [`--net=/proc/${pid}/ns/net`, "ip", "-br", "link", "show", TAP], { encoding: "utf8" })
        assert.match(carrier(), /<.*LOWER_UP.*>/)
        const second = yield* run(...usual(netns), ...shell("true"))
        assert.match(second.stderr, /^stoker-confine: attach to tap0: Device or resource busy$|Resource busy/)
      }))

    it.effect("a device is made for its user, a library is loaded, a folder is shown", () =>
      Effect.gen(function*() {
        const place = yield* Rig.folder
        const netns = yield* Rig.namespace
        mkdirSync(join(place, "folder"))
        writeFileSync(join(place, "folder", "file"), "in it", { mode: 0o644 })
        const native = yield* Native
        const { stderr, stdout } = yield* run(
          ...usual(netns),
          "--dev",
          "/dev/full",
          "--ro",
          join(place, "folder"),
          "/folder",
          "--preload",
          native["lookonly.so"],
          ...shell("stat -c '%u %a %t %T' /dev/full; cat /folder/file; echo \" $LD_PRELOAD\"")
        )
        assert.deepStrictEqual({ stderr, stdout }, { stderr: "", stdout: `${user} 600 1 7\nin it /preload.so\n` })
      }))

    it.effect("runs nothing where anything of it cannot be had", () =>
      Effect.gen(function*() {
        const netns = yield* Rig.namespace
        const [, , ...noNetns] = usual(netns)
        const cases: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
          [noNetns, /--netns, --tap, --uid and --gid are needed \(confine --netns/],
          [[...usual(netns), "--uid", "0"], /not an id to become/],
          [[...usual(netns), "--gid", "-1"], /not an id to become/],
          [[...usual(netns), "--uid", "4294967295"], /not an id to become/],
          [[...usual(netns), "--what", "x"], /a wrong option/],
          [[...usual(netns), "--ro", "/etc/hostname"], /not a path in the new root/],
          [[...usual(netns), "--ro", "/etc/hostname", "/a/../b"], /not a path in the new root/],
          [[...usual(netns), "--ro", "/etc/hostname", "/"], /not a path in the new root/],
          [[...usual(netns), "--ro", "/etc/hostname", "b"], /not a path in the new root/],
          [[...usual(netns), "--ro", "/no/such", "/a"], /find \/no\/such: No such file/],
          [
            [...usual(netns), "--ro", "/etc/hostname", "/bin/x"],
            /^stoker-confine: make \/bin\/x: Read-only file system$/
          ],
          [[...usual(netns), "--open", "/no/such"], /open \/no\/such: No such file/],
          [[...usual(netns), "--dev", "/etc/hostname"], /a wrong option/],
          [[...usual(netns), "--dev", "/dev/none"], /find \/dev\/none: No such file/],
          [[...usual("/no/such")], /open \/no\/such: No such file/],
          [[...usual("/etc/hostname")], /enter \/etc\/hostname: Invalid argument/],
          [[...usual(netns), "--tap", "tap1"], /attach to tap1: No such device/],
          [[...usual(netns), "--tap", "a-name-that-is-long"], /not the name of a tap/]
        ]
        for (const [args, expected] of cases) {
          const { stderr, stdout } = yield* run(...args, ...shell("echo it ran"))
          assert.match(stderr, expected)
          assert.strictEqual(stdout, "")
        }
        const none = yield* run(...usual(netns), "--", "/no/such/program")
        assert.match(none.stderr, /exec \/no\/such\/program: No such file/)
      }))
  })
})
