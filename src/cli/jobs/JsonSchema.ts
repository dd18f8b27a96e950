/**
 * Checks a JSON value against the part of JSON Schema (draft 2020-12) that functions' arguments are described in, so that a
 * person hears of a mistake before a server is asked. What it does not know, it lets pass: the server checks again.
 */

/** A schema, or a part of one. */
export type Node = Readonly<Record<string, unknown>>

/** One thing that is wrong: where (keys from the outside in), and what should be there. */
export interface Problem {
  readonly path: ReadonlyArray<string>
  readonly expected: string
}

const isObject = (value: unknown): value is Node => typeof value === "object" && value !== null && !Array.isArray(value)
const nodesOf = (value: unknown): ReadonlyArray<Node> => Array.isArray(value) ? value.filter(isObject) : []
const numberOf = (value: unknown): number | undefined => typeof value === "number" ? value : undefined
const textsOf = (value: unknown): ReadonlyArray<string> =>
  Array.isArray(value) ? value.filter((each) => typeof each === "string") : typeof value === "string" ? [value] : []

/** References that lead to each other end somewhere. */
const MOST_STEPS = 32

/** Follows `$ref` within the document. */
export const resolve = (node: Node, root: Node): Node => {
  let found = node
  for (let step = 0; step < MOST_STEPS && typeof found["$ref"] === "string"; step++) {
    const parts = found["$ref"].replace(/^#\/?/, "").split("/").filter((part) => part !== "")
    const target = parts.reduce<unknown>(
      (value, part) => isObject(value) ? value[part.replaceAll("~1", "/").replaceAll("~0", "~")] : undefined,
      root
    )
    const { $ref: _, ...beside } = found
    found = { ...(isObject(target) ? target : {}), ...beside }
  }
  return found
}

/** The JSON types that a value of this schema can have; all of them if it does not say. */
export const typesOf = (node: Node, root: Node, depth = 0): ReadonlySet<string> => {
  const found = resolve(node, root)
  const own = textsOf(found["type"])
  if (own.length > 0) return new Set(own)
  const choices = [...nodesOf(found["anyOf"]), ...nodesOf(found["oneOf"])]
  if (choices.length > 0 && depth < MOST_STEPS) {
    return new Set(choices.flatMap((choice) => [...typesOf(choice, root, depth + 1)]))
  }
  const values = Array.isArray(found["enum"]) ? found["enum"] : "const" in found ? [found["const"]] : []
  if (values.length > 0) return new Set(values.map(typeOf))
  const all = nodesOf(found["allOf"])
  const [first] = all
  if (first !== undefined && depth < MOST_STEPS) return typesOf(first, root, depth + 1)
  return new Set(["string", "number", "integer", "boolean", "null", "object", "array"])
}

const typeOf = (value: unknown): string =>
  value === null
    ? "null"
    : Array.isArray(value)
    ? "array"
    : typeof value === "number" && Number.isInteger(value)
    ? "integer"
    : typeof value

const hasType = (value: unknown, types: ReadonlyArray<string>) => {
  const type = typeOf(value)
  return types.includes(type) || (type === "integer" && types.includes("number"))
}

/** The same value, whatever the order of its keys. */
const same = (a: unknown, b: unknown): boolean => {
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((item, at) => same(item, b[at]))
  if (isObject(a)) {
    const keys = Object.keys(a)
    return isObject(b) && keys.length === Object.keys(b).length &&
      keys.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]))
  }
  return a === b
}

const articles: Readonly<Record<string, string>> = {
  string: "text",
  integer: "a whole number",
  number: "a number",
  boolean: "true or false",
  null: "null",
  object: "a JSON object",
  array: "a JSON array"
}

