/** Which fields of a configuration a running worker can take over, and what has changed between two of them. */
import type { Effect } from "effect"
import type { ReadConfig } from "../layers/config/ConfigSource.ts"
import { fileOf } from "../schemas/DaemonWorker.ts"
import type { WorkerConfig } from "../schemas/WorkerConfig.ts"
import type { Admission } from "./Admission.ts"
import type { Worker } from "./Worker.ts"

/** A part of the worker that takes new values while it runs. */
export interface Adjustable {
  /** The fields it takes, as the configuration file calls them. */
  readonly fields: ReadonlyArray<string>
  readonly apply: (config: WorkerConfig) => Effect.Effect<void>
}

/** What of this worker can be adjusted. All other fields need a restart. */
export const adjustables = (worker: Worker["Service"], admission: Admission): ReadonlyArray<Adjustable> => [
  { fields: ["drain"], apply: ({ drainMs }) => worker.configure({ drainMs }) },
  { fields: ["slots", "weights", "ownerSlots"], apply: admission.configure }
]

const flat = (value: unknown, path: string): ReadonlyArray<readonly [path: string, text: string]> =>
  typeof value === "object" && value !== null
    ? Object.entries(value).flatMap(([name, item]: [string, unknown]) =>
      flat(item, Array.isArray(value) ? `${path}[${name}]` : path === "" ? name : `${path}.${name}`)
    )
    : [[path, JSON.stringify(value) ?? ""]]

/** Every field of a configuration as a text, by its name in the file. */
export const textsOf = ({ config, others }: ReadConfig): ReadonlyMap<string, string> =>
  new Map([...flat(fileOf(config), ""), ...Object.entries(others)])

/** The fields that differ, as the configuration file calls them. */
export const changedFields = (
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>
): ReadonlyArray<string> =>
  [...new Set([...before.keys(), ...after.keys()])].filter((field) => before.get(field) !== after.get(field))

/** Whether a changed field belongs to one of these: itself, or below it. */
export const isOneOf = (fields: Iterable<string>, field: string): boolean =>
  [...fields].some((name) => field === name || field.startsWith(`${name}.`))
