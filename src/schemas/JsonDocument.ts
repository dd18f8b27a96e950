/** Reads a file that people write: JSON in which comments may stand. All that is wrong is told at once, with its place. */
import { Result, Schema, SchemaIssue } from "effect"
import type { ConfigFault } from "./DaemonRules.ts"
import { nearest } from "./Nearest.ts"
import { writeBytes, writeDuration } from "./Units.ts"

/** Comments as blanks, so that what is wrong is told where it stands. Strings are left as they are. */
const withoutComments = (text: string): string =>
  text.replaceAll(
    /"(?:\\.|[^"\\\n])*"|\/\/[^\n]*|\/\*[^]*?\*\//g,
    (piece) => piece.startsWith("\"") ? piece : piece.replaceAll(/[^\n]/g, " ")
  )

type Path = ReadonlyArray<PropertyKey>

/** Something wrong at a place in a document. */
export interface Finding {
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

/** What a schema found wrong. */
export const findings = (issue: SchemaIssue.Issue, path: Path = []): ReadonlyArray<Finding> => {
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

const shown = (value: unknown): string => {
  const text = JSON.stringify(value) ?? ""
  return text.length > 60 ? `${text.slice(0, 59)}…` : text
}

/** A finding with what stands there, unless that is below one of the fields that are secret. */
export const faultOf = (root: unknown, { path, problem }: Finding, secret: ReadonlySet<PropertyKey>): ConfigFault => {
  const value = valueAt(root, path)
  const isTold = value !== undefined && !secret.has(path[0] ?? "")
  return { path: pathText(path), ...(isTold ? { value: shown(value) } : {}), problem }
}

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

/** The text as JSON, or where it breaks off. */
export const parseDocument = (text: string): Result.Result<unknown, ConfigFault> => {
  const json = withoutComments(text)
  return Result.try({
    try: (): unknown => JSON.parse(json),
    catch: () => ({ path: "", problem: `is not JSON with comments: it breaks off ${breaksAt(json)}` })
  })
}

/** A reader of documents of one schema. Values below the fields named in `secret` are never told. */
export const documentReader = <A>(
  schema: Schema.ConstraintDecoder<A>,
  secret: ReadonlySet<PropertyKey> = new Set()
) => {
  const decode = Schema.decodeUnknownResult(schema, { errors: "all", onExcessProperty: "error" })
  return (text: string): Result.Result<A, ReadonlyArray<ConfigFault>> => {
    const parsed = parseDocument(text)
    if (Result.isFailure(parsed)) return Result.fail([parsed.failure])
    const decoded = decode(parsed.success)
    return Result.isSuccess(decoded)
      ? Result.succeed(decoded.success)
      : Result.fail(findings(decoded.failure.issue).map((finding) => faultOf(parsed.success, finding, secret)))
  }
}

/** One line: where, what is there, what is wrong. */
export const faultLine = ({ path, problem, value }: ConfigFault): string =>
  path === "" ? `it ${problem}` : `${path}${value === undefined ? "" : ` is ${value}`}: ${problem}`
