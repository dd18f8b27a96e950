/** What all job actors of one worker share: room to run, the claims to be renewed, and who watches. */
import { Context, Effect, Layer, PubSub } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import type { Claim, Holder } from "../layers/journal/Journal.ts"
import type { JobKey } from "../schemas/Ids.ts"
import type { JobEvent } from "../schemas/JobEvent.ts"
import type { PhaseName } from "../schemas/Program.ts"
import type { Observation } from "../schemas/Usage.ts"
import * as Admission from "./Admission.ts"

/** Events a watcher may lag behind before it loses the oldest. */
const WATCHER_LAG = 4096

/** A claim whose lease had run out when it was seen. Times are of the monotonic clock. */
export interface Sighting extends Holder {
  readonly sinceNanos: bigint
  readonly atNanos: bigint
}

/** A job in its sandbox. */
export interface Underway {
  readonly key: JobKey
  readonly function: string
  readonly class: string
  readonly attempt: number
  /** Where its counters are, e.g. its cgroup. */
  readonly place: string
  /** By the monotonic clock, when its sandbox was ready. */
  readonly sinceNanos: bigint
  /** Absent between phases. */
  phase: PhaseName | undefined
  readonly observe: Effect.Effect<Observation>
}

export class Desk extends Context.Service<Desk, {
  /** A slot for each job that runs. */
  readonly admission: Admission.Admission
  /** Claims held now; the keeper renews them. */
  readonly claims: Map<string, Claim>
  /** By `keyText`, for `Lapses.ts`. */
  readonly sightings: Map<string, Sighting>
  /** Jobs that have a sandbox now, in the order in which they got it. */
  readonly underway: Set<Underway>
  readonly watchers: PubSub.PubSub<JobEvent>
}>()("stoker/actors/Desk") {}

export const layer = Layer.effect(
  Desk,
  Effect.gen(function*() {
    const settings = yield* Settings
    return Desk.of({
      admission: Admission.make(settings),
      claims: new Map(),
      sightings: new Map(),
      underway: new Set(),
      watchers: yield* PubSub.sliding<JobEvent>(WATCHER_LAG)
    })
  })
)
