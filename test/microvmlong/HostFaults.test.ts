/** Machines whose host lacks something, through the driver, on real QEMU: addresses, plugins, room on the disk, an image. */
import { assert, describe, layer } from "@effect/vitest"
import { ConfigProvider, Effect, Layer } from "effect"
import { cpSync, mkdirSync, readdirSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, it } from "vitest"
import { type Driver, Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import type { NetworkSetup, SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { layerDrivers } from "../../src/wiring.ts"
import * as Rig from "../microvm/Rig.ts"
import * as World from "../network/World.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { projectEnv, run } from "../support/Run.ts"
import { patience } from "../support/Slowness.ts"

const LIMIT = patience(240_000)

const withNetwork = (networkSetup: NetworkSetup): SandboxClass => ({
  ...Rig.machineClass(),
  network: "internet",
  networkSetup
})

const provision = (driver: Driver, sandboxClass: SandboxClass) => {
  const { diskBytes: bytes, diskInodes: inodes } = sandboxClass.defaults
  return driver.provision(sandboxClass, { bytes, inodes })
}

describe("a host that lacks something", () => {
  const state = Jobs.stateDirectory()
  const { configurations, env, leases } = World.places(state)
  const plugins = join(state, "net", "plugins")
  const seen = new Set<string>()
  let world: World.World
  beforeAll(async () => {
    world = await World.World.make()
  }, World.TURN)
  afterAll(async () => {
    const { netns, veths, leases: taken } = World.held(leases, [...seen])
    const left = [...Rig.left(state, [...seen]), ...netns, ...veths, ...taken, ...World.chains()]
    Jobs.remove(state)
    await world.end()
    assert.deepStrictEqual(left, [])
  })

  const plugin = (name: string, body: string, ipam: object) => {
    mkdirSync(plugins, { recursive: true })
    writeFileSync(join(plugins, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 })
    const list = { cniVersion: "1.0.0", name, plugins: [{ type: name, ipam }] }
    writeFileSync(join(configurations, `${name}.conflist`), JSON.stringify(list))
    return withNetwork({ cni: name, nameservers: [World.NAMESERVER] })
  }
  const hostLocal = (subnet: string) => ({ type: "host-local", dataDir: leases, ranges: [[{ subnet }]] })
  const layerMachines = Layer.fresh(layerDrivers(state, ["qemu"])).pipe(
    Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({
      PATH: process.env["PATH"] ?? "",
      ...env,
      STOKER_CNI_PATH: `${plugins}:/usr/lib/cni:/opt/cni/bin`
    })))
  )
  const qemu = Effect.gen(function*() {
    const [driver] = yield* Drivers
    return driver ?? (yield* Effect.die("no driver"))
  })
  /** Of machines: the row in which a driver makes networks stays as long as it, with its namespace. */
  const remains = () => {
    const { netns, veths, leases: taken } = World.held(leases, [...seen])
    const [own = ""] = Rig.rows(state)
    assert.deepStrictEqual(Rig.rows(state), [own])
    return [...Rig.left(state, [...seen]).filter((what) => !what.includes(own)), ...netns, ...veths, ...taken]
  }

  layer(layerMachines, { excludeTestServices: true, timeout: LIMIT })("with machines of QEMU", (it) => {
    it.effect(
      "a /29 has five addresses: the sixth machine is told so, and has the one that is given back",
      () =>
        Effect.gen(function*() {
          const driver = yield* qemu
          const small = withNetwork({ subnet: "10.79.1.0/29", nameservers: [World.NAMESERVER] })
          yield* driver.prepare?.(small) ?? Effect.void
          const made = Effect.tap(provision(driver, small), ({ id }) => Effect.sync(() => seen.add(id)))
          yield* Effect.scoped(Effect.gen(function*() {
            yield* Effect.scoped(Effect.gen(function*() {
              yield* made
              yield* Effect.replicateEffect(made, 4)
              const error = yield* Effect.flip(made)
              assert.strictEqual(error.step, "network")
              assert.match(error.message, /no IP addresses available/)
              assert.match(error.message, /larger subnet/)
              assert.lengthOf(Rig.vmms([...seen]), 5)
            }))
            yield* made
          }))
          assert.deepStrictEqual(remains(), [])
        }),
      LIMIT
    )

    it.effect(
      "a plugin that fails, or is killed half way, is told in its words, and nothing stays of the machine",
      () =>
        Effect.gen(function*() {
          const driver = yield* qemu
          const broken = plugin(
            "broken",
            "[ \"$CNI_COMMAND\" = DEL ] && exit 0\necho '{\"code\":7,\"msg\":\"out of luck\"}'\nexit 1",
            hostLocal("10.79.2.0/24")
          )
          const dying = plugin(
            "dying",
            "[ \"$CNI_COMMAND\" = DEL ] && exec /usr/lib/cni/ptp\n/usr/lib/cni/ptp > /dev/null\nkill -9 $$",
            hostLocal("10.79.3.0/24")
          )
          for (const [sandboxClass, expected] of [[broken, /out of luck/], [dying, /dying.*SIGKILL/]] as const) {
            const error = yield* Effect.flip(Effect.scoped(provision(driver, sandboxClass)))
            assert.strictEqual(error.step, "network")
            assert.match(error.message, expected)
            assert.deepStrictEqual(remains(), [])
          }
        }),
      LIMIT
    )

    it.effect(
      "an image that is not there, or not whole any more, is told with what to do, and waited for by nobody",
      () =>
        Effect.gen(function*() {
          const driver = yield* qemu
          const cut = join(state, "cut")
          cpSync(Rig.image(), cut, { recursive: true })
          const [root = ""] = readdirSync(cut).filter((name) => name.endsWith(".ext4"))
          truncateSync(join(cut, root), 4096)
          for (
            const [image, expected] of [["nonesuch", /none of that name.*image build/], [cut, /root\.ext4/]] as const
          ) {
            const error = yield* Effect.flip(Effect.scoped(provision(driver, Rig.machineClass({ image }))))
            assert.match(error.message, expected)
            assert.deepInclude(error, { step: "image", isLasting: true })
          }
        }),
      LIMIT
    )
  })

  it("a disk that is full costs the job that writes, or the one that begins, and no other", async () => {
    const full = join(state, "full")
    mkdirSync(full)
    const script = join(import.meta.dirname, "fullHost.ts")
    const { code, stderr, stdout } = await run("unshare", [
      "--mount",
      "--propagation=private",
      "sh",
      "-c",
      "mount -t tmpfs -o size=400m,mode=711 tmpfs \"$1\" && shift && exec \"$@\"",
      "sh",
      full,
      process.execPath,
      script,
      full
    ], { env: projectEnv })
    assert.strictEqual(code, 0, stderr)
    const said = stdout.trim().split("\n").map((line): unknown => JSON.parse(line))
    const written = { _tag: "Exited", phase: "run", code: 0 }
    assert.lengthOf(said, 5)
    assert.deepNestedInclude(said[0], { name: "without room for a template", outcome: written, templates: 0 })
    assert.deepNestedInclude(said[1], { name: "with room", outcome: written })
    assert.deepNestedInclude(said[2], { name: "nearly full", outcome: { ...written, code: 1 } })
    assert.match(JSON.stringify(said[2]), /dd: file: Input\/output error/)
    assert.deepNestedInclude(said[3], { "name": "full", "outcome._tag": "SandboxFailed" })
    assert.match(JSON.stringify(said[3]), /ENOSPC.*not full\?/)
    assert.deepNestedInclude(said[4], { name: "with room again", outcome: written })
  }, LIMIT)
})
