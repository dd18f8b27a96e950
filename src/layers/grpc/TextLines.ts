/** An output as lines of text, for clients that know nothing else: nothing is lost, and what is missing is told in a line. */
import { LineCutter } from "../../schemas/Lines.ts"
import type { StreamName } from "../../schemas/Outcome.ts"
import { endLines, gapLine } from "../../schemas/Transcript.ts"
import type { FollowEvent } from "../api/JobApi.ts"

/** A longer line comes as several. Bytes. */
const MOST_LINE = 64 * 1024

const utf8 = new TextEncoder()

/** Of one follower. Both outputs go through it, each with its own lines. */
export class TextLines {
  readonly #cutters: Readonly<Record<StreamName, LineCutter>> = {
    stdout: new LineCutter(MOST_LINE),
    stderr: new LineCutter(MOST_LINE)
  }

  /** The lines that are whole with this event. */
  of(event: FollowEvent): Array<Uint8Array> {
    switch (event._tag) {
      case "Bytes":
        return this.#cutters[event.stream].push(event.bytes)
      case "Gap":
        return [...this.#cutters[event.stream].end(), utf8.encode(gapLine(event.to - event.from))]
      case "Begun":
      case "Paused":
        return this.#rest()
      case "Ended":
        return [
          ...this.#rest(),
          ...endLines(undefined, event.end?.complete ?? true).map((line) => utf8.encode(line))
        ]
    }
  }

  #rest(): Array<Uint8Array> {
    return [...this.#cutters.stdout.end(), ...this.#cutters.stderr.end()]
  }
}
