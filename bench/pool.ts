/**
 * What the pool costs and gives on this machine. usage: node bench/pool.ts
 * Prints one line per figure; needs root and crun for all but the first. No part of `npm run bench`: it has no floor yet.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Exit, Layer, Schedule, Scope, Stream } from "effect"
import * as Pools from "../src/actors/Pools.ts"
import * as Settings from "../src/layers/config/Settings.ts"
import { Sandboxes } from "../src/layers/sandbox/Sandboxes.ts"
import * as SandboxTest from "../src/layers/sandbox/SandboxTest.ts"
import { standardDefaults } from "../src/schemas/Limits.ts"
import { baseEnv, type Phase } from "../src/schemas/Program.ts"
import type { SandboxClass } from "../src/schemas/SandboxClass.ts"
import { standardConfig } from "../src/schemas/WorkerConfig.ts"
import { layerDrivers } from "../src/wiring.ts"
import { diskOf, pooled } from "../test/pool/Fixture.ts"
import * as Jobs from "../test/sandbox/Jobs.ts"

const say = (what: string, values: ReadonlyArray<number>, unit: string) => {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number) => (sorted[Math.floor(share * (sorted.length - 1))] ?? Number.NaN).toFixed(2)
  console.log(`${what}: p50 ${at(0.5)} ${unit}, p90 ${at(0.9)}, p99 ${at(0.99)}, min ${at(0)}, n ${values.length}`)
}

const ready = (count: number) =>
  Effect.flatMap(Pools.Pools, (pools) => pools.stats).pipe(
    Effect.filterOrFail(({ classes }) =>
      classes.some(({ idle, leaving, making }) => idle === count && making + leaving === 0)
    ),
    Effect.retry(Schedule.spaced("2 millis"))
  )

const pools = (sandboxClass: SandboxClass) =>
  Pools.layer({}).pipe(
    Layer.provide(Settings.layer({ ...standardConfig, classes: [sandboxClass] }))
  )

/** A take that finds one ready, until its sandbox is in the caller's hands. */
const hits = Effect.gen(function*() {
  const count = 10_000
  const fake = SandboxTest.makeDriver()
  const fakes = pooled("oci", { minimum: count, maximum: count, parallel: 1000, healthEveryMs: 3_600_000 })
  const disk = diskOf(fakes)
  yield* Effect.gen(function*() {
    yield* ready(count)
    fake.script.provision = () => Effect.never
    const sandboxes = yield* Sandboxes
    const batches: Array<number> = []
    const scopes: Array<Scope.Closeable> = []
    for (let batch = 0; batch < 90; batch++) {
      const mine = Array.from({ length: 100 }, () => Scope.makeUnsafe())
      scopes.push(...mine)
      const began = performance.now()
      for (const scope of mine) yield* Scope.provide(sandboxes.take(fakes, disk), scope)
      batches.push(((performance.now() - began) * 1000) / mine.length)
      yield* Effect.yieldNow
    }
    say("a hit, fake driver (mean of 100 each)", batches.slice(10), "us")
    yield* Effect.forEach(scopes, (scope) => Scope.close(scope, Exit.void))
  }).pipe(Effect.provide(pools(fakes).pipe(Layer.provide(SandboxTest.layer(fake)))), Effect.scoped)
})

/** From the take to the first byte of `echo`'s output. */
const firstByte = Effect.fnUntraced(function*(sandboxClass: SandboxClass) {
  const began = performance.now()
  const sandbox = yield* (yield* Sandboxes).take(sandboxClass, diskOf(sandboxClass))
  const taken = performance.now()
  const phase: Phase = {
    name: "run",
    argv: ["/bin/echo", "x"],
    env: baseEnv,
    stdin: new Uint8Array(),
    limits: standardDefaults
  }
  let first = Number.NaN
  yield* Stream.runForEach(sandbox.run(phase), (event) =>
    Effect.sync(() => {
      if (event._tag === "Output" && Number.isNaN(first)) first = performance.now()
    }))
  return { take: taken - began, first: first - began, ended: performance.now() - began }
}, Effect.scoped)

const real = Effect.gen(function*() {
  const state = Jobs.stateDirectory()
  const warm = pooled("oci", { minimum: 8, maximum: 8, parallel: 2 })
  const cold = { ...warm, pool: { ...warm.pool, minimum: 0, maximum: 0 } }
  const measured = (sandboxClass: SandboxClass, what: string, before: Effect.Effect<unknown, unknown, Pools.Pools>) =>
    Effect.gen(function*() {
      const all = []
      for (let n = 0; n < 60; n++) {
        yield* before
        all.push(yield* firstByte(sandboxClass))
      }
      const counted = all.slice(10)
      say(`${what}, take`, counted.map(({ take }) => take), "ms")
      say(`${what}, take to first byte`, counted.map(({ first }) => first), "ms")
      say(`${what}, take to end`, counted.map(({ ended }) => ended), "ms")
    }).pipe(Effect.provide(pools(sandboxClass)), Effect.scoped)

  yield* Effect.gen(function*() {
    // What the one before left is over.
    const quiet = Effect.andThen(ready(8), Effect.sleep("20 millis"))
    yield* measured(warm, "warm oci", quiet)
    yield* measured({ ...warm, pool: { ...warm.pool, refillPauseMs: 5 } }, "warm oci, refill after 5 ms", quiet)
    yield* measured(cold, "cold oci", Effect.void)
    yield* Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      yield* ready(8)
      const began = performance.now()
      // Two takers that do nothing but take and close: the pool has to refill as fast as it can.
      yield* Effect.forEach(
        Array.from({ length: 400 }, (_, n) => n),
        () => Effect.scoped(sandboxes.take(warm, diskOf(warm))),
        { concurrency: 2, discard: true }
      )
      const seconds = (performance.now() - began) / 1000
      const { classes: [stats] } = yield* (yield* Pools.Pools).stats
      console.log(
        `refill, two takers that only take and close: ${(400 / seconds).toFixed(0)} sandboxes/s ` +
          `(hits ${stats?.hits}, misses ${stats?.misses}, last provision ${stats?.lastProvisionMs?.toFixed(1)} ms)`
      )
    }).pipe(Effect.provide(pools(warm)), Effect.scoped)
  }).pipe(Effect.provide(layerDrivers(state, ["oci"])))
  Jobs.remove(state)
})

NodeRuntime.runMain(Effect.andThen(hits, real))
