/**
 * What one kind of object looks like now: listed once, then watched, by one connection for the whole worker. A dropped
 * watch goes on where it was; one that is too old begins with a new list, whose difference is told like events.
 */
import { Effect, Option, Schema, Stream } from "effect"
import type { Api, Ask } from "./Api.ts"
import type { KubernetesError } from "./Kubernetes.ts"
import { List, Versioned, WatchEvent } from "./Objects.ts"

/** A watch is renewed this often, so that one nobody answers any more is noticed. Seconds. */
const WATCH_SECONDS = 60
/** Objects of one page of a list. */
const PAGE = 250
const FIRST_PAUSE_MS = 100
const LONGEST_PAUSE_MS = 5000
/** A watch that lived this long was a good one: the next pause is short again. */
const HEALTHY_MS = 1000

/** What hears of it. */
export interface Listener<A> {
  readonly changed: (object: A) => void
  /** It is gone; this is how it was seen last. */
  readonly gone: (object: A) => void
}

interface Named {
  readonly metadata: { readonly name: string; readonly uid: string; readonly resourceVersion: string }
}

export interface Watched<A> {
  /** All there are, by their uid. */
  readonly objects: ReadonlyMap<string, A>
  /** Lists and watches for ever. */
  readonly run: Effect.Effect<never>
}

const decodeList = Schema.decodeUnknownOption(List)
const decodeEvent = Schema.decodeUnknownOption(Schema.fromJsonString(WatchEvent))
const decodeVersioned = Schema.decodeUnknownOption(Versioned)
const decodeCode = Schema.decodeUnknownOption(Schema.Struct({ code: Schema.Int }))

/** Why a watch ended: `anew`, a list comes first; `again`, it goes on from its version. */
type End = "anew" | "again"

export const make = <A extends Named>(options: {
  readonly api: Api
  /** `/api/v1/namespaces/x/pods` */
  readonly path: string
  readonly resource: string
  readonly labels: string
  readonly schema: Schema.ConstraintDecoder<A>
  readonly listener: Listener<A>
  /** Those that are known to be there from elsewhere: a list that does not have them says that they are gone. */
  readonly expected: () => ReadonlyArray<A>
}): Watched<A> => {
  const { api, expected, labels, listener, path, resource, schema } = options
  const decode = Schema.decodeUnknownOption(schema)
  const objects = new Map<string, A>()
  let version = ""
  let pauseMs = FIRST_PAUSE_MS

  const set = (object: A) => {
    const before = objects.get(object.metadata.uid)
    if (before?.metadata.resourceVersion === object.metadata.resourceVersion) return
    objects.set(object.metadata.uid, object)
    listener.changed(object)
  }
  const remove = (object: A) => {
    objects.delete(object.metadata.uid)
    listener.gone(object)
  }
  const request = (verb: string, query: Readonly<Record<string, string>>): Ask => ({
    method: "GET",
    path: `${path}?${new URLSearchParams({ labelSelector: labels, ...query })}`,
    verb,
    resource
  })

  /** As it is now; what is not there any more went while nobody looked. */
  const list = Effect.gen(function*() {
    // What is made while it is being listed need not be in it.
    const before = expected()
    const found = new Set<string>()
    let next = ""
    let at = ""
    do {
      const asked = request("list", { limit: String(PAGE), ...(next === "" ? {} : { continue: next }) })
      const page = decodeList(yield* api.ask(asked))
      if (Option.isNone(page)) return yield* api.odd(asked, "its list is none")
      for (const item of page.value.items ?? []) {
        const object = decode(item)
        if (Option.isNone(object)) continue
        found.add(object.value.metadata.uid)
        set(object.value)
      }
      at = page.value.metadata.resourceVersion ?? ""
      next = page.value.metadata.continue ?? ""
    } while (next !== "")
    for (const object of [...objects.values(), ...before]) if (!found.has(object.metadata.uid)) remove(object)
    version = at
  })

  /** One line; `anew` if the server has forgotten where we were. */
  const hear = (line: string): End | undefined => {
    const event = decodeEvent(line)
    if (Option.isNone(event)) return "again"
    const { object: told, type } = event.value
    if (type === "ERROR") {
      const code = decodeCode(told)
      return Option.isSome(code) && code.value.code === 410 ? "anew" : "again"
    }
    const versioned = decodeVersioned(told)
    if (Option.isNone(versioned)) return "again"
    const object = type === "BOOKMARK" ? Option.none() : decode(told)
    if (Option.isSome(object)) {
      if (type === "DELETED") remove(object.value)
      else set(object.value)
    }
    version = versioned.value.metadata.resourceVersion
    return undefined
  }

  const watch = Effect.gen(function*() {
    const query = {
      watch: "true",
      allowWatchBookmarks: "true",
      timeoutSeconds: String(WATCH_SECONDS),
      resourceVersion: version
    }
    const body = yield* api.open(request("watch", query), (WATCH_SECONDS + 15) * 1000)
    let rest = Buffer.alloc(0)
    let end: End | undefined
    yield* body.pipe(
      Stream.takeWhile((part) => {
        rest = rest.length === 0 ? Buffer.from(part) : Buffer.concat([rest, part])
        let from = 0
        for (let to = rest.indexOf(10); to >= 0; to = rest.indexOf(10, from)) {
          end = hear(rest.toString("utf8", from, to))
          if (end !== undefined) return false
          from = to + 1
        }
        rest = rest.subarray(from)
        return true
      }),
      Stream.runDrain
    )
    const how: End = end ?? "again"
    return how
  }).pipe(
    Effect.scoped,
    Effect.catchTag(
      "KubernetesError",
      (error) => error.trouble === "expired" ? Effect.succeed<End>("anew") : Effect.fail(error)
    )
  )

  const pause = Effect.suspend(() => {
    const now = pauseMs
    pauseMs = Math.min(LONGEST_PAUSE_MS, 2 * pauseMs)
    return Effect.sleep(now)
  })

  let told: string | undefined
  /** Said once for each way it fails. */
  const tell = (error: KubernetesError) =>
    Effect.suspend(() => {
      if (told === error.message) return Effect.void
      told = error.message
      return Effect.logWarning(`watching ${resource} of the cluster: ${error.message}`)
    })

  const run = Effect.gen(function*() {
    let end: End = "anew"
    while (true) {
      const began = performance.now()
      const step: Effect.Effect<End, KubernetesError> = end === "anew" ? Effect.as(list, "again" as const) : watch
      const done = yield* Effect.result(step)
      if (done._tag === "Success") {
        const isList: boolean = end === "anew"
        end = done.success
        if (isList || performance.now() - began > HEALTHY_MS) {
          pauseMs = FIRST_PAUSE_MS
          told = undefined
        } else yield* pause
      } else {
        yield* tell(done.failure)
        yield* pause
      }
    }
  })
  return { objects, run: run as Effect.Effect<never> }
}
