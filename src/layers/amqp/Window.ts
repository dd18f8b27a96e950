import { Deferred, Effect, MutableList } from "effect"
import type { AmqpError, AmqpMessage, PublishReceipt } from "./Amqp.ts"

/** Bounds of the window. A message larger than `bytes` goes alone. */
export interface WindowLimits {
  readonly messages: number
  readonly bytes: number
  /** How often a message may close the channel, alone in flight, before it fails. */
  readonly strikes: number
  /** How often a message may be nacked before it fails. */
  readonly nacks: number
}

/** What the window sends through while attached: one confirm channel, tags counted from 1. */
export interface Wire {
  /** False: full, wait for `drained`. Throws `Gone` if the channel is dead, anything else if this message is impossible. */
  readonly send: (message: AmqpMessage) => boolean
}

/** Thrown by a wire that is dead: the message stays in the window. */
export class Gone extends Error {}

/** The window's words for failures; the publisher knows the broker they concern. */
export interface WindowErrors {
  readonly impossible: (message: AmqpMessage, cause: unknown) => AmqpError
  readonly closesChannel: (message: AmqpMessage, cause: unknown) => AmqpError
  readonly nacked: (message: AmqpMessage) => AmqpError
}

interface Entry {
  readonly order: number
  readonly message: AmqpMessage
  readonly bytes: number
  readonly done: Deferred.Deferred<PublishReceipt, AmqpError>
  strikes: number
  nacks: number
  returned: boolean
}

interface Waiter {
  readonly message: AmqpMessage
  readonly resume: (confirm: Effect.Effect<PublishReceipt, AmqpError>) => void
}

/**
 * The ordered window of a publisher: what is not confirmed yet, in order, over any number of channels.
 *
 *     enqueue -> (gate) -> waiting -> sent -> confirmed
 *                             ^---------'  channel lost, nack: back to where the order wants it
 *
 * Plain synchronous state, so that order is decided in one place. After a channel was closed with several messages in
 * flight nobody knows which one did it: those go again one at a time, until the culprit is alone with its strikes.
 */
