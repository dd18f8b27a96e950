/** Bytes to our own stdout and stderr, as they are, no faster than they are taken. */
import { Data, Effect } from "effect"
import type { StreamName } from "../schemas/Outcome.ts"

/** Whoever read it has gone (EPIPE), or its disk is full. */
export class OutputClosed extends Data.TaggedError("OutputClosed")<{ readonly stream: StreamName }> {
  override get message() {
    return `${this.stream} takes no more output`
  }
}

// An error is told to the callback of its write; without a listener it would end the process as well.
const targets = { stdout: process.stdout, stderr: process.stderr }
for (const target of Object.values(targets)) target.on("error", () => undefined)

/** Done when the kernel, or whoever is on the other side of a full pipe, has taken them. */
export const write = (stream: StreamName, bytes: Uint8Array | string): Effect.Effect<void, OutputClosed> =>
  Effect.callback((resume) => {
    targets[stream].write(bytes, (error) => {
      const failed = error !== undefined && error !== null
      resume(failed ? Effect.fail(new OutputClosed({ stream })) : Effect.void)
    })
  })

/** For our own words, which nobody has to hear. */
export const say = (text: string): Effect.Effect<void> => Effect.ignore(write("stderr", `${text}\n`))

/** A result that was asked for. */
export const print = (text: string): Effect.Effect<void, OutputClosed> => write("stdout", `${text}\n`)

/** Whether a person looks at it, and how wide that is. */
export const terminal = (stream: StreamName): { readonly isTerminal: boolean; readonly columns: number } => ({
  isTerminal: targets[stream].isTTY === true && process.env["TERM"] !== "dumb",
  columns: targets[stream].columns || 80
})

/** Whether colours are wanted there (https://no-color.org). */
export const wantsColour = (stream: StreamName): boolean =>
  terminal(stream).isTerminal && (process.env["NO_COLOR"] ?? "") === ""
