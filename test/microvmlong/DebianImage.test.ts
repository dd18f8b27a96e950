/**
 * A Debian image is made from the host's apt sources, boots, and compiles. It needs root, the network and some minutes, so it runs only
 * where it is asked for: `npm run test:microvm`, or `STOKER_TEST_MICROVM=1 STOKER_TEST_DEBIAN=1 vitest run test/microvmlong/DebianImage`.
 */
import { assert, describe, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import { initramfs } from "../../src/layers/microvm/Cpio.ts"
import type { Manifest } from "../../src/layers/microvm/MachineImage.ts"
import { Stoker } from "../cli/Stoker.ts"
import { freePort } from "../support/Ports.ts"
import { run } from "../support/Run.ts"
import { projectRoot } from "../support/Tree.ts"
import { until } from "../worker/until.ts"

const stoker = new Stoker()
const folder = mkdtempSync(join(tmpdir(), "stoker-debian-"))
afterAll(async () => {
  await stoker.dispose()
  rmSync(folder, { recursive: true, force: true })
})

const minutes = (count: number) => count * 60_000
const native = (name: string) => readFileSync(join(projectRoot, "build/native", name))

interface Shown {
  readonly identity: string
  readonly directory: string
  readonly manifest: Manifest
}

/** What `init` starts from when the kernel's drivers are modules. */
const writeInitrd = ({ directory, manifest }: Shown) => {
  const modules = manifest.modules.map(({ file }) => ({ name: file, bytes: readFileSync(join(directory, file)) }))
  const list = Buffer.from(modules.map(({ name }) => `/${name}\n`).join(""))
  const own = ["init", "guest", "agent"].map((name) => ({ name, bytes: native(name) }))
  const path = join(folder, "initrd")
  writeFileSync(path, initramfs([...own, ...modules, { name: "modules.list", bytes: list }]))
  return path
}

/** Boots an image without a wire, so that init starts the agent, which answers on the port given. */
const boot = async (image: Shown, port: number) => {
  const tsc = (await run(join(projectRoot, "build/native/tsc"), [])).stdout.trim()
  const scratch = join(folder, "scratch.img")
  writeFileSync(scratch, "")
  await run("mke2fs", ["-q", "-t", "ext4", "-L", "scratch", "-O", "^has_journal", "-F", scratch, "512M"])
  const drive = (id: string, file: string, more: string) => [
    "-drive",
    `id=${id},file=${file},format=raw,if=none,${more}`,
    "-device",
    `virtio-blk-device,drive=${id}`
  ]
  const timing = `tsc_early_khz=${/\d+/.exec(tsc)?.[0] ?? ""} tsc=reliable mitigations=off`
  return spawn("qemu-system-x86_64", [
    ..."-M microvm,acpi=on,rtc=on,isa-serial=on,x-option-roms=off -accel tcg,tb-size=64 -cpu max -smp 1 -m 512".split(
      " "
    ),
    ..."-nodefaults -no-user-config -nographic -no-reboot -serial".split(" "),
    `file:${join(folder, "console")}`,
    "-kernel",
    join(image.directory, image.manifest.kernel.file),
    "-initrd",
    writeInitrd(image),
    "-append",
    `console=ttyS0 quiet loglevel=3 reboot=t panic=-1 ${timing} stoker.ip=10.0.2.15/24,10.0.2.2`,
    ...drive("root", join(image.directory, image.manifest.root.file), "readonly=on,file.locking=off"),
    ...drive("scratch", scratch, "cache=unsafe"),
    "-netdev",
    `user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:${port}-10.0.2.15:8080`,
    ..."-device virtio-net-device,netdev=n0 -device virtio-rng-device".split(" ")
  ], { stdio: "ignore" })
}

const processesOf = (path: string) =>
  readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(path)
    } catch {
      return false
    }
  })

const programs: ReadonlyArray<readonly [language: string, code: string, stdout: string]> = [
  ["c", "#include <stdio.h>\nint main(void) { puts(\"c\"); return 0; }", "c\n"],
  ["cpp", "#include <iostream>\nint main() { std::cout << \"c++\\n\"; }", "c++\n"],
  ["python", "import os, json\nprint(json.dumps([os.getuid(), os.getgid()]))", "[1000, 1000]\n"],
  ["go", "package main\nimport \"fmt\"\nfunc main() { fmt.Println(\"go\") }", "go\n"]
]

describe("a Debian image", () => {
  const below = (name: string) => readdirSync(join(stoker.state, "machine-images", name))

  it("killed while Debian is installed leaves no process, and nothing after the next build", async () => {
    const build = stoker.start(["image", "build", "--languages", "c"])
    await build.said("stderr", "extracting archives")
    build.kill("SIGKILL")
    await build.ended
    const [left = ""] = below("building")
    await until("mmdebstrap and all it started is gone", () => processesOf(left).length === 0)
    const next = await stoker.run(["image", "build", "small", "--languages", "c"])
    assert.strictEqual(next.code, 0, next.stderr)
    assert.deepStrictEqual([below("building"), below("names")], [[], ["small"]])
  }, minutes(20))

  it("has what was asked for and nothing of the machine it was made on, the same each time, and compiles", async () => {
    const built = await stoker.run(["image", "build", "--json"])
    assert.strictEqual(built.code, 0, built.stderr)
    const image = JSON.parse(built.stdout) as Shown
    for (const name of ["gcc", "g++", "python3", "golang-go", "libc6-dev"]) {
      assert.property(image.manifest.recipe.packages, name)
    }
    const root = join(image.directory, image.manifest.root.file)
    const said = async (command: string) => (await run("debugfs", ["-R", command, root])).stdout
    for (const path of ["/usr/share/doc", "/usr/share/man", "/var/lib/apt/lists", "/etc/apt/sources.list.d"]) {
      assert.notMatch(
        (await said(`ls -p ${path}`)).replaceAll(/\/\d+\/\d+\/\d+\/\d+\/(\.{1,2}|)\/\/\n/g, ""),
        /\.gz|_Packages|\.list/
      )
    }
    assert.match(await said("cat /etc/passwd"), /^codebench:x:1000:1000:/m)
    assert.strictEqual((await said("cat /etc/hostname")).trim(), "stoker")

    const again = await stoker.run(["image", "build", "again"])
    assert.strictEqual(again.stdout.trim(), image.identity, again.stderr)

    const port = await freePort()
    const qemu = await boot(image, port)
    const ended = new Promise<void>((resolve) => qemu.on("close", () => resolve()))
    try {
      const at = `http://127.0.0.1:${port}`
      const healthy = () =>
        fetch(`${at}/health`, { signal: AbortSignal.timeout(1000) }).then(({ ok }) => ok, () => false)
      await until("the agent answers", healthy, minutes(2))
      for (const [language, code, stdout] of programs) {
        const answer = await fetch(`${at}/run`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ id: `long-${language}`, code, language, variant: language })
        })
        const told = await answer.json()
        assert.deepInclude(told, { message: "Success", stdout }, JSON.stringify(told))
      }
    } finally {
      qemu.kill("SIGKILL")
      await ended
    }
    assert.notMatch(readFileSync(join(folder, "console"), "utf8"), /panic|load module/i)
  }, minutes(40))
})
