/** A worker that makes one machine, says its row, and waits to be killed. `node orphan.ts STATE` */
import { Effect, Logger } from "effect"
import { Host } from "../../src/layers/host/Host.ts"
import { Ledger } from "../../src/layers/ledger/Ledger.ts"
import { Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { layerDrivers } from "../../src/wiring.ts"
import { machineClass } from "./Rig.ts"

const [state = ""] = process.argv.slice(2)

const program = Effect.gen(function*() {
  const { instance } = yield* Host
  const sandboxClass = machineClass()
  const { diskBytes: bytes, diskInodes: inodes } = sandboxClass.defaults
  const [driver] = yield* Drivers
  const sandbox = yield* driver?.provision(sandboxClass, { bytes, inodes }) ?? Effect.die("no driver")
  const rows = yield* (yield* Ledger).rows(instance)
  process.stdout.write(`${JSON.stringify(rows.find(({ id }) => id === sandbox.id))}\n`)
  return yield* Effect.never
}).pipe(Effect.scoped, Effect.provide(layerDrivers(state, ["qemu"])))

// Its stdout is for the row.
Effect.runFork(Effect.provide(program, Logger.layer([])))
