import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { chainOf } from "../../src/layers/network/Masquerade.ts"
import type { SandboxNetwork } from "../../src/layers/network/Network.ts"
import { InstanceId } from "../../src/schemas/Ids.ts"
import { SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { until } from "../worker/until.ts"
import { instance, make, owner, shelter } from "./machineHost.ts"
import { rig, within } from "./machineRig.ts"
import * as World from "./World.ts"

/** Ends with us, however we end. */
const bound = ["--pdeathsig", "KILL"] as const

const instanceOf = (n: number) => InstanceId.make(`victim${n}`)

const stop = async (child: ChildProcess) => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, "exit")
  child.kill("SIGKILL")
  await gone
}

/** Programs that this process has started: each leads a process group, in which all stay that it starts itself. */
const programsOf = (pid: number): ReadonlyArray<number> =>
  readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number).filter((one) => {
    try {
      return Number(/\) . (\d+) /.exec(readFileSync(`/proc/${one}/stat`, "utf8"))?.[1]) === pid
    } catch {
      return false // it has just ended
    }
  })

/** Kills these, and all in their groups, and says whether there was one. */
const killAll = (programs: ReadonlyArray<number>): boolean =>
  programs.flatMap((pid) => [-pid, pid]).filter((target) => {
    try {
      return process.kill(target, "SIGKILL")
    } catch {
      return false // all of it is gone
    }
  }).length > 0

