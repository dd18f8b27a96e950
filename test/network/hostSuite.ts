import { afterAll, assert, beforeEach, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect } from "effect"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Native from "../../src/layers/host/Native.ts"
import * as NetworkHost from "../../src/layers/network/NetworkHost.ts"
import { InstanceId, SandboxId } from "../../src/schemas/Ids.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import * as World from "./World.ts"

const instance = InstanceId.make("hostsuite")
const shelter = SandboxId.make("shelter0000000000000")
const one = SandboxId.make("one00000000000000000")
const two = SandboxId.make("two00000000000000000")
const ids = [shelter, one, two]

const ptp = (subnet: string, dataDir: string) => ({
  type: "ptp",
  ipam: { type: "host-local", dataDir, ranges: [[{ subnet }]], routes: [{ dst: "0.0.0.0/0" }] }
})

/** Plugins that do wrong, beside the real ones, and the rules of a host. No sandbox is needed to see what they leave. */
export const hostSuite = () =>
  describe("the network of one row", () => {
    const state = Jobs.stateDirectory()
    const { configurations, env, leases } = World.places(state)
    const plugins = join(state, "plugins")
    const calls = join(state, "calls")
    mkdirSync(plugins)

    const plugin = (name: string, body: string) =>
      writeFileSync(join(plugins, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 })
    const network = (name: string, ...list: ReadonlyArray<object>) =>
      writeFileSync(
        join(configurations, `${name}.conflist`),
        JSON.stringify({ cniVersion: "1.0.0", name, plugins: list, stoker: { masquerade: true } })
      )
    const using = (cni: string) => World.networked("internet", { cni })
    const held = () => World.held(leases, ids)

    const make = (limitMillis = 10_000) =>
      Effect.gen(function*() {
        const { launch } = yield* Native.Native
        return yield* NetworkHost.make({
          instance,
          instanceDirectory: () => join(state, "instance"),
          launch,
          shelter: Effect.succeed({ id: shelter, procsFiles: [] }),
          kill: () => Effect.void,
          limitMillis
        })
      }).pipe(
        Effect.provide(Native.layer),
        Effect.provideService(
          ConfigProvider.ConfigProvider,
          ConfigProvider.fromEnvRecord({
            ...env,
            PATH: process.env["PATH"] ?? "",
            STOKER_CNI_PATH: `${plugins}:/usr/lib/cni:/opt/cni/bin`
          })
        )
      )

    /** All rows of the test are let go at its end, which must leave nothing. */
    const rows = (limitMillis?: number) =>
      Effect.acquireRelease(make(limitMillis), (host) =>
        Effect.gen(function*() {
          for (const id of [one, two, shelter]) yield* host.release(instance, id)
          assert.deepStrictEqual(held(), World.nothing)
          assert.isFalse(ids.some((id) => host.isHeld(instance, id)))
        }).pipe(Effect.orDie))

    const log = () =>
      existsSync(calls) ? readdirSync(calls).toSorted().map((name) => readFileSync(join(calls, name), "utf8")) : []

    beforeEach(() => {
      rmSync(calls, { recursive: true, force: true })
      mkdirSync(calls)
    })
    afterAll(() => Jobs.remove(state))

    it.live("a chain of plugins is run as the specification says", () =>
      Effect.gen(function*() {
        plugin(
          "recorder",
          `n=$(ls ${calls} | wc -l); config=$(cat)
printf '%s\\n%s' "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME" "$config" >${calls}/$n
[ "$CNI_COMMAND" = DEL ] || printf '%s' "$config" | python3 -c 'import json,sys;print(json.dumps(json.load(sys.stdin)["prevResult"]))'`
        )
        network("chained", ptp("10.77.1.0/24", leases), { type: "recorder", mine: "kept" })
        const host = yield* rows()
        const attachment = yield* host.acquire(one, using("chained"))
        assert.strictEqual(attachment.path, `/proc/${process.pid}/root/run/netns/stoker-${one}`)
        yield* host.release(instance, one)
        const spoken = log().map((text) => {
          const [head = "", ...rest] = text.split("\n")
          return { head, config: JSON.parse(rest.join("\n")) }
        })
        const at = `${one} /run/netns/stoker-${one} eth0`
        // DEL comes before ADD, when there is no result yet.
        assert.deepStrictEqual(spoken.map(({ head }) => head), [`DEL ${at}`, `ADD ${at}`, `DEL ${at}`])
        assert.deepStrictEqual(spoken.map(({ config }) => "prevResult" in config), [false, true, true])
        for (const { config } of spoken) {
          assert.deepStrictEqual(
            { version: config.cniVersion, name: config.name, type: config.type, mine: config.mine },
            { version: "1.0.0", name: "chained", type: "recorder", mine: "kept" }
          )
        }
        assert.match(spoken[2]?.config.prevResult.ips[0].address, /^10\.77\.1\.\d+\/24$/)
      }), 60_000)

    it.live("a plugin that fails in the middle of ADD is told in its own words, and leaves nothing", () =>
      Effect.gen(function*() {
        plugin(
          "broken",
          `[ "$CNI_COMMAND" = DEL ] && exit 0
echo words on stderr >&2
echo '{"cniVersion":"1.0.0","code":7,"msg":"out of luck","details":"none in stock"}'
exit 1`
        )
        network("breaks", ptp("10.77.2.0/24", leases), { type: "broken" })
        const host = yield* rows()
        const error = yield* Effect.flip(host.acquire(one, using("breaks")))
        assert.include(
          error.message,
          "CNI plugin broken could not ADD: out of luck: none in stock (code 7) (words on stderr)"
        )
        assert.strictEqual(held().leases.length, 1)
      }), 60_000)

    it.live("a plugin that hangs when it has done its work is killed with all it started, and what it did undone", () =>
      Effect.gen(function*() {
        plugin("hanging", `[ "$CNI_COMMAND" = DEL ] && exec /usr/lib/cni/ptp\n/usr/lib/cni/ptp\nsleep 4711.25\necho {}`)
        network("hangs", { ...ptp("10.77.3.0/24", leases), type: "hanging" })
        const host = yield* rows(6000)
        const error = yield* Effect.flip(host.acquire(one, using("hangs")))
        assert.include(error.message, "did not end within 6000 ms")
        assert.strictEqual(held().leases.length, 1)
        assert.deepStrictEqual(World.running("4711.25"), [])
      }), 60_000)

    it.live("a release that fails is kept for the next round, which succeeds", () =>
      Effect.gen(function*() {
        const fault = join(state, "fault")
        writeFileSync(fault, "")
        plugin(
          "sticky",
          `[ "$CNI_COMMAND" = ADD ] && { python3 -c 'import json,sys;print(json.dumps(json.load(sys.stdin)["prevResult"]))'; exit; }
[ ! -e ${fault} ] || { echo '{"code":11,"msg":"try again later"}'; exit 1; }`
        )
        network("sticks", ptp("10.77.4.0/24", leases), { type: "sticky" })
        const host = yield* rows()
        yield* host.acquire(one, using("sticks"))
        assert.include((yield* Effect.flip(host.release(instance, one))).message, "try again later (code 11)")
        assert.isTrue(host.isHeld(instance, one))
        rmSync(fault)
        yield* host.release(instance, one)
        assert.isFalse(host.isHeld(instance, one))
      }), 60_000)

    it.live("the same id twice is one network, the second", () =>
      Effect.gen(function*() {
        network("plain", ptp("10.77.5.0/24", leases))
        const host = yield* rows()
        const first = yield* host.acquire(one, using("plain"))
        const second = yield* host.acquire(one, using("plain"))
        assert.notStrictEqual(first.inode, second.inode)
        const { leases: taken, netns, veths } = held()
        assert.deepStrictEqual([taken.length, netns.length, veths.length], [1, 1, 1])
      }), 60_000)

    it.live("a full subnet says so, and a freed address is used again", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        const small = World.networked("internet", { subnet: "10.77.6.0/30", nameservers: [World.NAMESERVER] })
        yield* host.acquire(one, small)
        const error = yield* Effect.flip(host.acquire(two, small))
        assert.include(error.message, "no IP addresses available")
        assert.include(error.message, "give the class a larger subnet")
        yield* host.release(instance, two)
        yield* host.release(instance, one)
        assert.include((yield* host.acquire(two, small)).resolvConf, World.NAMESERVER)
      }), 60_000)

    it.live("a namespace that is gone already does not keep its address", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        yield* host.acquire(one, World.networked("internet"))
        World.sh("ip", "netns", "del", `stoker-${one}`)
        assert.strictEqual(held().leases.length, 1)
        yield* host.release(instance, one)
        assert.deepStrictEqual(held().leases, [])
      }), 60_000)

    it.live("a subnet that the host has a route into is refused", () =>
      Effect.gen(function*() {
        World.sh("ip", "route", "add", "198.19.4.0/24", "dev", "uplink")
        yield* Effect.addFinalizer(() =>
          Effect.sync(() =>
            World.sh("ip", "route", "del", "198.19.4.0/24", "dev", "uplink")
          )
        )
        const host = yield* rows()
        const error = yield* Effect.flip(host.acquire(one, World.networked("internet")))
        assert.include(error.message, "a route into the sandboxes' subnet 198.19.0.0/16: 198.19.4.0/24 by uplink")
        assert.isFalse(host.isHeld(instance, one))
      }), 60_000)

    it.live("the host's rules come back with the next sandbox when somebody has emptied them", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        yield* host.acquire(one, World.networked("internet"))
        World.sh("nft", "flush", "ruleset")
        assert.deepStrictEqual(held().tables, [])
        yield* host.acquire(two, World.networked("internet"))
        assert.include(World.sh("nft", "list", "ruleset"), "ip saddr 198.19.0.0/16 fib daddr type")
      }), 60_000)

    it.live("one of the host's addresses is no nameserver", () =>
      Effect.gen(function*() {
        const host = yield* rows()
        const error = yield* Effect.flip(
          host.acquire(one, World.networked("internet", { nameservers: [World.HOST_PRIVATE] }))
        )
        assert.include(error.message, `nameserver ${World.HOST_PRIVATE} is an address of the host`)
      }), 60_000)
  })
