/** `container`: what becomes of its arguments. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { container } from "../../src/functions/Container.ts"
import { ImagePolicy, imageRefusal } from "../../src/schemas/ImagePolicy.ts"
import { standardCeiling, standardDefaults } from "../../src/schemas/Limits.ts"

const limits = { compile: standardCeiling, run: standardDefaults }
const program = (args: unknown) => container.program(args, limits)

describe("container", () => {
  it.effect("leaves to the image what is not said", () =>
    Effect.gen(function*() {
      const { container: made, phases } = yield* program({ image: "debian:12" })
      assert.deepStrictEqual(made, { image: "debian:12", name: "container", env: {}, secrets: {} })
      assert.deepStrictEqual(phases.map(({ argv }) => argv), [["stoker-image-entry-point"]])
    }))

  it.effect("tells a program of its buckets; its own variables win", () =>
    Effect.gen(function*() {
      const { container: made, phases } = yield* program({
        image: "registry.example/tool@sha256:0",
        command: ["/bin/tool"],
        args: ["-x"],
        buckets: { input: "in-put", prefix: "run1" },
        env: { FILE_PREFIX: "mine", A: "b" }
      })
      assert.deepStrictEqual(made?.env, {
        INPUT_BUCKET: "in-put",
        OUTPUT_BUCKET: "in-put",
        FILE_PREFIX: "mine",
        A: "b"
      })
      assert.deepStrictEqual(phases[0].argv, ["/bin/tool", "-x"])
    }))

  it.effect("refuses names that no cluster takes, and what it does not know", () =>
    Effect.gen(function*() {
      for (
        const args of [
          { image: "debian 12" },
          { image: "debian:12", name: "Big" },
          { image: "debian:12", name: "a".repeat(64) },
          { image: "debian:12", env: { "": "x" } },
          { image: "debian:12", buckets: { input: "X" } },
          { image: "debian:12", privileged: true }
        ]
      ) {
        const refused = yield* Effect.flip(program(args))
        assert.strictEqual(refused._tag, "InvalidArguments", JSON.stringify(args))
      }
    }))
})

describe("a policy for images", () => {
  it("names what is allowed", () => {
    const policy = { allow: ["registry.example/team/"], digests: true } as const
    const digest = `@sha256:${"0".repeat(64)}`
    assert.isUndefined(imageRefusal(policy, `registry.example/team/tool${digest}`))
    assert.isUndefined(imageRefusal({}, "debian:12"))
    assert.include(imageRefusal(policy, `registry.example/other/tool${digest}`)?.remedy, "registry.example/team/")
    for (const path of ["oci-archive:/etc/shadow", "docker-archive:/x", "oci:/x:latest", "dir:/"]) {
      assert.include(imageRefusal({}, path)?.reason, "file of the worker's host")
      assert.include(imageRefusal({ allow: ["o"] }, path)?.reason, "file of the worker's host")
    }
    assert.isUndefined(imageRefusal({ allow: ["oci-archive:/images/"] }, "oci-archive:/images/tool.tar"))
    assert.include(imageRefusal(policy, "registry.example/team/tool:1")?.reason, "by digest only")
  })

  it("is made of prefixes: a pattern would match nothing, and is refused", () => {
    assert.isTrue(Schema.is(ImagePolicy)({ allow: ["oci:/images/", "debian"] }))
    for (const allow of [["*"], ["registry.example/*"], [""], []]) assert.isFalse(Schema.is(ImagePolicy)({ allow }))
  })
})