export const machineFaultSuite = () =>
  describe("a machine's network that goes wrong", () => {
    const { conflist, end, env, held, ids, leases, network, nothing, one, plugin, rows, state, two } = rig()
    const ptp = (subnet: string) => ({
      type: "ptp",
      ipam: { type: "host-local", dataDir: leases, ranges: [[{ subnet }]], routes: [{ dst: "0.0.0.0/0" }] }
    })
    const fcnet = (name: string, type = "ptp") => {
      conflist(name, {
        cniVersion: "0.4.0",
        name,
        plugins: [
          { type, ipMasq: true, ipam: { type: "host-local", subnet: "192.168.127.0/24", dataDir: leases } },
          { type: "tc-redirect-tap" }
        ]
      })
      return World.networked("internet", { cni: name, nameservers: [World.NAMESERVER] })
    }
    const none = World.networked("none")
    const acquire = (host: SandboxNetwork, id: typeof one, sandboxClass: SandboxClass) =>
      host.acquireMachine(id, sandboxClass, owner)

    /** A worker that makes and releases such a network without end. */
    const working = (n: number, sandboxClass: SandboxClass) =>
      Effect.acquireRelease(
        Effect.promise(async () => {
          const asked = Schema.encodeSync(Schema.fromJsonString(SandboxClass))(sandboxClass)
          const script = join(import.meta.dirname, "machineWorker.ts")
          const argv = [script, state, instanceOf(n), ids[n] ?? one, asked, JSON.stringify(env)]
          const child = spawn("setpriv", [...bound, process.execPath, ...argv], {
            stdio: ["ignore", "pipe", "inherit"]
          })
          await once(child.stdout, "data")
          return child
        }),
        (child) => Effect.promise(() => stop(child))
      )

    afterAll(end)

    it.live("no free address in a /29: the sixth says so, five have theirs, and a freed one is used again", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        const small = World.networked("internet", { subnet: "10.78.1.0/29", nameservers: [World.NAMESERVER] })
        yield* Effect.forEach(ids.slice(0, 5), (id) =>
          acquire(host, id, small), { concurrency: 3 })
        assert.strictEqual(held().leases.length, 5)
        const error = yield* Effect.flip(acquire(host, ids[5] ?? one, small))
        assert.include(error.message, "no IP addresses available")
        assert.include(error.message, "give the class a larger subnet")
        yield* host.release(instance, ids[5] ?? one)
        assert.strictEqual(held().netns.length, 5)
        yield* host.release(instance, one)
        yield* acquire(host, ids[5] ?? one, small)
      }), 60_000)

    it.live("a plugin that fails, and one that hangs when it has done its work", () =>
      Effect.gen(function*() {
        plugin("broken", `[ "$CNI_COMMAND" = DEL ] && exit 0\necho '{"code":7,"msg":"out of luck"}'\nexit 1`)
        network("breaks", ptp("10.78.2.0/24"), { type: "broken" })
        plugin(
          "hanging",
          `[ "$CNI_COMMAND" = DEL ] && exec /usr/lib/cni/ptp\n/usr/lib/cni/ptp\nsleep 4713.25\necho {}`
        )
        network("hangs", { ...ptp("10.78.3.0/24"), type: "hanging" })
        const host = yield* rows({ limitMillis: 4000 })
        const failed = yield* Effect.flip(acquire(host, one, World.networked("internet", { cni: "breaks" })))
        assert.include(failed.message, "CNI plugin broken could not ADD: out of luck (code 7)")
        const late = yield* Effect.flip(acquire(host, two, World.networked("internet", { cni: "hangs" })))
        assert.include(late.message, "did not end within 4000 ms")
        assert.deepStrictEqual(World.running("4713.25"), [])
        assert.strictEqual(held().leases.length, 2)
      }), 60_000)

    it.live("a plugin killed at any moment of ADD leaves nothing, nor what it had begun in iptables", () =>
      Effect.gen(function*() {
        const delay = join(state, "delay")
        plugin(
          "mortal",
          `[ "$CNI_COMMAND" = DEL ] && exec /usr/lib/cni/ptp\nexec timeout -s KILL "$(cat ${delay})" /usr/lib/cni/ptp`
        )
        const sandboxClass = fcnet("mortal", "mortal")
        const host = yield* rows()
        const ended: Array<string> = []
        for (let millis = 4; millis < 84; millis += 5) {
          writeFileSync(delay, String(millis / 1000))
          const result = yield* Effect.result(acquire(host, one, sandboxClass))
          ended.push(result._tag)
          yield* host.release(instance, one)
          const { tables: _, ...rest } = held()
          assert.deepStrictEqual(rest, { netns: [], veths: [], leases: [], chains: [] }, `after ${millis} ms`)
        }
        assert.include(ended, "Failure")
      }), 120_000)

    it.live("workers killed at any moment: another one takes all of theirs down", () =>
      Effect.gen(function*() {
        const classes = [fcnet("fcnet"), World.networked("internet"), none, fcnet("fcnet")]
        const kinds = new Set<string>()
        for (let round = 0; round < 4; round++) {
          const workers = yield* Effect.forEach(classes, (sandboxClass, n) =>
            working(n, sandboxClass), {
            concurrency: "unbounded"
          })
          yield* Effect.sleep(`${Math.floor(Math.random() * 300)} millis`)
          for (const worker of workers) {
            worker.kill("SIGSTOP") // so that they start no other program while we look
          }
          const programs = workers.flatMap(({ pid }) =>
            programsOf(pid ?? 0)
          )
          yield* Effect.promise(() =>
            Promise.all(workers.map(stop))
          )
          const other = yield* make(state, env, {
            instance: InstanceId.make("survivor"),
            // What the cgroup of a real worker's programs is for.
            kill: () =>
              Effect.promise(() => until("the end of its programs", () => !killAll(programs)))
          })
          const before = held()
          for (const [kind, found] of Object.entries(before)) if (found.length > 0) kinds.add(kind)
          for (const [n] of classes.entries()) {
            yield* other.release(instanceOf(n), ids[n] ?? one)
            yield* other.release(instanceOf(n), ids[n] ?? one)
            yield* other.release(instanceOf(n), shelter)
          }
          assert.deepStrictEqual(held(), nothing, JSON.stringify({ before, programs: programs.length }))
          for (const [n] of classes.entries()) {
            const records = readdirSync(join(state, instanceOf(n), "network"))
            assert.deepStrictEqual(records.filter((name) => name.endsWith(".json")), [])
          }
        }
        // They were killed while they had something.
        assert.includeMembers([...kinds], ["netns", "tables"])
      }), 240_000)

    it.live(
      "released twice, and when its namespace is gone already: also the rule of ipMasq goes, and nobody else's",
      () =>
        Effect.gen(function*() {
          const foreign = chainOf("fcnet", "somebodyelse")
          World.sh("iptables", "-t", "nat", "-N", foreign)
          World.sh("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "192.168.127.200/32", "-j", foreign)
          const remove = Effect.sync(() => {
            World.sh("iptables", "-t", "nat", "-D", "POSTROUTING", "-s", "192.168.127.200/32", "-j", foreign)
            World.sh("iptables", "-t", "nat", "-X", foreign)
          })
          const host = yield* rows()
          yield* Effect.addFinalizer(() => remove)
          const sandboxClass = fcnet("fcnet")
          yield* acquire(host, one, sandboxClass)
          yield* acquire(host, two, sandboxClass)
          assert.strictEqual(held().chains.length, 3)
          World.sh("ip", "netns", "del", `stoker-${one}`)
          yield* host.release(instance, one)
          yield* host.release(instance, one)
          assert.deepStrictEqual(
            held().chains.map((line) => line.split(" ")[0]).toSorted(),
            [`:${foreign}`, `:${chainOf("fcnet", two)}`].toSorted()
          )
          assert.strictEqual(
            World.sh("iptables-save", "-t", "nat").split("\n").filter((line) => line.includes(one)).length,
            0
          )
          // Half of one: the chain without anything that leads to it.
          yield* host.release(instance, two)
          yield* acquire(host, two, World.networked("internet", { cni: "fcnet", nameservers: [World.NAMESERVER] }))
          World.sh("iptables", "-t", "nat", "-D", "POSTROUTING", ...jumpTo(chainOf("fcnet", two)))
          yield* host.release(instance, two)
          assert.deepStrictEqual(held().chains.map((line) => line.split(" ")[0]), [`:${foreign}`])
        }),
      60_000
    )

    it.live("a namespace that somebody holds does not keep the tap, nor does an open tap", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        yield* acquire(host, one, none)
        const holder = yield* Effect.acquireRelease(
          Effect.sync(() =>
            spawn("setpriv", [
              ...bound,
              "nsenter",
              `--net=/run/netns/stoker-${one}`,
              "python3",
              "-c",
              "import fcntl,os,struct,time\nf=os.open('/dev/net/tun',os.O_RDWR)\n" +
              "fcntl.ioctl(f,0x400454CA,struct.pack('16sH22x',b'tap0',0x5002))\nprint('up',flush=True)\ntime.sleep(1000)"
            ], { stdio: ["ignore", "pipe", "inherit"] })
          ),
          (child) => Effect.promise(() => stop(child))
        )
        yield* Effect.promise(() => once(holder.stdout, "data"))
        const links = () => World.sh("nsenter", `--net=/proc/${holder.pid}/ns/net`, "ip", "-br", "link")
        assert.include(links(), "tap0")
        yield* host.release(instance, one)
        assert.notInclude(links(), "tap0")
        assert.isFalse(existsSync(`/run/netns/stoker-${one}`))
      }), 60_000)

    it.live("a tap of that name that a plugin has made is told, and goes", () =>
      Effect.gen(function*() {
        plugin(
          "taker",
          `config=$(cat)
[ "$CNI_COMMAND" = DEL ] && exit 0
nsenter --net=$CNI_NETNS ip tuntap add dev tap0 mode tap >&2
printf '%s' "$config" | python3 -c 'import json,sys;print(json.dumps(json.load(sys.stdin)["prevResult"]))'`
        )
        network("takes", ptp("10.78.4.0/24"), { type: "taker" })
        const host = yield* rows()
        const error = yield* Effect.flip(acquire(host, one, World.networked("internet", { cni: "takes" })))
        assert.match(error.message, /^the machine's tap and rules: .*busy/)
      }), 60_000)

    it.live("a namespace of that name without a record is replaced, and a file that is none as well", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        World.sh("ip", "netns", "add", `stoker-${one}`)
        World.sh("ip", "-n", `stoker-${one}`, "link", "add", "left", "type", "veth", "peer", "name", "over")
        yield* acquire(host, one, none)
        assert.notInclude(within(one, "ip", "-br", "link"), "left")
        yield* host.release(instance, one)
        // What `ip netns add` leaves that was killed between its two steps.
        writeFileSync(`/run/netns/stoker-${one}`, "")
        const attachment = yield* acquire(host, one, World.networked("internet"))
        assert.isTrue(attachment.hasRoute)
        const again = yield* acquire(host, one, none)
        assert.isFalse(again.hasRoute)
        const { leases: taken, netns, veths } = held()
        assert.deepStrictEqual([taken.length, netns.length, veths.length], [0, 1, 0])
      }), 60_000)

    it.live("nameservers of a network that no machine reaches are not used: the host's others are", () =>
      Effect.gen(function*() {
        const file = join(state, "stub.conf")
        writeFileSync(file, `nameserver 127.0.0.53\nnameserver ${World.HOST_PRIVATE}\n`)
        const plain = ptp("10.78.5.0/24")
        network("stub", { ...plain, ipam: { ...plain.ipam, resolvConf: file } })
        const host = yield* rows()
        const { resolvConf } = yield* acquire(host, one, World.networked("internet", { cni: "stub" }))
        assert.strictEqual(resolvConf, `nameserver ${World.NAMESERVER}\n`)
      }), 60_000)

    it.live("a network for tc-redirect-tap alone, one without IPv4, and one without any are refused", () =>
      Effect.gen(function*() {
        network("onlytap", { type: "tc-redirect-tap" })
        network("six", { ...ptp("fd78::/64"), ipam: { ...ptp("fd78::/64").ipam, routes: [{ dst: "::/0" }] } })
        const host = yield* rows()
        const alone = yield* Effect.flip(acquire(host, one, World.networked("internet", { cni: "onlytap" })))
        assert.include(alone.message, "has only tc-redirect-tap")
        const six = yield* Effect.flip(acquire(host, one, World.networked("internet", { cni: "six" })))
        assert.include(six.message, "gave the machine no IPv4 address")
        const hosts = yield* Effect.flip(acquire(host, two, World.networked("host")))
        assert.include(hosts.message, "has network host")
      }), 60_000)

    it.live("what a class of machines needs is looked for, also where its policy is none", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        const wrong = (sandboxClass: SandboxClass, from = host) =>
          Effect.map(
            from.checkMachine(sandboxClass),
            (checks) =>
              checks.filter(({ status }) =>
                status !== "ok"
              ).map(({ detail, status }) =>
                `${status} ${detail}`
              )
          )
        const checks = yield* host.checkMachine(none)
        assert.includeMembers(
          checks.map(({ detail }) =>
            detail
          ),
          [
            "/dev/net/tun",
            "a tap can be made, with the rules behind it"
          ]
        )
        assert.isTrue(
          checks.every(({ status }) =>
            status === "ok"
          ),
          JSON.stringify(checks)
        )
        // That tc-redirect-tap is not installed is nobody's loss.
        assert.deepStrictEqual(yield* wrong(fcnet("fcnet")), [])
        assert.deepStrictEqual(yield* wrong(World.networked({ allow: ["[2620:fe::fe]:53/udp", "10.1.2.3"] })), [
          "warning [2620:fe::fe]:53/udp is IPv6, which no machine has"
        ])
        const bare = yield* make(state, { ...env, STOKER_CNI_PATH: "/nonexistent" })
        assert.deepStrictEqual(yield* wrong(World.networked("internet"), bare), [
          "missing there is no CNI plugin ptp in /nonexistent",
          "missing there is no CNI plugin host-local in /nonexistent"
        ])
        assert.deepStrictEqual(yield* wrong(none, bare), [])
      }), 60_000)
  })

/** The rule that leads there, as iptables takes it. */
const jumpTo = (chain: string): ReadonlyArray<string> => {
  const line = World.sh("iptables-save", "-t", "nat").split("\n").find((text) => text.endsWith(`-j ${chain}`)) ?? ""
  const source = /-s (\S+)/.exec(line)?.[1] ?? ""
  const comment = /--comment "((?:[^"\\]|\\.)*)"/.exec(line)?.[1]?.replaceAll("\\\"", "\"") ?? ""
  return ["-s", source, "-m", "comment", "--comment", comment, "-j", chain]
}
