/**
 * The worker of `grpc.ts`, a process of its own: everything is real, from the door to the sandbox. usage: grpcWorker.ts STATE
 * PORT CERTS, with a parent that asks it by messages what it uses.
 */
import { Effect, Layer, Logger } from "effect"
import { join } from "node:path"
import { command } from "../src/functions/Command.ts"
import { standardCeiling } from "../src/schemas/Limits.ts"
import { standardPool } from "../src/schemas/PoolConfig.ts"
import { standardClass, standardConfig } from "../src/schemas/WorkerConfig.ts"
import { layerApi, layerWorker } from "../src/wiring.ts"
import { tellUsed } from "./grpcUsed.ts"

const untilParentIsGone = Effect.callback<void>((resume) => {
  process.once("disconnect", () => resume(Effect.void))
})

const [state = "", port = "", certs = ""] = process.argv.slice(2)
const MIB = 1024 * 1024
const sandboxClass = {
  ...standardClass("oci", "oci"),
  ceiling: { ...standardCeiling, outputBytes: 256 * MIB },
  pool: { ...standardPool, minimum: 2, maximum: 4, refillPauseMs: 5 }
}
const worker = layerWorker({
  stateDirectory: state,
  config: { ...standardConfig, classes: [sandboxClass] },
  functions: [command]
})
const tls = { ca: join(certs, "ca.crt"), cert: join(certs, "server.crt"), key: join(certs, "server.key") }
const layer = layerApi({ grpc: `127.0.0.1:${port}`, tls }).pipe(
  Layer.provideMerge(worker),
  Layer.provideMerge(Logger.layer([]))
)
tellUsed()
await Effect.runPromise(
  Effect.andThen(Effect.sync(() => process.send?.("ready")), untilParentIsGone).pipe(Effect.provide(layer))
)
process.exit()
