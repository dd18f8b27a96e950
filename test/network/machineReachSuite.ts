import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { readFileSync } from "node:fs"
import { createConnection } from "node:net"
import { join } from "node:path"
import { GUEST_ADDRESS, HOST_ADDRESS, MAC, TAP } from "../../src/layers/microvm/Vmm.ts"
import type { SandboxId } from "../../src/schemas/Ids.ts"
import type { NetworkPolicy } from "../../src/schemas/SandboxClass.ts"
import { instance, owner } from "./machineHost.ts"
import { rig, within } from "./machineRig.ts"
import { CARD, TapGuest } from "./TapGuest.ts"
import * as World from "./World.ts"

const guestOf = (id: SandboxId) =>
  Effect.acquireRelease(Effect.promise(() => TapGuest.make(id)), (guest) => Effect.promise(() => guest.end()))

const probe = (guest: TapGuest, ...probes: ReadonlyArray<World.Probe>) => Effect.promise(() => guest.probe(...probes))

const serve = (guest: TapGuest, ...ports: ReadonlyArray<number>) =>
  Effect.promise(() =>
    guest.serve(
      "python3",
      join(import.meta.dirname, "listen.py"),
      JSON.stringify(ports.map((port) => ["tcp", "0.0.0.0", port]))
    )
  )

/** From the namespace, where the worker's own connections come from. */
const dial = (id: SandboxId, port: number, address: string = GUEST_ADDRESS) =>
  within(
    id,
    "python3",
    join(import.meta.dirname, "probe.py"),
    JSON.stringify([["tcp", address, port, 1]])
  ).trim()

/** From the host itself. */
const call = (host: string, port: number) =>
  Effect.callback<string>((resume) => {
    const socket = createConnection({ host, port, timeout: 1500 })
    const end = (word: string) => {
      socket.destroy()
      resume(Effect.succeed(word))
    }
    socket.on("connect", () => end("connected"))
    socket.on("timeout", () => end("silence"))
    socket.on("error", (error: NodeJS.ErrnoException) => end(error.code ?? "error"))
  })

const words = (found: ReadonlyArray<string>) => found.map((text) => text.startsWith("ok") ? "ok" : "no")

/** Everywhere somebody listens, and the guest's own side of things. */
const everywhere: ReadonlyArray<World.Probe> = [
  ["tcp", World.PUBLIC, 80, 1],
  ["tcp", World.OTHER_PUBLIC, 443, 1],
  ["udp", World.PUBLIC, 123, 1],
  ["udp", World.OTHER_PUBLIC, 53, 1],
  ...World.PRIVATE.map((address): World.Probe => ["tcp", address, 80, 1]),
  ["tcp", "10.1.2.3", 443, 1],
  ["tcp", World.NAMESERVER, 53, 1],
  ["udp", World.NAMESERVER, 53, 1],
  ["tcp", World.NAMESERVER, 80, 1],
  ["tcp", World.HOST, 8080, 1],
  ["udp", World.HOST, 8080, 1],
  ["tcp", World.HOST_PRIVATE, 8080, 1],
  ["tcp", "198.19.0.1", 8080, 1],
  ["tcp", World.IPV6, 80, 1],
  ["tcp", World.HOST6, 8081, 1]
]

