/** Holds up new jobs while the disk is nearly full, so that those in hand can still be written down. */
import { Context, Effect, Latch, Layer, Schedule } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import { Overloaded } from "../layers/control/Overloaded.ts"
import { DiskSpace } from "../layers/host/DiskSpace.ts"
import { Host } from "../layers/host/Host.ts"

/** How often the disk is asked. What jobs write meanwhile is what the reserve is for. */
const interval = "1 second"

export class DiskWatch extends Context.Service<DiskWatch, {
  /** Waits while there is less room than the reserve. */
  readonly room: Effect.Effect<void>
  /** Fails, with what to do, while there is less room than the reserve. */
  readonly check: Effect.Effect<void, Overloaded>
  /** Asks the disk, now and then, as long as the worker lives. */
  readonly rounds: Effect.Effect<void>
}>()("stoker/actors/DiskWatch") {}

const make = Effect.gen(function*() {
  const { diskReserveBytes } = yield* Settings
  const { free } = yield* DiskSpace
  const { paths } = yield* Host
  const latch = yield* Latch.make(true)
  const remedy = `free space below ${paths.state}, or lower diskReserveBytes`

  const look = Effect.gen(function*() {
    const isEnough = (yield* free) >= diskReserveBytes
    if (isEnough === Latch.isOpen(latch)) return
    if (isEnough) {
      yield* Latch.open(latch)
      return yield* Effect.logInfo("there is room on the disk again: jobs are taken")
    }
    yield* Latch.close(latch)
    yield* Effect.logError(
      `no new jobs are taken: less than ${diskReserveBytes} bytes are free (diskReserveBytes). To go on, ${remedy}`
    )
  }).pipe(
    // A file system that gives no answer is not known to be full.
    Effect.ignore({ log: "Warn", message: "the disk's free space is not known" })
  )
  // Known before the first door opens.
  if (diskReserveBytes > 0) yield* look

  return DiskWatch.of({
    room: Latch.whenOpen(latch, Effect.void),
    check: Effect.suspend(() =>
      Latch.isOpen(latch)
        ? Effect.void
        : Effect.fail(new Overloaded({ limit: "diskReserveBytes", maximum: diskReserveBytes, remedy }))
    ),
    rounds: diskReserveBytes === 0 ? Effect.never : Effect.asVoid(Effect.schedule(look, Schedule.spaced(interval)))
  })
})

export const layer = Layer.effect(DiskWatch, make)
