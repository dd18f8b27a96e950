/** The first process of a machine, on real ones. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { afterAll, beforeAll } from "vitest"
import { eventually, program, wirePath } from "../guest/Native.ts"
import { run } from "../support/Run.ts"
import { patience } from "../support/Slowness.ts"
import { boot, connect, lacking, link, shell, world } from "./BareMachine.ts"

const missing = lacking()
const TIMEOUT = patience(120_000)

/** A frame as anybody could write it. */
const frame = (type: number, size: number, payload: Uint8Array = new Uint8Array(0)) => {
  const head = Buffer.alloc(9)
  head.writeUInt32LE(size, 0)
  head[4] = type
  return Buffer.concat([head, payload])
}

describe.skipIf(missing !== undefined)(
  `the first process of a machine${missing === undefined ? "" : `: ${missing}`}`,
  () => {
    const scope = Scope.makeUnsafe()
    let shared: Effect.Success<typeof world>
    beforeAll(async () => {
      shared = await Effect.runPromise(Scope.provide(world, scope))
    }, TIMEOUT)
    afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

    it.live(
      "makes two machines of one image that have nothing random in common, each with its own clock and name",
      () =>
        Effect.gen(function*() {
          const machines = yield* Effect.all([boot(shared), boot(shared)])
          const facts = yield* Effect.forEach(machines, (machine) =>
            Effect.gen(function*() {
              const guest = yield* link(machine)
              const { end, text } = yield* shell(
                guest,
                "cat /etc/machine-id /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; head -c 32 /dev/urandom | " +
                  "od -An -v -tx1; hostname; cat /etc/resolv.conf; date +%s; id; pwd; touch a /tmp/b /dev/shm/c && echo $HOME ok"
              )
              const now = Date.now() / 1000
              assert.strictEqual(end, "exit 0", text)
              const [machineId = "", bootId = "", uuid = "", bytes1 = "", bytes2 = "", ...rest] = text.split("\n")
              assert.strictEqual(machineId, Buffer.from(guest.answer.machineId).toString("hex"))
              assert.match(machineId, /^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$/)
              assert.closeTo(Number(rest[2]), now, 2 + patience(1000) / 1000)
              assert.deepStrictEqual(
                [rest[0], rest[1], ...rest.slice(3)],
                [
                  "box-1",
                  "nameserver 192.0.2.1",
                  "uid=1000 gid=1000 groups=1000",
                  "/work",
                  "ok",
                  ""
                ].map((line) => line === "uid=1000 gid=1000 groups=1000" ? rest[3] ?? "" : line)
              )
              assert.match(rest[3] ?? "", /^uid=1000(\([a-z]+\))? gid=1000/)
              return { machine, guest, random: [machineId, bootId, uuid, bytes1, bytes2] }
            }), { concurrency: 2 })
          const all = facts.flatMap(({ random }) => random)
          assert.strictEqual(new Set(all).size, all.length, all.join(" "))
          // A farewell ends the first; the second's host dies.
          const [first, second] = facts
          if (first === undefined || second === undefined) return yield* Effect.die("two")
          yield* first.guest.close
          second.guest.wire.child.kill("SIGKILL")
          yield* eventually("both machines end", 30, () => first.machine.ended() && second.machine.ended())
          assert.notInclude(first.machine.console() + second.machine.console(), "stoker-init")
        }),
      TIMEOUT
    )

    it.live(
      "keeps a job within its limits and away from everything else, and measures it",
      () =>
        Effect.gen(function*() {
          const machine = yield* boot(shared)
          const guest = yield* link(machine)

          // Nobody else gets in any more.
          const second = yield* Effect.promise(() => run(wirePath, machine.wire(300)))
          assert.strictEqual(second.code, 69, second.stderr)
          assert.include(second.stderr, "Connection refused")

          // Before any limit there is no group to measure.
          assert.match((yield* Effect.flip(guest.measure)).message, /before any limit/)

          yield* guest.limit({ memoryBytes: 24 << 20, pids: 0, cpus: 0 })
          const full = yield* shell(guest, "head -c 50000000 /dev/zero | tail -c 60000000 | wc -c; exit 3")
          assert.strictEqual(full.end, "exit 3")
          assert.notInclude(full.text, "50000000")
          const memory = yield* guest.measure
          assert.isAtLeast(memory.oomKills ?? 0, 1)
          assert.isAtMost(memory.memoryPeakBytes ?? 0, 24 << 20)
          assert.isAbove(memory.memoryPeakBytes ?? 0, 20 << 20)

          yield* guest.limit({ memoryBytes: 64 << 20, pids: 6, cpus: 0.5 })
          const forks = yield* shell(guest, "for i in 1 2 3 4 5 6 7 8 9; do sleep 30 & done; echo all")
          assert.notStrictEqual(forks.text, "all\n")
          const pids = yield* guest.measure
          assert.isAtLeast(pids.pidsRefused ?? 0, 1)
          assert.strictEqual(pids.oomKills, 0)
          assert.isBelow(pids.memoryPeakBytes ?? Infinity, 16 << 20, "peaks are of the phases since the last limit")

          yield* guest.limit({ memoryBytes: 0, pids: 64, cpus: 0 })
          const writing = yield* shell(
            guest,
            "dd if=/dev/zero of=big bs=1M count=8 2>/dev/null; sync; i=0; " +
              "while [ $i -lt 20000 ]; do i=$((i+1)); done"
          )
          assert.strictEqual(writing.end, "exit 0", writing.text)
          const work = yield* guest.measure
          assert.isAbove(work.userMicros ?? 0, 1000)
          assert.isAtLeast(work.ioWriteBytes ?? 0, 8 << 20)

          const { text } = yield* shell(
            guest,
            `attempt() { if "$@" >/dev/null 2>&1; then echo "could: $*"; fi; }
        attempt kill -9 1; attempt cat /proc/1/cmdline; attempt cat /proc/1/environ; attempt ls /proc/1/fd /proc/1/root
        attempt ls /run/stoker; attempt ls /run/stoker/private; attempt cat /run/stoker/guest; attempt /run/stoker/init
        attempt mkdir /sys/fs/cgroup/x; attempt ls /sys/fs/cgroup/jobs; attempt mount -t cgroup2 x /tmp
        attempt unshare -U true; attempt unshare -m true; attempt unshare -U -m -C true; attempt head -c 1 /dev/vda
        attempt head -c 1 /dev/kmsg; attempt dmesg; attempt hostname other; attempt reboot -f
        attempt touch /etc/x /usr/x /bin/x; attempt ip link set eth0 down; attempt sh -c 'echo -1000 >/proc/self/oom_score_adj'
        attempt sh -c 'echo 1 >/sys/kernel/uevent_seqnum'; attempt sh -c 'echo 0 >/proc/sys/kernel/panic'
        attempt ping -c 1 -W 1 192.0.2.1; date -s 2020-01-01 >/dev/null 2>&1; date +%Y | grep 2020
        find / -xdev \\( -path /proc -o -path /sys \\) -prune -o -name cgroup.procs -print 2>/dev/null
        find /sys/fs/cgroup -name 'cgroup.*' 2>/dev/null
        for p in /proc/[0-9]*; do case $(cat $p/comm 2>/dev/null) in guest|init) echo "sees $p";; esac; done
        grep -c . /proc/self/mounts >/dev/null; ls /proc | grep -c '^[0-9]' ; cat /proc/self/cgroup; grep -E 'CapEff|NoNewPrivs' /proc/self/status`
          )
          const [seen = "", group = "", ...privileges] = text.trim().split("\n")
          assert.isBelow(Number(seen), 8, text)
          assert.strictEqual(group, "0::/jobs/3")
          assert.deepStrictEqual(privileges.map((line) => line.replace("\t", " ")), [
            "CapEff: 0000000000000000",
            "NoNewPrivs: 1"
          ])

          // The guest lives on, whatever the job did to the machine's memory and processes.
          yield* guest.limit({ memoryBytes: 0, pids: 0, cpus: 0 })
          const hog = yield* shell(
            guest,
            "for i in 1 2 3; do head -c 50000000 /dev/zero | tail -c 60000000 | wc -c & done; wait; echo survived"
          )
          assert.include(hog.text, "survived")
          assert.isAtLeast((yield* guest.measure).oomKills ?? 0, 1)
          assert.deepStrictEqual(yield* shell(guest, "echo again; ls /work"), { text: "again\nbig\n", end: "exit 0" })
          yield* guest.close
          yield* eventually("the machine ends", 30, machine.ended)
        }),
      TIMEOUT
    )

    it.live(
      "lets go who says nothing, and takes nothing else than a PERSONALISE from who does",
      () =>
        Effect.gen(function*() {
          const cases = [
            [frame(0x03, 4, Buffer.alloc(4)), /\(errno|not a PERSONALISE/],
            [frame(0x20, 0xffff_ffff), /too long/],
            [frame(0x20, 4, Buffer.of(2, 0, 0, 0)), /another version/]
          ] as const
          yield* Effect.forEach(cases, ([bytes, why], index) =>
            Effect.gen(function*() {
              const machine = yield* boot(shared)
              if (index === 0) {
                // Two that only look, and one that stays and says nothing, as the end of a template's is.
                for (let i = 0; i < 2; i++) {
                  const probe = yield* Effect.promise(() => run(wirePath, [...machine.wire(60_000), "--probe"]))
                  assert.deepStrictEqual(probe, { code: 0, stdout: "", stderr: "" })
                }
                yield* connect(machine)
              }
              const wire = yield* program(wirePath, machine.wire(60_000))
              let answer = Buffer.alloc(0)
              wire.child.stdout.on("data", (chunk: Buffer) => answer = Buffer.concat([answer, chunk]))
              // Enough that the wire does not wait for the rest of a PERSONALISE.
              wire.child.stdin.write(Buffer.concat([bytes, Buffer.alloc(64)]))
              yield* eventually("the machine ends", 60, machine.ended)
              assert.strictEqual(answer[4], 0x83, answer.toString("hex"))
              assert.match(answer.toString("latin1", 17), why)
              assert.match(machine.console(), /^stoker-init: personalise: .*$/m)
              assert.isBelow(machine.console().length, 2000)
            }), { concurrency: 2 })
        }),
      TIMEOUT
    )

    it.live("says on the console what is wrong with its command line, and ends", () =>
      Effect.gen(function*() {
        const machine = yield* boot(shared, { args: ["stoker.wire=many"] })
        yield* eventually("the machine ends", 60, machine.ended)
        assert.match(machine.console(), /^stoker-init: listen on many: Invalid argument\r?$/m)
      }), TIMEOUT)

    it.live("starts the older worker's agent where it is not to be served over the wire", () =>
      Effect.gen(function*() {
        const ip = "ip=169.254.77.2::169.254.77.1:255.255.255.252:old:eth0:off:192.0.2.53::"
        const machine = yield* boot(shared, { args: [ip] })
        const http = yield* program(wirePath, machine.wire(60_000, 8080))
        let answer = ""
        http.child.stdout.on("data", (chunk: Buffer) => answer += chunk.toString())
        http.child.stdin.write("GET /health HTTP/1.1\r\nHost: 169.254.77.2\r\nConnection: close\r\n\r\n")
        yield* eventually("it answers", 60, () => answer.includes("\r\n\r\n"))
        assert.match(answer, /^HTTP\/1\.1 200 /)
      }), TIMEOUT)
  }
)
