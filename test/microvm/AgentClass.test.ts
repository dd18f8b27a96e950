/** A class whose machines have a CodeBench agent; ours stands in for an original one, in an image without languages. */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { afterAll, assert, describe, it, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { join } from "node:path"
import * as Native from "../../src/layers/host/Native.ts"
import { MachineImages } from "../../src/layers/microvm/image/MachineImages.ts"
import * as MachineImagesLive from "../../src/layers/microvm/image/MachineImagesLive.ts"
import { Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { WorkPath } from "../../src/schemas/Program.ts"
import { rootFile } from "../image/Make.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"
import * as Rig from "./Rig.ts"

const LIMIT = patience(120_000)

/** Answers on 8080, and is of no other image. `Success` needs nothing but a shell. */
const THEIRS = `#!/bin/sh
read -r method path version
length=0
while read -r name value; do
  [ -n "\${name%$(printf '\\r')}" ] || break
  case $name in [Cc]ontent-[Ll]ength:) length=\${value%$(printf '\\r')} ;; esac
done
head -c "$length" > /dev/null
if [ "$path" = /health ]; then body=OK; else
  body='{"message":"Success","error":"","stdout":"of '$(readlink /proc/1/exe)' '$(ip -4 -o addr show eth0 | cut -d" " -f7)'","stderr":"","exec_duration":1200,"mem_usage":64}'
fi
printf 'HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %s\\r\\nConnection: close\\r\\n\\r\\n%s' "\${#body}" "$body"
`

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
  it.live(
    "starts an image of somebody else's by its own init, and asks the agent that this has started",
    () =>
      Effect.gen(function*() {
        const folder = join(state, "theirs")
        const root = rootFile(folder, [
          "sbin/init",
          "bin/sh",
          "bin/head",
          "bin/readlink",
          "bin/ip",
          "bin/cut",
          "bin/nc"
        ], {
          "etc/inittab": "::respawn:/bin/nc -ll -p 8080 -e /bin/answer\n",
          "bin/answer": THEIRS
        })
        const images = MachineImagesLive.layer({ stateDirectory: state }).pipe(
          Layer.provide([Native.layer, layerSecureRandom])
        )
        const { directory } = yield* MachineImages.use((store) =>
          store.build({ name: "theirs", root: { base: "given", file: root }, kernel: Rig.image() }, () => Effect.void)
        ).pipe(Effect.provide(images))
        const theirs = Rig.machineClass({ agent: "codebench", image: directory })
        const { outcome, stdout } = yield* Jobs.runIn(theirs, {
          function: "code",
          args: { language: "c", source: "int main() { return 0; }" }
        }).pipe(Effect.provide(Jobs.layerOf(theirs, state)))
        note()
        assert.strictEqual(outcome._tag, "Exited", JSON.stringify(outcome))
        assert.match(Buffer.from(stdout).toString(), /^of \/bin\/busybox 169\.254\.77\.2\/30$/)
      }),
    LIMIT
  )
})
