/** The worker's place on a real machine: a state directory that it may share with other workers and commands. */
import { Clock, Effect, Layer, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import * as fs from "node:fs/promises"
import { join, resolve } from "node:path"
import { InstanceId } from "../../schemas/Ids.ts"
import * as Release from "../Release.ts"
import { recordedCgroups } from "./CgroupRecord.ts"
import { codeOf, remedyOf, textOf } from "./Errno.ts"
import { makeFolder } from "./Folder.ts"
import type { HostPaths } from "./Host.ts"
import { Host, HostError } from "./Host.ts"
import * as InstanceLock from "./InstanceLock.ts"
import { mountsBelow } from "./Mounts.ts"
import { randomName } from "./RandomName.ts"

export interface HostOptions {
  /** Made if it is not there. Logs, ledger, journal and everything of the sandboxes lie below it. */
  readonly stateDirectory: string
}

const failed = (operation: string, path: string) => (cause: unknown): HostError =>
  new HostError({ operation, reason: `${path}: ${textOf(cause)}`, remedy: remedyOf(cause, path), cause })

const attempt = <A>(operation: string, path: string, run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: failed(operation, path) })

const unless = (code: string) => <A, R>(effect: Effect.Effect<A, HostError, R>) =>
  Effect.catchIf(effect, (error) => codeOf(error.cause) === code, () => Effect.void)

const pathsOf = (state: string): HostPaths => ({
  state,
  journal: join(state, "journal.sqlite"),
  logs: join(state, "logs"),
  artefacts: join(state, "artefacts"),
  ledger: join(state, "ledger"),
  instance: (instance) => join(state, "instances", instance)
})

/** The real path of a directory that only we can write to. */
const stateDirectory = Effect.fnUntraced(function*(path: string) {
  const operation = "open the state directory"
  yield* makeFolder(path, failed(operation, path))
  const real = yield* attempt(operation, path, () => fs.realpath(path))
  const { mode, uid } = yield* attempt(operation, real, () => fs.stat(real))
  if (uid !== process.getuid?.() || (mode & 0o022) !== 0) {
    return yield* new HostError({
      operation,
      reason: `${real} belongs to uid ${uid} and has mode ${(mode & 0o777).toString(8)}: others could change it`,
      remedy: `Run \`chown ${process.getuid?.() ?? "root"} ${real} && chmod 700 ${real}\`, or choose another directory`
    })
  }
  yield* attempt(operation, real, () => fs.access(real, fs.constants.R_OK | fs.constants.W_OK | fs.constants.X_OK))
  return real
})

/** An instance that starts is not seen before it holds its lock: its directory is made elsewhere and moved. */
const startingFolder = (state: string) => join(state, "starting")
/** Younger ones may have an owner that is about to listen. */
const startLimitMs = 60_000

/** Removes what instances left that died between making their directory and moving it into place. */
const sweepStarting = Effect.fnUntraced(function*(folder: string) {
  const now = yield* Clock.currentTimeMillis
  for (const name of yield* attempt("look for unfinished starts", folder, () => fs.readdir(folder))) {
    const path = join(folder, name)
    const stat = yield* attempt("look for unfinished starts", path, () => fs.lstat(path)).pipe(unless("ENOENT"))
    if (stat === undefined || now - stat.mtimeMs < startLimitMs) continue
    if (yield* InstanceLock.isHeld(path)) continue
    yield* attempt("clear an unfinished start away", path, () => fs.rm(path, { recursive: true, force: true }))
  }
})

/** Leaves nothing if nothing is left in it; else the janitor has to see to what is. */
const leave = Effect.fnUntraced(function*(folder: string) {
  yield* attempt("unlock", folder, () => fs.unlink(join(folder, InstanceLock.lockName))).pipe(unless("ENOENT"))
  for (const entry of yield* attempt("leave", folder, () => fs.readdir(folder, { withFileTypes: true }))) {
    if (!entry.isDirectory()) continue
    yield* attempt("leave", folder, () => fs.rmdir(join(folder, entry.name))).pipe(unless("ENOTEMPTY"))
  }
  yield* attempt("leave", folder, () => fs.rmdir(folder)).pipe(unless("ENOTEMPTY"))
})

const isInstanceId = Schema.is(InstanceId)

const make = Effect.fnUntraced(function*(options: HostOptions) {
  const paths = pathsOf(yield* stateDirectory(resolve(options.stateDirectory)))
  const instances = join(paths.state, "instances")
  const starting = startingFolder(paths.state)
  for (const folder of [instances, starting]) {
    yield* makeFolder(folder, failed("prepare the state directory", folder))
  }
  yield* sweepStarting(starting).pipe(
    Effect.ignore({ log: "Warn", message: "unfinished starts were not cleared away" })
  )

  const instance = InstanceId.make(`w${yield* randomName(yield* SecureRandom.SecureRandom, 10)}`)
  const own = paths.instance(instance)
  const made = join(starting, instance)
  // Undone last: when the lock is free already, so that what is left is the janitor's at once.
  yield* Effect.addFinalizer(() =>
    leave(own).pipe(unless("ENOENT"), Release.within(`directory of instance ${instance}`, "5 seconds"))
  )
  yield* attempt("make the instance's directory", made, () => fs.mkdir(made, { mode: 0o700 }))
  yield* InstanceLock.hold(made).pipe(
    Effect.mapError(({ cause }) =>
      new HostError({
        operation: "lock the instance's directory",
        reason: `${made}: ${textOf(cause)}`,
        remedy: "The state directory must be on a file system that can hold unix sockets, and /proc be mounted",
        cause
      })
    )
  )
  yield* attempt("make the instance's directory", own, () => fs.rename(made, own))

  const isAlive = (other: InstanceId) =>
    other === instance ? Effect.succeed(true) : InstanceLock.isHeld(paths.instance(other))

  const others = attempt("list instances", instances, () => fs.readdir(instances, { withFileTypes: true })).pipe(
    Effect.map((entries) => entries.flatMap(({ name }) => isInstanceId(name) && name !== instance ? [name] : []))
  )

  const forget = Effect.fn("Host.forget")(function*(other: InstanceId) {
    const folder = paths.instance(other)
    const operation = "remove a dead instance's directory"
    if (yield* isAlive(other)) {
      return yield* new HostError({
        operation,
        reason: `instance ${other} is alive`,
        remedy: "Stop that worker first; its directory goes with it"
      })
    }
    // Removing through a mount would empty what is mounted there.
    const mountinfo = yield* attempt(operation, folder, () => fs.readFile("/proc/self/mountinfo", "utf8"))
    const mounts = mountsBelow(mountinfo, folder)
    if (mounts.length > 0) {
      return yield* new HostError({
        operation,
        reason: `${mounts.join(", ")} is still mounted`,
        remedy: "Unmount it first"
      })
    }
    yield* attempt(operation, folder, () => fs.rm(folder, { recursive: true, force: true, maxRetries: 3 }))
  })

  return Host.of({
    instance,
    paths,
    isAlive,
    others,
    cgroupsOf: (other) => recordedCgroups(paths.instance(other)),
    forget
  })
})

/** One instance in a state directory, for as long as the layer lives. */
export const layer = (options: HostOptions): Layer.Layer<Host, HostError, SecureRandom.SecureRandom> =>
  Layer.effect(Host, make(options))
