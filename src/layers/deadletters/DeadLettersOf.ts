/** Dead letters of several places as one: each letter says in `queue` where it is from. */
import { Effect } from "effect"
import {
  type DeadLetter,
  type DeadLetterError,
  DeadLetters,
  type LetterNotFound,
  type Selection
} from "./DeadLetters.ts"

type Place = DeadLetters["Service"]

/** Without a time it is the broker's, and as old as may be. */
const byTime = (a: DeadLetter, b: DeadLetter) => (a.time ?? "").localeCompare(b.time ?? "")

/** A letter is looked for in their order: the ones that are asked fastest come first. */
export const make = (first: Place, ...others: ReadonlyArray<Place>): Place => {
  const places = [first, ...others]
  const last = others.at(-1) ?? first

  const has = (place: Place, id: string) =>
    place.show(id).pipe(Effect.as(true), Effect.catchTag("LetterNotFound", () => Effect.succeed(false)))

  /** Each place with its letters. What is nowhere else is the last one's to find or to miss. */
  const share = Effect.fnUntraced(function*(ids: ReadonlyArray<string>) {
    const shares = new Map<Place, Array<string>>()
    for (const id of ids) {
      const at = (yield* Effect.findFirst(places.slice(0, -1), (place) => has(place, id))).pipe((found) =>
        found._tag === "Some" ? found.value : last
      )
      shares.set(at, [...shares.get(at) ?? [], id])
    }
    // Missing ones are told before anything is done elsewhere.
    return [...shares].toSorted(([a], [b]) => places.indexOf(b) - places.indexOf(a))
  })

  const everywhere = Effect.fnUntraced(function*(
    which: Selection,
    act: (place: Place, which: Selection) => Effect.Effect<ReadonlyArray<DeadLetter>, LetterNotFound | DeadLetterError>
  ) {
    const shares = which === "all" ? places.map((place) => [place, which] as const) : yield* share(which)
    return (yield* Effect.forEach(shares, ([place, ids]) => act(place, ids))).flat()
  })

  return DeadLetters.of({
    list: Effect.fnUntraced(function*(limit) {
      const found = yield* Effect.forEach(places, (place) => place.list(limit))
      return {
        total: found.reduce((sum, { total }) => sum + total, 0),
        letters: found.flatMap(({ letters }) => letters).toSorted(byTime).slice(0, limit)
      }
    }),
    show: Effect.fnUntraced(function*(id) {
      const at = yield* share([id])
      return yield* (at[0]?.[0] ?? last).show(id)
    }),
    retry: (which) => everywhere(which, (place, ids) => place.retry(ids)),
    drop: (which) => everywhere(which, (place, ids) => place.drop(ids))
  })
}
