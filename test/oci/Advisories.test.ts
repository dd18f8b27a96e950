import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Advisories from "../../src/layers/sandbox/oci/Advisories.ts"
import * as Crun from "../../src/layers/sandbox/oci/Crun.ts"
import { checkUmoci, toolChecks } from "../../src/layers/sandbox/oci/ImageTools.ts"
import * as Runsc from "../../src/layers/sandbox/oci/Runsc.ts"

const folder = mkdtempSync(join(tmpdir(), "stoker-advisories-"))
let number = 0
const program = (name: string, version: string) => {
  const path = join(folder, `${++number}`)
  mkdirSync(path)
  writeFileSync(join(path, name), `#!/bin/sh\necho '${version}'\n`, { mode: 0o755 })
  return { path, file: join(path, name) }
}

describe("known holes", () => {
  afterAll(() => rmSync(folder, { recursive: true }))

  it("versions are compared by their numbers", () => {
    assert.isTrue(Advisories.isBefore([1, 8, 1], [1, 20]))
    assert.isTrue(Advisories.isBefore([0, 4, 6], [0, 4, 7]))
    assert.isFalse(Advisories.isBefore([1, 20], [1, 20, 0]))
    assert.isFalse(Advisories.isBefore([2], [1, 20]))
  })

  it("a version has those that were fixed later, unless its package says that it is mended", () => {
    const ids = (version: ReadonlyArray<number>, changelog = "") =>
      Advisories.holesOf("crun", version, () => changelog).map(({ id }) => id)
    assert.deepStrictEqual(ids([1, 4, 3]), ["CVE-2022-27650", "CVE-2025-24965"])
    assert.deepStrictEqual(ids([1, 4, 3], "  * Fix CVE-2022-27650 (Closes: #1009881)"), ["CVE-2025-24965"])
    assert.deepStrictEqual(ids([1, 8, 1]), ["CVE-2025-24965"])
    assert.deepStrictEqual(ids([1, 20]), [])
    assert.strictEqual(Advisories.changelogOf("crun", join(folder, "crun")), "")
  })

  it.live("what is out of reach is told and not refused; krun is", () =>
    Effect.gen(function*() {
      const { file } = program("crun", "crun version 1.8.1")
      assert.strictEqual(yield* Crun.version(file), "1.8.1")
      assert.match(Crun.remarks(file, "1.8.1"), /CVE-2025-24965 .*fixed in 1\.20; out of reach: /)
      assert.strictEqual(Crun.remarks(file, "1.20.0"), "")
      const krun = yield* Effect.flip(Crun.version(program("krun", "crun version 1.21").file))
      assert.match(krun.message, /called krun it makes no containers/)
    }))

  it.live("a umoci that unpacks into the host is refused, and doctor says so", () =>
    Effect.gen(function*() {
      const { path } = program("umoci", "umoci version 0.4.6")
      const env = { PATH: `${path}:${process.env["PATH"]}` }
      const error = yield* Effect.flip(checkUmoci(env))
      assert.match(error.message, /umoci version 0\.4\.6 has CVE-2021-29136 .*fixed in 0\.4\.7.*Install a newer umoci/)
      const checks = yield* toolChecks(env, "/nowhere/runsc")
      assert.deepStrictEqual(checks.map(({ name, status }) => [name, status]), [
        ["skopeo", "ok"],
        ["umoci", "warning"],
        ["runsc", "warning"]
      ])
      assert.match(checks[2]?.detail ?? "", /there is no such program.*classes with runtime runsc need it/)
      assert.match(checks[2]?.remedy ?? "", /apt-get install runsc/)
      assert.match(yield* checkUmoci({ PATH: process.env["PATH"] ?? "" }), /^umoci version/)
    }))

  it.live("an old or foreign runsc is refused", () =>
    Effect.gen(function*() {
      const old = yield* Effect.flip(Runsc.version(program("runsc", "runsc version release-20210101.0").file))
      assert.match(old.message, /runsc 20210101 is too old, 20221219 is the least/)
      const other = yield* Effect.flip(Runsc.version(program("runsc", "runc version 1.1.5").file))
      assert.match(other.message, /which is not runsc's/)
      assert.strictEqual(yield* Runsc.version(program("runsc", "runsc version release-20240318.0").file), 20_240_318)
    }))
})
