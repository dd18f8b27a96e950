/** Where a worker finds room for its groups, on a host whose controllers are on v2. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import { join } from "node:path"
import { Cgroups } from "../../src/layers/cgroup/Cgroup.ts"
import * as CgroupsHost from "../../src/layers/cgroup/CgroupsHost.ts"
import * as Mounts from "../../src/layers/cgroup/Mounts.ts"
import { eventually } from "../guest/Native.ts"
import { run } from "../support/Run.ts"
import type { Told } from "./delegated.ts"

const mounts = Mounts.parseMounts(Fs.readFileSync("/proc/self/mountinfo", "utf8"))
const root = mounts.every(({ version }) => version === "v2") ? mounts[0]?.mountPoint : undefined
const nobody = 65_534

let made = 0

/** A group as a service manager makes one, with these below it; removed, with what was made in it, when all have left. */
const unit = (...below: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const path = `${root}/stoker-test-unit-${process.pid}-${made++}`
      for (const name of ["", ...below]) Fs.mkdirSync(join(path, name))
      return path
    }),
    (path) =>
      eventually(`${path} is removed`, 10, () => {
        try {
          for (const entry of Fs.readdirSync(path, { withFileTypes: true })) {
            if (entry.isDirectory()) Fs.rmdirSync(join(path, entry.name))
          }
          Fs.rmdirSync(path)
        } catch {
          return false // whoever ended last is still leaving
        }
        return true
      })
  )

/** Runs `delegated.ts` in a cgroup, its job held to so much memory. */
const startedIn = (group: string, { jobMiB = 96, limitMiB = 256, user = 0 } = {}) =>
  Effect.map(
    Effect.promise(() =>
      run("sh", [
        "-c",
        "echo $$ >$0/cgroup.procs && exec setpriv --reuid $1 --regid $1 --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search node \"$2\" \"$3\" $4 $5",
        group,
        `${user}`,
        join(import.meta.dirname, "delegated.ts"),
        `test-unit-${process.pid}`,
        `${limitMiB}`,
        `${jobMiB}`
      ])
    ),
    ({ code, stderr, stdout }) => {
      assert.strictEqual(code, 0, stdout + stderr)
      const told: Told = JSON.parse(stdout.trim().split("\n").at(-1) ?? "")
      return told
    }
  )

const onV2 = () => {
  const instance = `stoker-test-unit-${process.pid}`

  it.live("alone in its own cgroup it makes room there", () =>
    Effect.gen(function*() {
      const path = yield* unit()
      const told = yield* startedIn(path)
      assert.deepStrictEqual(told.directories, [`${path}/${instance}`])
      assert.strictEqual(`${root}${told.own}`, `${path}/stoker-worker`)
      assert.deepStrictEqual([told.code, told.oomKills], [0, 0])
    }))

  it.live("the limit of its own cgroup holds its jobs too, and its counter tells", () =>
    Effect.gen(function*() {
      const path = yield* unit()
      Fs.writeFileSync(join(path, "memory.swap.max"), "0")
      Fs.writeFileSync(join(path, "memory.max"), `${400 * 1024 * 1024}`)
      // Its own limit lets it have more than the whole unit; it is what the kernel kills as the largest there.
      const told = yield* startedIn(path, { limitMiB: 900, jobMiB: 800 })
      assert.deepStrictEqual(told.directories, [`${path}/${instance}`])
      assert.deepStrictEqual([told.code, told.oomKills], [137, 1])
    }))

  it.live("started in its leaf, as systemd's DelegateSubgroup does, it stays there", () =>
    Effect.gen(function*() {
      const path = yield* unit("stoker-worker")
      const told = yield* startedIn(join(path, "stoker-worker"), { limitMiB: 32 })
      assert.deepStrictEqual(told.directories, [`${path}/${instance}`])
      assert.strictEqual(`${root}${told.own}`, `${path}/stoker-worker`)
      assert.deepStrictEqual([told.code, told.oomKills], [137, 1])
    }))

  it.live("a user to whom the group was given needs nothing else", () =>
    Effect.gen(function*() {
      const path = yield* unit()
      for (const name of ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"]) {
        Fs.chownSync(join(path, name), nobody, nobody)
      }
      const told = yield* startedIn(path, { limitMiB: 32, user: nobody })
      assert.deepStrictEqual(told.directories, [`${path}/${instance}`])
      assert.deepStrictEqual([told.code, told.oomKills], [137, 1])
    }))

  it.live("where others share its cgroup it moves nobody, and goes to the root", () =>
    Effect.gen(function*() {
      const shared = yield* unit()
      const told = yield* Effect.promise(() =>
        run("sh", [
          "-c",
          `echo $$ >${shared}/cgroup.procs; sleep 1000 & node "$0" "$1" 256 96; kill $!`,
          join(import.meta.dirname, "delegated.ts"),
          `test-unit-${process.pid}`
        ])
      )
      assert.include(told.stdout, `"directories":["${root}/${instance}"]`)
      assert.include(told.stdout, "outside the limits of the worker's own cgroup")
      assert.isFalse(Fs.existsSync(join(shared, "stoker-worker")))
    }))
}

describe("a worker on cgroup v2", () => {
  if (root !== undefined) return onV2()
  it.live("is not to be had here: the controllers are on v1, and so are the worker's groups", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* Cgroups).version, "v1")
    }).pipe(Effect.provide(CgroupsHost.layer({ instance: `test-unit-${process.pid}` }))))
})
