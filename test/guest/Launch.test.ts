import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync } from "node:fs"
import { basename, join } from "node:path"
import { run } from "../support/Run.ts"
import { cgroup, hierarchies } from "./Cgroup.ts"
import { launchPath, tempDir } from "./Native.ts"

const launch = (args: ReadonlyArray<string>, cwd?: string) =>
  Effect.promise(() => run(launchPath, args, cwd === undefined ? {} : { cwd }))

describe("launch", () => {
  for (const { kind, root } of hierarchies) {
    it.live(`a program's first look finds itself in its cgroup (${kind})`, () =>
      Effect.gen(function*() {
        const own = yield* cgroup(root)
        const { code, stdout } = yield* launch(["-g", join(own, "job/cgroup.procs"), "--", "cat", "/proc/self/cgroup"])
        assert.strictEqual(code, 0)
        assert.include(stdout, `/${basename(own)}/job\n`)
      }))
  }

  it.live("enters every cgroup that is named", () =>
    Effect.gen(function*() {
      const own = yield* Effect.forEach(hierarchies, ({ root }) => cgroup(root))
      const files = own.flatMap((path) => ["-g", join(path, "cgroup.procs")])
      const { stdout } = yield* launch([...files, "cat", "/proc/self/cgroup"])
      for (const path of own) assert.include(stdout, `/${basename(path)}\n`)
    }))

  it.live("passes arguments, environment, streams and exit code on as they are", () =>
    Effect.gen(function*() {
      const ended = yield* launch(["--", "sh", "-c", "echo \"$1\"; echo err >&2; exit 7", "sh", "-n -- x"])
      assert.deepStrictEqual(ended, { code: 7, stdout: "-n -- x\n", stderr: "err\n" })
    }))

  it.live("keeps the working directory when it enters a mount namespace, and no file of its own open", () =>
    Effect.gen(function*() {
      const dir = yield* tempDir
      const look = ["sh", "-c", "pwd; ls /proc/$$/fd"]
      const plain = yield* Effect.promise(() => run("env", look, { cwd: dir }))
      const own = yield* cgroup(hierarchies[0]?.root ?? "")
      const ended = yield* launch(["-n", "/proc/self/ns/mnt", "-g", join(own, "cgroup.procs"), "--", ...look], dir)
      assert.deepStrictEqual(ended, plain)
      assert.include(ended.stdout, `${dir}\n0\n1\n2\n`)
    }))

  it.live("any failure is one line and 125, and nothing has run", () =>
    Effect.gen(function*() {
      const dir = yield* tempDir
      const marker = join(dir, "ran")
      const failures: ReadonlyArray<readonly [args: ReadonlyArray<string>, line: string]> = [
        [["-g", "/nowhere/cgroup.procs"], "open /nowhere/cgroup.procs: No such file or directory"],
        [["-g", "/dev/full"], "write /dev/full: No space left on device"],
        [["-n", "/nowhere"], "open /nowhere: No such file or directory"],
        [["-n", "/dev/null"], "enter /dev/null: Invalid argument"],
        [["-x"], "wrong or too many options (launch [-n MOUNT_NS_PATH] [-g CGROUP_PROCS_FILE]... -- PROGRAM ARGS...)"],
        [
          ["-n", "a", "-n", "b"],
          "wrong or too many options (launch [-n MOUNT_NS_PATH] [-g CGROUP_PROCS_FILE]... -- PROGRAM ARGS...)"
        ]
      ]
      for (const [args, line] of failures) {
        const ended = yield* launch([...args, "--", "touch", marker])
        assert.deepStrictEqual(ended, { code: 125, stdout: "", stderr: `stoker-launch: ${line}\n` })
      }
      assert.isFalse(existsSync(marker))
      const missing = yield* launch(["--", "no-such-program"])
      assert.deepStrictEqual([missing.code, missing.stderr], [
        125,
        "stoker-launch: exec no-such-program: No such file or directory\n"
      ])
      assert.strictEqual((yield* launch([])).code, 125)
    }))
})
