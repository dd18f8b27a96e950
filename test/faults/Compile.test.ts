/** A worker that dies while crun compiles its filter, when a container stands there that is no sandbox. */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { afterAll, assert, describe, it } from "vitest"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"
import { Tree } from "../support/Tree.ts"
import { until } from "../worker/until.ts"
import { WorkerProcess } from "../worker/WorkerProcess.ts"

describe("a worker killed at its first sandbox", () => {
  const state = Jobs.stateDirectory()
  afterAll(() => Jobs.remove(state))

  it("leaves no container of the filter's compiling behind", async () => {
    // Made as always, and then nothing more: the worker waits for its `create`.
    using tree = Tree.of({
      crun:
        "#!/bin/sh\ncrun \"$@\" || exit\ncase \" $* \" in *' create '*) : >\"${0%/crun}/created\"; sleep 60 ;; esac\n"
    })
    const worker = await WorkerProcess.start({ state, env: { STOKER_CRUN: join(tree.path, "crun") } })
    await until("a container", () => existsSync(join(tree.path, "created")))
    assert.isAtLeast(Jobs.held(state).processes, 3)
    await worker.kill()
    await until("their end", () => Jobs.held(state).processes === 0)
    await WorkerProcess.sweep(state)
    const { cgroups, crun, instances, ledger, mounts, processes } = Jobs.held(state)
    assert.deepStrictEqual([cgroups, crun, instances, ledger, mounts, processes], [0, 0, 0, [], 0, 0])
  }, patience(60_000))
})
