import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import * as Crun from "../../src/layers/sandbox/oci/Crun.ts"
import { seccompProfile } from "../../src/layers/sandbox/oci/SeccompProfile.ts"

/** A program that answers like crun might. */
const program = (script: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const folder = mkdtempSync(join(tmpdir(), "stoker-crun-"))
      const path = join(folder, "crun")
      writeFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 })
      return { folder, path }
    }),
    ({ folder }) => Effect.sync(() => rmSync(folder, { recursive: true }))
  ).pipe(Effect.map(({ path }) => path))

describe("crun", () => {
  it.live("that is new enough tells its version", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* Crun.version(yield* program("echo crun version 1.14.1; echo commit: x")), "1.14.1")
      assert.strictEqual(yield* Crun.version(yield* program("echo crun version 2.0")), "2.0.0")
    }))

  it.live("that is too old is refused, with what is needed", () =>
    Effect.gen(function*() {
      for (const old of ["0.17", "1.7.2"]) {
        const error = yield* Effect.flip(Crun.version(yield* program(`echo crun version ${old}`)))
        assert.match(error.message, /is too old, 1\.8 is the least.*apt-get install crun/)
      }
    }))

  it.live("is one file for all who run it, whatever their PATH", () =>
    Effect.gen(function*() {
      const path = yield* program("true")
      assert.strictEqual(Crun.find("crun", `relative:/nowhere:${dirname(path)}:/usr/bin`), path)
      assert.strictEqual(Crun.find("crun", "/nowhere"), "crun")
      assert.strictEqual(Crun.find(path, "/usr/bin"), path)
      assert.strictEqual(Crun.find("./crun", "/usr/bin"), join(process.cwd(), "crun"))
    }))

  it.live("that is something else, fails, or is not there is told as that", () =>
    Effect.gen(function*() {
      const other = yield* Effect.flip(Crun.version(yield* program("echo runc version 1.1.5")))
      assert.include(other.message, "runc version 1.1.5")
      const broken = yield* Effect.flip(Crun.version(yield* program("echo cannot load libyajl >&2; exit 127")))
      assert.include(broken.message, "cannot load libyajl")
      const absent = yield* Effect.flip(Crun.version("/nonexistent/crun"))
      assert.include(absent.message, "there is no such program")
    }))
})

describe("the seccomp profile", () => {
  const profile = seccompProfile("x64")
  const rules = (name: string) => (profile?.syscalls ?? []).filter(({ names }) => names.includes(name))

  it("decides every call once, or by its arguments", () => {
    const all = (profile?.syscalls ?? []).flatMap(({ names }) => names)
    const often = new Set(all.filter((name, index) => all.indexOf(name) !== index))
    const calls = [
      "fadvise64",
      "memfd_create",
      "mmap",
      "msync",
      "personality",
      "prctl",
      "prlimit64",
      "setrlimit",
      "shmget",
      "socket",
      "socketpair"
    ]
    assert.deepStrictEqual([...often].toSorted(), calls)
    // One rule without arguments would decide for all of them.
    for (const name of [...often, "clone"]) {
      for (const rule of rules(name)) assert.isNotEmpty("args" in rule ? rule.args : [], name)
    }
  })

  it("a value is refused and every other one is let through, whatever the upper half of its register holds", () => {
    const matches = (name: string, value: bigint) =>
      rules(name).filter((rule) =>
        ("args" in rule ? rule.args ?? [] : []).some((arg) =>
          arg.index === 0 && "valueTwo" in arg && (value & BigInt(arg.value)) === BigInt(arg.valueTwo)
        )
      ).map(({ action }) => action)
    const upper = 1n << 32n
    for (const value of [0n, 1n, 15n, 61n, 63n, 126n, 0x8000_003en, 0xffff_ffffn]) {
      assert.deepStrictEqual(matches("prctl", value), ["SCMP_ACT_ALLOW"], String(value))
      assert.deepStrictEqual(matches("prctl", value + upper), ["SCMP_ACT_ALLOW"], String(value))
    }
    for (const value of [62n, 62n + upper]) assert.deepStrictEqual(matches("prctl", value), ["SCMP_ACT_ERRNO"])
    for (const value of [4n, 4n + upper]) assert.deepStrictEqual(matches("setrlimit", value), ["SCMP_ACT_ERRNO"])
  })

  it("lets nobody make namespaces, mounts or keys, nor reach the kernel by other ways", () => {
    for (const name of ["mount", "unshare", "setns", "keyctl", "bpf", "perf_event_open", "userfaultfd", "move_mount"]) {
      assert.deepStrictEqual(rules(name).map(({ action }) => action), ["SCMP_ACT_ERRNO"], name)
    }
    for (const name of ["clone3", "io_uring_setup", "a_call_of_the_future"]) {
      assert.deepStrictEqual(rules(name), [], name)
    }
    assert.strictEqual(profile?.defaultAction, "SCMP_ACT_ERRNO")
  })

  it("knows the machines it was made for, and says so of others", () => {
    assert.isDefined(seccompProfile("arm64"))
    assert.isUndefined(seccompProfile("riscv64"))
  })
})
