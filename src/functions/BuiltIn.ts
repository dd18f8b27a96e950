/** The functions that come with Stoker. */
import type { Definition } from "../schemas/Function.ts"
import { code } from "./Code.ts"
import { command } from "./Command.ts"
import { hosted } from "./Hosted.ts"

/** All of them, each once. */
export const builtIns: ReadonlyArray<Definition> = [code, command, ...hosted]
