/**
 * The ledger as one small file for each row, `<state>/ledger/<sandbox id>.json`, holding the row as JSON. Made whole or
 * not at all, and never changed, so any number of workers and janitors share the directory without a lock.
 *
 * Nothing is synced to the disk: all that a row names (processes, cgroups, mounts, network) dies with the kernel, and
 * until then the kernel has what was written.
 */
import { Clock, Effect, Layer, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { InstanceId, SandboxId } from "../../schemas/Ids.ts"
import { codeOf, remedyOf, textOf } from "../host/Errno.ts"
import { makeFolder } from "../host/Folder.ts"
import { Host } from "../host/Host.ts"
import { randomName } from "../host/RandomName.ts"
import { Ledger, LedgerError, LedgerRow } from "./Ledger.ts"
import { letGo } from "./LedgerHold.ts"

const failed = (operation: string, path: string) => (cause: unknown): LedgerError =>
  new LedgerError({ operation, reason: `${path}: ${textOf(cause)}`, remedy: remedyOf(cause, path), cause })

const attempt = <A>(operation: string, path: string, run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: failed(operation, path) })

const unlessGone = <A, R>(effect: Effect.Effect<A, LedgerError, R>) =>
  Effect.catchIf(effect, (error) => codeOf(error.cause) === "ENOENT", () => Effect.void)

const unlink = (operation: string, path: string) => unlessGone(attempt(operation, path, () => fs.unlink(path)))

const suffix = ".json"
const RowJson = Schema.fromJsonString(LedgerRow)
const decodeRow = Schema.decodeUnknownEffect(RowJson)
const encodeRow = Schema.encodeSync(RowJson)
const isInstanceId = Schema.is(InstanceId)

/** Rows being written: `.<instance>.<sandbox id>`, so that a dead writer's can be told from a living one's. */
const draftName = (row: LedgerRow): string => `.${row.instance}.${row.id}`

const corrupt = (path: string, reason: string): LedgerError =>
  new LedgerError({
    operation: "read a row",
    reason: `${path}: ${reason}`,
    remedy: "Look for a sandbox of that name (cgroup, mounts, processes), remove it, then remove the file"
  })

const make = Effect.gen(function*() {
  const host = yield* Host
  const random = yield* SecureRandom.SecureRandom
  const folder = host.paths.ledger
  const pathOf = (id: string) => join(folder, `${id}${suffix}`)

  yield* makeFolder(folder, failed("open", folder))

  const dropDrafts = Effect.gen(function*() {
    for (const name of yield* attempt("read", folder, () => fs.readdir(folder))) {
      const instance = name.startsWith(".") ? name.split(".")[1] : undefined
      if (!isInstanceId(instance) || (yield* host.isAlive(instance))) continue
      yield* unlink("clear a draft away", join(folder, name))
    }
  })
  yield* dropDrafts.pipe(Effect.ignore({ log: "Warn", message: "drafts of dead workers were not cleared away" }))

  const write = Effect.fnUntraced(function*(driver: LedgerRow["driver"]) {
    const id = SandboxId.make(yield* randomName(random, 20))
    const row: LedgerRow = { id, instance: host.instance, driver, madeAtMs: yield* Clock.currentTimeMillis }
    const draft = join(folder, draftName(row))
    const path = pathOf(id)
    // Linked, not renamed: a row that exists is never overwritten, however unlikely its id comes twice.
    yield* attempt("write a row", draft, () => fs.writeFile(draft, `${encodeRow(row)}\n`, { flag: "wx", mode: 0o600 }))
      .pipe(
        Effect.andThen(attempt("write a row", path, () => fs.link(draft, path))),
        Effect.ensuring(Effect.ignore(unlink("write a row", draft)))
      )
    return row
  })

  const strike = Effect.fn("Ledger.strike")((row: LedgerRow) => unlink("strike a row", pathOf(row.id)))

  /** Undefined when it was struck since the directory was read. */
  const read = Effect.fnUntraced(function*(name: string) {
    const path = join(folder, name)
    const text = yield* unlessGone(attempt("read a row", path, () => fs.readFile(path, "utf8")))
    if (text === undefined) return undefined
    const row = yield* decodeRow(text).pipe(Effect.mapError((error) => corrupt(path, error.message)))
    if (name !== `${row.id}${suffix}`) return yield* corrupt(path, `it holds the row of ${row.id}`)
    return row
  })

  const rows = Effect.fn("Ledger.rows")(function*(instance?: InstanceId) {
    const names = yield* attempt("read", folder, () => fs.readdir(folder))
    const found = yield* Effect.forEach(names.filter((name) => name.endsWith(suffix)), read, { concurrency: 16 })
    return found.flatMap((row) => row === undefined || (instance ?? row.instance) !== row.instance ? [] : [row])
  })

  return Ledger.of({
    hold: Effect.fn("Ledger.hold")((driver, isGone) =>
      Effect.acquireRelease(write(driver), (row) => letGo(row, isGone, strike))
    ),
    rows,
    strike
  })
})

/** Rows in `<state>/ledger`. */
export const layer: Layer.Layer<Ledger, LedgerError, Host | SecureRandom.SecureRandom> = Layer.effect(Ledger, make)
