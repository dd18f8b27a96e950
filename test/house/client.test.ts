/** Who only asks a worker loads none: what `stoker/client` is made of. */
import { assert, describe, it } from "@effect/vitest"
import { join, relative } from "node:path"
import { rolldown } from "rolldown"
import { projectRoot } from "../support/Tree.ts"

/** The modules of ours that an entry needs at run time. */
const modulesOf = async (entry: string): Promise<ReadonlyArray<string>> => {
  await using bundle = await rolldown({
    input: join(projectRoot, entry),
    platform: "node",
    external: (id) => !id.startsWith(".") && !id.startsWith("/")
  })
  const { output } = await bundle.generate({ format: "esm" })
  return output.flatMap((chunk) => chunk.type === "chunk" ? chunk.moduleIds : []).map((id) => relative(projectRoot, id))
}

describe("stoker/client", () => {
  it("has nothing of a worker in it", async () => {
    const modules = await modulesOf("src/client.ts")
    assert.include(modules, "src/client/StokerClientGrpc.ts")
    const allowed =
      /^src\/(?:client|schemas)[/.]|^src\/layers\/(?:amqp\/Backoff|api\/(?:Fault|JobApi)|grpc\/gen\/(?:stoker\/v1|google\/rpc)\/)/
    const own = modules.filter((module) => module.startsWith("src/"))
    assert.deepStrictEqual(own.filter((module) => !allowed.test(module)), [])
  })
})
