/**
 * Where unpacked images lie, for all workers of a state directory: each below its digest, moved there when it is whole.
 *
 *   images/v1/sha256-…/{root,image.json}   one image
 *   images/v1/used/sha256-…@INSTANCE       that worker may be using it; @nobody: nobody has since the file's time
 *   images/v1/archives/HASH                the digest of an archive of this host that has not changed since
 *   images/v1/tmp.INSTANCE.N               being pulled, or being removed; the next worker clears a dead one's away
 */
import { Clock, Effect, Schema } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { InstanceId } from "../../../schemas/Ids.ts"
import { codeOf } from "../../host/Errno.ts"
import type { Host } from "../../host/Host.ts"
import { within } from "../../Release.ts"
import { refused } from "./ImageTools.ts"

/** As an image's configuration has them; empty where it has none. */
const ImageRun = Schema.Struct({ entrypoint: Schema.Array(Schema.String), arguments: Schema.Array(Schema.String) })

/** What is known of an image that was unpacked. */
export const ImageRecord = Schema.Struct({
  /** `sha256:…`: of the manifest or index its name led to. */
  digest: Schema.String,
  /** As the class had it that was first. */
  name: Schema.String,
  bytes: Schema.Int,
  inodes: Schema.Int,
  /** Defaults of its programs' environment. */
  env: Schema.Record(Schema.String, Schema.String),
  /** What it runs unless somebody says otherwise. Absent: it was unpacked before that was kept. */
  run: Schema.optionalKey(ImageRun)
})
export type ImageRecord = typeof ImageRecord.Type

/** An image that is there. */
export interface StoredImage extends ImageRecord {
  /** Its root: what a stranger made, to be read through an overlay only and never written to. */
  readonly tree: string
}

/** An image that nobody has used for so long goes. */
const UNUSED_MS = 14 * 24 * 60 * 60 * 1000

/** In the name of a mark: since the file's time no worker has used it. */
const NOBODY = "nobody"

const Json = Schema.fromJsonString(ImageRecord)
const isInstanceId = Schema.is(InstanceId)

const io = <A>(what: string, work: () => Promise<A>) =>
  Effect.tryPromise({
    try: work,
    catch: (cause) =>
      refused(`${what}: ${String(cause)}`, "Is the state directory writable and not full? Run `stoker doctor`.", cause)
  })

const folderOf = (digest: string) => digest.replace(":", "-")

const list = (path: string): Promise<ReadonlyArray<string>> => fs.readdir(path).catch(() => [])

const remove = (path: string) =>
  Effect.promise(() => fs.rm(path, { recursive: true, force: true, maxRetries: 2 }).catch(() => {}))

