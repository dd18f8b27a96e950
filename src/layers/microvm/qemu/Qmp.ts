/**
 * QEMU's monitor, spoken over any byte stream: commands out, answers and events in, one JSON text in a line. The other side
 * may be a QEMU that a guest has taken over: a line that is too long or no QMP ends the conversation, whatever it is.
 */
import { Deferred, Effect, Exit, Schema } from "effect"
import type { Duplex } from "node:stream"

/** The longest answer is the console's end, 16 KiB of which each byte may be written as six. */
const MOST_LINE = 256 * 1024
/** Commands whose answers are owed; ours wait for each other but for a few. */
const MOST_OWED = 64

/** QEMU did not do what it was asked to, or is gone. */
export class QmpError extends Schema.TaggedError<QmpError>()("QmpError", {
  command: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.command}: ${this.reason}`
  }
}

const Pid = Schema.Struct({ pid: Schema.Int.check(Schema.isBetween({ minimum: 2, maximum: 2 ** 22 })) })
const Greeting = Schema.Struct({ QMP: Schema.Struct({ version: Schema.Unknown }) })
const Return = Schema.Struct({ return: Schema.Unknown, id: Schema.Int })
const Failure = Schema.Struct({
  error: Schema.Struct({ class: Schema.String, desc: Schema.String }),
  id: Schema.optionalKey(Schema.Int)
})
export const Event = Schema.Struct({
  event: Schema.String,
  data: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown))
})
export type Event = typeof Event.Type

const decode = Schema.decodeUnknownExit(Schema.fromJsonString(Schema.Union([Return, Failure, Event, Greeting, Pid])))

export interface Qmp {
  /** Its process, as `confine` tells before it becomes QEMU. */
  readonly pid: Effect.Effect<number, QmpError>
  /** It has greeted and speaks with us. Its machine is made by then. */
  readonly ready: Effect.Effect<void, QmpError>
  readonly execute: (
    command: string,
    args?: Readonly<Record<string, unknown>>
  ) => Effect.Effect<unknown, QmpError>
  /** The next event from now on of which something is made. Fails with the conversation. */
  readonly next: <A>(what: string, of: (event: Event) => A | undefined) => Effect.Effect<A, QmpError>
  /** The conversation is over: everything has failed, and will. The process need not have ended. */
  readonly isLost: boolean
}

interface Asked {
  readonly command: string
  readonly answer: Deferred.Deferred<unknown, QmpError>
}

export const make = (stream: Duplex): Qmp => {
  const pid = Deferred.makeUnsafe<number, QmpError>()
  const greeted = Deferred.makeUnsafe<void, QmpError>()
  const asked = new Map<number, Asked>()
  const listeners = new Set<(event: Event | QmpError) => void>()
  let lastId = 0
  let lost: string | undefined
  let parts: Array<Buffer> = []
  let held = 0

  const lose = (reason: string) => {
    if (lost !== undefined) return
    lost = reason
    const failed = (command: string) => new QmpError({ command, reason })
    Deferred.doneUnsafe(pid, Exit.fail(failed("start")))
    Deferred.doneUnsafe(greeted, Exit.fail(failed("greet")))
    for (const { answer, command } of asked.values()) Deferred.doneUnsafe(answer, Exit.fail(failed(command)))
    asked.clear()
    for (const listener of listeners) listener(failed("wait"))
    parts = []
  }

  const answer = (id: number | undefined, exit: (command: string) => Exit.Exit<unknown, QmpError>) => {
    const found = id === undefined ? undefined : asked.get(id)
    if (id === undefined || found === undefined) {
      lose("QEMU answered what nobody asked")
      return
    }
    asked.delete(id)
    Deferred.doneUnsafe(found.answer, exit(found.command))
  }

  const take = (line: string) => {
    const decoded = decode(line)
    if (Exit.isFailure(decoded)) {
      lose(`QEMU said what is no QMP: ${line.slice(0, 100)}`)
      return
    }
    const said = decoded.value
    if ("return" in said) {
      answer(said.id, () => Exit.succeed(said.return))
    } else if ("error" in said) {
      answer(said.id, (command) => Exit.fail(new QmpError({ command, reason: said.error.desc })))
    } else if ("QMP" in said) {
      Deferred.doneUnsafe(greeted, Exit.void)
    } else if ("pid" in said) {
      Deferred.doneUnsafe(pid, Exit.succeed(said.pid))
    } else {
      for (const listener of listeners) listener(said)
    }
  }

  /** Piece by piece, each the end of a line but for the last; nothing of a conversation that is over. */
  const hear = (piece: Buffer, isWhole: boolean) => {
    if (lost !== undefined) return
    held += piece.length
    if (held > MOST_LINE) {
      lose("QEMU said a line without an end")
      return
    }
    if (piece.length > 0) parts.push(piece)
    if (!isWhole) return
    const line = Buffer.concat(parts).toString("utf8").trim()
    parts = []
    held = 0
    if (line !== "") take(line)
  }

  stream.on("data", (chunk: Buffer) => {
    let from = 0
    for (let to = chunk.indexOf(10); to >= 0; to = chunk.indexOf(10, from)) {
      hear(chunk.subarray(from, to), true)
      from = to + 1
    }
    hear(chunk.subarray(from), false)
  })
  stream.once("close", () => lose("QEMU has ended"))
  stream.on("error", () => {}) // `close` follows

  const execute = (command: string, args?: Readonly<Record<string, unknown>>) =>
    Effect.suspend(() => {
      if (lost !== undefined) return Effect.fail(new QmpError({ command, reason: lost }))
      if (asked.size >= MOST_OWED) return Effect.fail(new QmpError({ command, reason: "QEMU owes too many answers" }))
      const id = ++lastId
      const entry: Asked = { command, answer: Deferred.makeUnsafe() }
      asked.set(id, entry)
      stream.write(`${JSON.stringify({ execute: command, ...(args === undefined ? {} : { arguments: args }), id })}\n`)
      return Deferred.await(entry.answer)
    })

  return {
    pid: Deferred.await(pid),
    ready: Effect.andThen(Deferred.await(greeted), execute("qmp_capabilities")),
    execute,
    next: <A>(what: string, of: (event: Event) => A | undefined) =>
      Effect.callback<A, QmpError>((resume) => {
        if (lost !== undefined) return resume(Effect.fail(new QmpError({ command: what, reason: lost })))
        const listener = (event: Event | QmpError) => {
          if (event instanceof QmpError) {
            return resume(Effect.fail(new QmpError({ command: what, reason: event.reason })))
          }
          const made = of(event)
          if (made === undefined) return
          listeners.delete(listener)
          resume(Effect.succeed(made))
        }
        listeners.add(listener)
        return Effect.sync(() => listeners.delete(listener))
      }),
    get isLost() {
      return lost !== undefined
    }
  }
}
