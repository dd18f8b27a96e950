import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { run } from "../support/Run.ts"
import { cgroup, hierarchies, hybridMount, members } from "./Cgroup.ts"
import { writeBundle } from "./Crun.ts"
import { eventually, isAlive, launchPath, look, program, tempDir, watchdogPath } from "./Native.ts"
import { session } from "./Session.ts"

/** A watchdog whose worker is this process. */
const watchdog = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
  const running = yield* program(watchdogPath, args)
  let said = ""
  let closed = false
  running.child.stdout.on("data", (chunk: Buffer) => said += chunk.toString())
  running.child.stdout.on("end", () => closed = true)
  yield* eventually("the watchdog is ready", 5, () => said === "ready\n" && closed)
  return running
})

/** The sleepers among the members: what the jobs here consist of when they have fully started. */
const sleepers = (group: string) => members(group).filter((pid) => look(pid)?.command.startsWith("sleep 1000"))

/** Four sleepers in `group` that TERM does not end: with daemons, and one in a group below. */
const populate = Effect.fnUntraced(function*(group: string) {
  const script = `trap '' TERM HUP; setsid sleep 1000 & sleep 1000 & ${launchPath} -g ${group}/job/cgroup.procs -- ` +
    "sh -c 'sleep 1000 & sleep 1000'"
  const job = yield* program(launchPath, ["-g", join(group, "cgroup.procs"), "--", "sh", "-c", script])
  yield* eventually("the job runs", 5, () => sleepers(group).length === 4)
  return { ...job, pids: members(group) }
})

for (const { kind, root } of hierarchies) {
  describe(`watchdog on ${kind}`, () => {
    it.live("kills every job within a second of its worker's SIGKILL", () =>
      Effect.gen(function*() {
        const group = yield* cgroup(root)
        const dir = yield* tempDir
        // A worker of its own: it starts the watchdog and a job, and holds the watchdog's input.
        const worker = yield* program("sh", [
          "-c",
          `mkfifo pipe; ${watchdogPath} -c ${group} <pipe >said & echo $! > pid; exec 9>pipe
          ${launchPath} -g ${group}/job/cgroup.procs -- sh -c 'setsid sleep 1000 & sleep 1000' 9>&- &
          until grep -q ready said; do sleep 0.01; done; echo up > up; read forever`.replace(/^/, `cd ${dir}; `)
        ])
        yield* eventually("worker and job are up", 5, () => existsSync(join(dir, "up")) && sleepers(group).length === 2)
        const pids = members(group)
        const guard = Number(readFileSync(join(dir, "pid"), "utf8"))
        assert.isTrue(isAlive(guard))
        worker.child.kill("SIGKILL")
        yield* eventually("the jobs are dead", 1, () => members(group).length === 0 && !pids.some(isAlive))
        yield* eventually("the watchdog ends as well", 1, () => !isAlive(guard))
        assert.isTrue(existsSync(group), "removing directories is the janitor's work")
      }))

    it.live("kills what is paused, daemonised, in groups below, and deaf to signals", () =>
      Effect.gen(function*() {
        const group = yield* cgroup(root)
        const { pids } = yield* populate(group)
        const running = yield* watchdog("-c", group)
        const [file, text] = kind === "v1" ? ["freezer.state", "FROZEN"] : ["cgroup.freeze", "1"]
        writeFileSync(join(group, "job", file), text)
        running.child.stdin.end()
        yield* eventually("all are dead", 1, () => members(group).length === 0 && !pids.some(isAlive))
        assert.deepStrictEqual(yield* running.ended, { code: 0, signal: null })
      }))

    it.live("kills nobody after \"keep\"", () =>
      Effect.gen(function*() {
        const group = yield* cgroup(root)
        const { pids } = yield* populate(group)
        const running = yield* watchdog("-c", group)
        running.child.stdin.end("keep\n")
        assert.deepStrictEqual(yield* running.ended, { code: 0, signal: null })
        assert.deepStrictEqual([sleepers(group).length, pids.every(isAlive)], [4, true])
      }))

    it.live("takes nothing else for \"keep\", and signals for nothing", () =>
      Effect.gen(function*() {
        const group = yield* cgroup(root)
        yield* populate(group)
        const running = yield* watchdog("-c", group)
        for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"] as const) running.child.kill(signal)
        running.child.stdin.write("keeper\nkee\nkeep")
        running.child.stdin.end()
        assert.deepStrictEqual(yield* running.ended, { code: 0, signal: null })
        assert.deepStrictEqual(members(group), [])
      }))

    it.live("ends at once when its groups are gone or empty", () =>
      Effect.gen(function*() {
        const [gone, empty] = [yield* cgroup(root), yield* cgroup(root)]
        const running = yield* watchdog("-c", gone, "-c", empty)
        rmdirSync(join(gone, "job"))
        rmdirSync(gone)
        running.child.stdin.end()
        assert.deepStrictEqual(yield* running.ended, { code: 0, signal: null })
        mkdirSync(gone) // for the end of the scope
      }))
  })
}

