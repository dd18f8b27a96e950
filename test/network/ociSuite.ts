import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Scope } from "effect"
import { execFileSync, spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createConnection } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { CONNECTIONS } from "../../src/layers/network/Policy.ts"
import { Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { WorkPath } from "../../src/schemas/Program.ts"
import type { NetworkPolicy } from "../../src/schemas/SandboxClass.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import { layerDrivers } from "../../src/wiring.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import * as Connections from "./Connections.ts"
import * as World from "./World.ts"

const internet = World.networked("internet")

/** Real jobs in real sandboxes, from within a `World`. */
export const ociSuite = () =>
  describe("the network of an oci sandbox", () => {
    const state = Jobs.stateDirectory()
    const { configurations, leases } = World.places(state)
    const seen = new Set<string>()

    /** A sandbox of the class in a worker of its own, and nothing of it afterwards. */
    const inside = <A, E>(use: Effect.Effect<A, E, Drivers | Scope.Scope>, env?: Readonly<Record<string, string>>) =>
      Effect.gen(function*() {
        const done = yield* Effect.scoped(use).pipe(
          Effect.ensuring(Effect.sync(() => World.rows(state).forEach((row) => seen.add(row)))),
          Effect.provide(World.layer(state, env))
        )
        assert.deepStrictEqual(World.rows(state), [])
        assert.deepStrictEqual(World.held(leases, [...seen]), World.nothing)
        return done
      })

    afterAll(() => Jobs.remove(state))

    it.live("internet: the world, by TCP and UDP, with the host's address", () =>
      inside(Effect.gen(function*() {
        const sandbox = yield* World.provision(internet)
        assert.deepStrictEqual(
          yield* World.probe(
            sandbox,
            ["tcp", World.PUBLIC, 80, 5],
            ["tcp", World.OTHER_PUBLIC, 443, 5],
            ["udp", World.PUBLIC, 123, 5]
          ),
          [`ok ${World.HOST}`, `ok ${World.HOST}`, `ok ${World.HOST}`]
        )
      })), 60_000)

    it.live(
      "internet: no private range, no metadata, no host by any of its addresses",
      () =>
        inside(Effect.gen(function*() {
          const sandbox = yield* World.provision(internet)
          const gateway = "198.19.0.1"
          World.sh("ip", "addr", "add", `${World.HOST_LATE}/32`, "dev", "uplink")
          yield* Effect.addFinalizer(() =>
            Effect.sync(() => World.sh("ip", "addr", "del", `${World.HOST_LATE}/32`, "dev", "uplink"))
          )
          const found = yield* World.probe(
            sandbox,
            ...World.PRIVATE.map((address): World.Probe => ["tcp", address, 80, 2]),
            ["tcp", World.HOST_PRIVATE, 8080, 2],
            ["tcp", gateway, 8080, 2],
            ["udp", gateway, 8080, 1],
            ["tcp", World.HOST, 8080, 1],
            ["udp", World.HOST, 8080, 1],
            // An address the host got since passes the sandbox's own rules: the host's are what stops it.
            ["tcp", World.HOST_LATE, 8080, 1],
            ["tcp", "127.0.0.1", 8080, 1],
            ["tcp", "::ffff:10.1.2.3", 80, 1],
            ["tcp", World.IPV6, 80, 1]
          )
          assert.deepStrictEqual(found, [
            ...World.PRIVATE.map(() => "ECONNREFUSED"),
            "ECONNREFUSED",
            "ECONNREFUSED",
            "EPERM",
            "ECONNREFUSED",
            "EPERM",
            "silence",
            "ECONNREFUSED",
            "ECONNREFUSED",
            "ENETUNREACH"
          ])
          // The same services do answer the host.
          assert.include(
            World.sh("python3", "-c", "import socket;print(socket.create_connection(('45.33.0.2',8080)).recv(9))"),
            "45"
          )
        })),
      60_000
    )

    it.live("a job cannot fill the host's table of connections, and others go on", () =>
      inside(Effect.gen(function*() {
        const [first, second] = yield* Effect.all([World.provision(internet), World.provision(internet)])
        const before = Connections.remembered()
        const { stderr, stdout } = yield* World.exec(first, "python3", "-c", Connections.flood, World.PUBLIC, "6000")
        assert.isAtLeast(Number(stdout), 6000 - CONNECTIONS, stderr)
        assert.isAtMost(Connections.remembered(), before + CONNECTIONS + 10)
        assert.deepStrictEqual(yield* World.probe(first, ["tcp", World.PUBLIC, 80, 2]), ["ECONNREFUSED"])
        assert.deepStrictEqual(yield* World.probe(second, ["tcp", World.PUBLIC, 80, 5]), [`ok ${World.HOST}`])
      })), 60_000)

    it.live(
      "names come from the host's nameserver, of which nothing else is reached",
      () =>
        inside(Effect.gen(function*() {
          const sandbox = yield* World.provision(internet)
          const { stdout } = yield* World.exec(
            sandbox,
            "python3",
            "-c",
            "import socket;print(open('/etc/resolv.conf').read().strip());print(socket.gethostbyname('example.test'))"
          )
          // The one on the loopback cannot be asked.
          assert.strictEqual(stdout, `nameserver ${World.NAMESERVER}\n${World.OTHER_PUBLIC}\n`)
          assert.deepStrictEqual(
            yield* World.probe(sandbox, ["tcp", World.NAMESERVER, 80, 2], ["tcp", World.NAMESERVER, 53, 2]),
            ["ECONNREFUSED", `ok ${World.HOST}`]
          )
        })),
      60_000
    )

    it.live("allow: those destinations and ports, and nothing else, not even names", () =>
      inside(Effect.gen(function*() {
        const sandbox = yield* World.provision(World.networked({
          allow: [
            "10.1.2.0/24:443/tcp",
            `${World.OTHER_PUBLIC}:53/udp`,
            "172.16.0.0/12",
            `${World.HOST_PRIVATE}:8080/tcp`
          ]
        }))
        const found = yield* World.probe(
          sandbox,
          ["tcp", "10.1.2.3", 443, 5],
          ["tcp", "10.1.2.3", 80, 2],
          ["udp", World.OTHER_PUBLIC, 53, 1],
          ["tcp", World.OTHER_PUBLIC, 53, 2],
          ["tcp", "172.16.9.9", 80, 5],
          ["tcp", World.PUBLIC, 80, 2],
          ["udp", World.NAMESERVER, 53, 1],
          // Of the host, and so never.
          ["tcp", World.HOST_PRIVATE, 8080, 1]
        )
        assert.deepStrictEqual(found.map((text) => text.replace(/^ok[^]*/, "ok")), [
          "ok",
          "ECONNREFUSED",
          "ok",
          "ECONNREFUSED",
          "ok",
          "ECONNREFUSED",
          "EPERM",
          "ECONNREFUSED"
        ])
        assert.strictEqual((yield* World.exec(sandbox, "cat", "/etc/resolv.conf")).stdout, "")
      })), 60_000)

    it.live("a root of its own has the network of its class, and its nameservers", () => {
      const folder = mkdtempSync(join(tmpdir(), "stoker-root-"))
      const root = join(folder, "root")
      mkdirSync(root, { mode: 0o755 })
      execFileSync("cc", ["-static", "-o", join(folder, "reach"), join(import.meta.dirname, "reach.c")])
      const program = {
        path: WorkPath.make("reach"),
        content: Uint8Array.from(readFileSync(join(folder, "reach"))),
        executable: true
      }
      return inside(Effect.gen(function*() {
        const sandbox = yield* World.provision({
          ...World.networked("internet", { nameservers: [World.NAMESERVER] }),
          root: { directory: root }
        })
        yield* sandbox.put([program])
        const ran = yield* World.exec(sandbox, "./reach", World.PUBLIC, "80")
        assert.strictEqual(ran.stdout, `ok nameserver ${World.NAMESERVER}\n`, ran.stderr)
      })).pipe(Effect.ensuring(Effect.sync(() => rmSync(folder, { recursive: true, force: true }))))
    }, 60_000)

    it.live("runsc has no network, and says so instead of a weaker one", () =>
      inside(Effect.gen(function*() {
        const error = yield* Effect.flip(World.provision({ ...internet, runtime: "runsc" }))
        assert.strictEqual(error.step, "network")
        assert.include(error.remedy, "Use crun")
      })))

    it.live(
      "sandboxes do not reach each other, even if the class allows their subnet, and nobody reaches in",
      () =>
        inside(Effect.gen(function*() {
          const open = World.networked({ allow: ["198.19.0.0/16"] })
          const [one, other] = yield* Effect.all([World.provision(open), World.provision(open)])
          const address = yield* World.addressOf(one)
          assert.match(address, /^198\.19\./)
          const server = yield* Effect.forkScoped(World.exec(
            one,
            "python3",
            "-c",
            World.listener
          ))
          yield* Effect.sleep("500 millis")
          assert.deepStrictEqual(yield* World.probe(other, ["tcp", address, 7000, 2]), ["silence"])
          const fromHost = yield* Effect.callback<string>((resume) => {
            const socket = createConnection({ host: address, port: 7000, timeout: 1500 })
            const end = (word: string) => {
              socket.destroy()
              resume(Effect.succeed(word))
            }
            socket.on("connect", () => end("reached")).on("timeout", () => end("silence")).on(
              "error",
              () => end("refused")
            )
          })
          assert.strictEqual(fromHost, "silence")
          assert.include((yield* Fiber.join(server)).stdout, "alone")
        })),
      60_000
    )

    it.live(
      "a job changes neither rules nor addresses, and sends from no other source",
      () =>
        inside(Effect.gen(function*() {
          const sandbox = yield* World.provision(internet)
          const script = [
            "nft flush ruleset",
            "nft delete table inet stoker",
            "ip addr add 198.19.77.77/32 dev eth0",
            "ip link set eth0 down",
            "ip route replace default dev eth0",
            "unshare --user --map-root-user nft flush ruleset",
            "unshare --user --map-root-user ip addr add 198.19.77.77/32 dev lo",
            "ping -c 1 -W 1 93.184.216.34",
            "python3 -c 'import socket;socket.socket(socket.AF_INET,socket.SOCK_RAW,socket.IPPROTO_RAW)'",
            "python3 -c 'import socket;socket.socket(socket.AF_PACKET,socket.SOCK_RAW)'",
            "python3 -c 'import socket;s=socket.socket();s.setsockopt(0,15,1);s.setsockopt(0,19,1)'"
          ].map((line) => `${line} >/dev/null 2>&1 && echo "did: ${line}"`).join("\n")
          const { stdout } = yield* World.exec(
            sandbox,
            "/bin/sh",
            "-c",
            `PATH=$PATH:/usr/sbin\n${script}\nfor name in nft ip unshare; do basename $(command -v $name); done`
          )
          assert.strictEqual(stdout, "nft\nip\nunshare\n")
          // Not even with every capability in the sandbox's own user namespace, which only the host can give.
          const [guest = ""] = readFileSync(join(sandbox.place, "cgroup.procs"), "utf8").split("\n").filter((pid) =>
            pid !== "" && readFileSync(`/proc/${pid}/comm`, "utf8") === "guest\n"
          )
          const refused = spawnSync("nsenter", ["-t", guest, "-U", "-n", "nft", "flush", "ruleset"], {
            encoding: "utf8"
          })
          assert.match(refused.stderr, /Operation not permitted/)
          assert.deepStrictEqual(yield* World.probe(sandbox, ["tcp", "10.1.2.3", 80, 2]), ["ECONNREFUSED"])
        })),
      60_000
    )

    it.live("a packet from another source does not leave, whoever sends it", () =>
      inside(Effect.gen(function*() {
        const sandbox = yield* World.provision(internet)
        const netns = `stoker-${sandbox.id}`
        // As the host's root may: the rules are what is tried here, not who may add an address.
        World.sh("ip", "-n", netns, "addr", "add", "198.19.200.200/32", "dev", "eth0")
        const source = (address: string) =>
          `import socket\ns=socket.socket()\ns.settimeout(1.5)\ns.bind(('${address}',0))\ntry:\n s.connect(('${World.PUBLIC}',80));print(s.recv(99))\nexcept OSError as e: print(type(e).__name__)`
        assert.match((yield* World.exec(sandbox, "python3", "-c", source("0.0.0.0"))).stdout, /^b'45/)
        assert.strictEqual(
          (yield* World.exec(sandbox, "python3", "-c", source("198.19.200.200"))).stdout,
          "TimeoutError\n"
        )
      })), 60_000)

    it.live(
      "network none is as empty as ever, and a class's own nameservers are asked",
      () =>
        inside(Effect.gen(function*() {
          const none = yield* World.provision(standardClass("plain", "oci"))
          assert.deepStrictEqual(yield* World.probe(none, ["tcp", World.PUBLIC, 80, 1]), ["ENETUNREACH"])
          const own = yield* World.provision(
            World.networked({ allow: ["192.168.0.0/16"] }, { nameservers: [World.NAMESERVER] })
          )
          const { stdout } = yield* World.exec(own, "getent", "ahostsv4", "some.test")
          assert.include(stdout, World.OTHER_PUBLIC)
        })),
      60_000
    )

    it.live("host is refused by oci, and all but host by process", () =>
      inside(Effect.gen(function*() {
        const refused = yield* Effect.flip(World.provision(World.networked("host")))
        assert.deepStrictEqual([refused._tag, refused.step], ["ProvisionFailed", "network"])
        const plain = yield* Effect.flip(World.provision(internet)).pipe(
          Effect.provide(Layer.fresh(layerDrivers(state, ["process"])))
        )
        assert.deepStrictEqual([plain.driver, plain.step], ["process", "network"])
      })), 60_000)

    it.live("an operator's network: ptp and host-local in a conflist named fcnet", () =>
      Effect.gen(function*() {
        const list = {
          cniVersion: "0.4.0",
          name: "fcnet",
          plugins: [{
            type: "ptp",
            ipMasq: true,
            ipam: {
              type: "host-local",
              subnet: "192.168.127.0/24",
              resolvConf: "/etc/resolv.conf",
              dataDir: leases,
              routes: [{ dst: "0.0.0.0/0" }]
            }
          }]
        }
        writeFileSync(join(configurations, "broken.conflist"), "{")
        writeFileSync(join(configurations, "fcnet.conflist"), JSON.stringify(list))
        yield* inside(Effect.gen(function*() {
          const sandbox = yield* World.provision(
            World.networked("internet", { cni: "fcnet", nameservers: [World.NAMESERVER] })
          )
          assert.match(yield* World.addressOf(sandbox), /^192\.168\.127\.\d+$/)
          assert.deepStrictEqual(
            yield* World.probe(sandbox, ["tcp", World.PUBLIC, 80, 5], ["tcp", World.HOST, 8080, 1], [
              "tcp",
              "192.168.127.1",
              8080,
              1
            ]),
            [`ok ${World.HOST}`, "ECONNREFUSED", "ECONNREFUSED"]
          )
        }))
        const missing = yield* inside(Effect.flip(World.provision(World.networked("internet", { cni: "other" }))))
        assert.include(missing.message, "no CNI network other in")
      }), 60_000)

    it.live("a network with IPv6 as well: its world, and nothing private or of the host", () =>
      Effect.gen(function*() {
        const list = {
          cniVersion: "1.0.0",
          name: "both",
          plugins: [{
            type: "ptp",
            ipam: {
              type: "host-local",
              dataDir: leases,
              ranges: [[{ subnet: "10.66.0.0/24" }], [{ subnet: "fd66::/64" }]],
              routes: [{ dst: "0.0.0.0/0" }, { dst: "::/0" }]
            }
          }],
          stoker: { masquerade: true }
        }
        writeFileSync(join(configurations, "both.conflist"), JSON.stringify(list))
        yield* inside(Effect.gen(function*() {
          const sandbox = yield* World.provision(
            World.networked("internet", { cni: "both", nameservers: [World.NAMESERVER] })
          )
          const allowed = yield* World.provision(
            World.networked({ allow: [`[${World.PRIVATE6}]:80/tcp`] }, { cni: "both" })
          )
          World.sh("ip", "addr", "add", `${World.HOST6_LATE}/128`, "dev", "uplink", "nodad", "preferred_lft", "0")
          yield* Effect.addFinalizer(() =>
            Effect.sync(() => World.sh("ip", "addr", "del", `${World.HOST6_LATE}/128`, "dev", "uplink"))
          )
          assert.deepStrictEqual(
            yield* World.probe(
              sandbox,
              ["tcp", World.IPV6, 80, 5],
              ["tcp", World.PUBLIC, 80, 5],
              ["tcp", World.PRIVATE6, 80, 1],
              ["tcp", World.HOST6, 8081, 1],
              ["tcp", World.HOST6_LATE, 8081, 1],
              ["tcp", "fd66::1", 8081, 1],
              ["tcp", "64:ff9b::a01:203", 80, 1],
              ["tcp", "2002:a01:203::1", 80, 1]
            ),
            [
              `ok ${World.HOST6}`,
              `ok ${World.HOST}`,
              "ECONNREFUSED",
              "ECONNREFUSED",
              "silence",
              "ECONNREFUSED",
              "ECONNREFUSED",
              "ECONNREFUSED"
            ]
          )
          assert.deepStrictEqual(
            yield* World.probe(allowed, ["tcp", World.PRIVATE6, 80, 5], ["tcp", World.IPV6, 80, 1]),
            [`ok ${World.HOST6}`, "ECONNREFUSED"]
          )
        }))
      }), 60_000)

    it.live(
      "on an operator's bridge, too, sandboxes reach neither each other nor the host, and names come from its dns",
      () =>
        Effect.gen(function*() {
          const list = {
            cniVersion: "0.3.1",
            name: "bridged",
            plugins: [{
              type: "bridge",
              bridge: "stokertest0",
              isGateway: true,
              ipMasq: true,
              ipam: {
                type: "host-local",
                dataDir: leases,
                ranges: [[{ subnet: "10.67.0.0/24" }]],
                routes: [{ dst: "0.0.0.0/0" }]
              },
              dns: { nameservers: [World.NAMESERVER] }
            }]
          }
          writeFileSync(join(configurations, "bridged.conflist"), JSON.stringify(list))
          yield* inside(Effect.gen(function*() {
            // The plugin leaves its bridge for ever.
            yield* Effect.addFinalizer(() => Effect.sync(() => World.sh("ip", "link", "del", "stokertest0")))
            const bridged = (network: NetworkPolicy) => World.provision(World.networked(network, { cni: "bridged" }))
            const one = yield* bridged({ allow: ["10.67.0.0/24"] })
            const other = yield* bridged({ allow: ["10.67.0.0/24", `${World.PUBLIC}:80/tcp`] })
            const address = yield* World.addressOf(one)
            const server = yield* Effect.forkScoped(World.exec(one, "python3", "-c", World.listener))
            yield* Effect.sleep("500 millis")
            assert.deepStrictEqual(
              yield* World.probe(
                other,
                ["tcp", address, 7000, 2],
                ["tcp", "10.67.0.1", 8080, 1],
                ["tcp", World.PUBLIC, 80, 5]
              ),
              ["silence", "ECONNREFUSED", `ok ${World.HOST}`]
            )
            assert.include((yield* Fiber.join(server)).stdout, "alone")
            assert.include(
              (yield* World.exec(other, "cat", "/etc/resolv.conf")).stdout,
              World.NAMESERVER
            )
          }))
        }),
      60_000
    )

    it.live("tools that are missing fail the sandbox and are named, with the fix", () =>
      inside(
        Effect.gen(function*() {
          const [driver] = yield* Drivers
          const refused = yield* Effect.flip(World.provision(internet))
          assert.deepStrictEqual([refused._tag, refused.step], ["ProvisionFailed", "network"])
          assert.include(refused.message, "containernetworking-plugins")
          const checks = yield* driver?.checkClass?.(internet) ?? Effect.die("no driver")
          assert.deepStrictEqual(
            checks.filter(({ status }) => status !== "ok").map(({ detail }) => detail),
            ["there is no CNI plugin ptp in /nonexistent", "there is no CNI plugin host-local in /nonexistent"]
          )
          assert.deepStrictEqual(
            yield* driver?.checkClass?.(standardClass("plain", "oci")) ?? Effect.die("no driver"),
            []
          )
        }),
        { STOKER_CNI_PATH: "/nonexistent" }
      ), 60_000)

    it.live("ten at once have ten addresses, and all is gone however they end", () =>
      inside(Effect.gen(function*() {
        const scope = yield* Scope.make()
        const all = yield* Effect.forEach(
          Array.from({ length: 10 }),
          () => Scope.provide(World.provision(internet), scope),
          { concurrency: 5 }
        )
        const addresses = yield* Effect.forEach(
          all,
          World.addressOf
        )
        assert.strictEqual(new Set(addresses).size, 10)
        for (const sandbox of all.slice(0, 5)) {
          yield* sandbox.kill
        }
        assert.isAtLeast(readdirSync(join(state, "ledger")).length, 10)
        yield* Scope.close(scope, Exit.void)
        const { netns, veths } = World.held(
          leases,
          all.map(({ id }) => id)
        )
        assert.deepStrictEqual({ netns, veths, leases: World.leases(leases) }, { netns: [], veths: [], leases: [] })
      })), 90_000)
  })
