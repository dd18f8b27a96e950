import { mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, afterEach, assert, describe, it } from "vitest"
import * as Jobs from "../sandbox/Jobs.ts"
import { until } from "../worker/until.ts"
import { WorkerProcess } from "../worker/WorkerProcess.ts"
import * as World from "./World.ts"

/** Whole workers, killed. */
export const workerSuite = () =>
  describe("a worker with networks", () => {
    const state = Jobs.stateDirectory()
    const { env, leases } = World.places(state)
    const workers: Array<WorkerProcess> = []
    const start = async (network: string, more: Readonly<Record<string, string>> = {}) => {
      const worker = await WorkerProcess.start({ state, env: { ...env, ...more, TEST_NETWORK: network } })
      workers.push(worker)
      return worker
    }

    afterEach(async () => {
      for (const worker of workers.splice(0)) await worker.drain()
    })
    afterAll(async () => {
      await WorkerProcess.sweep(state)
      Jobs.remove(state)
    })

    it("drained, leaves nothing", async () => {
      const worker = await start("internet")
      await until("two networks", () => World.leases(leases).length >= 2)
      const rows = World.rows(state)
      assert.strictEqual(await worker.drain(), 0)
      assert.deepStrictEqual(World.held(leases, rows), World.nothing)
      assert.deepStrictEqual(World.rows(state), [])
    }, 120_000)

    it("killed while a plugin hangs, takes the plugin with it, and what that has done goes too", async () => {
      const plugins = join(state, "plugins")
      mkdirSync(plugins)
      const real = "exec /usr/lib/cni/ptp"
      writeFileSync(
        join(plugins, "ptp"),
        `#!/bin/sh\n[ "$CNI_COMMAND" = DEL ] && ${real}\n/usr/lib/cni/ptp\nsleep 4712.5\n`,
        { mode: 0o755 }
      )
      const victim = await start("internet", { STOKER_CNI_PATH: `${plugins}:/usr/lib/cni` })
      await until("a plugin that hangs", () => World.running("4712.5").length > 0)
      const rows = World.rows(state)
      assert.isAtLeast(World.leases(leases).length, 1)
      await victim.kill()
      await until("the plugin's end", () => World.running("4712.5").length === 0)
      rmSync(plugins, { recursive: true })
      await start("none")
      await until("nothing of the dead worker's", () => Object.values(World.held(leases, rows)).flat().length === 0)
    }, 120_000)

    it("killed at any moment, is cleaned up after by the next one, whatever classes that has", async () => {
      for (const [turn, millis] of [0, 40, 90, 200].entries()) {
        const victim = await start("internet")
        const isUp = () => World.leases(leases).length >= 2 && World.traces().tables.length === 1
        if (turn === 0) await until("two networks and their rules", isUp)
        else await new Promise((resolve) => setTimeout(resolve, millis))
        const rows = World.rows(state)
        await victim.kill()
        if (turn === 0) {
          const { netns, tables } = World.held(leases, rows)
          assert.isAtLeast(netns.length, 2)
          assert.strictEqual(tables.length, 1)
        }
        const all = () => JSON.stringify(World.held(leases, rows))
        await start("none")
        await until(
          `all gone, not ${all()}`,
          () => all() === JSON.stringify({ ...World.held("", []), ...World.nothing })
        )
        for (const worker of workers.splice(0)) await worker.drain()
      }
      assert.deepStrictEqual(World.rows(state), [])
    }, 240_000)
  })
