/** Jobs in real machines, through the executor and its pools. The machines are copies of one that was booted once. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect, Metric, Schedule } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { cpSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import * as Pools from "../../src/actors/Pools.ts"
import { states } from "../../src/layers/sandbox/microvm/Lifecycle.ts"
import { Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { metrics } from "../../src/layers/telemetry/Metrics.ts"
import { standardPool } from "../../src/schemas/PoolConfig.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"
import { until } from "../worker/until.ts"
import { WorkerProcess } from "../worker/WorkerProcess.ts"
import * as Rig from "./Rig.ts"

const MiB = 1024 * 1024
const LIMIT = patience(120_000)

const shell = (command: string, limits: Jobs.Wanted["limits"] = {}): Jobs.Wanted => ({
  args: { command: `sh -c '${command.replaceAll("'", `'\\''`)}'` },
  limits
})

const pooled = Rig.machineClass({}, {
  ...standardPool,
  minimum: 2,
  maximum: 2,
  parallel: 1,
  provisionMs: LIMIT,
  healthMs: LIMIT,
  failFastMs: LIMIT
})

describe("machines of QEMU", () => {
  const state = Jobs.stateDirectory()
  const seen = new Set<string>()
  const note = Effect.sync(() => {
    for (const id of Rig.rows(state)) seen.add(id)
  })
  afterAll(() => {
    const found = Rig.left(state, [...seen])
    Jobs.remove(state)
    assert.deepStrictEqual(found, [])
    assert.isAbove(seen.size, 3)
  })

  layer(Jobs.layerOf(pooled, state), { excludeTestServices: true, timeout: LIMIT })("in a pool of two", (it) => {
    const stats = Effect.flatMap(Pools.Pools, (pools) => Effect.map(pools.stats, ({ classes: [first] }) => first))
    const twoReady = Effect.repeat(stats, {
      until: (found) => found?.idle === 2 && found.making === 0 && found.leaving === 0,
      schedule: Schedule.spaced("50 millis")
    })

    /** What `stoker_machines` says, without zeros. */
    const counted = Effect.map(
      Effect.forEach(states, (state) =>
        Effect.map(
          Metric.value(metrics.machines.series({ driver: "qemu", state })),
          ({ value }) => [state, Number(value)] as const
        )),
      (counts) => Object.fromEntries(counts.filter(([, count]) => count !== 0))
    )

    it.effect("run a job each, under the job's own user, and are replaced", () =>
      Effect.gen(function*() {
        yield* twoReady
        yield* note
        const before = yield* stats
        assert.deepStrictEqual(yield* counted, { ready: 2 })
        let during: Readonly<Record<string, number>> = {}
        const ran = yield* Jobs.runIn(pooled, {
          ...shell("id -u; printf 'a\\000b' >&2; cat; sleep 0.5"),
          onOutput: () =>
            Effect.map(counted, (found) => {
              during = found
            })
        })
        assert.strictEqual(during["leased"], 1)
        assert.deepStrictEqual(ran.outcome, { _tag: "Exited", phase: "run", code: 0 })
        assert.strictEqual(ran.stdout.toString(), "1000\n")
        assert.deepStrictEqual([...ran.stderr], [97, 0, 98])
        const [phase] = ran.usage.phases
        assert.isAbove(phase?.cpuMicros ?? 0, 0)
        assert.isAbove(phase?.memoryPeakBytes ?? 0, 100_000)
        assert.isBelow(phase?.memoryPeakBytes ?? 0, 64 * MiB)
        const after = yield* twoReady
        yield* note
        assert.strictEqual((after?.hits ?? 0) - (before?.hits ?? 0), 1)
        assert.strictEqual(after?.failures, 0)
        // The one that was used is gone for good a moment after its successor is ready.
        yield* Effect.repeat(counted, {
          until: (found) => found["ready"] === 2 && Object.keys(found).length === 1,
          schedule: Schedule.spaced("50 millis")
        })
      }), LIMIT)

    it.effect("share no random bytes, ids or names, and know the time", () =>
      Effect.gen(function*() {
        yield* twoReady
        const asks = shell(
          "date +%s; cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1; hostname"
        )
        const answers = yield* Effect.all([Jobs.runIn(pooled, asks), Jobs.runIn(pooled, asks)], { concurrency: 2 })
        const lines = answers.map(({ stdout }) => stdout.toString().trim().split("\n"))
        const now = Date.now() / 1000
        for (const [time = "0", ...others] of lines) {
          assert.closeTo(Number(time), now, patience(6000) / 1000)
          assert.strictEqual(others.length, 4)
        }
        const [one = [], other = []] = lines
        for (const index of [1, 2, 3, 4]) assert.notStrictEqual(one[index], other[index])
      }), LIMIT)

    it.effect("end a job that wants more memory than it may have, and say so", () =>
      Effect.gen(function*() {
        const { outcome, usage } = yield* Jobs.runIn(
          pooled,
          shell("dd if=/dev/zero of=/dev/null bs=48M count=1", { memoryBytes: 24 * MiB })
        )
        assert.deepStrictEqual(outcome, { _tag: "OutOfMemory", phase: "run", limitBytes: 24 * MiB })
        assert.isAtLeast(usage.phases[0]?.oomKills ?? 0, 1)
        assert.isAtMost(usage.phases[0]?.memoryPeakBytes ?? Infinity, 24 * MiB)
      }), LIMIT)

    it.effect("hold a fork bomb to the job's processes", () =>
      Effect.gen(function*() {
        const { usage } = yield* Jobs.runIn(
          pooled,
          shell("i=0; while [ $i -lt 60 ]; do sleep 9 & i=$((i+1)); done; wait", { wallMs: patience(20_000) })
        )
        const [phase] = usage.phases
        assert.isAtLeast(phase?.pidsRefused ?? 0, 1)
        // A kernel before 6.11 keeps no peak.
        assert.isAtMost(phase?.pidsPeak ?? 0, 32)
      }), LIMIT)

    it.effect("hold an endless writer to the job's disk", () =>
      Effect.gen(function*() {
        const { outcome, stderr } = yield* Jobs.runIn(pooled, {
          ...shell("cat /dev/zero > /work/endless", { fileBytes: 256 * MiB })
        })
        assert.deepStrictEqual(outcome, { _tag: "Exited", phase: "run", code: 1 })
        assert.include(stderr.toString(), "No space left")
      }), LIMIT)

    it.effect("whose VMM is killed fail their job, with a reason, and are replaced", () =>
      Effect.gen(function*() {
        yield* twoReady
        yield* note
        let killed = false
        const { outcome } = yield* Jobs.runIn(pooled, {
          ...shell("echo $$; sleep 1000"),
          onOutput: () =>
            Effect.sync(() => {
              if (killed) return
              killed = true
              // All of them: those that stand ready are replaced, too.
              for (const pid of Rig.vmms(Rig.rows(state))) process.kill(pid, "SIGKILL")
            })
        })
        assert.strictEqual(outcome._tag, "SandboxFailed")
        assert.match(outcome._tag === "SandboxFailed" ? outcome.reason : "", /its VMM ended/)
        yield* twoReady
        yield* note
        const { outcome: next } = yield* Jobs.runIn(pooled, shell("true"))
        assert.deepStrictEqual(next, { _tag: "Exited", phase: "run", code: 0 })
      }), LIMIT)

    it.effect("of a killed worker die with it, and the next worker removes what is left", () =>
      Effect.gen(function*() {
        const child = spawn(process.execPath, [join(import.meta.dirname, "orphan.ts"), state], {
          stdio: ["ignore", "pipe", "inherit"]
        })
        const line = yield* Effect.promise(() => once(createInterface(child.stdout), "line"))
        const row: { id: string } = JSON.parse(String(line[0]))
        yield* note
        assert.strictEqual(Rig.vmms([row.id]).length, 1)
        child.kill("SIGKILL")
        const killedAt = performance.now()
        yield* Effect.repeat(Effect.sync(() => Rig.vmms([row.id]).length), {
          until: (count) => count === 0,
          schedule: Schedule.spaced("20 millis")
        })
        assert.isBelow(performance.now() - killedAt, patience(1000))
        // One whose classes name no machines: it has the driver for this alone.
        yield* Effect.promise(async () => {
          const janitor = await WorkerProcess.start({ state })
          await until("the dead worker's rows gone", () => !Rig.rows(state).includes(row.id), LIMIT)
          await janitor.drain()
        })
        assert.deepStrictEqual(Rig.left(state, [row.id]).filter((what) => what.includes(row.id)), [])
      }), LIMIT)

    it.effect(
      "are refused what they cannot hold, and images that are not there are named",
      () =>
        Effect.gen(function*() {
          const [driver] = yield* Drivers
          if (driver?.accepts === undefined) return yield* Effect.die("no driver")
          for (const limits of [{ swapBytes: MiB }, { ioWeight: 7 }, { memoryHighBytes: 8 * MiB }, { cpus: 2 }]) {
            const exit = yield* Effect.exit(driver.accepts(pooled, { ...pooled.defaults, ...limits }))
            assert.strictEqual(exit._tag, "Failure", JSON.stringify(limits))
          }
          yield* driver.accepts(pooled, pooled.ceiling)
          const without = { ...pooled, machine: { ...pooled.machine, image: "nowhere" } }
          const error = yield* Effect.flip(Effect.scoped(driver.provision(without, { bytes: MiB, inodes: 100 })))
          assert.deepStrictEqual([error.step, error.driver], ["image", "qemu"])
          assert.match(error.remedy, /stoker image build/)
        }),
      LIMIT
    )

    it.effect(
      "of an image that is damaged, or of another architecture's, are refused in its words, at once",
      () =>
        Effect.gen(function*() {
          const [driver] = yield* Drivers
          const folder = join(state, "image")
          cpSync(Rig.image(), folder, { recursive: true })
          const refusal = Effect.fnUntraced(function*() {
            const began = performance.now()
            const of = { ...pooled, machine: { ...pooled.machine, image: folder } }
            const error = yield* Effect.flip(
              Effect.scoped(driver?.provision(of, { bytes: MiB, inodes: 100 }) ?? Effect.die("no driver"))
            )
            assert.isBelow(performance.now() - began, patience(5000))
            assert.strictEqual(error.step, "image")
            return error.reason
          })
          const [root, manifest] = [join(folder, "root.ext4"), join(folder, "manifest.json")]
          const [whole, words] = [readFileSync(root), readFileSync(manifest, "utf8")]
          const damaged = Buffer.from(whole)
          damaged[4096] = (damaged[4096] ?? 0) ^ 1
          writeFileSync(root, damaged)
          assert.match(yield* refusal(), /root\.ext4 is corrupt: its SHA-256 is/)
          writeFileSync(root, whole.subarray(0, 4096))
          assert.match(yield* refusal(), /root\.ext4 is cut off: it has 4096 bytes/)
          writeFileSync(root, whole)
          writeFileSync(manifest, words.replace(`"${process.arch}"`, "\"mips\""))
          assert.match(yield* refusal(), /it was made for mips, and this machine is/)
        }),
      LIMIT
    )
  })
})
