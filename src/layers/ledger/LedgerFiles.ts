/**
 * The ledger as one symbolic link for each row: its name is the sandbox's id, what it points to is text, the instance,
 * the driver and the time, as `ls -l <state>/ledger` shows them. One call makes it, whole or not at all, one removes it,
 * and it is never changed: any number of workers and janitors share the directory without a lock.
 *
 * Nothing is synced to the disk: all that a row names (processes, cgroups, mounts, network) dies with the kernel, and
 * until then the kernel has what was written.
 */
import { Clock, Effect, Layer, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { type InstanceId, SandboxId } from "../../schemas/Ids.ts"
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

const decodeRow = Schema.decodeUnknownEffect(LedgerRow)

const textOfRow = ({ driver, instance, madeAtMs }: LedgerRow): string => `${instance} ${driver} ${madeAtMs}`

const fieldsOf = (id: string, text: string): unknown => {
  const [instance, driver, madeAt, ...others] = text.split(" ")
  return { id, instance, driver, madeAtMs: others.length === 0 && madeAt !== undefined ? Number(madeAt) : undefined }
}

const corrupt = (path: string, reason: string): LedgerError =>
  new LedgerError({
    operation: "read a row",
    reason: `${path}: ${reason}`,
    remedy: "Look for a sandbox of that name (cgroup, mounts, processes), remove it, then remove this"
  })

const make = Effect.gen(function*() {
  const host = yield* Host
  const random = yield* SecureRandom.SecureRandom
  const folder = host.paths.ledger
  const pathOf = (id: string) => join(folder, id)

  yield* makeFolder(folder, failed("open", folder))

  const write = Effect.fnUntraced(function*(driver: LedgerRow["driver"]) {
    const id = SandboxId.make(yield* randomName(random, 20))
    const row: LedgerRow = { id, instance: host.instance, driver, madeAtMs: yield* Clock.currentTimeMillis }
    const path = pathOf(id)
    // A row that exists is never overwritten, however unlikely its id comes twice.
    yield* attempt("write a row", path, () => fs.symlink(textOfRow(row), path))
    return row
  })

  const strike = Effect.fn("Ledger.strike")((row: LedgerRow) => unlink("strike a row", pathOf(row.id)))

  /** Undefined when it was struck since the directory was read. */
  const read = Effect.fnUntraced(function*(name: string) {
    const path = join(folder, name)
    const text = yield* unlessGone(attempt("read a row", path, () => fs.readlink(path))).pipe(
      Effect.catchIf((error) => codeOf(error.cause) === "EINVAL", () => Effect.fail(corrupt(path, "it is no link")))
    )
    if (text === undefined) return undefined
    return yield* decodeRow(fieldsOf(name, text)).pipe(Effect.mapError((error) => corrupt(path, error.message)))
  })

  const rows = Effect.fn("Ledger.rows")(function*(instance?: InstanceId) {
    const names = yield* attempt("read", folder, () => fs.readdir(folder))
    const found = yield* Effect.forEach(names, read, { concurrency: 16 })
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
