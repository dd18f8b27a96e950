/**
 * Gathers operations while a batch is being committed: they go with the next one, so that all of them share one
 * transaction and one wait for the disk. No timer: a lone operation goes at once.
 */
import type { Operation } from "./Operation.ts"
import type { Failure } from "./SqliteFailure.ts"
import type { Result } from "./SqliteProtocol.ts"

/** An operation and whoever waits for it. */
export interface Waiting {
  readonly operation: Operation
  readonly done: (answer: unknown) => void
  readonly failed: (failure: Failure) => void
}

export type Send = (operations: ReadonlyArray<Operation>) => void

export interface GroupCommit {
  readonly add: (waiting: Waiting) => void
  /** Takes it back, if it has not gone yet. */
  readonly drop: (waiting: Waiting) => void
  /** Where batches go from now on: one, then nothing until `results`. */
  readonly open: (send: Send) => void
  /** Of the batch that was sent, in its order. */
  readonly results: (results: ReadonlyArray<Result>) => void
  /** Nobody takes batches any more. Whoever waits for the one that was sent learns the failure, the others wait on. */
  readonly lost: (failure: Failure) => void
  /** Those that have not gone yet fail. */
  readonly fail: (failure: Failure) => void
  /** Calls back when nobody waits, at once or later. */
  readonly onIdle: (idle: () => void) => void
  readonly batches: () => number
}

/** Bounds how long the first of a batch waits for the last: below 100 ms on a slow machine. */
const mostOperations = 512
/** Characters of JSON: bounds what a batch takes of the thread's memory. A single operation may be larger. */
const mostText = 16_000_000

const textOf = (operation: Operation): number => {
  switch (operation.name) {
    case "submit":
    case "claim":
      return operation.input.request.length + operation.input.reply.length
    case "bury":
      return operation.input.letter.request.length + operation.input.letter.reply.length
    case "settle":
      return operation.input.messages.reduce(
        (total, { content }) => total + content.length,
        operation.input.settlement.length
      )
    default:
      return 0
  }
}

const noResult: Failure = { code: "STOKER_THREAD_ENDED", message: "no result came back" }

export const make = (): GroupCommit => {
  const pending = new Set<Waiting>()
  let sent: ReadonlyArray<Waiting> = []
  let send: Send | undefined
  let batches = 0
  let idle = () => {}

  /** The oldest, as many as go together. */
  const next = () => {
    const batch: Array<Waiting> = []
    let text = 0
    for (const waiting of pending) {
      text += textOf(waiting.operation)
      if (batch.length > 0 && (text > mostText || batch.length === mostOperations)) break
      batch.push(waiting)
    }
    return batch
  }

  const pump = () => {
    if (sent.length > 0) return
    if (pending.size === 0) return idle()
    if (send === undefined) return
    sent = next()
    for (const waiting of sent) pending.delete(waiting)
    batches += 1
    send(sent.map(({ operation }) => operation))
  }

  return {
    add: (waiting) => {
      pending.add(waiting)
      pump()
    },
    drop: (waiting) => {
      pending.delete(waiting)
      pump()
    },
    open: (to) => {
      send = to
      pump()
    },
    results: (results) => {
      // Whoever is answered may ask again at once; until all are answered that only gathers.
      sent.forEach(({ done, failed }, index) => {
        const result = results[index]
        if (result?._tag === "Done") done(result.answer)
        else failed(result?.failure ?? noResult)
      })
      sent = []
      pump()
    },
    lost: (failure) => {
      send = undefined
      for (const { failed } of sent) failed(failure)
      sent = []
      pump()
    },
    fail: (failure) => {
      const all = Array.from(pending)
      pending.clear()
      for (const { failed } of all) failed(failure)
      pump()
    },
    onIdle: (callback) => {
      idle = callback
      pump()
    },
    batches: () => batches
  }
}