const listed = (words: ReadonlyArray<string>) =>
  words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} or ${words.at(-1) ?? ""}`

const lengthBounds = (least: number | undefined, most: number | undefined, what: string): string =>
  least !== undefined && most !== undefined
    ? least === most ? `${least} ${what}` : `${least} to ${most} ${what}`
    : least !== undefined
    ? `at least ${least} ${what}`
    : `at most ${most ?? 0} ${what}`

const integers: Readonly<Record<number, true>> = { [Number.MAX_SAFE_INTEGER]: true, [Number.MIN_SAFE_INTEGER]: true }
/** Bounds that stand for "any that is exact" are nothing to tell a person. */
const told = (bound: number | undefined) => bound === undefined || integers[bound] === true ? undefined : bound

/** A schema with the parts that further checks and annotations have added to it. */
export const wholeOf = (node: Node, root: Node): Node =>
  nodesOf(resolve(node, root)["allOf"]).reduce<Node>(
    (all, part) => ({ ...all, ...resolve(part, root) }),
    resolve(node, root)
  )

/** What a value of this schema is, in words: for help texts and for whoever gave another one. */
export const describe = (node: Node, root: Node): string => {
  const found = resolve(node, root)
  if (Array.isArray(found["enum"])) {
    return `one of ${
      found["enum"].map((value) => typeof value === "string" ? value : JSON.stringify(value)).join(", ")
    }`
  }
  if ("const" in found) return JSON.stringify(found["const"])
  const choices = [...nodesOf(found["anyOf"]), ...nodesOf(found["oneOf"])]
  if (choices.length > 0) return listed([...new Set(choices.map((choice) => describe(choice, root)))])
  const merged = wholeOf(found, root)
  const what = listed([...typesOf(merged, root)].map((type) => articles[type] ?? type))
  const above = told(numberOf(merged["minimum"])), below = told(numberOf(merged["maximum"]))
  const over = numberOf(merged["exclusiveMinimum"]), under = numberOf(merged["exclusiveMaximum"])
  const least = numberOf(merged["minLength"]), most = numberOf(merged["maxLength"])
  const pattern = merged["pattern"]
  const bounds = [
    ...(above !== undefined && below !== undefined
      ? [`from ${above} to ${below}`]
      : above !== undefined
      ? [`from ${above} on`]
      : below !== undefined
      ? [`up to ${below}`]
      : []),
    ...(over === undefined ? [] : [`above ${over}`]),
    ...(under === undefined ? [] : [`below ${under}`]),
    ...(least === undefined && most === undefined
      ? []
      : [`of ${lengthBounds(least, most, (most ?? least) === 1 ? "character" : "characters")}`]),
    ...(typeof pattern === "string" ? [`that matches ${pattern}`] : [])
  ]
  return [what, ...bounds].join(" ")
}

const characters = (text: string) => [...text].length

const patternOf = (pattern: unknown): RegExp | undefined => {
  if (typeof pattern !== "string") return undefined
  try {
    return new RegExp(pattern, "u")
  } catch {
    return undefined
  }
}

const outside = (value: number, node: Node) => {
  const least = numberOf(node["minimum"]) ?? -Infinity, most = numberOf(node["maximum"]) ?? Infinity
  const over = numberOf(node["exclusiveMinimum"]) ?? -Infinity, under = numberOf(node["exclusiveMaximum"]) ?? Infinity
  const step = numberOf(node["multipleOf"])
  return value < least || value > most || value <= over || value >= under ||
    (step !== undefined && step > 0 && !Number.isInteger(value / step))
}

const checkString = (text: string, node: Node): boolean => {
  const length = characters(text)
  const pattern = patternOf(node["pattern"])
  return length >= (numberOf(node["minLength"]) ?? 0) && length <= (numberOf(node["maxLength"]) ?? Infinity) &&
    (pattern === undefined || pattern.test(text))
}

const schemaOf = (value: unknown): Node => value === false ? { not: {} } : isObject(value) ? value : {}

const checkArray = (items: ReadonlyArray<unknown>, node: Node, root: Node, path: ReadonlyArray<string>) => {
  const least = numberOf(node["minItems"]), most = numberOf(node["maxItems"])
  const own: Array<Problem> = []
  if (items.length < (least ?? 0) || items.length > (most ?? Infinity)) {
    own.push({ path, expected: lengthBounds(least, most, "items") })
  }
  if (node["uniqueItems"] === true && items.some((item, at) => items.slice(0, at).some((other) => same(item, other)))) {
    own.push({ path, expected: "each item once" })
  }
  const first = Array.isArray(node["prefixItems"]) ? node["prefixItems"] : []
  return [
    ...own,
    ...items.flatMap((item, at) =>
      check(item, schemaOf(at < first.length ? first[at] : node["items"]), root, [...path, String(at)])
    )
  ]
}

const checkObject = (value: Node, node: Node, root: Node, path: ReadonlyArray<string>) => {
  const properties = isObject(node["properties"]) ? node["properties"] : {}
  const patterns = Object.entries(isObject(node["patternProperties"]) ? node["patternProperties"] : {})
  const keys = Object.keys(value)
  const least = numberOf(node["minProperties"]), most = numberOf(node["maxProperties"])
  const names = node["propertyNames"]
  return [
    ...textsOf(node["required"]).flatMap((name): ReadonlyArray<Problem> =>
      Object.hasOwn(value, name)
        ? []
        : [{ path: [...path, name], expected: describe(schemaOf(properties[name]), root) }]
    ),
    ...(keys.length < (least ?? 0) || keys.length > (most ?? Infinity)
      ? [{ path, expected: lengthBounds(least, most, "entries") }]
      : []),
    ...keys.flatMap((key) => {
      const own = Object.hasOwn(properties, key) ? [properties[key]] : []
      const matching = patterns.flatMap(([pattern, part]) => patternOf(pattern)?.test(key) === true ? [part] : [])
      const parts = [...own, ...matching]
      const found = parts.length > 0 ? parts : [node["additionalProperties"]]
      return [
        ...(isObject(names) && check(key, names, root, []).length > 0
          ? [{ path: [...path, key], expected: `a name that is ${describe(names, root)}` }]
          : []),
        ...found.flatMap((part) => check(value[key], schemaOf(part), root, [...path, key]))
      ]
    })
  ]
}

/** Everything that is wrong with the value; nothing if it is right. */
export const check = (
  value: unknown,
  node: Node,
  root: Node,
  path: ReadonlyArray<string> = []
): ReadonlyArray<Problem> => {
  const found = resolve(node, root)
  const wrong = (): ReadonlyArray<Problem> => [{ path, expected: describe(found, root) }]
  if (isObject(found["not"]) && Object.keys(found["not"]).length === 0) {
    return [{ path, expected: "nothing of that name" }]
  }
  const types = textsOf(found["type"])
  if (types.length > 0 && !hasType(value, types)) return wrong()
  const values = found["enum"]
  if (Array.isArray(values) && !values.some((each) => same(each, value))) return wrong()
  if ("const" in found && !same(found["const"], value)) return wrong()
  const any = nodesOf(found["anyOf"])
  const one = nodesOf(found["oneOf"])
  const misses = (choice: Node) => check(value, choice, root, path)
  if (any.length > 0) {
    const tries = any.map(misses)
    if (!tries.some((problems) => problems.length === 0)) return nearest(tries, any, value, root) ?? wrong()
  }
  if (one.length > 0 && one.filter((choice) => misses(choice).length === 0).length !== 1) return wrong()
  const all = nodesOf(found["allOf"]).flatMap(misses)
  // A part's own words are not the whole of what the value should be.
  if (all.some((problem) => problem.path.length === path.length)) return wrong()
  if (typeof value === "string" && !checkString(value, found)) return wrong()
  if (typeof value === "number" && outside(value, found)) return wrong()
  if (Array.isArray(value)) return [...all, ...checkArray(value, found, root, path)]
  if (isObject(value)) return [...all, ...checkObject(value, found, root, path)]
  return all
}

/** Of several choices the only one of the value's type: what is wrong with it says more than that none fits. */
const nearest = (
  tries: ReadonlyArray<ReadonlyArray<Problem>>,
  choices: ReadonlyArray<Node>,
  value: unknown,
  root: Node
): ReadonlyArray<Problem> | undefined => {
  const close = tries.filter((_, at) => hasType(value, [...typesOf(choices[at] ?? {}, root)]))
  return close.length === 1 ? close[0] : undefined
}
