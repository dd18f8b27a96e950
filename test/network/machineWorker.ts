/** Makes and releases a machine's network again and again, until it is killed. usage: machineWorker.ts STATE INSTANCE ID CLASS ENV */
import { Effect, Schema } from "effect"
import { InstanceId, SandboxId } from "../../src/schemas/Ids.ts"
import { SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { make, owner } from "./machineHost.ts"

const [state = "", name = "", row = "", asked = "", env = ""] = process.argv.slice(2)
const sandboxClass = Schema.decodeUnknownSync(Schema.fromJsonString(SandboxClass))(asked)
const decodeEnv = Schema.decodeSync(Schema.fromJsonString(Schema.Record(Schema.String, Schema.String)))
const id = SandboxId.make(row)
const instance = InstanceId.make(name)

await Effect.runPromise(Effect.gen(function*() {
  const host = yield* make(state, decodeEnv(env), { instance })
  process.stdout.write("up\n")
  while (true) {
    yield* host.acquireMachine(id, sandboxClass, owner)
    yield* host.release(instance, id)
  }
}))
