/** A terminal on stderr: lines that stay, one line that moves, and between them the program's own bytes. */
import { Effect, Semaphore } from "effect"
import type { StreamName } from "../schemas/Outcome.ts"
import { type OutputClosed, terminal, write } from "./Output.ts"

export interface Screen {
  /** A line that stays. */
  readonly line: (text: string) => Effect.Effect<void>
  /** The line that moves: replaced by the next, gone with the next line or byte. Not shown within a program's line. */
  readonly progress: (text: string) => Effect.Effect<void>
  /** The program's bytes, untouched. */
  readonly bytes: (stream: StreamName, bytes: Uint8Array) => Effect.Effect<void, OutputClosed>
}

const NEWLINE = 10
const clear = "\r\u001b[K"

export const make: Effect.Effect<Screen> = Effect.gen(function*() {
  // Writers are several fibers.
  const turn = yield* Semaphore.make(1)
  let isMoving = false
  let isLineStart = true

  const wipe = () => {
    if (!isMoving) return ""
    isMoving = false
    return clear
  }
  const toStderr = (text: string) => text === "" ? Effect.void : Effect.ignore(write("stderr", text))

  return {
    line: (text) =>
      turn.withPermit(Effect.suspend(() => {
        const before = isLineStart ? wipe() : "\n"
        isLineStart = true
        return toStderr(`${before}${text}\n`)
      })),
    progress: (text) =>
      turn.withPermit(Effect.suspend(() => {
        if (!isLineStart) return Effect.void
        isMoving = true
        return toStderr(`${clear}${[...text].slice(0, terminal("stderr").columns - 1).join("")}`)
      })),
    bytes: (stream, bytes) =>
      turn.withPermit(Effect.suspend(() => {
        if (terminal(stream).isTerminal) isLineStart = bytes.at(-1) === NEWLINE
        return Effect.andThen(toStderr(wipe()), write(stream, bytes))
      }))
  }
})
