/** The built-in functions with a handler: the function host that comes with the package has them. */
import type { Definition } from "../schemas/Function.ts"

export const hosted: ReadonlyArray<Definition> = []