export const make = (limits: WindowLimits, errors: WindowErrors, pauseThen: (resume: () => void) => void) => {
  const gate = new Set<Waiter>()
  const waiting = MutableList.make<Entry>()
  const sent = new Map<number, Entry>()
  let nacked: Array<Entry> = []
  let count = 0
  let bytes = 0
  let nextOrder = 0
  let lastTag = 0
  let suspectsUntil = -1
  let wire: Wire | undefined
  let isFull = false
  let isBlocked = false
  let isPaused = false
  let closed: AmqpError | undefined
  let emptied: Array<Deferred.Deferred<void>> = []

  const settle = (entry: Entry, result: Effect.Effect<PublishReceipt, AmqpError>) => {
    count -= 1
    bytes -= entry.bytes
    Deferred.doneUnsafe(entry.done, result)
    if (count > 0 || gate.size > 0) return
    const all = emptied
    emptied = []
    for (const deferred of all) Deferred.doneUnsafe(deferred, Effect.void)
  }

  const fits = (size: number) => count === 0 || (count < limits.messages && bytes + size <= limits.bytes)

  const admit = (message: AmqpMessage) => {
    const entry: Entry = {
      order: nextOrder++,
      message,
      bytes: message.body.byteLength,
      done: Deferred.makeUnsafe(),
      strikes: 0,
      nacks: 0,
      returned: false
    }
    count += 1
    bytes += entry.bytes
    MutableList.append(waiting, entry)
    return Deferred.await(entry.done)
  }

  const openGate = () => {
    for (const waiter of gate) {
      if (!fits(waiter.message.body.byteLength)) return
      gate.delete(waiter)
      const confirm = admit(waiter.message)
      pump()
      waiter.resume(confirm)
    }
  }

  const maySend = () => !isFull && !isBlocked && !isPaused && (suspectsUntil < 0 || sent.size === 0)

  const pump = () => {
    while (wire !== undefined && maySend()) {
      const entry = MutableList.take(waiting)
      if (entry === MutableList.Empty) return
      if (entry.order > suspectsUntil) suspectsUntil = -1
      const problem = attempt(wire, entry)
      if (problem === undefined) continue
      if (problem.cause instanceof Gone) {
        MutableList.prepend(waiting, entry)
        wire = undefined
        return
      }
      settle(entry, Effect.fail(errors.impossible(entry.message, problem.cause)))
    }
  }

  const attempt = (to: Wire, entry: Entry): { readonly cause: unknown } | undefined => {
    entry.returned = false
    // The one place where amqplib's own exceptions arrive.
    try {
      const writable = to.send(entry.message)
      sent.set(++lastTag, entry)
      isFull = !writable
      return undefined
    } catch (cause) {
      return { cause }
    }
  }

  const back = (entries: Iterable<Entry>) => {
    const sorted = Array.from(entries).toSorted((a, b) => a.order - b.order)
    MutableList.prependAll(waiting, sorted)
  }

  /** Takes the entries a confirm or nack means, out of the sent ones. */
  const takeSent = (tag: number, multiple: boolean): Array<Entry> => {
    if (!multiple) {
      const entry = sent.get(tag)
      sent.delete(tag)
      return entry === undefined ? [] : [entry]
    }
    const taken: Array<Entry> = []
    for (const [candidate, entry] of sent) {
      if (candidate > tag) break
      sent.delete(candidate)
      taken.push(entry)
    }
    return taken
  }

  const proceed = () => {
    pump()
    openGate()
  }

  return {
    /** Suspends while the window is full; first come, first in. */
    enqueue: (message: AmqpMessage): Effect.Effect<Effect.Effect<PublishReceipt, AmqpError>> =>
      Effect.callback((resume) => {
        if (closed !== undefined) return resume(Effect.succeed(Effect.fail(closed)))
        if (gate.size === 0 && fits(message.body.byteLength)) {
          const confirm = admit(message)
          pump()
          return resume(Effect.succeed(confirm))
        }
        const waiter: Waiter = { message, resume: (confirm) => resume(Effect.succeed(confirm)) }
        gate.add(waiter)
        return Effect.sync(() => {
          gate.delete(waiter)
          openGate()
        })
      }),
    /** A fresh channel: everything unconfirmed goes again, in order, before what is newer. */
    attach: (next: Wire) => {
      wire = next
      lastTag = 0
      isFull = false
      pump()
    },
    /** The wire is gone. With a fault, the broker closed it because of something that was in flight. */
    detach: (old: Wire, fault?: { readonly cause: unknown }) => {
      if (wire !== old && wire !== undefined) return
      wire = undefined
      const inFlight = Array.from(sent.values())
      sent.clear()
      const returning = [...inFlight, ...nacked]
      nacked = []
      const alone = inFlight[0]
      let failing: Entry | undefined
      if (fault !== undefined && alone !== undefined) {
        if (inFlight.length > 1) {
          suspectsUntil = inFlight.reduce((highest, entry) => Math.max(highest, entry.order), suspectsUntil)
        } else {
          alone.strikes += 1
          if (alone.strikes >= limits.strikes) failing = alone
        }
      }
      back(returning.filter((entry) => entry !== failing))
      if (failing !== undefined) {
        settle(failing, Effect.fail(errors.closesChannel(failing.message, fault?.cause)))
        openGate()
      }
    },
    drained: () => {
      isFull = false
      pump()
    },
    /** An alarm at the broker: nothing goes out until it is over. */
    block: (blocked: boolean) => {
      isBlocked = blocked
      pump()
    },
    confirm: (tag: number, multiple: boolean) => {
      for (const entry of takeSent(tag, multiple)) settle(entry, Effect.succeed({ routed: !entry.returned }))
      proceed()
    },
    /** Refused by a queue: again after a pause, which everything newer waits for as well. */
    nack: (tag: number, multiple: boolean) => {
      for (const entry of takeSent(tag, multiple)) {
        entry.nacks += 1
        if (entry.nacks >= limits.nacks) settle(entry, Effect.fail(errors.nacked(entry.message)))
        else nacked.push(entry)
      }
      if (nacked.length > 0 && !isPaused) {
        isPaused = true
        pauseThen(() => {
          isPaused = false
          back(nacked)
          nacked = []
          proceed()
        })
      }
      proceed()
    },
    /**
     * No queue took it. A return carries no tag, but it comes before its confirm and in the order of sending, so it
     * means the first one in flight that looks like it; two that look alike cannot be told apart by anybody.
     */
    returned: (looksLike: (message: AmqpMessage) => boolean) => {
      for (const entry of sent.values()) {
        if (entry.returned || entry.message.mandatory === false || !looksLike(entry.message)) continue
        entry.returned = true
        return
      }
    },
    size: () => count + gate.size,
    /** Waits until everything is confirmed or failed. */
    settled: Effect.suspend(() => {
      if (count === 0 && gate.size === 0) return Effect.void
      const deferred = Deferred.makeUnsafe<void>()
      emptied.push(deferred)
      return Deferred.await(deferred)
    }),
    /** Fails what is left, and everything that comes later. */
    close: (error: AmqpError) => {
      closed = error
      wire = undefined
      const left = [...sent.values(), ...nacked, ...MutableList.takeAll(waiting)]
      const waiters = Array.from(gate)
      sent.clear()
      nacked = []
      gate.clear()
      for (const entry of left) settle(entry, Effect.fail(error))
      for (const waiter of waiters) waiter.resume(Effect.fail(error))
    }
  }
}

export type Window = ReturnType<typeof make>
