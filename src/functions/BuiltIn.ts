/** The functions that come with Stoker. */
import type { Definition } from "../schemas/Function.ts"
import { code } from "./Code.ts"
import { command } from "./Command.ts"
import { container } from "./Container.ts"
import { hosted } from "./Hosted.ts"

/** Those that run whatever a job brings; a worker of no others makes no function host ready, which takes a while. */
export const programs: ReadonlyArray<Definition> = [code, command, container]

/** All of them, each once. */
export const builtIns: ReadonlyArray<Definition> = [...programs, ...hosted]
