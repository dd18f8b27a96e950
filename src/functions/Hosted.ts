/** The built-in functions with a handler: the function host that comes with the package has them, and nothing more. */
import type { Definition } from "../schemas/Function.ts"
import { evalFunction } from "./Eval.ts"
import { fib } from "./Fib.ts"
import { noop } from "./Noop.ts"
import { wait } from "./Wait.ts"

export const hosted: ReadonlyArray<Definition> = [noop, fib, evalFunction, wait]
