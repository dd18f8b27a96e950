import { assert, describe, it } from "@effect/vitest"
import { join } from "node:path"
import { run } from "../support/Run.ts"
import { projectRoot, Tree } from "../support/Tree.ts"

const imports = join(projectRoot, "scripts", "imports.mjs")

const check = async (files: Readonly<Record<string, string>>) => {
  using tree = Tree.of(files)
  return await run("node", [imports, tree.path])
}

const empty = "export const x = 1\n"

/** From, the line in it, the file it leads to, and a word of the reason. */
const violations: ReadonlyArray<readonly [from: string, line: string, to: string, why: RegExp]> = [
  ["schemas/Job.ts", `import { x } from "../layers/log/Log.ts"`, "layers/log/Log.ts", /may import only schemas/],
  ["schemas/Job.ts", `import type { x } from "../guest/Guest.ts"`, "guest/Guest.ts", /may import only schemas/],
  ["guest/Guest.ts", `export type X = import("../layers/log/Log.ts").X`, "layers/log/Log.ts", /schemas, guest/],
  ["functions/Fib.ts", `export * from "../guest/Guest.ts"`, "guest/Guest.ts", /schemas, functions/],
  ["layers/grpc/Grpc.ts", `import type { x } from "../../actors/Worker.ts"`, "actors/Worker.ts", /layers may import/],
  ["layers/grpc/Grpc.ts", `export { x } from "../../functions/Fib.ts"`, "functions/Fib.ts", /layers may import/],
  ["layers/grpc/Grpc.ts", `export const y = () => import("../../cli/Run.ts")`, "cli/Run.ts", /layers may import/],
  ["layers/pool/A.ts", `import { x } from "../sandbox/Oci.ts"`, "layers/sandbox/Oci.ts", /is a driver/],
  ["layers/sandbox/Qemu.ts", `import { x } from "./Firecracker.ts"`, "layers/sandbox/Firecracker.ts", /is a driver/],
  [
    "layers/log/Log.ts",
    `export const u = new URL("../../cli/Run.ts", import.meta.url)`,
    "cli/Run.ts",
    /layers may import/
  ],
  ["actors/Pool.ts", `import type { x } from "../cli/Run.ts"`, "cli/Run.ts", /actors may import/],
  ["actors/Pool.ts", `import type { x } from "../guest/Guest.ts"`, "guest/Guest.ts", /actors may import/],
  ["actors/Pool.ts", `import { x } from "../layers/sandbox/Oci.ts"`, "layers/sandbox/Oci.ts", /is a driver/],
  ["actors/Pool.ts", `import { x } from "../layers/amqp/AmqpLive.ts"`, "layers/amqp/AmqpLive.ts", /ask for its tag/],
  ["main.ts", `import "../bench/run.ts"`, "../bench/run.ts", /nothing outside src/],
  ["cli/Run.ts", `import type { x } from "../../test/support/Broker.ts"`, "../test/support/Broker.ts", /outside src/],
  ["layers/log/Log.ts", `import x from "../../../package.json" with { type: "json" }`, "../package.json", /outside/],
  ["things/Thing.ts", `import { x } from "../schemas/Job.ts"`, "schemas/Job.ts", /things has no row/]
]

describe("imports", () => {
  for (const [from, line, to, why] of violations) {
    it(`catches: ${from} ${line}`, async () => {
      const { code, stderr } = await check({ [`src/${from}`]: `// first\n${line}\n`, [`src/${to}`]: empty })
      assert.strictEqual(code, 1)
      assert.match(stderr, why)
      assert.include(stderr, `src/${from}:2`)
    })
  }

  it("catches a cycle of three files that only types close", async () => {
    const { code, stderr } = await check({
      "src/schemas/A.ts": `import { b } from "./B.ts"\nexport const a = b\nexport type A = number\n`,
      "src/schemas/B.ts": `import { c } from "./C.ts"\nexport const b = c\n`,
      "src/schemas/C.ts": `import type { A } from "./A.ts"\nexport const c: A = 1\n`
    })
    assert.strictEqual(code, 1)
    assert.match(stderr, /import cycle: src\/schemas\/A\.ts, src\/schemas\/B\.ts, src\/schemas\/C\.ts/)
  })

  it("lets pass what the picture allows, and words in comments and strings", async () => {
    const { code, stderr } = await check({
      "src/schemas/Job.ts":
        `import { y } from "./Id.ts"\n/** import { x } from "../layers/log/Log.ts" */\nexport const x = y\n`,
      "src/schemas/Id.ts": `export const y = 'import "../actors/Pool.ts"'\n`,
      "src/guest/Guest.ts": `import { x } from "../schemas/Job.ts"\nexport const g = x\n`,
      "src/functions/Fib.ts": `import { x } from "../schemas/Job.ts"\nexport const f = x\n`,
      "src/layers/sandbox/Sandbox.ts": `import { g } from "../../guest/Guest.ts"\nexport const s = g\n`,
      "src/layers/sandbox/Oci.ts": `import { s } from "./Sandbox.ts"\nimport "./oci/Bundle.ts"\nexport const o = s\n`,
      "src/layers/sandbox/oci/Bundle.ts": `import { s } from "../Sandbox.ts"\nexport const b = s\n`,
      "src/actors/Pool.ts":
        `import { s } from "../layers/sandbox/Sandbox.ts"\nimport { f } from "../functions/Fib.ts"\nexport const p = [s, f]\n`,
      "src/cli/Run.ts": `import { p } from "../actors/Pool.ts"\nexport const r = p\n`,
      "src/main.ts":
        `import "./cli/Run.ts"\nimport "./layers/sandbox/Oci.ts"\nimport "../package.json" with { type: "json" }\n`
    })
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
  })

  it("passes on the project", async () => {
    const { code, stderr } = await run("node", [imports])
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
  })
})
