/** What a module of functions gives: every definition among its exports, and those of a default list. */
import type { Definition } from "../schemas/Function.ts"

const isDefinition = (value: unknown): value is Definition =>
  typeof value === "object" && value !== null && "name" in value && typeof value.name === "string" &&
  "args" in value && "check" in value && typeof value.check === "function" &&
  "program" in value && typeof value.program === "function"

/** Each once, in the order of the exports' names. What is no definition is somebody's helper. */
export const definitionsOf = (module: Readonly<Record<string, unknown>>): ReadonlyArray<Definition> => {
  const { default: standard, ...named } = module
  const listed: ReadonlyArray<unknown> = Array.isArray(standard) ? standard : [standard]
  return [...new Set([...Object.values(named), ...listed].filter(isDefinition))]
}
