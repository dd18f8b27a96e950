/** `container` jobs in oci sandboxes: the image a job brings is the root, and says what is run. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { standardPool } from "../../src/schemas/PoolConfig.ts"
import type { SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import type * as Make from "./ImageMaker.ts"
import { compiled, toolImage } from "./ToolImage.ts"

const state = Jobs.stateDirectory()
const files = Jobs.stateDirectory()

const tool = compiled(
  files,
  `#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
  for (int i = 0; i < argc; i++) printf("%s ", argv[i]);
  printf("of %s in %s\\n", getenv("WHOSE") ? getenv("WHOSE") : "nobody", getenv("INPUT_BUCKET") ? getenv("INPUT_BUCKET") : "none");
  FILE *made = fopen("made", "w");
  if (made) { fputs("by the image", made); fclose(made); }
  return argc > 1 && argv[argc - 1][0] == '7' ? 7 : 0;
}`
)

let number = 0
const layout = (options: Omit<Make.ImageOptions, "layers">) =>
  toolImage(join(files, `layout-${++number}`), tool, options)

const withImages: SandboxClass = {
  ...standardClass("oci", "oci"),
  images: { allow: [`oci:${files}/`] },
  pool: { ...standardPool, minimum: 0, maximum: 1 }
}
const ran = (args: unknown, sandboxClass: SandboxClass = withImages, artefacts: ReadonlyArray<string> = []) =>
  Jobs.runIn(sandboxClass, { function: "container", args, artefacts })
const whyNot = Effect.fnUntraced(function*(args: unknown, sandboxClass?: SandboxClass) {
  const { outcome } = yield* ran(args, sandboxClass)
  assert.strictEqual(outcome._tag, "Rejected", JSON.stringify(outcome))
  return outcome._tag === "Rejected" ? `${outcome.reason}. ${outcome.remedy}` : ""
})

describe("container jobs in oci sandboxes", () => {
  afterAll(() => {
    assert.strictEqual(existsSync(join(state, "ledger")) ? readdirSync(join(state, "ledger")).length : 0, 0)
  })
  layer(Jobs.layerOf(withImages, state), { timeout: 60_000, excludeTestServices: true })((it) => {
    it.effect(
      "run what the image says, what the job says instead, and with both's variables",
      () =>
        Effect.gen(function*() {
          const image = layout({ entrypoint: ["/tool", "entry"], cmd: ["usual"], env: ["WHOSE=image"] })
          const text = Effect.fnUntraced(function*(args: object) {
            const { outcome, stdout } = yield* ran({ image, ...args })
            assert.deepStrictEqual(outcome, { _tag: "Exited", phase: "run", code: 0 }, stdout.toString())
            return stdout.toString()
          })
          assert.strictEqual(yield* text({}), "/tool entry usual of image in none\n")
          assert.strictEqual(yield* text({ args: ["own"] }), "/tool entry own of image in none\n")
          assert.strictEqual(yield* text({ args: [] }), "/tool entry of image in none\n")
          assert.strictEqual(yield* text({ command: ["/tool"], args: ["a b"] }), "/tool a b of image in none\n")
          assert.strictEqual(
            yield* text({ command: ["/tool"], env: { WHOSE: "job" } }),
            "/tool of job in none\n"
          )
        }),
      60_000
    )

    it.effect("end with the program's code, and bring files back", () =>
      Effect.gen(function*() {
        const image = layout({ entrypoint: null, cmd: ["/tool", "7"] })
        const { artefacts, outcome } = yield* ran({ image }, withImages, ["made"])
        assert.deepStrictEqual(outcome, { _tag: "Exited", phase: "run", code: 7 })
        assert.strictEqual(artefacts.get("made")?.toString(), "by the image")
      }), 60_000)

    it.effect("are rejected with the reason where they cannot be", () =>
      Effect.gen(function*() {
        const silent = layout({ entrypoint: [] })
        assert.include(yield* whyNot({ image: silent }), "does not say what it runs")
        const { images: _, ...closed } = withImages
        assert.include(yield* whyNot({ image: silent }, closed), "lets no job bring an image")
        assert.include(yield* whyNot({ image: "debian:12" }), "the class takes no image")
        assert.include(yield* whyNot({ image: "oci-archive:/etc/passwd" }), "file of the worker's host")
        for (
          const more of [{ secrets: { A: { secret: "a", key: "b" } } }, { nodeSelector: { a: "b" } }, {
            pullSecret: "x"
          }]
        ) {
          assert.include(yield* whyNot({ image: silent, ...more }), "is a cluster's")
        }
      }), 60_000)

    it.effect("an image that is not there is told as such", () =>
      Effect.gen(function*() {
        const { outcome } = yield* ran({ image: `oci:${files}/none:latest`, command: ["/tool"] })
        assert.strictEqual(outcome._tag, "SandboxFailed")
        assert.include(JSON.stringify(outcome), "is not there")
      }))
  })
})
