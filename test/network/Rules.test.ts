import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Schema } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { builtIn, USUAL_SUBNET } from "../../src/layers/network/CniConfig.ts"
import { addressesOf } from "../../src/layers/network/CniResult.ts"
import { isReachable, nameserversOf, resolvConfOf } from "../../src/layers/network/Nameservers.ts"
import { places } from "../../src/layers/network/NetworkHost.ts"
import { parseDestination } from "../../src/layers/network/Policy.ts"
import { conflictOf, parseRoutes } from "../../src/layers/network/Routes.ts"
import { type IpNetwork, isAddress, isWithin, networkText, overlap, parseNetwork } from "../../src/schemas/IpNetwork.ts"
import { notTheWorld4, notTheWorld6, theWorld6 } from "../../src/schemas/PublicAddresses.ts"
import { Destination, NetworkSetup } from "../../src/schemas/SandboxClass.ts"

const network = (text: string): IpNetwork => {
  const found = parseNetwork(text)
  if (found === undefined) throw new Error(`${text} is no network`)
  return found
}

describe("addresses and networks", () => {
  it("are read as they are written, bits behind the prefix cleared", () => {
    for (
      const [text, written] of [
        ["10.1.2.3", "10.1.2.3"],
        ["10.1.2.3/24", "10.1.2.0/24"],
        ["0.0.0.0/0", "0.0.0.0/0"],
        ["255.255.255.255/32", "255.255.255.255"],
        ["::", "0:0:0:0:0:0:0:0"],
        ["::1/128", "0:0:0:0:0:0:0:1"],
        ["fd00::a:1/16", "fd00:0:0:0:0:0:0:0/16"],
        ["64:ff9b::10.1.2.3", "64:ff9b:0:0:0:0:a01:203"],
        ["1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"]
      ]
    ) assert.strictEqual(networkText(network(text ?? "")), written)
  })

  it("are refused if they are none", () => {
    const none = [
      "",
      "10.1.2",
      "10.1.2.256",
      "10.1.2.03",
      "10.1.2.3/33",
      "10.1.2.3/",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "1::2::3",
      "1:2:3:4:5:6:7::8:9",
      "::1.2.3.400",
      "12345::",
      "::/129",
      "host.example"
    ]
    for (const text of none) assert.isUndefined(parseNetwork(text), text)
    assert.isFalse(isAddress("10.0.0.0/8"))
  })

  it("overlap when one holds the other, of one family only", () => {
    assert.isTrue(overlap(network("10.0.0.0/8"), network("10.200.0.0/16")))
    assert.isTrue(overlap(network("10.200.0.0/16"), network("10.0.0.0/8")))
    assert.isFalse(overlap(network("10.0.0.0/9"), network("10.200.0.0/16")))
    assert.isFalse(overlap(network("0.0.0.0/0"), network("::/0")))
    assert.isTrue(isWithin([network("127.0.0.0/8")], "127.0.0.53"))
    assert.isFalse(isWithin([network("127.0.0.0/8")], "no address"))
  })
})

describe("destinations", () => {
  const is = Schema.is(Destination)

  it("are an address or network, with or without a port", () => {
    assert.deepStrictEqual(parseDestination("10.1.2.3:5432/tcp"), {
      network: network("10.1.2.3"),
      port: 5432,
      protocol: "tcp"
    })
    assert.deepStrictEqual(parseDestination("[fd00::1]:53/udp"), {
      network: network("fd00::1"),
      port: 53,
      protocol: "udp"
    })
    assert.deepStrictEqual(parseDestination("10.1.2.0/24"), { network: network("10.1.2.0/24") })
    assert.deepStrictEqual(parseDestination("fd00::/8"), { network: network("fd00::/8") })
    for (const text of ["10.1.2.3:5432/tcp", "[fd00::1]:53/udp", "10.1.2.0/24:80/tcp", "fd00::/8"]) {
      assert.isTrue(is(text), text)
    }
  })

  it("that the rules could not hold are refused where they are read", () => {
    for (
      const text of [
        "999.1.1.1",
        "10.1.2.0/33",
        "1.2.3",
        ":::",
        "10.1.2.3:0/tcp",
        "10.1.2.3:80",
        "a.example",
        "1.1.1.1 drop"
      ]
    ) {
      assert.isFalse(is(text), text)
    }
  })

  it("a subnet is IPv4 with room, nameservers are addresses", () => {
    const isSetup = Schema.is(NetworkSetup)
    assert.isTrue(isSetup({ subnet: "10.5.0.0/16", nameservers: ["9.9.9.9", "2620:fe::fe"] }))
    for (const subnet of ["10.5.0.0/31", "fd00::/64", "10.0.0.0/7", "10.5.0.0"]) {
      assert.isFalse(isSetup({ subnet }), subnet)
    }
    assert.isFalse(isSetup({ nameservers: ["dns.example"] }))
    assert.isFalse(isSetup({ cni: "fcnet", subnet: "10.5.0.0/16" }))
  })
})

