/** What modules of functions find as `stoker` where they run: the words a function is made of, and nothing of a worker. */
export * as Function from "../schemas/Function.ts"
export * as Ids from "../schemas/Ids.ts"
export * as Limits from "../schemas/Limits.ts"
export * as Program from "../schemas/Program.ts"
