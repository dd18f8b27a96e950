/**
 * Bundles of functions in the state directory, by their content, for all workers that share it. One that no worker has used
 * for a week goes with the next start, and what a killed start left half-made after an hour: by their dates alone, which
 * whoever uses one renews every hour.
 */
import { Clock, Effect, type Scope } from "effect"
import { existsSync } from "node:fs"
import * as fs from "node:fs/promises"
import { dirname, join } from "node:path"
import { FunctionsRefused } from "./FunctionHost.ts"
import * as HostProgram from "./HostProgram.ts"

const HOUR_MS = 3_600_000
const UNUSED_MS = 7 * 24 * HOUR_MS
const HALF_MADE_MS = HOUR_MS

const attempt = <A>(place: string, run: () => Promise<A>) =>
  Effect.tryPromise({
    try: run,
    catch: (cause) =>
      new FunctionsRefused({
        file: place,
        reason: `it cannot be written: ${String(cause)}`,
        remedy: "Is the state directory writable and not full?",
        cause
      })
  })

/** Beside its place until it has been tried: whole or not there, since two workers may make the same one. */
export const make = (place: string, code: string) =>
  attempt(place, async () => {
    await fs.mkdir(dirname(place), { recursive: true, mode: 0o700 })
    const made = await fs.mkdtemp(`${place}.`)
    await fs.writeFile(join(made, HostProgram.BUNDLE), code, { mode: 0o644 })
    await fs.writeFile(join(made, HostProgram.START), HostProgram.startSource, { mode: 0o644 })
    return made
  })

/** Puts it into its place, where another worker's may be by now. */
export const settle = (made: string, place: string) =>
  attempt(place, () =>
    fs.rename(made, place).catch(async (error: unknown) => {
      if (!existsSync(place)) throw error
      await fs.rm(made, { recursive: true, force: true })
    }))

/** A name in its place is the content's alone; one that is being made has a suffix. */
const isHalfMade = (name: string) => name.includes(".")

const removeOld = Effect.fnUntraced(function*(root: string) {
  const now = yield* Clock.currentTimeMillis
  const names = yield* Effect.promise(() => fs.readdir(root).catch((): Array<string> => []))
  yield* Effect.forEach(names, (name) =>
    Effect.promise(async () => {
      const path = join(root, name)
      const used = await fs.stat(path).then(({ mtimeMs }) => mtimeMs, () => now)
      if (now - used > (isHalfMade(name) ? HALF_MADE_MS : UNUSED_MS)) {
        await fs.rm(path, { recursive: true, force: true }).catch(() => {})
      }
    }), { discard: true })
})

/** Keeps it as long as the scope is open, and removes those that nobody uses. */
export const use = (place: string): Effect.Effect<void, never, Scope.Scope> => {
  const renew = Effect.flatMap(
    Clock.currentTimeMillis,
    (now) => Effect.promise(() => fs.utimes(place, now / 1000, now / 1000).catch(() => {}))
  )
  return renew.pipe(
    Effect.andThen(removeOld(dirname(place))),
    Effect.andThen(Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(HOUR_MS), renew)))),
    Effect.asVoid
  )
}