describe("the world", () => {
  const refused = notTheWorld4.map(network)

  it("has none of these addresses", () => {
    const private4 = [
      "0.1.2.3",
      "10.255.255.255",
      "100.64.0.1",
      "100.127.255.255",
      "127.0.0.1",
      "169.254.169.254",
      "172.16.0.1",
      "172.31.255.255",
      "192.168.1.1",
      "198.18.0.1",
      "198.19.255.255",
      "224.0.0.251",
      "239.255.255.250",
      "240.0.0.1",
      "255.255.255.255"
    ]
    for (const address of private4) assert.isTrue(isWithin(refused, address), address)
    const private6 = [
      "::1",
      "fd00::1",
      "fe80::1",
      "ff02::1",
      "::ffff:10.0.0.1",
      "64:ff9b::10.0.0.1",
      "2001:0:a00:1::",
      "2002:a00:1::1"
    ]
    for (const address of private6) {
      assert.isTrue(!isWithin([network(theWorld6)], address) || isWithin(notTheWorld6.map(network), address), address)
    }
  })

  it("has the addresses beside them", () => {
    for (
      const address of [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.0.1",
        "172.32.0.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255"
      ]
    ) {
      assert.isFalse(isWithin(refused, address), address)
    }
    for (const address of ["2600::1", "2001:4860:4860::8888", "2a00::1"]) {
      assert.isTrue(isWithin([network(theWorld6)], address) && !isWithin(notTheWorld6.map(network), address), address)
    }
  })
})

describe("the host's routes", () => {
  const header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
  const line = (device: string, destination: string, mask: string) =>
    `${device}\t${destination}\t00000000\t0003\t0\t0\t0\t${mask}\t0\t0\t0\n`
  const subnet = network("198.19.0.0/16")

  it("are in a subnet's way unless they lead everywhere or to one of our sandboxes", () => {
    const harmless = header + line("eth0", "00000000", "00000000") + line("tun0", "00000080", "00000080") +
      line("veth12", "050013C6", "FFFFFFFF") + line("eth0", "0000000A", "000000FF")
    assert.isUndefined(conflictOf(parseRoutes(harmless), subnet))
    assert.strictEqual(
      conflictOf(parseRoutes(header + line("br0", "000013C6", "0000FFFF")), subnet),
      "198.19.0.0/16 by br0"
    )
    assert.strictEqual(
      conflictOf(parseRoutes(header + line("eth1", "050013C6", "FFFFFFFF")), subnet),
      "198.19.0.5 by eth1"
    )
    assert.strictEqual(
      conflictOf(parseRoutes(header + line("eth1", "000012C6", "0000FEFF")), subnet),
      "198.18.0.0/15 by eth1"
    )
  })
})

describe("nameservers", () => {
  it("are the host's, without those on its loopback and its own addresses", () => {
    const text =
      "# by hand\nsearch example.test\nnameserver 127.0.0.53\n nameserver 10.0.0.2\nnameserver fe80::1%eth0\nnameserver 9.9.9.9 # far\n"
    const found = nameserversOf(text)
    assert.deepStrictEqual(found, ["127.0.0.53", "10.0.0.2", "9.9.9.9"])
    assert.deepStrictEqual(found.filter(isReachable(new Set(["10.0.0.2"]))), ["9.9.9.9"])
  })

  it("are three at most in resolv.conf", () => {
    assert.strictEqual(resolvConfOf(["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"]).split("\n").length, 4)
  })
})

describe("infra/cni/stoker.conflist", () => {
  it("is the built-in network", async () => {
    const file = readFileSync(join(import.meta.dirname, "../../infra/cni/stoker.conflist"), "utf8")
    const { leases } = Effect.runSync(places.parse(ConfigProvider.fromEnvRecord({})))
    assert.deepStrictEqual(JSON.parse(file), builtIn({ subnet: USUAL_SUBNET, dataDir: leases }))
  })
})

describe("a plugin's result", () => {
  it("gives the sandbox's addresses in each version of the specification", () => {
    assert.deepStrictEqual(addressesOf({ ip4: { ip: "10.1.0.2/24" }, ip6: { ip: "fd00::2/64" } }), [
      "10.1.0.2/24",
      "fd00::2/64"
    ])
    assert.deepStrictEqual(
      addressesOf({
        interfaces: [{ name: "veth1" }, { name: "eth0", sandbox: "/run/netns/a" }],
        ips: [{ address: "10.1.0.1/24", interface: 0 }, { address: "10.1.0.2/24", interface: 1 }, {
          address: "10.1.0.3/24"
        }]
      }),
      ["10.1.0.2/24", "10.1.0.3/24"]
    )
  })
})
