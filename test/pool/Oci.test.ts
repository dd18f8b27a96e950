import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect, Layer, Schedule, type Scope } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { basename } from "node:path"
import * as Pools from "../../src/actors/Pools.ts"
import { code } from "../../src/functions/Code.ts"
import { command } from "../../src/functions/Command.ts"
import { Cgroups } from "../../src/layers/cgroup/Cgroup.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import * as SandboxExecutor from "../../src/layers/executor/SandboxExecutor.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import { Ledger } from "../../src/layers/ledger/Ledger.ts"
import { Sandboxes } from "../../src/layers/sandbox/Sandboxes.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerDrivers } from "../../src/wiring.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"
import { diskOf, pooled } from "./Fixture.ts"

const oci = pooled("oci", { minimum: 4, maximum: 4, parallel: 2, healthEveryMs: 100, healthMs: 1000 })

/** A real executor on real sandboxes behind a pool. */
const pooledExecutor = (state: string) =>
  SandboxExecutor.layer.pipe(
    Layer.provideMerge(Pools.layer({ sandboxes: 8 })),
    Layer.provideMerge(Layer.mergeAll(
      Settings.layer({ ...standardConfig, classes: [oci] }),
      layerDrivers(state, ["oci"]),
      Functions.layer([code, command])
    ))
  )

const stats = Effect.flatMap(
  Pools.Pools,
  (pools) =>
    Effect.flatMap(
      pools.stats,
      ({ classes: [first] }) => first === undefined ? Effect.die("no class") : Effect.succeed(first)
    )
)

const until = <A, E, R>(what: string, condition: Effect.Effect<A, E, R>, holds: (value: A) => boolean) =>
  condition.pipe(
    Effect.filterOrFail(holds, (value) => value),
    Effect.retry(Schedule.spaced("10 millis").pipe(Schedule.upTo({ duration: patience(20_000) }))),
    Effect.catch((last) => Effect.die(`${what}: ${JSON.stringify(last)}`))
  )

const full = until("a full pool", stats, ({ idle, leaving, making }) => idle === 4 && making + leaving === 0)

/** As it was called; crun runs from memory, for which the kernel has another name. */
const programOf = (pid: number) => basename(readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0", 1)[0] ?? "")

describe("a pool of real oci sandboxes", () => {
  const state = Jobs.stateDirectory()
  afterAll(() => Jobs.remove(state))
  let groups: ReadonlyArray<string> = []

  layer(pooledExecutor(state), { excludeTestServices: true, timeout: patience(60_000) })("in one executor", (it) => {
    it.effect("serves fifty jobs, each in a sandbox of its own, and counts its hits", () =>
      Effect.gen(function*() {
        yield* full
        groups = (yield* Cgroups).directories
        const jobs = yield* Effect.forEach(
          Array.from({ length: 50 }, (_, n) => n),
          (n) =>
            Effect.map(
              Jobs.run("oci", { args: { argv: ["/bin/sh", "-c", `ls -A | wc -l; echo ${n} | tee mine`] } }),
              ({ outcome, stdout }) => ({ n, outcome, words: stdout.toString().split("\n") })
            ),
          { concurrency: 2 }
        )
        for (const { n, outcome, words } of jobs) {
          assert.strictEqual(outcome._tag, "Exited")
          // Nobody has been there before.
          assert.deepStrictEqual(words.slice(0, 2), ["0", String(n)])
        }
        const { failures, hits, lost, misses, unfit } = yield* full
        assert.deepStrictEqual({ failures, lost, unfit, takes: hits + misses }, {
          failures: 0,
          lost: 0,
          unfit: 0,
          takes: 50
        })
        // Those that stood ready at the beginning; how many more depends on the machine.
        assert.isAtLeast(hits, 4)
      }), patience(60_000))

    for (const victim of ["guest", "crun"]) {
      it.effect(
        `replaces a sandbox whose ${victim} was killed while it stood ready, and never hands it out`,
        () =>
          Effect.gen(function*() {
            yield* full
            const lostBefore = (yield* stats).lost
            const [row] = yield* (yield* Ledger).rows()
            if (row === undefined) return yield* Effect.die("no sandbox stands ready")
            const pids = yield* (yield* Cgroups).open(row.id).pids
            const pid = pids.find((pid) => programOf(pid) === victim)
            if (pid === undefined) return yield* Effect.die(`no ${victim} among ${pids.map(programOf).join(", ")}`)
            process.kill(pid, "SIGKILL")
            yield* until("a loss", stats, ({ lost }) => lost === lostBefore + 1)
            yield* full
            const taken = yield* Effect.scoped(Effect.forEach([1, 2, 3, 4], () => takeOne))
            assert.notInclude(taken, row.id)
          }),
        30_000
      )
    }
  })

  layer(Layer.empty)("in one executor", (it) => {
    it.effect("leaves nothing when it closes", () =>
      Effect.sync(() => {
        const { crun, ledger, mounts } = Jobs.held(state)
        assert.deepStrictEqual({ crun, ledger, mounts }, { crun: 0, ledger: [], mounts: 0 })
        assert.isNotEmpty(groups)
        // A group with a process in it could not be removed.
        for (const group of groups) assert.isFalse(existsSync(group), group)
      }))
  })
})

const takeOne: Effect.Effect<string, unknown, Sandboxes | Scope.Scope> = Effect.gen(function*() {
  const { id } = yield* (yield* Sandboxes).take(oci, diskOf(oci))
  return id
})
