/** Wakes whoever waits for something to happen to a job: one subscription for all of them. */
import { Effect, type Scope, Stream } from "effect"
import { type JobKey, keyText } from "../../schemas/Ids.ts"
import { Control } from "../control/Control.ts"
import { LogNews } from "../log/LogSource.ts"

/** What other workers do is not heard of here: look again after this. */
const LOOK_AGAIN = "1 second"

export interface JobNews {
  /**
   * Subscribes when it is run; the effect it gives returns at the job's next event, or after a second: what is said in
   * between is not missed.
   */
  readonly subscribe: (key: JobKey) => Effect.Effect<Effect.Effect<void>>
}

interface Watched {
  readonly news: LogNews
  waiting: number
}

/** Listens until the scope closes. `heard` is told first of what happened to which job. */
export const make = Effect.fnUntraced(function*(
  heard: (key: JobKey) => void
): Effect.fn.Return<JobNews, never, Control | Scope.Scope> {
  const { events } = yield* Control
  const watched = new Map<string, Watched>()
  yield* Effect.forkScoped(
    Stream.runForEach(events, ({ key }) =>
      Effect.sync(() => {
        heard(key)
        watched.get(keyText(key))?.news.announce()
      }))
  )
  return {
    subscribe: (key) =>
      Effect.sync(() => {
        const name = keyText(key)
        const found = watched.get(name) ?? { news: new LogNews(), waiting: 0 }
        watched.set(name, found)
        found.waiting += 1
        const leave = Effect.sync(() => {
          found.waiting -= 1
          if (found.waiting === 0 && watched.get(name) === found) watched.delete(name)
        })
        return Effect.ensuring(Effect.asVoid(Effect.timeoutOption(found.news.wait(), LOOK_AGAIN)), leave)
      })
  }
})
