/** `stoker image`, as an operator types it. */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs"
import { join } from "node:path"
import { afterAll } from "vitest"
import { Stoker } from "../cli/Stoker.ts"
import { projectEnv, run } from "../support/Run.ts"
import { patience } from "../support/Slowness.ts"
import { projectRoot } from "../support/Tree.ts"
import { until } from "../worker/until.ts"
import { file, kernel, lacking, rootFile, seeded, sharedImage } from "./Make.ts"

const missing = lacking()
const stoker = new Stoker()
afterAll(() => stoker.dispose())
let number = 0
const fresh = () => seeded(join(stoker.folder, `state-${++number}`))
const vmlinux = file(join(stoker.folder, "vmlinux"), kernel())

const image = (state: string, ...args: ReadonlyArray<string>) => stoker.run(["image", ...args, "--state", state])
const minimal = ["--base", "minimal", "--kernel", vmlinux]

const below = (state: string, name: string) => {
  const folder = join(state, "machine-images", name)
  return existsSync(folder) ? readdirSync(folder) : []
}

/** Processes that name this folder, or work in it. */
const processesOf = (folder: string) =>
  readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(folder)
    } catch {
      return false
    }
  })

// Each command is a start of Node from source: seconds, where others run as well.
describe.skipIf(missing !== undefined)("stoker image", { timeout: patience(180_000) }, () => {
  it("builds, lists, shows and removes", async () => {
    const state = fresh()
    const none = await image(state, "list")
    assert.deepStrictEqual([none.code, none.stdout], [0, ""])
    assert.match(none.stderr, /^stoker: no images in .*machine-images\n {2}Make one: stoker image build\n$/)

    const built = await image(state, "build", "tiny", ...minimal)
    assert.strictEqual(built.code, 0, built.stderr)
    const identity = built.stdout.trim()
    assert.match(identity, /^[0-9a-f]{64}$/)
    assert.deepStrictEqual(
      built.stderr.replace(/in [\d.]+ m?s/, "in TIME").replaceAll(state, "STATE").replaceAll(identity, "ID").split(
        "\n"
      ),
      [
        "stoker: tiny: making the root file system",
        "stoker: tiny: taking checksums",
        "stoker: tiny: minimal, kernel 6.1.0-test, in TIME",
        "  STATE/machine-images/ID",
        ""
      ]
    )

    const listed = await image(state, "list")
    assert.deepStrictEqual(
      listed.stdout.replace(/\d{4}-\d\d-\d\dT[\d:]{8}Z/, "TIME").replace(/[\d.]+ MiB/, "SIZE MiB").replaceAll(
        / {2,}/g,
        "  "
      ),
      `NAME  IDENTITY  ROOT  KERNEL  DISK  MADE\ntiny  ${identity.slice(0, 12)}  minimal  6.1.0-test  SIZE MiB  TIME\n`
    )
    const [entry] = JSON.parse((await image(state, "list", "--json")).stdout)
    assert.deepInclude(entry, { identity, names: ["tiny"] })
    assert.strictEqual(entry.manifest.kernelRelease, "6.1.0-test")

    const shown = await image(state, "show", "tiny")
    for (const line of [/^image +tiny$/m, /^modules +all in the kernel$/m, /^program +\/sbin\/init [0-9a-f]{12}$/m]) {
      assert.match(shown.stdout, line)
    }
    assert.strictEqual(
      JSON.parse((await image(state, "show", identity.slice(0, 10), "--json")).stdout).identity,
      identity
    )

    const removed = await image(state, "remove", "tiny")
    assert.deepStrictEqual([removed.code, removed.stdout], [0, ""])
    assert.strictEqual(removed.stderr, `stoker: image ${identity.slice(0, 12)} is gone, with tiny\n`)
    const gone = await image(state, "show", "tiny")
    assert.deepStrictEqual([gone.code, gone.stdout], [1, ""])
    assert.match(gone.stderr, /^stoker: machine image tiny: there is none of that name in .*\n {2}Make one: .*\.\n$/)
  })

  it("says what is wrong, and ends with 1", async () => {
    const state = fresh()
    const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
      [["build", "--languages", "cobol"], /--languages[^]*cobol[^]*c,cpp,python,go/],
      [["build", "--base", "minimal", "--languages", "c"], /a minimal root has no languages/],
      [["build", "--base", "alpine"], /--base[^]*alpine/],
      [["build", "--base", "minimal", "--kernel", "nowhere"], /nowhere is not there/],
      [["build", "-", "--base", "minimal"], /that is no name/],
      [["remove", "/etc"], /only images of the store are removed/],
      [["show", "/etc"], /there is no \/etc\/manifest\.json/]
    ]
    for (const [args, said] of wrong) {
      const { code, stderr, stdout } = await image(state, ...args)
      assert.match(stderr, said)
      assert.isAtMost(stderr.trim().split("\n").length, 3, stderr)
      assert.deepStrictEqual([code, stdout], [1, ""], stderr)
    }
  })

  it("lists what is broken as broken, and ends with 1", async () => {
    const state = fresh()
    const { stdout } = await image(state, "build", ...minimal)
    rmSync(join(state, "machine-images", stdout.trim(), "manifest.json"))
    const listed = await image(state, "list")
    assert.match(listed.stdout, /^default .*broken: there is no .*manifest\.json$/m)
    assert.strictEqual(listed.code, 1)
  })

  it("stopped by a signal it leaves nothing; killed, what it leaves goes with the next build, and no program of it lives on", async () => {
    const state = fresh()
    const started = (signal: "SIGINT" | "SIGKILL") => {
      const build = stoker.start(["image", "build", "--base", "minimal", "--kernel", sharedImage, "--state", state])
      return build.said("stderr", "making the root").then(() => {
        build.kill(signal)
        return build.ended
      })
    }
    const stopped = await started("SIGINT")
    assert.strictEqual(stopped.code, 130, stopped.stderr)
    assert.deepStrictEqual([below(state, "building"), below(state, "names")], [[], []])

    await started("SIGKILL")
    const left = below(state, "building")
    assert.strictEqual(left.length, 1)
    await until("its programs are gone", () => processesOf(join(state, "machine-images")).length === 0)
    const next = await image(state, "build", ...minimal)
    assert.strictEqual(next.code, 0, next.stderr)
    assert.deepStrictEqual(below(state, "building"), [])
  })

  it("a full disk is told as such, and left as it was", async () => {
    const state = fresh()
    // In a mount namespace of its own, which takes the file system with it.
    const script = `
      mount -t tmpfs -o size=$SIZE tmpfs "$STATE/machine-images/building" || exit 99
      node "$MAIN" image build --base minimal --kernel "$KERNEL" --state "$STATE"
      code=$?
      ls "$STATE/machine-images/building" "$STATE/machine-images/names"
      exit $code`
    assert.strictEqual((await image(state, "build", "first", ...minimal)).code, 0)
    for (const SIZE of ["64k", "1m", "3m"]) {
      const env = { ...projectEnv, SIZE, STATE: state, MAIN: join(projectRoot, "src/main.ts"), KERNEL: vmlinux }
      const ended = await run("unshare", ["--mount", "--propagation=private", "sh", "-c", script], { env })
      assert.strictEqual(ended.code, 1, `${SIZE}: ${ended.stderr}${ended.stdout}`)
      assert.match(ended.stderr, /machine image default: there is no room for it/)
      assert.match(ended.stderr, /\n {2}Free space/)
      assert.notInclude(ended.stdout.replace("first", ""), "default")
      assert.strictEqual(ended.stdout.trim().split("\n").filter((line) => /^[a-z0-9]{16}$/.test(line)).length, 0)
    }
  })

  it("takes a root that there is already, as it is, and changes nothing of it", async () => {
    const state = fresh()
    const folder = join(stoker.folder, `given-${++number}`)
    const root = rootFile(folder, ["sbin/init"], { "etc/inittab": "::respawn:/bin/busybox sleep 1000\n" })
    const before = readFileSync(root)
    const given = ["--root", root, "--kernel", vmlinux]
    const built = await image(state, "build", "theirs", ...given)
    assert.strictEqual(built.code, 0, built.stderr)
    assert.match(built.stderr, /copying the root file system\n.*\n.*theirs: given, kernel/)
    assert.isTrue(before.equals(readFileSync(root)))
    assert.strictEqual((await image(state, "build", "again", ...given)).stdout, built.stdout)
    const shown: unknown = JSON.parse((await image(state, "show", "theirs", "--json")).stdout)
    assert.deepNestedInclude(shown, { "manifest.recipe.base": "given", "manifest.recipe.init": "/sbin/init" })
    const copy = join(state, "machine-images", built.stdout.trim(), "root.ext4")
    assert.match(spawnSync("/sbin/dumpe2fs", ["-h", copy], { encoding: "utf8" }).stdout, /volume name: +rootfs/)
    const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
      [["--root", vmlinux], /vmlinux is no ext4 file system\n {2}Give a file with one/],
      [["--root", join(folder, "none")], /there is no .*none/],
      [["--root", root, "--base", "debian"], /a root that is given is taken as it is\n {2}Leave --base/]
    ]
    for (const [args, said] of wrong) {
      const { code, stderr } = await image(state, "build", "wrong", "--kernel", vmlinux, ...args)
      assert.match(stderr, said)
      assert.strictEqual(code, 1)
    }
    assert.deepStrictEqual(below(state, "building"), [])
  })

  it("builds from the bundle as well, and the same image whatever the umask is", async () => {
    const state = fresh()
    const built = join(projectRoot, "dist/stoker")
    const build = (umask: string) =>
      spawnSync("sh", [
        "-c",
        `umask ${umask} && exec "$@"`,
        "sh",
        built,
        "image",
        "build",
        ...minimal,
        "--state",
        state
      ], {
        env: projectEnv,
        encoding: "utf8"
      })
    const { status, stderr, stdout } = build("022")
    assert.strictEqual(status, 0, stderr)
    assert.strictEqual(build("077").stdout, stdout)
    const folder = join(state, "machine-images", stdout.trim())
    // VMMs are users of their own.
    assert.deepStrictEqual(readdirSync(folder).map((name) => statSync(join(folder, name)).mode & 0o777), [
      0o644,
      0o644,
      0o644
    ])
    assert.strictEqual((await image(state, "show", stdout.trim().slice(0, 8))).code, 0)
  })
})
