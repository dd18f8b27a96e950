/** A job's output as one text: what the MSTC worker's clients got of its pod's log. */
import { Effect } from "effect"
import { outputText } from "../../schemas/dialects/CodeBenchStatus.ts"
import type { JobKey } from "../../schemas/Ids.ts"
import type { StreamSummary } from "../../schemas/JobEvent.ts"
import type { Log } from "../log/Log.ts"
import { statusOutput } from "./StatusOutput.ts"

/** Most bytes of each stream; of a longer one its beginning and its end. */
const MOST = 1024 * 1024

/** Standard output, then standard error where it is apart. */
export const mstcOutput = (
  log: Log["Service"],
  key: JobKey,
  output: ReadonlyArray<StreamSummary>
): Effect.Effect<string> =>
  Effect.map(
    Effect.forEach(output, (summary) => Effect.map(statusOutput(log, key, summary, 0, MOST), outputText)),
    (texts) => texts.join("")
  )
