/** Whether a worker can take jobs and run them: one look at each thing it needs. */
import { Effect } from "effect"
import type { AmqpStatus } from "../layers/amqp/Amqp.ts"
import type { DiskSpace } from "../layers/host/DiskSpace.ts"
import type { Journal } from "../layers/journal/Journal.ts"
import type { Health, Unready } from "../schemas/Operation.ts"
import type { PoolsStats } from "./Pools.ts"
import type { Part } from "./Worker.ts"

/** A probe is asked every few seconds and must not hang with what it probes. */
const LIMIT = "2 seconds"

export const healthOf = (reasons: ReadonlyArray<Unready>): Health => ({ ok: reasons.length === 0, reasons })

/** Nothing of it was given up. */
export const partsGivenUp = (parts: ReadonlyArray<Part>): ReadonlyArray<Unready> =>
  parts.filter(({ state }) => state === "givenUp").map(({ name }) => ({
    part: name,
    reason: "failed too often and was given up",
    remedy: "The worker's log says why; restart it."
  }))

export const closedDoors = (parts: ReadonlyArray<Part>): ReadonlyArray<Unready> =>
  parts.filter(({ name, state }) => name.startsWith("intake ") && state !== "running").map(({ name, state }) => ({
    part: name,
    reason: state === "closed" ? "is closed" : "failed and starts again",
    remedy: "The worker's log says why."
  }))

export const drainingReason: Unready = {
  part: "worker",
  reason: "is draining: it takes no more jobs and ends",
  remedy: "Start another one if this was not intended."
}

export const journalReasons = (journal: Journal["Service"]): Effect.Effect<ReadonlyArray<Unready>> =>
  journal.holders.pipe(
    Effect.as([]),
    Effect.timeoutOrElse({
      duration: LIMIT,
      orElse: () =>
        Effect.succeed([{
          part: "journal",
          reason: `gave no answer within ${LIMIT}`,
          remedy: "Is its disk overloaded, or its file locked by another program?"
        }])
    }),
    Effect.catch(({ reason, remedy }) => Effect.succeed([{ part: "journal", reason, remedy }]))
  )

export const diskReasons = (
  disk: DiskSpace["Service"],
  reserveBytes: number
): Effect.Effect<ReadonlyArray<Unready>> =>
  disk.free.pipe(
    Effect.map((bytes) =>
      bytes >= reserveBytes ? [] : [{
        part: "disk",
        reason: `${bytes} bytes are free in the state directory, less than the reserve of ${reserveBytes}`,
        remedy: "Free some space there, or lower diskReserve."
      }]
    ),
    Effect.catch(({ reason, remedy }) => Effect.succeed([{ part: "disk", reason, remedy }]))
  )

export const brokerReasons = (status: AmqpStatus | undefined): ReadonlyArray<Unready> => {
  if (status === undefined) return []
  const { blocked, connected, lastError } = status
  if (!connected) {
    return [{
      part: "broker",
      reason: lastError === undefined ? "is not connected yet" : lastError.detail,
      remedy: lastError?.remedy ?? "Check that RabbitMQ is up and reachable; the worker connects by itself."
    }]
  }
  if (blocked === undefined) return []
  return [{ part: "broker", reason: `takes nothing: ${blocked}`, remedy: "Free memory or disk of RabbitMQ." }]
}

/** One class that works is enough: jobs of the others are answered with what is wrong with theirs. */
export const poolReasons = ({ classes }: PoolsStats): ReadonlyArray<Unready> =>
  classes.some(({ failing }) => failing === undefined) ? [] : classes.map((stats) => ({
    part: `class ${stats.class}`,
    reason: stats.failing?.reason ?? "",
    remedy: stats.failing?.remedy ?? ""
  }))
