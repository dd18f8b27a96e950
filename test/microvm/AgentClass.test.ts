/** A class whose machines have a CodeBench agent; ours stands in for an original one, in an image without languages. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { WorkPath } from "../../src/schemas/Program.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"
import * as Rig from "./Rig.ts"

const LIMIT = patience(120_000)

describe("a class of machines with a CodeBench agent", () => {
  const state = Jobs.stateDirectory()
  const seen = new Set<string>()
  const note = () => {
    for (const id of Rig.rows(state)) seen.add(id)
  }
  afterAll(() => {
    const found = Rig.left(state, [...seen])
    Jobs.remove(state)
    assert.deepStrictEqual(found, [])
  })
  const sandboxClass = Rig.machineClass({ agent: "codebench" })

  layer(Jobs.layerOf(sandboxClass, state), { excludeTestServices: true, timeout: LIMIT })("on QEMU", (it) => {
    it.effect(
      "sends a job to the agent, which has no such compiler, and removes the machine",
      () =>
        Effect.gen(function*() {
          const { outcome, usage } = yield* Jobs.runIn(sandboxClass, {
            function: "code",
            args: { language: "c", source: "int main() { return 0; }" }
          })
          note()
          assert.strictEqual(outcome._tag, "Rejected", JSON.stringify(outcome))
          assert.match(JSON.stringify(outcome), /gcc.*executable file not found/)
          assert.strictEqual(usage.phases.length, 1)
          assert.isAbove(usage.provisionMicros ?? 0, 0)
        }),
      LIMIT
    )

    it.effect("says of everything else that its agent does not take it", () =>
      Effect.gen(function*() {
        const other = yield* Jobs.runIn(sandboxClass, { args: { command: "true" } })
        assert.strictEqual(other.outcome._tag, "Rejected")
        assert.match(JSON.stringify(other.outcome), /one source file/)
        const [driver] = yield* Drivers
        if (driver === undefined) return yield* Effect.die("no driver")
        const { diskBytes: bytes, diskInodes: inodes } = sandboxClass.defaults
        yield* Effect.scoped(Effect.gen(function*() {
          const sandbox = yield* driver.provision(sandboxClass, { bytes, inodes })
          note()
          assert.strictEqual(Rig.vmms([sandbox.id]).length, 1)
          const refusals = [
            sandbox.put([]),
            sandbox.signal(15, "main"),
            sandbox.get(WorkPath.make("a"), 10)
          ]
          for (const refusal of refusals) assert.strictEqual((yield* Effect.flip(refusal))._tag, "SandboxRefused")
          yield* sandbox.kill
          const { reason } = yield* sandbox.lost ?? Effect.die("it cannot be lost")
          assert.match(reason, /its VMM ended/)
        }))
        assert.isAbove(seen.size, 0)
      }), LIMIT)
  })
})
