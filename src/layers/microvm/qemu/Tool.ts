/** Small programs that say something and end: QEMU's `--version`, the measure of the processor's counter. */
import { Effect } from "effect"
import { rm } from "node:fs/promises"
import type { Host } from "../../host/Host.ts"
import { type Launcher, saidOf } from "../../host/Launcher.ts"

const LIMIT = "20 seconds"
const MOST_SAID = 64 * 1024

/** All it said on fd 1. Fails with the reason, in words; it says nothing where it fails. */
export const ask = Effect.fnUntraced(function*(
  launcher: Launcher["Service"],
  host: Host["Service"],
  name: string,
  command: ReadonlyArray<string>
): Effect.fn.Return<string, string> {
  const stderrPath = saidOf(host.paths.instance(host.instance), name)
  const launched = yield* Effect.mapError(
    launcher.launch({ procsFiles: [], command, stderrPath }),
    ({ reason }) => reason
  )
  let text = ""
  launched.stream.on("data", (chunk: Buffer) => {
    if (text.length < MOST_SAID) text += chunk.toString("utf8")
  })
  return yield* launched.ended.pipe(
    Effect.andThen(launched.said),
    Effect.flatMap((said) => text === "" ? Effect.fail(said || `${command[0]} said nothing`) : Effect.succeed(text)),
    Effect.timeoutOrElse({
      duration: LIMIT,
      orElse: () => Effect.fail(`${command[0]} did not end within ${LIMIT}`)
    }),
    Effect.ensuring(
      Effect.suspend(() => {
        launched.stream.destroy()
        return Effect.ignore(Effect.tryPromise(() => rm(stderrPath, { force: true })))
      })
    )
  )
})
