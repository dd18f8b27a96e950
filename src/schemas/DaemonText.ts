/** Reads a configuration file: JSON in which comments may stand. All that is wrong is told at once. */
import { Option, Result, Schema, SchemaIssue } from "effect"
import { DaemonConfig } from "./DaemonConfig.ts"
import { type ConfigFault, crossFaults } from "./DaemonRules.ts"
import { nearest } from "./Nearest.ts"
import { writeBytes, writeDuration } from "./Units.ts"

/** Comments as blanks, so that what is wrong is told where it stands. Strings are left as they are. */
const withoutComments = (text: string): string =>
  text.replaceAll(
    /"(?:\\.|[^"\\\n])*"|\/\/[^\n]*|\/\*[^]*?\*\//g,
    (piece) => piece.startsWith("\"") ? piece : piece.replaceAll(/[^\n]/g, " ")
  )

type Path = ReadonlyArray<PropertyKey>

interface Finding {
  readonly path: Path
  readonly problem: string
}

const pathText = (path: Path): string =>
  path.reduce<string>(
    (text, part) => typeof part === "number" ? `${text}[${part}]` : `${text}${text === "" ? "" : "."}${String(part)}`,
    ""
  )

/** "milliseconds from 1000 to 60000" as people write it. */
const readable = (expected: string): string =>
  expected.replace(
    /\b(milliseconds|bytes) from (\d+) to (\d+)/,
    (_, unit: string, least: string, most: string) => {
      const [what, write] = unit === "bytes" ? ["a size", writeBytes] as const : ["a time", writeDuration] as const
      return `${what} from ${write(Number(least))} to ${write(Number(most))}`
    }
  )

const format = SchemaIssue.makeFormatterStandardSchemaV1()

const unknownField = (path: Path, { ast }: SchemaIssue.UnexpectedKey): Finding => {
  const known = "propertySignatures" in ast
    ? ast.propertySignatures.map(({ name }) => String(name))
    : []
  const meant = nearest(String(path.at(-1)), known)
  return {
    path,
    problem: meant === undefined
      ? `no such field; there are ${known.join(", ")}`
      : `no such field; did you mean ${meant}?`
  }
}

const findings = (issue: SchemaIssue.Issue, path: Path = []): ReadonlyArray<Finding> => {
  switch (issue._tag) {
    case "Pointer":
      return findings(issue.issue, [...path, ...issue.path])
    case "Composite":
      return issue.issues.flatMap((inner) => findings(inner, path))
    case "Encoding":
      return findings(issue.issue, path)
    case "UnexpectedKey":
      return [unknownField(path, issue)]
    default:
      return format(issue).issues.map(({ message, path: rest = [] }) => ({
        path: [...path, ...rest.map((part) => typeof part === "object" ? part.key : part)],
        problem: message === "Missing key" ? "must be given" : readable(message.replace(/^Expected/, "expected"))
      }))
  }
}

const valueAt = (root: unknown, path: Path): unknown =>
  path.reduce<unknown>(
    (value, part) => typeof value === "object" && value !== null ? Reflect.get(value, part) : undefined,
    root
  )

/** Never told: they may hold a password. */
const secretFields: ReadonlySet<PropertyKey> = new Set(["amqp", "journal"])

const shown = (value: unknown): string => {
  const text = JSON.stringify(value) ?? ""
  return text.length > 60 ? `${text.slice(0, 59)}…` : text
}

const faultOf = (root: unknown, { path, problem }: Finding): ConfigFault => {
  const value = valueAt(root, path)
  const isTold = value !== undefined && !secretFields.has(path[0] ?? "")
  return { path: pathText(path), ...(isTold ? { value: shown(value) } : {}), problem }
}

const decode = Schema.decodeUnknownResult(DaemonConfig, { errors: "all", onExcessProperty: "error" })
const decodeRest = Schema.decodeUnknownOption(DaemonConfig)

const isObject = Schema.is(Schema.Record(Schema.String, Schema.Unknown))

const without = (root: unknown, fields: ReadonlySet<PropertyKey>): unknown =>
  isObject(root) ? Object.fromEntries(Object.entries(root).filter(([name]) => !fields.has(name))) : {}

const messageOf = (cause: unknown) => cause instanceof Error ? cause.message : String(cause)

/** Whether a text is the beginning of JSON: what is wrong with it is only that it ends. */
const isBeginning = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch (cause) {
    const message = messageOf(cause)
    const at = /at position (\d+)/.exec(message)?.[1]
    return /end of JSON input|Unterminated/.test(message) || Number(at) === text.length
  }
}

/** Where a text stops being JSON. Not in the parser's words: they quote the text, which may have a password in it. */
const breaksAt = (text: string): string => {
  let [good, bad] = [0, text.length + 1]
  while (bad - good > 1) {
    const middle = Math.floor((good + bad) / 2)
    if (isBeginning(text.slice(0, middle))) good = middle
    else bad = middle
  }
  const lines = text.slice(0, good).split("\n")
  return good === text.length ? "at its end" : `at line ${lines.length}, column ${(lines.at(-1)?.length ?? 0) + 1}`
}

const parse = (text: string): Result.Result<unknown, ConfigFault> => {
  const json = withoutComments(text)
  return Result.try({
    try: (): unknown => JSON.parse(json),
    catch: () => ({ path: "", problem: `is not JSON with comments: it breaks off ${breaksAt(json)}` })
  })
}

/** What the text says, or all that is wrong with it. */
export const readDaemonConfig = (text: string): Result.Result<DaemonConfig, ReadonlyArray<ConfigFault>> => {
  const parsed = parse(text)
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
  return Result.fail([...found.map((finding) => faultOf(root, finding)), ...crossFaults(rest, wrong)])
}

/** One line: where, what is there, what is wrong. */
export const faultLine = ({ path, problem, value }: ConfigFault): string =>
  path === "" ? `it ${problem}` : `${path}${value === undefined ? "" : ` is ${value}`}: ${problem}`
