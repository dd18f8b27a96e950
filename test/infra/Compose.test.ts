/** The compose file's form, and its demo against a real RabbitMQ with the management plugin and a worker. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { parse } from "yaml"
import { readDaemonConfig } from "../../src/schemas/DaemonText.ts"
import { workerConfigOf } from "../../src/schemas/DaemonWorker.ts"
import { faultLine } from "../../src/schemas/JsonDocument.ts"
import { BrokerProcess } from "../support/BrokerProcess.ts"
import { freePort } from "../support/Ports.ts"
import { projectEnv, run } from "../support/Run.ts"
import { patience } from "../support/Slowness.ts"
import { projectRoot, Tree } from "../support/Tree.ts"
import { WorkerProcess } from "../worker/WorkerProcess.ts"

const folder = join(projectRoot, "infra/compose")
const demo = join(folder, "demo.sh")

interface Service {
  readonly image: string
  readonly ports?: ReadonlyArray<string>
  readonly volumes?: ReadonlyArray<string>
  readonly depends_on?: Readonly<Record<string, unknown>>
  readonly healthcheck?: unknown
}
const compose = parse(readFileSync(join(folder, "compose.yaml"), "utf8")) as {
  readonly services: Readonly<Record<string, Service>>
  readonly volumes: Readonly<Record<string, unknown>>
}

describe("the compose file", () => {
  it("says nothing that it does not have, and is reached from this machine only", () => {
    for (const [name, { depends_on = {}, image, ports = [], volumes = [] }] of Object.entries(compose.services)) {
      assert.match(image, /^[a-z0-9/-]+:[A-Za-z0-9._-]+$/, name)
      for (const port of ports) assert.match(port, /^127\.0\.0\.1:\d+:\d+$/)
      for (const volume of volumes.filter((text) => /^[a-z]/.test(text))) {
        assert.property(compose.volumes, volume.split(":")[0] ?? "")
      }
      for (const other of Object.keys(depends_on)) assert.isDefined(compose.services[other]?.healthcheck, other)
    }
  })

  it("has a worker whose configuration it takes", () => {
    const read = readDaemonConfig(readFileSync(join(folder, "stoker.json"), "utf8"))
    const config = workerConfigOf(Result.getOrThrowWith(read, (faults) => new Error(faults.map(faultLine).join("\n"))))
    assert.strictEqual(config.classes[0].cluster?.kubeconfig, "/etc/stoker/kubeconfig")
    assert.strictEqual(config.mstc?.class, "cluster")
  })
})

describe("the demo", () => {
  it(
    "publishes through the management API, and reads the job's own queue",
    { timeout: patience(120_000) },
    async () => {
      const management = await freePort()
      const broker = await BrokerProcess.start({
        plugins: "rabbitmq_management",
        settings: `management.tcp.port = ${management}\nmanagement.tcp.ip = 127.0.0.1\n`
      })
      using tree = Tree.of({})
      try {
        const show = (command: string) =>
          run(demo, [command], {
            env: {
              ...projectEnv,
              MANAGEMENT: `http://127.0.0.1:${management}`,
              RABBITMQ_USER: "guest",
              RABBITMQ_PASSWORD: "guest"
            }
          })
        const nobody = await show("true")
        assert.strictEqual(nobody.code, 1)
        assert.match(nobody.stderr, /no worker is at this broker/)
        const worker = await WorkerProcess.start({
          state: join(tree.path, "state"),
          amqpUrl: `amqp://guest:guest@127.0.0.1:${broker.port}`
        })
        try {
          const fine = await show(`echo "hello from a job"`)
          assert.strictEqual(fine.code, 0, fine.stdout + fine.stderr)
          assert.match(fine.stdout, /received[\s\S]*running[\s\S]*done/)
          assert.include(fine.stdout, "hello from a job")
          const failed = await show("exit 3")
          assert.strictEqual(failed.code, 1, failed.stdout)
          assert.match(failed.stdout, /failed/)
          const queues = await broker.eval(
            "[rabbit_misc:rs(amqqueue:get_name(Q)) || Q <- rabbit_amqqueue:list(), element(4, amqqueue:get_name(Q)) =/= none]."
          )
          assert.notInclude(queues, "job_status_demo")
        } finally {
          await worker.drain()
        }
      } finally {
        broker.dispose()
      }
    }
  )
})
