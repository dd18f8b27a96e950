/** A worker that makes one sandbox, says its row, and waits to be killed. `node orphan.ts STATE DRIVER` */
import { Effect, Logger } from "effect"
import { Host } from "../../src/layers/host/Host.ts"
import { Ledger } from "../../src/layers/ledger/Ledger.ts"
import { Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { DriverName } from "../../src/schemas/SandboxClass.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import { layerDrivers } from "../../src/wiring.ts"

const [state = "", driver = ""] = process.argv.slice(2)
const name = DriverName.make(driver)

const program = Effect.gen(function*() {
  const { instance } = yield* Host
  const sandboxClass = standardClass(name, name)
  const { diskBytes: bytes, diskInodes: inodes } = sandboxClass.defaults
  for (const each of yield* Drivers) yield* each.provision(sandboxClass, { bytes, inodes })
  const [row] = yield* (yield* Ledger).rows(instance)
  process.stdout.write(`${JSON.stringify(row)}\n`)
  return yield* Effect.never
}).pipe(Effect.scoped, Effect.provide(layerDrivers(state, [name], undefined, { io: true, cpuset: true })))

// Its stdout is for the row.
Effect.runFork(Effect.provide(program, Logger.layer([])))
