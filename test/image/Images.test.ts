/** Machine images are built, kept, checked and removed; whatever breaks off leaves nothing. */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { createHash } from "node:crypto"
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { afterAll } from "vitest"
import * as Native from "../../src/layers/host/Native.ts"
import { MachineImages, type Recipe } from "../../src/layers/microvm/image/MachineImages.ts"
import * as MachineImagesLive from "../../src/layers/microvm/image/MachineImagesLive.ts"
import { type MachineImage, MachineImageError, type Manifest } from "../../src/layers/microvm/MachineImage.ts"
import { run } from "../support/Run.ts"
import { patience } from "../support/Slowness.ts"
import { projectRoot } from "../support/Tree.ts"
import { bzImage, file, kernel, lacking, lz4, seeded, sharedImage } from "./Make.ts"

const missing = lacking()
if (missing !== undefined) process.stdout.write(`machine images skipped: ${missing}\n`)

const home = mkdtempSync(join(tmpdir(), "stoker-image-"))
afterAll(() => rmSync(home, { recursive: true, force: true }))
let number = 0
const fresh = () => seeded(join(home, `${++number}`))
const small = (options = {}) => file(join(home, `vmlinux-${++number}`), kernel(options))

/** As one worker or command has them. */
const using = <A, E>(state: string, act: (images: MachineImages["Service"]) => Effect.Effect<A, E>) =>
  Effect.flatMap(MachineImages, act).pipe(
    Effect.provide(
      Layer.fresh(MachineImagesLive.layer({ stateDirectory: state })).pipe(
        Layer.provide([Native.layer, layerSecureRandom])
      )
    )
  )

const build = (state: string, recipe: Partial<Recipe>, told: (step: string) => void = () => {}) =>
  using(
    state,
    (images) =>
      images.build({ name: "default", root: { base: "minimal" }, ...recipe }, (step) => Effect.sync(() => told(step)))
  )

const open = (state: string, name: string) => using(state, (images) => images.open(name))
const refusal = (state: string, name: string) => Effect.flip(open(state, name))

const below = (state: string, ...parts: ReadonlyArray<string>) => {
  const folder = join(state, "machine-images", ...parts)
  return existsSync(folder) ? readdirSync(folder).toSorted() : []
}
const identities = (state: string) => below(state).filter((name) => /^[0-9a-f]{64}$/.test(name))

const sha256 = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex")

/** What the file system in an image says of a path. */
const debugfs = async (image: MachineImage, command: string) =>
  (await run("debugfs", ["-R", command, image.root])).stdout

const changed = (image: MachineImage, change: (manifest: Manifest) => Manifest) => {
  const path = join(image.directory, "manifest.json")
  writeFileSync(path, JSON.stringify(change(JSON.parse(readFileSync(path, "utf8")) as Manifest)))
}

