/**
 * What was begun for one row, in a file of its instance: written before the first kernel object, removed after the last.
 * It says how a network is taken down, whoever does it and whatever the configuration has become.
 */
import { Effect, Schema } from "effect"
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { SandboxId } from "../../schemas/Ids.ts"
import { textOf } from "../host/Errno.ts"
import { NetworkList } from "./CniConfig.ts"
import { NetworkError } from "./Network.ts"

export const NetworkRecord = Schema.Union([
  /** A sandbox's. */
  Schema.TaggedStruct("Sandbox", {
    /** The row whose cgroup the plugins ran in. */
    tools: SandboxId,
    /** Absent: a namespace without CNI. */
    list: Schema.optionalKey(NetworkList),
    folders: Schema.Array(Schema.String),
    /** A machine's: there is a tap in its namespace. */
    tap: Schema.optionalKey(Schema.Boolean),
    /** What ADD gave, if it came so far. */
    result: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown))
  }),
  /** A worker's own table of the host. */
  Schema.TaggedStruct("Host", { table: Schema.String })
])
export type NetworkRecord = typeof NetworkRecord.Type

const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(NetworkRecord))

const failed = (path: string) => (cause: unknown) =>
  new NetworkError({
    reason: `${path}: ${textOf(cause)}`,
    remedy: "Is the state directory writable and not full?",
    cause
  })

const attempt = <A>(path: string, run: () => A) => Effect.try({ try: run, catch: failed(path) })

export const pathOf = (instanceDirectory: string, id: string) => join(instanceDirectory, "network", `${id}.json`)

export const exists = (path: string): boolean => existsSync(path)

/** Whole or not at all. */
export const write = (path: string, record: NetworkRecord) =>
  attempt(path, () => {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 })
    renameSync(`${path}.new`, path)
  })

export const read = (path: string) =>
  Effect.flatMap(
    attempt(path, () => readFileSync(path, "utf8")),
    (text) => decode(text).pipe(Effect.mapError(failed(path)))
  )

export const remove = (path: string) => attempt(path, () => rmSync(path, { force: true }))
