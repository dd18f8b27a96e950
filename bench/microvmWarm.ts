/**
 * A warm machine: from a job's start to its first output byte in one that stood ready, beside the same program asked for by
 * hand in a machine that was restored and greeted before: one frame on its wire. Then how many jobs find one ready at 70 % of
 * the most that they come at. Emulated, unless `kvm` is the first argument.
 */
import { Effect, Layer, Result, Schedule, Stream } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import * as Pools from "../src/actors/Pools.ts"
import * as Personalisation from "../src/guest/Personalisation.ts"
import * as Protocol from "../src/guest/Protocol.ts"
import * as Settings from "../src/layers/config/Settings.ts"
import { Executor } from "../src/layers/executor/Executor.ts"
import * as SandboxExecutor from "../src/layers/executor/SandboxExecutor.ts"
import * as Qemu from "../src/layers/microvm/qemu/Qemu.ts"
import type { MachineSpec, Vmm } from "../src/layers/microvm/Vmm.ts"
import { standardPool } from "../src/schemas/PoolConfig.ts"
import { baseEnv } from "../src/schemas/Program.ts"
import { standardConfig } from "../src/schemas/WorkerConfig.ts"
import { layerDrivers } from "../src/wiring.ts"
import { makeJob } from "../test/actors/World.ts"
import { machineClass } from "../test/microvm/Rig.ts"
import * as VmmRig from "../test/microvm/VmmRig.ts"
import * as Jobs from "../test/sandbox/Jobs.ts"
import { percentile, publish, round, spread } from "./report.ts"

const accelerator = process.argv[2] === "kvm" ? "kvm" : "tcg"
const ROUNDS = Number(process.argv[3] ?? 40)
const PACED = Number(process.argv[4] ?? 200)
const SATURATING = Math.ceil(PACED / 5)

const argv = ["/bin/busybox", "echo", "x"] as const
const READY = 4
const sandboxClass = machineClass({ accelerator }, {
  ...standardPool,
  minimum: READY,
  maximum: 2 * READY,
  provisionMs: 60_000
})
const { defaults: limits } = sandboxClass

/** A machine that waits with its guest, and its first byte after one frame. */
const byHand = Effect.fnUntraced(function*(vmm: Vmm, spec: MachineSpec, template: string, isRehearsed: boolean) {
  yield* vmm.restore(spec, { directory: template })
  const [program = "", ...args] = vmm.wire(spec, vmm.deadlines.restoreMs)
  const wire = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] })),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  const decoder = Protocol.makeDecoder()
  const until = async (tag: string) => {
    while (true) {
      const [chunk] = await once(wire.stdout, "data") as [Buffer]
      const { frames, violation } = decoder.push(chunk)
      if (violation !== undefined) throw violation
      if (frames.some(({ _tag }) => _tag === tag)) return
    }
  }
  return yield* Effect.promise(async () => {
    wire.stdin.write(Result.getOrThrow(Personalisation.encode({
      clockMillis: Date.now(),
      token: new Uint8Array(Personalisation.tokenBytes).fill(7),
      entropy: new Uint8Array(Personalisation.entropyBytes.min).fill(9),
      hostname: "by-hand",
      defaultRoute: false,
      resolvConf: ""
    })))
    await until("Ready")
    await new Promise((resolve) => setTimeout(resolve, 300))
    const limits = { fileBytes: 0, openFiles: 0, stackBytes: 0, cpuSeconds: 0 }
    if (isRehearsed) {
      wire.stdin.write(Result.getOrThrow(Protocol.encodeRun(1, { cwd: "", argv: ["/bin/true"], env: baseEnv, limits })))
      await until("Exit")
      const group = {
        memoryBytes: sandboxClass.defaults.memoryBytes,
        pids: sandboxClass.defaults.pids,
        cpuMicros: 100_000
      }
      wire.stdin.write(Result.getOrThrow(Protocol.encodeLimit(2, group)))
      await until("Ok")
      await new Promise((resolve) => setTimeout(resolve, 300))
    }
    const run = Result.getOrThrow(Protocol.encodeRun(3, { cwd: "", argv, env: baseEnv, limits }))
    const began = performance.now()
    wire.stdin.write(run)
    await until("Stdout")
    return performance.now() - began
  })
}, Effect.scoped)

const stats = Effect.map(Effect.flatMap(Pools.Pools, (pools) => pools.stats), ({ classes: [first] }) => first)

/** Enough stand ready, and what the one before left is over. */
const quiet = stats.pipe(
  Effect.filterOrFail((now) => now !== undefined && now.idle >= READY && now.making + now.leaving === 0),
  Effect.retry(Schedule.spaced("20 millis")),
  Effect.andThen(Effect.sleep("300 millis"))
)