export const make = Effect.fnUntraced(function*(host: Host["Service"]) {
  const home = join(host.paths.state, "images", "v1")
  const [used, archives] = [join(home, "used"), join(home, "archives")]
  let temporaries = 0
  const temporary = () => join(home, `tmp.${host.instance}.${++temporaries}`)

  const readRecord = (digest: string) => fs.readFile(join(home, folderOf(digest), "image.json"), "utf8")

  /** Says that we use it before looking whether it is there, so that nobody removes it in between. */
  const find = Effect.fnUntraced(function*(digest: string) {
    const mark = join(used, `${folderOf(digest)}@${host.instance}`)
    yield* io(`marking ${digest} as used`, () => fs.writeFile(mark, ""))
    const text = yield* Effect.promise(() => readRecord(digest).catch(() => undefined))
    if (text === undefined) return undefined
    const record = yield* Schema.decodeEffect(Json)(text).pipe(Effect.orElseSucceed(() => undefined))
    return record === undefined ? undefined : { ...record, tree: join(home, folderOf(digest), "root") }
  })

  const isLive = (name: string) => isInstanceId(name) ? host.isAlive(name) : Effect.succeed(false)

  /** What dead workers left half done, and images that nobody alive uses and nobody has used for long. */
  const sweep = Effect.gen(function*() {
    const now = yield* Clock.currentTimeMillis
    const recent = new Set<string>()
    for (const name of yield* Effect.promise(() => list(used))) {
      const [folder = "", instance = ""] = name.split("@")
      const path = join(used, name)
      const stat = yield* Effect.promise(() => fs.stat(path).catch(() => undefined))
      if (instance === NOBODY) {
        if (stat !== undefined && now - stat.mtimeMs < UNUSED_MS) recent.add(folder)
        continue
      }
      recent.add(folder)
      if (yield* isLive(instance)) continue
      // From now on it is unused, however long that worker ran.
      yield* Effect.promise(() => fs.writeFile(join(used, `${folder}@${NOBODY}`), `${now}`).catch(() => {}))
      yield* remove(path)
    }
    for (const name of yield* Effect.promise(() => list(home))) {
      const [kind, instance = ""] = name.split(".")
      if (kind === "tmp" && !(yield* isLive(instance))) {
        yield* remove(join(home, name))
        yield* Effect.logInfo(`images: removed ${name}, which a worker that died left half done`)
      }
      if (!name.startsWith("sha256-") || recent.has(name)) continue
      const gone = temporary()
      // Whoever found it just before has a mark by now: then it goes back, or is pulled again.
      yield* Effect.promise(() => fs.rename(join(home, name), gone).catch(() => {}))
      const marks = yield* Effect.promise(() => list(used))
      if (marks.some((mark) => mark.startsWith(`${name}@`) && mark !== `${name}@${NOBODY}`)) {
        yield* Effect.promise(() => fs.rename(gone, join(home, name)).catch(() => {}))
      } else {
        yield* remove(join(used, `${name}@${NOBODY}`))
        yield* Effect.logInfo(`images: removed ${name}, which no worker has used for 14 days`)
      }
      yield* remove(gone)
    }
  }).pipe(Effect.ignore({ log: "Warn", message: "images: nothing was cleared away" }))

  /** A directory for one pull, which goes with the scope whatever became of the pull. */
  const staging = Effect.acquireRelease(
    Effect.suspend(() => {
      const path = temporary()
      return io(`making ${path}`, () => fs.mkdir(path, { mode: 0o700 })).pipe(Effect.as(path))
    }),
    // What takes longer is the next worker's.
    (path) => within(`what was being pulled in ${path}`, "20 seconds")(remove(path))
  )

  /**
   * Moves a whole image (`ready` holds nothing but `root`) to where everybody finds it. Another worker may have been first: then
   * its is taken, which is the same.
   */
  const publish = Effect.fnUntraced(function*(ready: string, record: ImageRecord) {
    yield* io(`writing ${ready}`, () => fs.writeFile(join(ready, "image.json"), JSON.stringify(record)))
    const place = join(home, folderOf(record.digest))
    yield* io(`moving the image to ${place}`, () =>
      fs.rename(ready, place).catch((cause: unknown) => {
        if (codeOf(cause) !== "ENOTEMPTY" && codeOf(cause) !== "EEXIST") throw cause
      }))
    const stored = yield* find(record.digest)
    return stored ?? (yield* refused(`${place} went as soon as it was there`, "Try again."))
  })

  /** Names an archive as it is now: another one at its place, or a changed one, has another name. */
  const archiveFile = Effect.fnUntraced(function*(path: string, tag: string | undefined) {
    const { ctimeNs, dev, ino, mtimeNs, size } = yield* Effect.promise(() => fs.stat(path, { bigint: true }))
    const facts = [path, tag ?? "", dev, ino, size, mtimeNs, ctimeNs].join("\u0000")
    return join(archives, createHash("sha256").update(facts).digest("hex"))
  })

  return {
    home,
    find,
    publish,
    staging,
    /** Once, before anything else. */
    open: Effect.andThen(
      io(`making ${home}`, async () => {
        for (const path of [home, used, archives]) await fs.mkdir(path, { recursive: true, mode: 0o700 })
      }),
      sweep
    ),
    /** The digest of an archive that was unpacked once and has not changed. */
    recall: (path: string, tag: string | undefined) =>
      Effect.flatMap(
        archiveFile(path, tag),
        (file) => Effect.promise(() => fs.readFile(file, "utf8").catch(() => undefined))
      ),
    remember: (path: string, tag: string | undefined, digest: string) =>
      Effect.flatMap(archiveFile(path, tag), (file) => io(`writing ${file}`, () => fs.writeFile(file, digest)))
  }
})

export type ImageStore = Effect.Success<ReturnType<typeof make>>
