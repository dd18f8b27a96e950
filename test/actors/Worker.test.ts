import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Logger, Option, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as DiskWatch from "../../src/actors/DiskWatch.ts"
import * as Worker from "../../src/actors/Worker.ts"
import { command } from "../../src/functions/Command.ts"
import { Control } from "../../src/layers/control/Control.ts"
import * as ExecutorTest from "../../src/layers/executor/ExecutorTest.ts"
import type * as DiskSpaceTest from "../../src/layers/host/DiskSpaceTest.ts"
import { HostError } from "../../src/layers/host/Host.ts"
import { Watchdog } from "../../src/layers/host/Watchdog.ts"
import type { Intake } from "../../src/layers/intake/Intake.ts"
import * as IntakeTest from "../../src/layers/intake/IntakeTest.ts"
import { Schedule } from "../../src/schemas/Cron.ts"
import { FunctionName, IntakeName } from "../../src/schemas/Ids.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerBeside, layerCompanions } from "../../src/wiringTest.ts"
import { endless, hello, makeJob } from "./World.ts"

interface Options {
  readonly intakes: ReadonlyArray<Intake>
  readonly cron?: ReadonlyArray<Schedule>
  readonly script?: ExecutorTest.Script
  readonly drainMs?: number
  readonly disk?: DiskSpaceTest.TestDisk
  readonly watchdogDies?: Deferred.Deferred<never, HostError>
}

/** The real supervisor, dispatcher and job actors over stand-ins for everything outside. */
const worker = ({ cron, disk, drainMs = 10_000, intakes, script = hello, watchdogDies }: Options) => {
  const dying = Layer.succeed(Watchdog, {
    mountNamespace: Option.none(),
    died: watchdogDies === undefined ? Effect.never : Deferred.await(watchdogDies)
  })
  return layerBeside(Layer.merge(layerCompanions, dying), {
    config: { ...standardConfig, drainMs, ...(cron === undefined ? {} : { cron }) },
    functions: [command],
    doors: Effect.succeed({ intakes }),
    script,
    ...(disk === undefined ? {} : { disk })
  })
}

const request = (id: string) => ({
  job: { ...makeJob(id), function: FunctionName.make("command"), args: { argv: ["true"] } },
  hash: id,
  reply: null
})

const turns = Effect.repeat(Effect.yieldNow, { times: 200 })