const job = Effect.gen(function*() {
  const began = performance.now()
  const run = yield* (yield* Executor).start({
    job: makeJob("bench"),
    attempt: 1,
    class: sandboxClass,
    program: {
      files: [],
      phases: [{ name: "run" as const, argv, env: baseEnv, stdin: new Uint8Array(), limits }],
      artefacts: []
    }
  })
  let first = Number.NaN
  let outcome = ""
  yield* Stream.runForEach(run.events, (event) =>
    Effect.sync(() => {
      if (event._tag === "Output" && Number.isNaN(first)) first = performance.now() - began
      if (event._tag === "Finished") outcome = JSON.stringify(event.outcome)
    }))
  if (!outcome.includes("\"code\":0")) return yield* Effect.die(new Error(outcome))
  return first
}).pipe(Effect.scoped)

/** How many of the jobs that come so many a second find a machine ready, in percent. */
const hitsAt = Effect.fnUntraced(function*(perSecond: number, pause: (meanMs: number) => number) {
  yield* quiet
  const before = yield* stats
  yield* Effect.scoped(
    Effect.forEach(
      Array.from({ length: PACED }),
      () => Effect.andThen(Effect.sleep(pause(1000 / perSecond)), Effect.forkScoped(job)),
      { discard: true }
    ).pipe(
      Effect.andThen(quiet)
    )
  )
  const after = yield* stats
  const hits = (after?.hits ?? 0) - (before?.hits ?? 0)
  return 100 * hits / (hits + (after?.misses ?? 0) - (before?.misses ?? 0))
})

const program = Effect.gen(function*() {
  const vmm = yield* Qemu.make({ accelerator })
  const place = yield* VmmRig.folder
  const template = join(place, "template")
  mkdirSync(template)
  yield* Effect.scoped(Effect.gen(function*() {
    const spec = yield* VmmRig.spec(place)
    const machine = yield* vmm.boot(spec, { forTemplate: template })
    yield* VmmRig.probe(vmm, spec)
    yield* machine.save(template)
  }))
  const hand = new Array<number>()
  const rehearsed = new Array<number>()
  const ours = new Array<number>()
  for (let n = 0; n < ROUNDS; n++) {
    yield* quiet
    hand.push(yield* Effect.scoped(Effect.flatMap(VmmRig.spec(place), (spec) => byHand(vmm, spec, template, false))))
    yield* quiet
    rehearsed.push(
      yield* Effect.scoped(Effect.flatMap(VmmRig.spec(place), (spec) => byHand(vmm, spec, template, true)))
    )
    yield* quiet
    ours.push(yield* job)
  }

  const began = performance.now()
  yield* Effect.forEach(Array.from({ length: SATURATING }), () => job, { concurrency: READY, discard: true })
  const most = SATURATING / ((performance.now() - began) / 1000)
  const share = yield* hitsAt(0.7 * most, (mean) => mean)
  // At random moments, as jobs come.
  const random = yield* hitsAt(0.7 * most, (mean) => -Math.log(1 - Math.random()) * mean)

  return publish({
    name: accelerator === "tcg" ? "microvm-warm" : "microvm-warm-kvm",
    figures: {
      rounds: ROUNDS,
      ...spread("asked by hand, frame to first byte, ms", hand),
      ...spread("the same where a program has run and limits hold, as in ours, ms", rehearsed),
      ...spread("job, start to first byte, ms", ours),
      "job to a frame by hand there, p50, ×": round(
        percentile(ours, 0.5) / percentile(rehearsed, 0.5)
      ),
      "jobs a second at most": round(most),
      "jobs at 70 % of that": PACED,
      "pool hits at 70 % load, %": round(share),
      "the same at random moments, %": round(random)
    },
    claims: [
      {
        claim: "warm machine, start to first output byte, p50, to a frame by hand",
        measured: percentile(ours, 0.5) / percentile(hand, 0.5),
        bound: 1.3,
        unit: "×"
      },
      { claim: "pool misses at 70 % load", measured: 100 - share, bound: 1, unit: "%" }
    ]
  })
}).pipe(Effect.scoped)

const state = Jobs.stateDirectory()
const layer = SandboxExecutor.layer.pipe(
  Layer.provideMerge(Pools.layer({})),
  Layer.provideMerge(Layer.mergeAll(
    layerDrivers(state, ["qemu"]),
    Settings.layer({ ...standardConfig, classes: [sandboxClass] })
  ))
)
const held = await Effect.runPromise(Effect.scoped(program.pipe(Effect.provide(layer))))
Jobs.remove(state)
process.exit(held ? 0 : 1)