export const machineReachSuite = () =>
  describe("what a machine reaches", () => {
    const { conflist, end, leases, one, rows, state, two } = rig()
    afterAll(end)

    it.live("none: the host's own connections come in, and nothing goes anywhere", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        const attachment = yield* host.acquireMachine(one, World.networked("none"), owner)
        assert.deepInclude(attachment, { hasRoute: false, resolvConf: "" })
        assert.strictEqual(attachment.path, `/proc/${process.pid}/root/run/netns/stoker-${one}`)
        const devices = within(one, "ip", "-br", "link").split("\n").map((line) => line.split(" ")[0])
        assert.deepStrictEqual(devices, ["lo", TAP, ""])
        const guest = yield* guestOf(one)
        yield* serve(guest, 7070, 8080, 9000)
        assert.strictEqual(dial(one, 7070), `["ok ${HOST_ADDRESS}"]`)
        assert.strictEqual(dial(one, 8080), `["ok ${HOST_ADDRESS}"]`)
        assert.strictEqual(dial(one, 9000), `["silence"]`)
        const found = yield* probe(
          guest,
          ...everywhere.map(([kind, address, port]): World.Probe => [kind, address, port, 0.3]),
          ["tcp", HOST_ADDRESS, 8080, 0.3],
          ["udp", HOST_ADDRESS, 53, 0.3]
        )
        assert.notInclude(words(found), "ok")
      }), 120_000)

    it.live("its tap is for one user, with the header that a monitor expects", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        yield* host.acquireMachine(one, World.networked("none"), owner)
        const Tun = Schema.Struct({
          type: Schema.String,
          pi: Schema.Boolean,
          vnet_hdr: Schema.Boolean,
          multi_queue: Schema.Boolean,
          user: Schema.Union([Schema.Int, Schema.String]),
          group: Schema.Union([Schema.Int, Schema.String])
        })
        const Link = Schema.fromJsonString(Schema.Array(Schema.Struct({
          linkinfo: Schema.Struct({ info_data: Tun })
        })))
        const [link] = yield* Schema.decodeEffect(Link)(within(one, "ip", "-d", "-j", "link", "show", TAP))
        const { user, group, ...rest } = link?.linkinfo.info_data ?? assert.fail("no tap")
        assert.deepStrictEqual([String(user), String(group)], [String(owner.uid), String(owner.gid)])
        assert.deepStrictEqual(rest, { type: "tap", pi: false, vnet_hdr: true, multi_queue: false })
      }), 60_000)

    for (
      const [name, network] of [
        ["internet", "internet"],
        ["allow", {
          allow: [
            "10.1.2.0/24:443/tcp",
            `${World.OTHER_PUBLIC}:53/udp`,
            "172.16.0.0/12",
            `${World.METADATA}:80/tcp`,
            `${World.HOST_PRIVATE}:8080/tcp`,
            `${World.IPV6}:80/tcp`
          ]
        }]
      ] as ReadonlyArray<readonly [string, NetworkPolicy]>
    ) {
      it.live(`${name}: exactly what a sandbox of the same policy reaches, and the host reaches it`, () =>
        Effect.gen(function*() {
          const host = yield* rows()
          const attachment = yield* host.acquireMachine(one, World.networked(network), owner)
          const guest = yield* guestOf(one)
          const found = yield* probe(guest, ...everywhere)
          const expected = yield* Effect.scoped(Effect.gen(function*() {
            return yield* World.probe(yield* World.provision(World.networked(network)), ...everywhere)
          })).pipe(Effect.provide(Layer.fresh(World.layer(state))))
          assert.deepStrictEqual(words(found), words(expected), JSON.stringify({ found, expected }))
          assert.include(words(found), "ok")
          // What is refused is refused aloud, so that nobody waits for it.
          assert.strictEqual(found[4], "ECONNREFUSED")
          assert.isTrue(attachment.hasRoute)
          assert.strictEqual(attachment.resolvConf, network === "internet" ? `nameserver ${World.NAMESERVER}\n` : "")
          yield* serve(guest, 7070)
          assert.strictEqual(dial(one, 7070), `["ok ${HOST_ADDRESS}"]`)
        }), 120_000)
    }

    it.live("neither this side of its tap, nor an address the host got later", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        yield* host.acquireMachine(one, World.networked({ allow: ["0.0.0.0/0"] }), owner)
        const guest = yield* guestOf(one)
        const listener = yield* Effect.promise(() =>
          TapGuest.listen(one, 9000)
        )
        yield* Effect.addFinalizer(() =>
          Effect.promise(listener)
        )
        World.sh("ip", "addr", "add", `${World.HOST_LATE}/32`, "dev", "uplink")
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => World.sh("ip", "addr", "del", `${World.HOST_LATE}/32`, "dev", "uplink"))
        )
        const own = within(one, "ip", "-br", "-4", "addr", "show", "eth0").match(/198\.19\.\d+\.\d+/)?.[0] ?? ""
        assert.deepStrictEqual(
          yield* probe(
            guest,
            ["tcp", World.PUBLIC, 80, 2],
            ["tcp", HOST_ADDRESS, 9000, 1],
            ["tcp", own, 9000, 1],
            ["tcp", "169.254.77.3", 9000, 1],
            ["tcp", World.HOST_LATE, 8080, 1],
            ["tcp", "198.19.0.1", 8080, 1]
          ),
          [`ok ${World.HOST}`, "silence", "silence", "ENETUNREACH", "silence", "ECONNREFUSED"]
        )
      }), 60_000)

    it.live("two at once have the same address and never meet, even if their classes allow it; nobody reaches in", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        const open = World.networked({ allow: ["198.19.0.0/16", "169.254.0.0/16", `${World.PUBLIC}:80/tcp`] })
        yield* Effect.all(
          [one, two].map((id) =>
            host.acquireMachine(id, open, owner)
          ),
          { concurrency: 2 }
        )
        const [first, second] = yield* Effect.all([guestOf(one), guestOf(two)], { concurrency: 2 })
        yield* serve(first, 7070, 7000)
        const address = within(one, "ip", "-br", "-4", "addr", "show", "eth0").match(/198\.19\.\d+\.\d+/)?.[0] ?? ""
        assert.deepStrictEqual(
          yield* probe(
            second,
            ["tcp", address, 7070, 1],
            ["tcp", address, 7000, 1],
            ["tcp", GUEST_ADDRESS, 7070, 1],
            ["tcp", World.PUBLIC, 80, 2]
          ),
          ["silence", "silence", "ECONNREFUSED", `ok ${World.HOST}`]
        )
        assert.strictEqual(dial(one, 7070), `["ok ${HOST_ADDRESS}"]`)
        assert.strictEqual(yield* call(address, 7070), "silence")
        assert.strictEqual(yield* call(address, 7000), "silence")
      }), 60_000)

    it.live("nothing leaves from another address or card than its own, nor as IPv6", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        yield* host.acquireMachine(one, World.networked("internet"), owner)
        const guest = yield* guestOf(one)
        // What comes out of machines, counted where they reach the host.
        World.sh(
          "nft",
          "add table inet counting; add chain inet counting seen { type filter hook prerouting priority -400; }"
        )
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => World.sh("nft", "delete table inet counting"))
        )
        World.sh("nft", `add rule inet counting seen iifname "veth*" meta l4proto udp th dport 4321 counter`)
        const counted = () => Number(/packets (\d+)/.exec(World.sh("nft", "list table inet counting"))?.[1])
        const send = (source: string, target: string) =>
          guest.sh(
            "python3",
            "-c",
            "import socket,sys\ns=socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET,socket.SOCK_DGRAM)\n" +
              "s.bind((sys.argv[1],0))\nfor n in range(3): s.sendto(b'x',(sys.argv[2],4321))",
            source,
            target
          )
        const settled = Effect.sleep("300 millis")
        send(GUEST_ADDRESS, World.PUBLIC)
        yield* settled
        assert.strictEqual(counted(), 3)

        const own = within(one, "ip", "-br", "-4", "addr", "show", "eth0").match(/198\.19\.\d+\.\d+/)?.[0] ?? ""
        const claimed = [own, "198.19.0.77", World.HOST, World.PUBLIC, HOST_ADDRESS, "10.1.2.3"]
        for (const address of claimed) {
          guest.ip("addr", "add", `${address}/32`, "dev", CARD)
          send(address, World.OTHER_PUBLIC)
        }
        guest.sh("sh", "-c", `echo 0 >/proc/sys/net/ipv6/conf/${CARD}/disable_ipv6`)
        guest.ip("addr", "add", "2600:9::9/64", "dev", CARD, "nodad")
        guest.ip("-6", "neigh", "add", "2600:9::1", "lladdr", tapMac(one), "dev", CARD)
        guest.ip("-6", "route", "add", "default", "via", "2600:9::1")
        send("2600:9::9", World.IPV6)
        yield* settled
        assert.strictEqual(counted(), 3)

        guest.ip("link", "set", CARD, "address", "06:00:00:00:00:99")
        guest.ip("neigh", "replace", HOST_ADDRESS, "lladdr", tapMac(one), "dev", CARD, "nud", "permanent")
        send(GUEST_ADDRESS, World.PUBLIC)
        yield* settled
        assert.strictEqual(counted(), 3)
        // Questions in others' names: the namespace learns of nobody, and has no more neighbours than before.
        guest.ip("link", "set", CARD, "address", MAC)
        guest.sh("python3", "-c", askingFor, CARD, MAC, HOST_ADDRESS)
        yield* settled
        assert.strictEqual(within(one, "ip", "neigh", "show", "dev", TAP).trim().split("\n").length, 1)
      }), 60_000)

    for (const ipMasq of [true, false]) {
      it.live(`the old worker's fcnet, tc-redirect-tap not installed, ipMasq ${ipMasq}`, () =>
        Effect.gen(function*() {
          const file = join(import.meta.dirname, "../../infra/cni/fcnet.conflist")
          const list = JSON.parse(readFileSync(file, "utf8"))
          assert.deepStrictEqual(list.plugins.map(({ type }: { type: string }) => type), ["ptp", "tc-redirect-tap"])
          // As it stands, but for the folder of its leases, which is the whole machine's.
          list.plugins[0].ipam.dataDir = leases
          list.plugins[0].ipMasq = ipMasq
          conflist("fcnet", ipMasq ? list : { ...list, stoker: { masquerade: true } })
          const host = yield* rows()
          const fcnet = World.networked("internet", { cni: "fcnet", nameservers: [World.NAMESERVER] })
          yield* host.acquireMachine(one, fcnet, owner)
          assert.strictEqual(World.chains().length, ipMasq ? 1 : 0)
          const guest = yield* guestOf(one)
          assert.deepStrictEqual(
            yield* probe(
              guest,
              ["tcp", World.PUBLIC, 80, 2],
              ["udp", World.NAMESERVER, 53, 2],
              ["tcp", World.HOST, 8080, 1],
              ["tcp", "192.168.127.1", 8080, 1],
              ["tcp", World.METADATA, 80, 1]
            ).pipe(Effect.map((found) => found.map((text) => text.replace(/^ok[^]*/, "ok")))),
            ["ok", "ok", "ECONNREFUSED", "ECONNREFUSED", "ECONNREFUSED"]
          )
          yield* host.release(instance, one)
          assert.deepStrictEqual(World.chains(), [])
        }), 60_000)
    }
  })

/** Questions for the host's hardware address, from 200 addresses. */
const askingFor = `import socket,struct,sys
card,mac,host=sys.argv[1:]
mac=bytes.fromhex(mac.replace(':',''))
s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)
s.bind((card,0x806))
for n in range(200):
    asker=bytes([10,99,0,n+1])
    s.send(b'\\xff'*6+mac+b'\\x08\\x06'+struct.pack('>HHBBH',1,0x800,6,4,1)+mac+asker+bytes(6)+socket.inet_aton(host))`

const tapMac = (id: SandboxId) => /link\/ether (\S+)/.exec(within(id, "ip", "link", "show", TAP))?.[1] ?? ""