describe("a worker", () => {
  it.effect("runs what its doors hand over", () =>
    Effect.gen(function*() {
      const door = yield* IntakeTest.make()
      yield* Effect.gen(function*() {
        yield* door.offer(request("a"))
        yield* turns
        assert.deepStrictEqual(door.settled, [["a", "acked"]])
      }).pipe(Effect.provide(worker({ intakes: [door.intake] })))
    }))

  it.effect("runs what is to begin by the clock, once, through its embedded queue", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(Date.parse("2026-01-01T00:59:00Z"))
      const schedule = yield* Schema.decodeEffect(Schedule)({
        name: "hourly",
        cron: "0 * * * *",
        function: "command",
        args: { argv: ["true"] }
      })
      yield* Effect.gen(function*() {
        yield* turns
        const { parts } = yield* Worker.Worker
        assert.deepInclude(yield* parts, { name: "cron", state: "running" })
        yield* Effect.repeat(TestClock.adjust("1 second"), { times: 120 })
        yield* turns
        const records = yield* (yield* Control).list({ limit: 10 })
        assert.deepStrictEqual(
          records.map(({ request: { job }, settlement }) => [String(job.id), settlement?.outcome._tag]),
          [["hourly-20260101T010000Z", "Exited"]]
        )
      }).pipe(Effect.provide(worker({ intakes: [], cron: [schedule] })))
    }))

  it.effect("opens a door that broke again, after a pause", () =>
    Effect.gen(function*() {
      const door = yield* IntakeTest.make()
      let opened = 0
      const breaking: Intake = {
        name: IntakeName.make("breaking"),
        deliveries: Stream.suspend(() => ++opened === 1 ? Stream.die("broken") : door.intake.deliveries)
      }
      yield* Effect.gen(function*() {
        yield* turns
        assert.strictEqual(opened, 1)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(opened, 2)
        yield* door.offer(request("a"))
        yield* turns
        assert.deepStrictEqual(door.settled, [["a", "acked"]])
      }).pipe(Effect.provide(worker({ intakes: [breaking] })))
    }))

  it.effect("ends with the door's name when it cannot stay open", () =>
    Effect.gen(function*() {
      const breaking: Intake = { name: IntakeName.make("breaking"), deliveries: Stream.die("broken") }
      yield* Effect.gen(function*() {
        const failed = yield* Effect.forkChild(Effect.flip((yield* Worker.Worker).failure), { startImmediately: true })
        yield* TestClock.adjust("5 minutes")
        assert.include((yield* Fiber.join(failed)).message, "intake breaking")
      }).pipe(Effect.provide(worker({ intakes: [breaking] })))
    }))

  it.effect("ends when its watchdog does: nothing would kill its jobs after it", () =>
    Effect.gen(function*() {
      const watchdogDies = yield* Deferred.make<never, HostError>()
      yield* Effect.gen(function*() {
        const failed = yield* Effect.forkChild(Effect.flip((yield* Worker.Worker).failure), { startImmediately: true })
        yield* Deferred.fail(watchdogDies, new HostError({ operation: "watch", reason: "it ended", remedy: "none" }))
        assert.include((yield* Fiber.join(failed)).message, "it ended")
      }).pipe(Effect.provide(worker({ intakes: [], watchdogDies })))
    }))

  it.effect("lets running jobs end at a drain and takes no more", () =>
    Effect.gen(function*() {
      const door = yield* IntakeTest.make()
      const script: ExecutorTest.Script = (assignment, stop) =>
        Stream.tap(hello(assignment, stop), () => Effect.sleep("1 second"))
      yield* Effect.gen(function*() {
        const { drain } = yield* Worker.Worker
        yield* door.offer(request("a"))
        yield* turns
        const draining = yield* Effect.forkChild(drain, { startImmediately: true })
        yield* door.offer(request("late"))
        yield* TestClock.adjust("20 seconds")
        yield* Fiber.join(draining)
        assert.deepStrictEqual(door.settled, [["a", "acked"]])
      }).pipe(Effect.provide(worker({ intakes: [door.intake], script })))
    }))

  it.effect("gives back at a drain what does not end in time", () =>
    Effect.gen(function*() {
      const door = yield* IntakeTest.make()
      yield* Effect.gen(function*() {
        const { drain } = yield* Worker.Worker
        const { alive } = yield* ExecutorTest.ExecutorTest
        yield* door.offer(request("a"))
        yield* turns
        assert.strictEqual(yield* alive, 1)
        const draining = yield* Effect.forkChild(drain, { startImmediately: true })
        yield* TestClock.adjust("20 seconds")
        yield* Fiber.join(draining)
        assert.deepStrictEqual(door.settled, [["a", "given back"]])
        assert.strictEqual(yield* alive, 0)
      }).pipe(Effect.provide(worker({ intakes: [door.intake], script: endless })))
    }))

  it.effect("gives back what it holds when it is closed without a drain", () =>
    Effect.gen(function*() {
      const door = yield* IntakeTest.make()
      yield* Effect.gen(function*() {
        yield* door.offer(request("a"))
        yield* turns
      }).pipe(Effect.provide(worker({ intakes: [door.intake], script: endless })))
      assert.deepStrictEqual(door.settled, [["a", "given back"]])
    }))

  it.effect("takes no job while its disk is nearly full, lets those in hand go on, and says so once", () =>
    Effect.gen(function*() {
      const door = yield* IntakeTest.make()
      const disk = { free: standardConfig.diskReserveBytes }
      const said: Array<string> = []
      const script: ExecutorTest.Script = (assignment, stop) =>
        Stream.tap(hello(assignment, stop), () => Effect.sleep("2 seconds"))
      yield* Effect.gen(function*() {
        const { check } = yield* DiskWatch.DiskWatch
        yield* check
        yield* door.offer(request("a"))
        yield* turns
        disk.free -= 1
        yield* TestClock.adjust("1 second")
        for (const id of ["b", "c"]) yield* door.offer(request(id))
        yield* TestClock.adjust("20 seconds")
        assert.deepStrictEqual(door.settled, [["a", "acked"]])
        assert.deepInclude(yield* Effect.flip(check), {
          limit: "diskReserveBytes",
          maximum: standardConfig.diskReserveBytes
        })
        disk.free += 1
        yield* TestClock.adjust("20 seconds")
        assert.deepStrictEqual(door.settled.toSorted(), [["a", "acked"], ["b", "acked"], ["c", "acked"]])
        yield* check
      }).pipe(
        Effect.provide(
          worker({ intakes: [door.intake], script, disk }).pipe(
            Layer.provideMerge(Logger.layer([Logger.make(({ message }) => void said.push(String(message)))]))
          )
        )
      )
      assert.deepStrictEqual(said.filter((line) => line.includes("disk") || line.includes("no new jobs")), [
        `no new jobs are taken: less than ${standardConfig.diskReserveBytes} bytes are free (diskReserveBytes). ` +
        "To go on, free space below /nonexistent/stoker-test, or lower diskReserveBytes",
        "there is room on the disk again: jobs are taken"
      ])
    }))

  it.effect("gives back the one that waits for room on the disk when it drains", () =>
    Effect.gen(function*() {
      const door = yield* IntakeTest.make()
      yield* Effect.gen(function*() {
        const { drain } = yield* Worker.Worker
        yield* door.offer(request("a"))
        yield* turns
        yield* drain
        assert.deepStrictEqual(door.settled, [["a", "given back"]])
      }).pipe(Effect.provide(worker({ intakes: [door.intake], disk: { free: 0 } })))
    }))
})
