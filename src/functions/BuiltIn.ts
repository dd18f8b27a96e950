/** The functions that come with Stoker. */
import type { Definition } from "../schemas/Function.ts"
import { code } from "./Code.ts"
import { command } from "./Command.ts"
import { evalFunction } from "./Eval.ts"
import { fib } from "./Fib.ts"
import { noop } from "./Noop.ts"
import { wait } from "./Wait.ts"

/** All of them, each once. */
export const builtIns: ReadonlyArray<Definition> = [code, command, noop, fib, evalFunction, wait]
