/** What is wrong with a file that people write, as the error that a start ends with. */
import { Effect, Result } from "effect"
import type { ConfigFault } from "../../schemas/DaemonRules.ts"
import { faultLine } from "../../schemas/JsonDocument.ts"
import { FileRefused } from "../config/Watched.ts"

/** The document, or all that is wrong with it in one error. */
export const decodeFile = <A>(
  file: string,
  read: Result.Result<A, ReadonlyArray<ConfigFault>>,
  remedy: string
): Effect.Effect<A, FileRefused> =>
  Result.isSuccess(read)
    ? Effect.succeed(read.success)
    : Effect.fail(new FileRefused({ file, reason: read.failure.map(faultLine).join("; "), remedy }))
