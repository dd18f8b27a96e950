/**
 * Our agent in a machine with languages, asked by our worker's side as it asks an original one. The image:
 * `stoker image build languages --languages c,python --state build`, or another one by STOKER_LANGUAGES_IMAGE.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { resolve } from "node:path"
import type { AgentEvent } from "../../src/layers/sandbox/microvm/CodeBenchAgent.ts"
import { boot, BOOT_MS } from "../microvm/AgentMachine.ts"
import { runs } from "../microvm/AgentProcess.ts"
import { driving } from "../microvm/AgentStandIn.ts"

const image = process.env["STOKER_LANGUAGES_IMAGE"] ?? resolve("build/machine-images/names/languages")

const stdoutOf = (events: ReadonlyArray<AgentEvent>) =>
  Buffer.concat(events.flatMap((event) => event._tag === "Output" && event.stream === "stdout" ? [event.bytes] : []))
    .toString()

describe("a machine with languages", () => {
  it.live(
    "compiles and runs for our worker and for the old one, and outlives what programs do to it",
    () =>
      Effect.gen(function*() {
        const machine = yield* boot(image)
        const { ready, source } = driving(machine.port)
        yield* ready(BOOT_MS).pipe(Effect.catch((error) => Effect.die(`${error.message}\n${machine.console()}`)))
        const run = (language: string, code: string) => Stream.runCollect(source({ language, code }))
        const hello = yield* run("c", "#include <stdio.h>\nint main() { printf(\"Hello, World!\"); return 3; }")
        assert.strictEqual(stdoutOf(hello), "Hello, World!")
        assert.deepStrictEqual(hello[0], { _tag: "Started", phase: "run" })
        const last = hello.at(-1)
        assert.deepStrictEqual(last?._tag === "Exited" ? last.exit : undefined, { _tag: "Exited", code: 3 })
        const wrong = yield* run("c", "int main() {")
        assert.deepStrictEqual(wrong[0], { _tag: "Started", phase: "compile" })
        const who = yield* run(
          "python",
          "import os\nprint(os.getuid(), sorted(p for p in os.listdir('/proc') if p.isdigit()) == [str(os.getpid())])"
        )
        assert.strictEqual(stdoutOf(who), "1000 True\n")
        // All the memory, all the processes, and the agent's own port: none of it is the agent's end.
        const greedy = yield* runs(machine.port, "python", "x = []\nwhile True: x.append(bytearray(1 << 20))")
        assert.strictEqual(greedy.status, 400)
        const forks = [
          "import os, time",
          "n = 0",
          "try:",
          "  while True:",
          "    if os.fork() == 0: time.sleep(1000)",
          "    n += 1",
          "except OSError: print(n < 600)"
        ].join("\n")
        assert.include((yield* runs(machine.port, "python", forks)).stdout, "True")
        const inside = [
          "import urllib.request",
          "for host in ['127.0.0.1', '10.0.2.15']:",
          "  try: print(urllib.request.urlopen(f'http://{host}:8080/health', timeout=5).status)",
          "  except OSError as error: print('cut off')",
          "  except Exception as error: print('cut off')"
        ].join("\n")
        assert.strictEqual((yield* runs(machine.port, "python", inside)).stdout, "cut off\ncut off\n")
        assert.strictEqual((yield* runs(machine.port, "python", "print(5)")).stdout, "5\n")
      }),
    BOOT_MS + 240_000
  )
})
