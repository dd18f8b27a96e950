/** Our agent in a machine, as the old worker would have started it: the minimal image, which has no languages. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { resolve } from "node:path"
import { boot, BOOT_MS } from "./AgentMachine.ts"
import { ask, runs } from "./AgentProcess.ts"
import { driving } from "./AgentStandIn.ts"

describe("a machine of our image that nobody told of Stoker's wire", () => {
  it.live(
    "answers on 8080 as the old worker's did, and runs programs apart from its agent",
    () =>
      Effect.gen(function*() {
        const machine = yield* boot(resolve("build/machine-images/names/minimal"))
        const { ready, source } = driving(machine.port)
        yield* ready(BOOT_MS).pipe(Effect.catch((error) => Effect.die(`${error.message}\n${machine.console()}`)))
        const health = yield* ask(machine.port, "GET", "/health", undefined, {}, BOOT_MS)
        assert.deepStrictEqual(health, { status: 200, type: "text/plain; charset=UTF-8", body: "OK" })
        // A guest was started for it, in its own namespaces and as the job's user, and found no compiler here.
        const answer = yield* runs(machine.port, "c", "int main() { return 0; }")
        assert.deepStrictEqual(answer, {
          status: 400,
          message: "Failed to compile",
          error: "exec: \"gcc\": executable file not found in $PATH",
          stdout: "",
          stderr: "",
          exec_duration: 0,
          mem_usage: 0
        })
        const refused = yield* Effect.flip(Stream.runCollect(source({ language: "python", code: "print(1)" })))
        assert.include(refused.message, "exec: \"python\": executable file not found in $PATH")
        const other = yield* runs(machine.port, "rust", "fn main() {}")
        assert.deepStrictEqual(other, { status: 400, message: "Invalid language" })
      }),
    BOOT_MS + 60_000
  )
})
