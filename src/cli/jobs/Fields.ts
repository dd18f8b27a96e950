/** A function's arguments as the command line takes them: words by their place, flags, and what is left for JSON. */
import type { FunctionView } from "../../schemas/JobView.ts"
import { describe, type Node, resolve, typesOf, wholeOf } from "./JsonSchema.ts"

/**
 * How a field is written. `text`: one word, read as the schema's types allow. `switch`: a flag without a value.
 * `map`: NAME=VALUE, repeated. `list`: repeated. `json`: JSON text, or @FILE.
 */
export type FieldKind = "text" | "switch" | "map" | "list" | "json"

/** One argument of a function. */
export interface Field {
  /** Its name in the arguments. */
  readonly name: string
  /** Its name as a flag, without dashes. */
  readonly flag: string
  readonly kind: FieldKind
  readonly schema: Node
  readonly required: boolean
  /** The word of the usage line, for a field that is taken by its place. */
  readonly word: string | undefined
}

/** A function as the command line needs it. */
export interface Call {
  readonly view: FunctionView
  readonly root: Node
  /** Of those that are taken by their place, in that order. */
  readonly places: ReadonlyArray<Field>
  /** All others. */
  readonly flags: ReadonlyArray<Field>
}

const isObject = (value: unknown): value is Node => typeof value === "object" && value !== null && !Array.isArray(value)

const scalars = ["string", "integer", "number", "boolean", "null"]

/** The one schema that all entries of an object have, if there are no others. */
export const entrySchema = (node: Node, root: Node): Node | undefined => {
  const found = resolve(node, root)
  const patterns = isObject(found["patternProperties"]) ? Object.values(found["patternProperties"]) : []
  if (isObject(found["properties"]) && Object.keys(found["properties"]).length > 0) return undefined
  if (isObject(found["additionalProperties"])) return found["additionalProperties"]
  const [only, ...others] = patterns
  return others.length === 0 && isObject(only) ? only : undefined
}

/** The schema of an item of a list. */
export const itemSchema = (node: Node, root: Node): Node => {
  const found = resolve(node, root)
  const [first] = Array.isArray(found["prefixItems"]) ? found["prefixItems"] : []
  return isObject(found["items"]) ? found["items"] : isObject(first) ? first : {}
}

const isScalar = (node: Node, root: Node) => [...typesOf(node, root)].every((type) => scalars.includes(type))

const kindOf = (node: Node, root: Node): FieldKind => {
  const types = typesOf(node, root)
  const only = (type: string) => types.size === 1 && types.has(type)
  if (only("boolean")) return "switch"
  if (isScalar(node, root)) return "text"
  if (only("array") && isScalar(itemSchema(node, root), root)) return "list"
  const entries = only("object") ? entrySchema(node, root) : undefined
  return entries !== undefined && isScalar(entries, root) ? "map" : "json"
}

/** `waitSeconds` is `--wait-seconds`. */
const flagOf = (name: string) => name.replaceAll(/([a-z0-9])([A-Z])/g, "$1-$2").replaceAll("_", "-").toLowerCase()

/** What stands before the value in a help text. */
export const metavar = ({ kind, schema, word }: Field, root: Node): string => {
  if (word !== undefined) return word
  if (kind === "switch") return ""
  if (kind === "map") return "name=value"
  if (kind === "json") return "json"
  const types = typesOf(kind === "list" ? itemSchema(schema, root) : schema, root)
  return types.has("string") ? "string" : types.has("number") || types.has("integer") ? "number" : "value"
}

const isTold = (node: Node, root: Node) => describe(node, root).includes(" ")

/** What somebody wrote about it. Without a title it is what Effect makes of its checks, which we say better. */
const annotation = (schema: Node, root: Node): string | undefined => {
  const { description, title } = wholeOf(schema, root)
  return typeof title === "string" && typeof description === "string" ? description : undefined
}

/** What the field takes, in words. */
export const fieldText = ({ kind, schema }: Field, root: Node): string => {
  const about = annotation(schema, root)
  const values = (node: Node, rest: string) =>
    about === undefined
      ? `${describe(node, root)}${rest}`
      : `${about}${isTold(node, root) ? ` (${describe(node, root)}${rest})` : ""}`
  switch (kind) {
    case "switch":
      return about ?? ""
    case "map":
      return values(entrySchema(schema, root) ?? {}, " for each name; may be repeated")
    case "list":
      return values(itemSchema(schema, root), "; may be repeated")
    case "json":
      return about === undefined ? "JSON, or @FILE with it" : `${about} (JSON, or @FILE with it)`
    case "text":
      return values(schema, "")
  }
}

/** Reads a function's definition. */
export const callOf = (view: FunctionView): Call => {
  const root = isObject(view.args) ? view.args : {}
  const top = resolve(root, root)
  const properties = isObject(top["properties"]) ? top["properties"] : {}
  const required = Array.isArray(top["required"]) ? top["required"] : []
  const words = new Map(view.positional.map(({ field, word }) => [field, word]))
  const names = Object.keys(properties)
  // Where two names would be one flag, both keep their own.
  const count = new Map<string, number>()
  for (const name of names) count.set(flagOf(name), (count.get(flagOf(name)) ?? 0) + 1)
  const fields = names.map((name): Field => {
    const schema = isObject(properties[name]) ? properties[name] : {}
    const flag = flagOf(name)
    return {
      name,
      flag: count.get(flag) === 1 && (flag === name || !names.includes(flag)) ? flag : name,
      kind: kindOf(schema, root),
      schema,
      required: required.includes(name),
      word: words.get(name)
    }
  })
  return {
    view,
    root,
    places: view.positional.flatMap(({ field }) => fields.find(({ name }) => name === field) ?? []),
    flags: fields.filter(({ word }) => word === undefined)
  }
}

/** `number` is `Number`, `waitSeconds` is `Wait seconds`. */
export const labelOf = (name: string): string => {
  const words = name.replaceAll(/([a-z0-9])([A-Z])/g, "$1 $2").replaceAll(/[_-]/g, " ")
  return words.slice(0, 1).toUpperCase() + words.slice(1).toLowerCase()
}