describe.skipIf(missing !== undefined)("machine images", { timeout: patience(180_000) }, () => {
  it.live("a minimal one holds busybox, our programs and the job's user, and is a whole ext4 file system", () =>
    Effect.gen(function*() {
      const state = fresh()
      const image = yield* build(state, { kernel: sharedImage })
      assert.deepStrictEqual(
        image.modules.map((path) => basename(path, ".ko")).filter((name) =>
          /^(virtio|virtio_ring|overlay)$/.test(name)
        ),
        ["virtio_ring", "virtio", "overlay"]
      )
      assert.match(image.manifest.kernelRelease, /cloud/)
      assert.hasAllKeys(image.manifest.recipe.programs, [
        "/sbin/init",
        "/usr/lib/stoker/agent",
        "/usr/lib/stoker/guest"
      ])
      assert.property(image.manifest.recipe.packages, "busybox-static")
      assert.isTrue(Object.keys(image.manifest.recipe.packages).some((name) => name.startsWith("linux-image-")))
      const { code } = yield* Effect.promise(() => run("e2fsck", ["-f", "-n", image.root]))
      assert.strictEqual(code, 0)
      const { stdout } = yield* Effect.promise(() => run("dumpe2fs", ["-h", image.root]))
      assert.match(stdout, /Filesystem volume name: +rootfs\n/)
      assert.notMatch(stdout, /has_journal/)
      const said = (command: string) => Effect.promise(() => debugfs(image, command))
      for (const path of ["/sbin/init", "/usr/lib/stoker/guest", "/bin/busybox"]) {
        assert.match(yield* said(`stat ${path}`), /Type: regular +Mode: +0755[^]*User: +0 +Group: +0/)
      }
      assert.match(yield* said("stat /tmp"), /Mode: +01777/)
      assert.match(yield* said("stat /work"), /User: +1000 +Group: +1000/)
      assert.match(yield* said("stat /etc/resolv.conf"), /Fast link dest: "\/run\/stoker\/resolv\.conf"/)
      assert.match(yield* said("stat /bin/sh"), /Fast link dest: "busybox"/)
      assert.match(yield* said("cat /etc/passwd"), /^codebench:x:1000:1000:/m)
      assert.strictEqual(
        sha256(readFileSync(join(projectRoot, "build/native/init"))),
        image.manifest.recipe.programs["/sbin/init"]
      )
      // Sparse, and no larger on the disk than its files.
      assert.isBelow(statSync(image.root).blocks * 512, 6 * 1024 * 1024)
    }))

  it.live("the same recipe gives the same bytes: one image, whoever builds it, also at once", () =>
    Effect.gen(function*() {
      const state = fresh()
      const recipe = { kernel: small() }
      const steps: Array<string> = []
      const first = yield* build(state, recipe)
      const [second, third] = yield* Effect.all(
        [build(state, { ...recipe, name: "other" }, (step) => steps.push(step)), build(state, recipe)],
        { concurrency: "unbounded" }
      )
      const elsewhere = yield* build(fresh(), recipe)
      assert.deepStrictEqual(
        [second, third, elsewhere].map(({ identity }) => identity),
        [first, first, first].map(({ identity }) => identity)
      )
      assert.include(steps, "the same image is there already")
      assert.deepStrictEqual(identities(state), [first.identity])
      assert.deepStrictEqual(below(state, "names"), ["default", "other"])
      assert.deepStrictEqual(below(state, "building"), [])
    }))

  it.live("several at once into an empty store are one image, and nothing of the others stays", () =>
    Effect.gen(function*() {
      const state = fresh()
      const recipe = { kernel: small() }
      const made = yield* Effect.forEach(["a", "b", "c", "d"], (name) => build(state, { ...recipe, name }), {
        concurrency: "unbounded"
      })
      assert.strictEqual(new Set(made.map(({ identity }) => identity)).size, 1)
      assert.strictEqual(identities(state).length, 1)
      assert.deepStrictEqual(below(state, "building"), [])
    }))

  it.live("a name moves to what was built last; the former image stays until it is removed", () =>
    Effect.gen(function*() {
      const state = fresh()
      const old = yield* build(state, { kernel: small({ release: "6.1.1" }) })
      const now = yield* build(state, { kernel: small({ release: "6.1.2" }) })
      assert.notStrictEqual(old.identity, now.identity)
      assert.strictEqual((yield* open(state, "default")).identity, now.identity)
      assert.strictEqual((yield* open(state, old.identity.slice(0, 8))).manifest.kernelRelease, "6.1.1")
      assert.strictEqual((yield* open(state, old.directory)).identity, old.identity)
      const list = () => using(state, (images) => images.list)
      const shown = (yield* list()).map(({ identity, names }) => [identity, names])
      assert.deepStrictEqual(shown, [[now.identity, ["default"]], [old.identity, []]])

      const remove = (name: string) => using(state, (images) => images.remove(name))
      yield* build(state, { kernel: small({ release: "6.1.2" }), name: "second" })
      assert.deepStrictEqual(yield* remove("default"), { names: ["default"] })
      assert.strictEqual((yield* open(state, "second")).identity, now.identity)
      assert.deepStrictEqual(yield* remove("second"), { names: ["second"], identity: now.identity })
      assert.deepStrictEqual(yield* remove(old.identity), { names: [], identity: old.identity })
      assert.deepStrictEqual(yield* list(), [])
      assert.match((yield* Effect.flip(remove("default"))).reason, /there is none of that name/)
      assert.deepStrictEqual(below(state, "building"), [])
    }))

  it.live("what is not whole is not opened, and the reason is said", () =>
    Effect.gen(function*() {
      const state = fresh()
      const recipe = { kernel: small() }
      const whole = yield* build(state, recipe)
      const damaged = (how: (image: MachineImage) => void) =>
        Effect.gen(function*() {
          const folder = join(home, `damaged-${++number}`)
          cpSync(whole.directory, folder, { recursive: true })
          const image = yield* open(state, folder)
          assert.strictEqual(image.identity, whole.identity)
          how(image)
          const error = yield* refusal(state, folder)
          assert.instanceOf(error, MachineImageError)
          assert.isAbove(error.remedy.length, 10)
          return error.reason
        })
      assert.match(yield* damaged(({ root }) => unlinkSync(root)), /root\.ext4 is missing/)
      assert.match(yield* damaged(({ kernel: path }) => unlinkSync(path)), /vmlinux is missing/)
      assert.match(yield* damaged(({ root }) => truncateSync(root, 4096)), /is cut off: it has 4096 bytes, not \d+/)
      assert.match(yield* damaged(({ root }) => appendFileSync(root, "x")), /is too long/)
      const flip = ({ root }: MachineImage) => {
        const bytes = readFileSync(root)
        bytes[5000] = (bytes[5000] ?? 0) ^ 1
        writeFileSync(root, bytes)
      }
      assert.match(yield* damaged(flip), /root\.ext4 is corrupt: its SHA-256 is/)
      assert.match(
        yield* damaged(({ directory }) => unlinkSync(join(directory, "manifest.json"))),
        /there is no .*manifest\.json/
      )
      assert.match(
        yield* damaged(({ directory }) => writeFileSync(join(directory, "manifest.json"), "{}")),
        /manifest\.json is none: .*version/
      )
      assert.match(
        yield* damaged((image) => changed(image, (manifest) => ({ ...manifest, architecture: "arm64" }))),
        /it was made for arm64, and this machine is x64/
      )
      assert.match(
        yield* damaged((image) =>
          changed(image, (manifest) => ({ ...manifest, root: { ...manifest.root, file: "../../names" } }))
        ),
        /a file name/
      )
      // Whole by its manifest, and no kernel for this machine all the same.
      const swapped = (bytes: Buffer) => (image: MachineImage) => {
        writeFileSync(image.kernel, bytes)
        changed(image, (manifest) => ({
          ...manifest,
          kernel: { file: "vmlinux", bytes: bytes.length, sha256: sha256(bytes) }
        }))
      }
      assert.match(yield* damaged(swapped(kernel({ machine: 183 }))), /vmlinux is for arm64, and this machine is x64/)
      assert.match(yield* damaged(swapped(kernel({ pvh: false }))), /has no PVH note/)
      assert.match(yield* damaged(swapped(kernel().subarray(0, -2))), /is cut off/)
      assert.match(yield* damaged(swapped(Buffer.from("none"))), /is no ELF file/)

      // What is broken in the store is made good by the next build.
      truncateSync(whole.root, 4096)
      const steps: Array<string> = []
      yield* build(state, recipe, (step) => steps.push(step))
      assert.isTrue(steps.some((step) => /^replacing the same image, which is not whole: .*is cut off/.test(step)))
      assert.strictEqual((yield* open(state, "default")).identity, whole.identity)
      assert.deepStrictEqual(below(state, "building"), [])
    }))

  it.live("files that did not change are read once: by inode, size and time", () =>
    Effect.gen(function*() {
      const state = fresh()
      const image = yield* build(state, { kernel: small() })
      const time = (seconds: number) => utimesSync(image.root, seconds, seconds)
      time(1_700_000_000)
      yield* open(state, "default")
      assert.strictEqual(below(state, "verified").length, 1)
      const bytes = readFileSync(image.root)
      bytes[5000] = (bytes[5000] ?? 0) ^ 1
      writeFileSync(image.root, bytes)
      time(1_700_000_000)
      // As long as it seems the same nobody looks into it, whichever process asks.
      yield* open(state, "default")
      time(1_700_000_001)
      assert.match((yield* refusal(state, "default")).reason, /is corrupt/)
    }))

  it.live("a name, a folder and a kernel that are not there are told with what there is", () =>
    Effect.gen(function*() {
      const state = fresh()
      const said = (name: string) => Effect.map(refusal(state, name), ({ message }) => message)
      assert.match(yield* said("default"), /there is none of that name in .*Make one: stoker image build default/)
      yield* build(state, { kernel: small(), name: "tiny" })
      assert.match(yield* said("default"), /There are: tiny/)
      assert.match(yield* said(join(home, "nowhere")), /nowhere is not there/)
      assert.match(yield* said(home), /there is no .*manifest\.json/)
      const refused = (recipe: Partial<Recipe>) => Effect.map(Effect.flip(build(state, recipe)), ({ reason }) => reason)
      assert.match(yield* refused({ name: "../up" }), /that is no name/)
      assert.match(yield* refused({ name: "0123abcdef" }), /that is no name/)
      assert.match(yield* refused({ kernel: join(home, "gone") }), /gone is not there/)
      assert.match(yield* refused({ kernel: file(join(home, "text"), Buffer.from("hello")) }), /text is no kernel/)
      assert.match(yield* refused({ kernel: small({ pvh: false }) }), /has no PVH note/)
      assert.match(yield* refused({ kernel: small({ machine: 183 }) }), /is for arm64/)
      assert.match(yield* refused({ kernel: small({ release: "%s" }) }), /does not say its version/)
      const cut = kernel()
      assert.match(
        yield* refused({ kernel: file(join(home, "cut"), bzImage(lz4(cut).subarray(0, -9), cut.length)) }),
        /cannot be unpacked/
      )
      assert.deepStrictEqual([below(state, "names"), below(state, "building")], [["tiny"], []])
    }))

  it.live("a bzImage is taken apart, another image's kernel comes with its modules", () =>
    Effect.gen(function*() {
      const state = fresh()
      const bytes = kernel({ release: "6.6.6" })
      const packed = yield* build(state, { kernel: file(join(home, "bzImage"), bzImage(lz4(bytes), bytes.length)) })
      assert.isTrue(readFileSync(packed.kernel).equals(bytes))
      assert.deepStrictEqual(packed.modules, [])
      const again = yield* build(state, { kernel: packed.directory, name: "again" })
      assert.strictEqual(again.identity, packed.identity)
      const whole = yield* build(state, { kernel: sharedImage, name: "whole" })
      const { modules } = JSON.parse(readFileSync(join(sharedImage, "manifest.json"), "utf8")) as Manifest
      assert.deepStrictEqual(whole.manifest.modules, modules)
      assert.strictEqual(realpathSync(join(state, "machine-images/names/whole")), whole.directory)
    }))

  it.live("an interrupted build leaves nothing", () =>
    Effect.gen(function*() {
      const state = fresh()
      const path = small()
      const before = below(state, "packages")
      for (const step of ["making the root file system", "taking checksums"]) {
        const there = yield* Deferred.make<void>()
        const building = yield* Effect.forkChild(
          using(state, (images) =>
            images.build({ name: "default", root: { base: "minimal" }, kernel: path }, (told) =>
              told === step ? Effect.andThen(Deferred.succeed(there, undefined), Effect.never) : Effect.void))
        )
        yield* Deferred.await(there)
        assert.strictEqual(below(state, "building").length, 1)
        yield* Fiber.interrupt(building)
        assert.deepStrictEqual(below(state, "building"), [])
      }
      assert.deepStrictEqual(identities(state), [])
      assert.deepStrictEqual([below(state, "building"), below(state, "names"), below(state, "packages")], [
        [],
        [],
        before
      ])
    }))
})
