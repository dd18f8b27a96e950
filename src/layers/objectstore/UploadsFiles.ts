/** Uploads as files of the state directory, `uploads/<instance>/<name>`: they outlive a worker, and lie beside its successor. */
import { Effect, Layer, Option, Schema } from "effect"
import { randomUUID } from "node:crypto"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { InstanceId } from "../../schemas/Ids.ts"
import { codeOf } from "../host/Errno.ts"
import { makeFolder } from "../host/Folder.ts"
import { Host } from "../host/Host.ts"
import { type LeftUpload, Upload, Uploads } from "./Uploads.ts"

const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Upload))
const decodeInstance = Schema.decodeUnknownOption(InstanceId)

/** What cannot be written or read is said, and changes nothing else. */
const tried = <A>(what: string, run: () => Promise<A>, otherwise: A): Effect.Effect<A> =>
  Effect.tryPromise({ try: run, catch: (cause) => ({ cause }) }).pipe(
    Effect.catch(({ cause }) =>
      codeOf(cause) === "ENOENT"
        ? Effect.succeed(otherwise)
        : Effect.as(Effect.logWarning(`unfinished uploads: ${what} failed`, cause), otherwise)
    )
  )

const make = Effect.gen(function*() {
  const host = yield* Host
  const folder = join(host.paths.state, "uploads")
  const own = join(folder, host.instance)
  const strike = (path: string) => tried("striking one out", () => fs.unlink(path), undefined)

  const note = Effect.fnUntraced(function*(upload: Upload) {
    const path = join(own, randomUUID())
    yield* Effect.ignore(makeFolder(own, (cause) => cause))
    yield* tried("writing one down", () => fs.writeFile(path, JSON.stringify(upload), { mode: 0o600 }), undefined)
    return strike(path)
  })

  const leftBy = Effect.fnUntraced(function*(instance: InstanceId) {
    const place = join(folder, instance)
    const names = yield* tried("listing them", () => fs.readdir(place), [])
    // Empty: whoever comes after it has nothing to do. One that is not is none of rmdir's.
    if (names.length === 0) yield* Effect.ignore(Effect.tryPromise(() => fs.rmdir(place)))
    return yield* Effect.forEach(names, (name) => {
      const path = join(place, name)
      return Effect.flatMap(
        tried("reading one", () => fs.readFile(path, "utf8"), undefined),
        (text): Effect.Effect<ReadonlyArray<LeftUpload>> =>
          text === undefined ? Effect.succeed([]) : Option.match(decode(text), {
            // Its writer was killed in the middle: nobody can tell any more what it was.
            onNone: () => Effect.as(strike(path), []),
            onSome: (upload) => Effect.succeed([{ upload, strike: strike(path) }])
          })
      )
    })
  })

  const left = Effect.gen(function*() {
    const names = yield* tried("looking for them", () => fs.readdir(folder), [])
    const others = names.flatMap((name) => Option.toArray(decodeInstance(name))).filter((name) =>
      name !== host.instance
    )
    const dead = yield* Effect.filter(others, (instance) => Effect.map(host.isAlive(instance), (alive) => !alive))
    return (yield* Effect.forEach(dead, leftBy)).flat(2)
  })

  return { note, left }
})

/** Needs a state directory that outlives the worker. */
export const layer = Layer.effect(Uploads, make)
