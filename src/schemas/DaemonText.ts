/** Reads a configuration file: JSON in which comments may stand. All that is wrong is told at once. */
import { Option, Result, Schema } from "effect"
import { DaemonConfig } from "./DaemonConfig.ts"
import { type ConfigFault, crossFaults } from "./DaemonRules.ts"
import { faultOf, findings, parseDocument } from "./JsonDocument.ts"

/** Never told: they may hold a password. */
const secretFields: ReadonlySet<PropertyKey> = new Set(["amqp", "journal"])

const decode = Schema.decodeUnknownResult(DaemonConfig, { errors: "all", onExcessProperty: "error" })
const decodeRest = Schema.decodeUnknownOption(DaemonConfig)

const isObject = Schema.is(Schema.Record(Schema.String, Schema.Unknown))

const without = (root: unknown, fields: ReadonlySet<PropertyKey>): unknown =>
  isObject(root) ? Object.fromEntries(Object.entries(root).filter(([name]) => !fields.has(name))) : {}

/** What the text says, or all that is wrong with it. */
export const readDaemonConfig = (text: string): Result.Result<DaemonConfig, ReadonlyArray<ConfigFault>> => {
  const parsed = parseDocument(text)
  if (Result.isFailure(parsed)) return Result.fail([parsed.failure])
  const root = parsed.success
  const decoded = decode(root)
  if (Result.isSuccess(decoded)) {
    const faults = crossFaults(decoded.success, new Set())
    return faults.length === 0 ? Result.succeed(decoded.success) : Result.fail(faults)
  }
  const found = findings(decoded.failure.issue)
  const wrong = new Set(found.map(({ path }) => String(path[0] ?? "")))
  const rest = Option.getOrElse(decodeRest(without(root, wrong)), (): DaemonConfig => ({}))
  return Result.fail([...found.map((finding) => faultOf(root, finding, secretFields)), ...crossFaults(rest, wrong)])
}
