import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import * as Jobs from "../sandbox/Jobs.ts"
import { Broker } from "../support/Broker.ts"
import { projectEnv, run } from "../support/Run.ts"
import { projectRoot } from "../support/Tree.ts"
import { WorkerProcess } from "./WorkerProcess.ts"

const submit = (amqpUrl: string, command: string) =>
  run("python3", [join(projectRoot, "examples", "submit-amqp.py"), command], {
    env: { ...projectEnv, AMQP_URL: amqpUrl }
  })

describe("examples/submit-amqp.py", () => {
  let broker: Broker
  let state: string
  beforeAll(async () => {
    broker = await Broker.acquire()
    state = Jobs.stateDirectory()
  }, Broker.startMillis)
  afterAll(async () => {
    await broker.release()
    await WorkerProcess.sweep(state)
    Jobs.remove(state)
  })

  it("says so where no worker has ever been", async () => {
    const { code, stderr } = await submit(broker.url, "true")
    assert.deepStrictEqual({ code, stderr }, { code: 1, stderr: "the broker refused: NO_ROUTE\n" })
  })

  it("runs a command on a worker, from a language that has no client of ours", async () => {
    const worker = await WorkerProcess.start({ state, amqpUrl: broker.url })
    try {
      const { code, stderr, stdout } = await submit(broker.url, "echo hello; exit 3")
      assert.deepStrictEqual({ code, stderr }, { code: 3, stderr: "" })
      assert.deepStrictEqual(stdout.trim().split("\n"), [
        "received",
        "running",
        "phase-started",
        "phase-ended",
        "ended",
        "stdout: hello",
        "{'_tag': 'Exited', 'phase': 'run', 'code': 3}"
      ])
    } finally {
      await worker.kill()
    }
  })
})
