import { assert, describe, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import { readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"
import { run } from "../support/Run.ts"
import { projectRoot, Tree } from "../support/Tree.ts"

const main = `import { Effect } from "effect"
import process from "node:process"
const [verb, ...rest] = process.argv.slice(2)
if (verb === "args") process.stdout.write(JSON.stringify({ rest, node: process.versions.node }))
if (verb === "code") process.exitCode = Number(rest[0])
if (verb === "lazy") process.stdout.write((await import("./Lazy.ts")).text)
if (verb === "effect") process.stdout.write(Effect.runSync(Effect.succeed("effect runs")))
if (verb === "wait") {
  process.on("SIGTERM", () => process.exit(43))
  setInterval(() => undefined, 1000)
  process.stdout.write("ready")
}
`

/** Loaded first, it makes any Node look like the one of Debian's last release. */
const oldNode = `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "20.20.2" } })\n`

let tree: Tree
const stoker = (...args: ReadonlyArray<string>) => run(join(tree.path, "dist/stoker"), args)
const asOldNode = () => ["--require", join(tree.path, "old.cjs"), join(tree.path, "dist/stoker.mjs")]

beforeAll(async () => {
  tree = Tree.of({
    "src/main.ts": main,
    "src/Lazy.ts": `export const text = "loaded when needed"\n`,
    "src/layers/journal/sqliteWorker.ts": `process.stdout.write("worker")\n`,
    "src/index.ts": `/** One. */\nexport { text } from "./Lazy.ts"\n`,
    "src/testing.ts": "export const two: number = 2\n",
    "src/conformance.ts": "export const three: number = 3\n",
    "src/client.ts": "export const four: number = 4\n",
    "build/native/guest": "#!/bin/sh\n",
    "old.cjs": oldNode
  }).copy("scripts", "rolldown.config.mjs", "tsconfig.json", "tsconfig.lib.json", "package.json").linkPackages()
  const { code, stderr } = await run(join(tree.path, "scripts/build"), [])
  assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
})
afterAll(() => tree[Symbol.dispose]())

describe("scripts/build", () => {
  it("makes launchers, bundle, worker and native programs, and nothing else than chunks", () => {
    const names = readdirSync(join(tree.path, "dist")).toSorted()
    assert.deepStrictEqual(names.filter((name) => !/-[\w-]{8}\.mjs$/.test(name)), [
      ".built",
      "THIRD-PARTY.txt",
      "lib",
      "main.mjs",
      "native",
      "package.json",
      "sqliteWorker.mjs",
      "stoker",
      "stoker.mjs"
    ])
    for (const name of ["stoker", "stoker.mjs", "native/guest"]) {
      assert.strictEqual(statSync(join(tree.path, "dist", name)).mode & 0o111, 0o111)
    }
  })

  it("leaves what loads on demand out of the first file", async () => {
    assert.isTrue(readdirSync(join(tree.path, "dist")).some((name) => name.startsWith("Lazy-")))
    assert.strictEqual((await stoker("lazy")).stdout, "loaded when needed")
    assert.strictEqual((await stoker("effect")).stdout, "effect runs")
  })

  it("makes modules with declarations of what the package exports, and of the thread", async () => {
    const names = readdirSync(join(tree.path, "dist/lib"), { recursive: true, encoding: "utf8" })
    assert.deepStrictEqual(names.filter((name) => /\.(?:js|ts)$/.test(name)).toSorted(), [
      "Lazy.d.ts",
      "Lazy.js",
      "client.d.ts",
      "client.js",
      "conformance.d.ts",
      "conformance.js",
      "index.d.ts",
      "index.js",
      "layers/journal/sqliteWorker.d.ts",
      "layers/journal/sqliteWorker.js",
      "testing.d.ts",
      "testing.js"
    ])
    const { text } = await import(join(tree.path, "dist/lib/index.js")) as { readonly text: string }
    assert.strictEqual(text, "loaded when needed")
    assert.match(readFileSync(join(tree.path, "dist/lib/index.d.ts"), "utf8"), /^\/\*\* One\. \*\/\n/)
  })

  it("names what others wrote of the bundle, with its licence", () => {
    const text = readFileSync(join(tree.path, "dist/THIRD-PARTY.txt"), "utf8")
    assert.match(text, /^effect \d+\.\d+\.\d+\n\nMIT License\n\nCopyright /)
    assert.notInclude(text, "amqplib")
  })

  it("bundles the worker as a file of its own", async () => {
    assert.strictEqual((await run("node", [join(tree.path, "dist/sqliteWorker.mjs")])).stdout, "worker")
  })

  it("keeps the last good bundle when a build breaks", async () => {
    using broken = Tree.of({ "src/main.ts": "import './gone.ts'\n", "dist/main.mjs": "good\n" })
      .copy("scripts", "rolldown.config.mjs").linkPackages()
    assert.notStrictEqual((await run(join(broken.path, "scripts/build"), [])).code, 0)
    assert.deepStrictEqual(readdirSync(join(broken.path, "dist")), ["main.mjs"])
  })
})

describe("scripts/manifest.mjs", () => {
  const text = readFileSync(join(projectRoot, "package.json"), "utf8")
  const act = (checkout: Tree, ...args: ReadonlyArray<string>) =>
    run("node", [join(checkout.path, "scripts/manifest.mjs"), ...args])
  const now = (checkout: Tree) => readFileSync(join(checkout.path, "package.json"), "utf8")

  it("puts back what it took away, after a broken-off pack too", async () => {
    using checkout = Tree.of({}).copy("scripts", "package.json")
    await act(checkout, "publish")
    assert.notInclude(now(checkout), "devDependencies")
    const published = now(checkout)
    // The one before never came to its end.
    await act(checkout, "publish")
    assert.strictEqual(now(checkout), published)
    await act(checkout, "restore")
    assert.strictEqual(now(checkout), text)
    // Once more there is nothing to put back.
    await act(checkout, "restore")
    assert.strictEqual(now(checkout), text)
  })

  it("knows nothing else", async () => {
    using checkout = Tree.of({}).copy("scripts", "package.json")
    assert.strictEqual((await act(checkout, "x")).code, 64)
    assert.strictEqual(now(checkout), text)
  })
})

describe("the launchers", () => {
  const odd = ["a b", "", "--x=\"y\"", "*", "ü"]

  it("hand on arguments and exit code", async () => {
    const bundle = join(tree.path, "dist")
    for (const line of [[join(bundle, "stoker")], ["node", join(bundle, "stoker.mjs")]]) {
      const [program = "", ...first] = line
      assert.deepStrictEqual(JSON.parse((await run(program, [...first, "args", ...odd])).stdout).rest, odd)
      assert.strictEqual((await run(program, [...first, "code", "42"])).code, 42)
    }
  })

  it("run on the locked Node when the machine's own is too old, and hand on arguments and exit code there too", async () => {
    const { stdout } = await run(process.execPath, [...asOldNode(), "args", ...odd])
    const said = JSON.parse(stdout) as { readonly rest: unknown; readonly node: string }
    assert.deepStrictEqual(said.rest, odd)
    assert.match(said.node, /^24\./)
    assert.strictEqual((await run(process.execPath, [...asOldNode(), "code", "42"])).code, 42)
  })

  it("hand on a signal to the Node they started", async () => {
    const child = spawn(process.execPath, [...asOldNode(), "wait"], { stdio: ["ignore", "pipe", "inherit"] })
    await new Promise((resolve) => child.stdout.once("data", resolve))
    child.kill("SIGTERM")
    assert.strictEqual(await new Promise((resolve) => child.once("exit", resolve)), 43)
  })

  it("work through a link, as npm makes them", async () => {
    const link = join(tree.path, "linked")
    await run("ln", ["-s", "dist/stoker", link])
    assert.strictEqual((await run(link, ["code", "7"])).code, 7)
  })
})
