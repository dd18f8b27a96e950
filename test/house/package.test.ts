/** The package as somebody gets it: packed by npm, unpacked into an empty project, and used there as it says. */
import { assert, describe, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { parseAst } from "rolldown/parseAst"
import { afterAll, beforeAll } from "vitest"
import { programs } from "../../src/layers/host/Native.ts"
import { projectEnv, run } from "../support/Run.ts"
import { projectRoot, Tree } from "../support/Tree.ts"
import { WorkerProcess } from "../worker/WorkerProcess.ts"

/** A checkout that is built, where npm packs; the project of whoever installs. */
let checkout: Tree
let project: Tree
let tarball: string
const inProject = (...parts: ReadonlyArray<string>) => join(project.path, ...parts)
const installed = (...parts: ReadonlyArray<string>) => inProject("node_modules", "stoker", ...parts)

interface Manifest {
  readonly version: string
  readonly dependencies: Readonly<Record<string, string>>
  readonly devDependencies: Readonly<Record<string, string>>
  readonly peerDependencies: Readonly<Record<string, string>>
  readonly bin: Readonly<Record<string, string>>
}
const manifestOf = (folder: string) => JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Manifest

const tsconfig = {
  include: ["*.ts"],
  compilerOptions: {
    noEmit: true,
    strict: true,
    exactOptionalPropertyTypes: true,
    target: "ES2024",
    // What the declarations of `effect` and of Node need.
    lib: ["ES2024", "ESNext.Disposable", "DOM"],
    types: ["node"],
    module: "NodeNext",
    allowImportingTsExtensions: true,
    skipLibCheck: false
  }
}

/** Loaded before a program, it writes down every module that the program loads. */
const spy = `const { registerHooks } = require("node:module")
registerHooks({ load: (url, context, next) => { process.stderr.write("loaded " + url + "\\n"); return next(url, context) } })
`

/** What npm does with the tarball, but for the registry: unpack, link the programs, put what it depends on beside it. */
const install = async () => {
  mkdirSync(installed(), { recursive: true })
  await run("tar", ["-xzf", tarball, "-C", installed(), "--strip-components=1"])
  const { bin, dependencies, peerDependencies } = manifestOf(installed())
  mkdirSync(inProject("node_modules", ".bin"))
  for (const [name, file] of Object.entries(bin)) {
    symlinkSync(join("..", "stoker", file), inProject("node_modules", ".bin", name))
  }
  // Nothing that is not declared: what the package imports besides is not found.
  for (const name of [...Object.keys({ ...dependencies, ...peerDependencies }), "@types/node"]) {
    mkdirSync(join(inProject("node_modules", name), ".."), { recursive: true })
    symlinkSync(join(projectRoot, "node_modules", name), inProject("node_modules", name))
  }
}

beforeAll(async () => {
  checkout = Tree.of({}).copy("dist", "native", "examples", "scripts", "package.json", "README.md", "LICENSE")
  project = Tree.of({
    "package.json": `{ "type": "module" }\n`,
    "tsconfig.json": JSON.stringify(tsconfig),
    "spy.cjs": spy
  })
  const env = { ...projectEnv, npm_config_cache: join(checkout.path, "cache"), npm_config_offline: "true" }
  const { code, stderr, stdout } = await run("npm", ["pack", "--silent"], { cwd: checkout.path, env })
  assert.strictEqual(code, 0, stderr)
  tarball = join(checkout.path, stdout.trim())
  await install()
  for (const name of readdirSync(installed("examples")).filter((name) => name.endsWith(".ts"))) {
    copyFileSync(installed("examples", name), inProject(name))
  }
}, 60_000)
afterAll(async () => {
  // Without its state directory no janitor would find what a worker that ended left.
  for (const state of readdirSync(project.path).filter((name) => name.startsWith("state-"))) {
    const left = ["instances", "ledger"].flatMap((name) => readdirSync(inProject(state, name)))
    if (left.length > 0) await WorkerProcess.sweep(inProject(state))
  }
  checkout[Symbol.dispose]()
  project[Symbol.dispose]()
})

const files = () =>
  readdirSync(installed(), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(installed().length + 1))

describe("npm pack", () => {
  it("takes what is needed, and nothing else", () => {
    const known = [
      /^(dist\/)?package\.json$/,
      /^(README\.md|LICENSE)$/,
      /^dist\/(stoker|THIRD-PARTY\.txt|functions\.cjs|[\w.-]+\.mjs)$/,
      /^dist\/rootfs\/[\w/.]+$/,
      new RegExp(`^dist/native/(${programs.join("|")})$`),
      /^dist\/lib\/[\w/]+\.(js|d\.ts)$/,
      /^native\/([\w/]+\.[ch]|build)$/,
      /^examples\/[\w-]+\.(c|go|py|ts)$/
    ]
    assert.deepStrictEqual(files().filter((name) => !known.some((pattern) => pattern.test(name))), [])
    for (
      const name of [
        "dist/THIRD-PARTY.txt",
        "dist/lib/index.js",
        "dist/lib/testing.d.ts",
        "dist/main.mjs",
        "dist/rootfs/layout",
        "native/guest.c"
      ]
    ) {
      assert.include(files(), name)
    }
    assert.isBelow(statSync(tarball).size, 3_800_000)
  })

  it("takes a manifest without what only its makers need, and leaves theirs as it was", () => {
    const manifest = manifestOf(installed())
    for (const field of ["scripts", "devDependencies", "allowScripts", "private"]) assert.notProperty(manifest, field)
    assert.notInclude(JSON.stringify(manifest), "tsgo")
    assert.strictEqual(
      readFileSync(join(checkout.path, "package.json"), "utf8"),
      readFileSync(join(projectRoot, "package.json"), "utf8")
    )
  })

  it("demands the `effect` it was built with, and no second one", () => {
    const { dependencies, devDependencies, peerDependencies } = manifestOf(projectRoot)
    assert.notProperty(dependencies, "effect")
    assert.strictEqual(peerDependencies["effect"], manifestOf(join(projectRoot, "node_modules", "effect")).version)
    assert.propertyVal(devDependencies, "effect", peerDependencies["effect"])
  })
})

describe("the library", () => {
  it("type-checks with everything that uses it, declarations included", async () => {
    const { code, stdout } = await run("tsc", ["-p", "."], { cwd: project.path })
    assert.deepStrictEqual({ code, stdout }, { code: 0, stdout: "" })
  }, 60_000)

  it("declares nothing as any", () => {
    const found: Array<string> = []
    const walk = (node: unknown, name: string): void => {
      if (Array.isArray(node)) return node.forEach((each) => walk(each, name))
      if (typeof node !== "object" || node === null) return
      if ("type" in node && node.type === "TSAnyKeyword") found.push(name)
      // What a class of ours extends where Effect makes it: the word is in Effect's own type (`Data.TaggedError`).
      if ("id" in node && JSON.stringify(node.id).includes(`_base"`)) return
      Object.values(node).forEach((each) => walk(each, name))
    }
    for (const name of files().filter((name) => name.endsWith(".d.ts"))) {
      walk(parseAst(readFileSync(installed(name), "utf8"), { lang: "dts" }).body, name)
    }
    assert.deepStrictEqual(found, [])
  })

  it("shows its entries only", async () => {
    for (const path of ["stoker/dist/lib/wiring.js", "stoker/wiring", "stoker/dist/main.mjs"]) {
      const { stderr } = await run("node", ["-e", `import(${JSON.stringify(path)})`], { cwd: project.path })
      assert.include(stderr, "ERR_PACKAGE_PATH_NOT_EXPORTED")
    }
  })

  it("loads neither commands nor broker nor database when it is imported", async () => {
    const program = `const began = performance.now(); await import("effect")
const effect = performance.now(); const stoker = await import("stoker")
console.log(JSON.stringify({ effect: effect - began, stoker: performance.now() - effect, names: Object.keys(stoker).length }))`
    const { stderr, stdout } = await run("node", ["-r", inProject("spy.cjs"), "--input-type=module", "-e", program], {
      cwd: project.path
    })
    const loaded = stderr.split("\n").filter((line) => line.startsWith("loaded "))
    assert.isAbove(loaded.length, 50, stderr)
    const unused = /\/lib\/cli\/|amqplib|node:sqlite|sqliteWorker|\/layers\/amqp\/(?!Amqp\.js)|\/effect\/dist\/cli\//
    assert.deepStrictEqual(loaded.filter((line) => unused.test(line)), [])
    const { effect, names, stoker } = JSON.parse(stdout) as Readonly<Record<"effect" | "names" | "stoker", number>>
    assert.isAbove(names, 30)
    // Milliseconds, beside those of `effect` itself: about 100 and 250 on a machine that does nothing else.
    assert.isBelow(stoker, 3 * effect)
  })
})

/** Drivers a test can use: what isolates wants root. */
const drivers = process.getuid?.() === 0 ? ["process", "oci"] : ["process"]
const environment = (driver: string) => ({
  ...projectEnv,
  STOKER_DRIVER: driver,
  STOKER_STATE: inProject(`state-${driver}`)
})

describe("the examples", () => {
  it("test a function without a machine", async () => {
    const { code, stdout } = await run("node", ["test-function.ts"], { cwd: project.path })
    assert.include(stdout, "pass 2")
    assert.strictEqual(code, 0)
  })

  for (const driver of drivers) {
    it(`submit a job to a worker with the ${driver} driver and show what it printed`, async () => {
      const { code, stderr, stdout } = await run("node", ["submit.ts"], { cwd: project.path, env: environment(driver) })
      assert.strictEqual(code, 0, stderr)
      assert.match(stdout, /event Received\n[^]*event Ended\n[^]*hello from .+\nit left answer.txt 42\nit succeeded\n$/)
    })

    it(`hold the ${driver} driver to its contract`, async () => {
      const state = { STOKER_STATE: inProject(`state-conformance-${driver}`) }
      const env = { ...environment(driver), ...state }
      const { code, stderr, stdout } = await run("node", ["conformance.ts", " exact"], { cwd: project.path, env })
      assert.strictEqual(code, 0, stderr)
      const lines = stdout.split("\n").filter((line) => line !== "")
      assert.isAtLeast(lines.length, 3, stdout)
      assert.deepStrictEqual(lines.filter((line) => !line.endsWith(": ok")), [])
    }, 60_000)

    it(`embed a worker with the ${driver} driver, a function, a door and an emitter of their own`, async () => {
      const posted: Array<{ readonly id: string | undefined; readonly body: unknown }> = []
      const receiver = createServer((request, response) => {
        request.setEncoding("utf8").on(
          "data",
          (body: string) => posted.push({ id: request.headers["message-id"]?.toString(), body: JSON.parse(body) })
        )
        request.on("end", () => response.end())
      })
      await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve))
      const webhook = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/done`
      const folder = inProject(`jobs-${driver}`)
      const said: Array<string> = []
      const child = spawn("node", ["embed.ts", folder], { cwd: project.path, env: environment(driver) })
      const until = (text: string) =>
        new Promise<void>((resolve, reject) => {
          const look = () => said.join("").includes(text) && resolve()
          look()
          child.stdout.on("data", look)
          child.once("exit", () => reject(new Error(`it ended: ${said.join("")}`)))
        })
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (text: string) => void said.push(text))
      }
      const put = (name: string, text: string) => {
        writeFileSync(inProject(name), text)
        renameSync(inProject(name), join(folder, name))
      }
      try {
        await until("ready")
        put("first.json", JSON.stringify({ function: "primes", args: { upTo: 12 }, webhook }))
        put("second.json", JSON.stringify({ function: "code", args: { language: "python", source: "" } }))
        put("third.json", "{")
        await until("first succeeded")
        await until("second was rejected")
        await until("third.json is refused")
      } finally {
        child.kill("SIGTERM")
        await new Promise((resolve) => child.once("exit", resolve))
        receiver.close()
      }
      const [first, ...more] = posted
      assert.deepStrictEqual(first?.body, {
        id: "first",
        outcome: "Exited",
        description: "succeeded",
        stdout: "2\n3\n5\n7\n11\n"
      })
      assert.match(first?.id ?? "", /^folder\/local\/first#1\.end\.0$/)
      assert.deepStrictEqual(more, [])
      assert.deepStrictEqual(readdirSync(join(folder, "refused")), ["third.json"])
    })
  }
})

const stoker = (...args: ReadonlyArray<string>) => run(inProject("node_modules", ".bin", "stoker"), args)

describe("the command", () => {
  it("says its version", async () => {
    assert.include((await stoker("--version")).stdout, manifestOf(projectRoot).version)
  })

  it("runs a job, with its own native programs", async () => {
    const state = inProject("state-command")
    const { code, stderr, stdout } = await stoker("run", "--state", state, "--driver", "process", "--", "echo", "hello")
    assert.strictEqual(code, 0, stderr)
    assert.strictEqual(stdout, "hello\n")
  })

  it("serves gRPC, HTTP and webhooks, with functions of somebody's own", async () => {
    const certs = inProject("certs")
    for (const args of [["init"], ["issue", "server", "--host", "localhost"]]) {
      const { code, stderr } = await stoker("certs", ...args, "--dir", certs)
      assert.strictEqual(code, 0, stderr)
    }
    writeFileSync(inProject("secret"), "a secret of some length", { mode: 0o600 })
    const tls = { ca: "certs/ca.crt", cert: "certs/server.crt", key: "certs/server.key" }
    const webhooks = { allow: ["http://127.0.0.1:1/"], secretFile: "secret" }
    writeFileSync(
      inProject("served.json"),
      JSON.stringify({
        stateDirectory: inProject("state-served"),
        functions: ["my-functions.ts"],
        api: { grpc: "127.0.0.1:0", http: "127.0.0.1:0", ...tls, webhooks },
        classes: [{ name: "process", driver: "process" }]
      })
    )
    const child = spawn(inProject("node_modules", ".bin", "stoker"), ["worker", "--config", inProject("served.json")], {
      cwd: project.path,
      env: projectEnv
    })
    let said = ""
    const ended = new Promise<number | null>((resolve) => child.once("close", resolve))
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        // Once: a second signal would end it another way.
        const wasUp = said.includes("consuming")
        said += text
        if (!wasUp && said.includes("consuming")) child.kill("SIGTERM")
      })
    }
    assert.strictEqual(await ended, 0, said)
    assert.include(said, "gRPC is served")
    assert.include(said, "the HTTP API is served")
  }, 60_000)

  it("says how to build the native programs where they are for another machine, and works then", async () => {
    const guest = installed("dist", "native", "guest")
    const bytes = readFileSync(guest)
    bytes.writeUInt16LE(process.arch === "arm64" ? 62 : 183, 18)
    writeFileSync(guest, bytes)
    const args = ["run", "--state", inProject("state-native"), "--driver", "process", "--", "true"]
    const refused = await stoker(...args)
    assert.notStrictEqual(refused.code, 0)
    assert.match(refused.stderr, /was built for (arm64|x64), and this is/)
    const builder = installed("native", "build")
    assert.include(refused.stderr, builder)
    assert.strictEqual((await run(builder, [])).stdout, `native/build: built ${programs.join(" ")} into dist/native\n`)
    const { code, stderr } = await stoker(...args)
    assert.strictEqual(code, 0, stderr)
  })
})
