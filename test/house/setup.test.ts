import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync, utimesSync } from "node:fs"
import { join } from "node:path"
import { projectEnv, run } from "../support/Run.ts"
import { Tree } from "../support/Tree.ts"

/**
 * A checkout in which npm's part is done, and a folder of programs that come before the machine's own. One of them is
 * always npm: the real one would empty the packages that are linked here.
 */
const checkout = (programs: Readonly<Record<string, string>> = {}): Tree => {
  const tree = Tree.of({ "system/.keep": "", "called": "" }).copy("scripts", "package.json").linkPackages()
  // Older than any installation.
  tree.write("package-lock.json", "{}\n")
  utimesSync(join(tree.path, "package-lock.json"), 0, 0)
  for (const [name, body] of Object.entries({ npm: "exit 99", ...programs })) {
    tree.write(`first/${name}`, `#!/bin/sh\n${body}\n`)
  }
  return tree
}

const setup = (tree: Tree, ...args: ReadonlyArray<string>) =>
  run(join(tree.path, "scripts/setup"), args, {
    env: {
      ...projectEnv,
      PATH: `${join(tree.path, "first")}:${projectEnv["PATH"]}`,
      STOKER_SETUP_PATH: join(tree.path, "system"),
      CALLED: join(tree.path, "called")
    }
  })

const called = (tree: Tree): ReadonlyArray<string> =>
  readFileSync(join(tree.path, "called"), "utf8").split("\n").filter((line) => line !== "")

const somebody = { id: "echo 1000" }
const root = { id: "echo 0", systemctl: "exit 0" }

describe("scripts/setup", () => {
  it("says what is missing and how to get it when it may not install", async () => {
    using tree = checkout(somebody)
    const { code, stderr, stdout } = await setup(tree, "test")
    assert.strictEqual(code, 1)
    assert.match(stdout, /test cannot do without: crun gcc .*python3 g\+\+ golang-go iproute2/)
    assert.match(stdout, /as root: apt-get update && apt-get install --no-install-recommends crun gcc /)
    assert.match(stderr, /install them, then run this again/)
  })

  it("lets the demo go on without what it can do without", async () => {
    using tree = checkout(somebody)
    for (const name of ["crun", "cc", "unshare"]) tree.write(`system/${name}`, "#!/bin/sh\n")
    const { code, stdout } = await setup(tree, "demo")
    assert.strictEqual(code, 0)
    assert.match(stdout, /demo can do more with: python3 g\+\+ golang-go iproute2/)
    assert.notMatch(stdout, /rabbitmq/)
  })

  it("installs only what is missing, and asks for the list once", async () => {
    using tree = checkout({
      ...root,
      "apt-get": `echo "$*" >>"$CALLED"
case $* in *install*) for name in python3 g++ ip; do printf '#!/bin/sh\\n' >"$STOKER_SETUP_PATH/$name"; chmod 755 "$STOKER_SETUP_PATH/$name"; done ;; esac`
    })
    for (const name of ["crun", "cc", "unshare", "go"]) tree.write(`system/${name}`, "#!/bin/sh\n")
    assert.strictEqual((await setup(tree, "demo")).code, 0)
    const calls = called(tree)
    assert.strictEqual(calls.length, 2)
    assert.match(calls[0] ?? "", / update$/)
    assert.match(calls[1] ?? "", / install --no-install-recommends python3 g\+\+ iproute2$/)
    // The second time there is nothing to do.
    assert.strictEqual((await setup(tree, "demo")).code, 0)
    assert.strictEqual(called(tree).length, 2)
  })

  it("forbids the packages' services to start, and takes the ban back even when apt fails", async () => {
    using tree = checkout({
      ...root,
      "apt-get": `case $* in *install*) cat /usr/sbin/policy-rc.d >>"$CALLED"; echo no space left; exit 100 ;; esac`
    })
    tree.write("sbin/.keep", "")
    const script = `mount --bind "$1/sbin" /usr/sbin && "$1/scripts/setup" demo; code=$?
      ls /usr/sbin; exit $code`
    const { code, stderr, stdout } = await run(
      "unshare",
      ["--mount", "--propagation", "private", "sh", "-c", script, "sh", tree.path],
      {
        env: {
          ...projectEnv,
          PATH: `${join(tree.path, "first")}:${projectEnv["PATH"]}`,
          STOKER_SETUP_PATH: join(tree.path, "system"),
          CALLED: join(tree.path, "called")
        }
      }
    )
    assert.strictEqual(code, 1)
    assert.deepStrictEqual(called(tree), ["#!/bin/sh", "exit 101"])
    assert.notInclude(stdout, "policy-rc.d")
    assert.match(stderr, /no space left/)
    assert.match(stderr, /apt-get install failed; the lines above are the end of build\/setup\.log/)
  })

  it("installs npm packages when the lock is newer than they are, and shows why it could not", async () => {
    using tree = checkout({ ...somebody, npm: `echo "$*" >>"$CALLED"; echo lock is broken; exit 1` })
    utimesSync(join(tree.path, "package-lock.json"), new Date(), new Date())
    const { code, stderr } = await setup(tree, "demo")
    assert.strictEqual(code, 1)
    assert.match(called(tree)[0] ?? "", /^ci --ignore-scripts/)
    assert.match(stderr, /lock is broken\nsetup: npm ci failed/)
  })

  it("goes on without the guest VM where it cannot be had, and says why", async () => {
    using tree = checkout({
      ...root,
      uname: "echo x86_64",
      "apt-cache": "exit 0",
      "apt-get": `echo "$*" >>"$CALLED"; case $* in *install*) echo no such package; exit 100 ;; esac`
    })
    for (
      const name of [
        "crun",
        "cc",
        "unshare",
        "python3",
        "g++",
        "go",
        "ip",
        "musl-gcc",
        "nft",
        "skopeo",
        "umoci",
        "runsc",
        "docker-registry",
        "openssl",
        "kubectl",
        "curl",
        "protoc",
        "grpc_python_plugin"
      ]
    ) {
      tree.write(`system/${name}`, "#!/bin/sh\n")
    }
    const without = await setup(tree, "test")
    assert.strictEqual(without.code, 0, without.stderr)
    assert.match(called(tree)[1] ?? "", / install --no-install-recommends qemu-system-x86 e2fsprogs$/)
    assert.match(without.stdout, /no guest VM: qemu-system-x86 e2fsprogs could not be installed/)
    for (const name of ["qemu-system-x86_64", "mke2fs"]) tree.write(`system/${name}`, "#!/bin/sh\n")
    const kernelless = await setup(tree, "test")
    assert.strictEqual(kernelless.code, 0, kernelless.stderr)
    assert.match(kernelless.stdout, /no guest VM: guest-kernel: apt knows no linux-image-cloud-amd64/)
  })

  it("does not know another purpose", async () => {
    using tree = checkout()
    assert.strictEqual((await setup(tree, "everything")).code, 64)
    assert.isFalse(existsSync(join(tree.path, "build")))
  })
})