describe("watchdog", () => {
  it.live("says what is missing before it says ready", () =>
    Effect.gen(function*() {
      const failures: ReadonlyArray<readonly [args: ReadonlyArray<string>, line: RegExp]> = [
        [[], /usage: watchdog/],
        [["-u", "/proc"], /usage: watchdog/],
        [["-c", "/nowhere"], /^stoker-watchdog: open \/nowhere: No such file or directory\n$/],
        [["-u", "/usr/bin", "-c", "/"], /^stoker-watchdog: umount \/usr\/bin: Invalid argument\n$/]
      ]
      for (const [args, line] of failures) {
        const { code, stderr, stdout } = yield* Effect.promise(() => run(watchdogPath, args))
        assert.deepStrictEqual([code, stdout], [125, ""])
        assert.match(stderr, line)
      }
    }))

  it.live("keeps a namespace without the mount crun refuses; there the guest is pid 1 and its job has no capability", () =>
    Effect.gen(function*() {
      const dir = yield* tempDir
      writeBundle(dir)
      const [freezer] = hierarchies
      const group = yield* cgroup(freezer?.root ?? "")
      const running = yield* watchdog(...hybridMount === undefined ? [] : ["-u", hybridMount], "-c", group)
      const enter = hybridMount === undefined ? [] : ["-n", `/proc/${running.pid}/ns/mnt`]
      const id = `stoker-test-${process.pid}`
      const crun = ["crun", "--root", join(dir, "state"), "--cgroup-manager=disabled", "run", "--bundle", dir, id]
      const { child, ended, get, put, shell } = yield* session(
        [...enter, "-g", join(group, "job/cgroup.procs"), "--", ...crun],
        launchPath
      )
      assert.strictEqual((yield* put("in/file", "x"))._tag, "Ok")
      const zero = "0000000000000000"
      const { exit, stderr, stdout } = yield* shell(`
        id; ls -ln in/file | cut -d' ' -f1,3,4; cat /proc/sys/kernel/ns_last_pid >/dev/null && echo $PPID
        grep -E 'Cap(Prm|Eff)|NoNewPrivs' /proc/self/status | tr -s ' \\t\\n' ' '; cat /proc/self/oom_score_adj
        grep CapPrm /proc/1/status; cat /proc/1/environ; kill -KILL 1; mkfifo fifo; echo out > /dev/stdout 2>/dev/null
        setsid sleep 1000 & :`)
      assert.strictEqual(
        stdout.toString().replaceAll("\t", " "),
        "uid=1000 gid=1000 groups=1000\n-rw-r--r-- 1000 1000\n1\n" +
          `CapPrm: ${zero} CapEff: ${zero} NoNewPrivs: 1 1000\nCapPrm: 00000000000000e0\nout\n`
      )
      assert.match(stderr.toString(), /Permission denied[^]*(Operation not permitted|No such process)/)
      assert.deepStrictEqual(exit.end, { kind: "exited", code: 0 })
      assert.deepInclude(yield* get("fifo"), { _tag: "Fail" })
      assert.isAbove(members(group).length, 0)
      child.stdin.end()
      assert.strictEqual((yield* ended).code, 0)
      assert.deepStrictEqual(members(group), [])
      const { stdout: here } = yield* Effect.promise(() => run("cat", ["/proc/mounts"]))
      if (hybridMount !== undefined) assert.include(here, ` ${hybridMount} cgroup2 `, "nothing changed outside")
    }))
})
