/**
 * The function host: the program inside a sandbox that carries out one call. It is bundled with the functions, reads one
 * invocation from its standard input, and ends. Its module imports nothing of the worker.
 */
import { Cause, Effect, Exit, Schema } from "effect"
import { readFileSync, writeSync } from "node:fs"
import { type Definition, make } from "../schemas/Function.ts"
import { definitionsOf } from "./FunctionModules.ts"
import { type HostInvocation, readyMark } from "./Invocation.ts"

type Modules = ReadonlyArray<Readonly<Record<string, unknown>>>

const STDIN = 0
const STDOUT = 1
const STDERR = 2

/** As shells tell a SIGTERM. */
const TERMINATED = 143

/** Returns when all of it is in the pipe: the process may end after it. */
const write = (descriptor: number, text: string) => {
  const bytes = Buffer.from(text)
  let at = 0
  while (at < bytes.length) {
    try {
      at += writeSync(descriptor, bytes, at)
    } catch (error) {
      // A handler's own use of process.stdout may have made the pipe one that does not wait.
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    }
  }
}

const textOf = (error: unknown): string => {
  if (typeof error === "string") return error
  if (error instanceof Error && error.message !== "") return error.message
  try {
    return JSON.stringify(error) ?? String(error)
  } catch {
    return String(error)
  }
}

/** A failure is the function's own word and told as such; a defect is a bug, told with where it is. */
const explain = (name: string, cause: Cause.Cause<unknown>): string => {
  const failure = cause.reasons.find(Cause.isFailReason)
  return `${name}: ${failure === undefined ? Cause.pretty(cause) : textOf(failure.error)}\n`
}

/** `[RESULT] …`, or nothing. Throws for what is no JSON. */
const resultOf = (value: unknown): string => {
  const text = typeof value === "string" ? value : JSON.stringify(value)
  return text === undefined ? "" : `[RESULT] ${text}\n`
}

/** Decodes the arguments, runs the handler; what it gives back, as it is told. */
const carry = Effect.fnUntraced(function*(definition: Definition, { args, attempt, id, owner }: HostInvocation) {
  const { handler, name } = definition
  if (handler === undefined) return yield* Effect.fail(`${name} has no handler`)
  const decode = Schema.decodeUnknownEffect(definition.args as Schema.Codec<never, unknown>, { errors: "all" })
  const decoded = yield* decode(args)
  const tag = `[${name.toUpperCase()}] `
  const say = (line: string) => Effect.sync(() => write(STDOUT, `${tag}${line}\n`))
  return resultOf(yield* handler(decoded, { id, owner, attempt, say }))
})

/** What a SIGTERM does. Heard from the start: one may come with a call's first word. */
let terminate = (): void => process.exit(TERMINATED)

/** Ends the process with the call's end. */
const perform = (definition: Definition, invocation: HostInvocation) => {
  const fiber = Effect.runFork(carry(definition, invocation))
  terminate = () => fiber.interruptUnsafe()
  // Nothing is left that could wake the handler: without a word this would look like a success.
  process.once("beforeExit", () => {
    write(STDERR, `${definition.name}: its handler waits for something that never comes\n`)
    process.exit(1)
  })
  fiber.addObserver((exit) => {
    if (Exit.isSuccess(exit)) {
      write(STDOUT, exit.value)
      process.exit(0)
    }
    if (Cause.hasInterruptsOnly(exit.cause)) process.exit(TERMINATED)
    write(STDERR, explain(definition.name, exit.cause))
    process.exit(1)
  })
}

/** A call that does nothing, so that the first one finds compiled what it needs. */
const rehearse = async () => {
  const definition = make({
    name: "rehearsal",
    description: "does nothing.",
    args: Schema.Struct({ text: Schema.String, number: Schema.optionalKey(Schema.Int) }),
    handler: ({ text }) => Effect.as(Effect.void, text === "" ? undefined : {})
  })
  const invocation = { function: definition.name, args: { text: "" }, id: "", owner: "", attempt: 1 }
  await Effect.runPromise(carry(definition, invocation))
}

/** Reads the one invocation, carries it out, ends the process. `waits`: somebody waits to hear that it is ready. */
export const serve = async (modules: Modules, waits: boolean): Promise<void> => {
  const definitions = new Map(modules.flatMap(definitionsOf).map((definition) => [`${definition.name}`, definition]))
  process.on("SIGTERM", () => terminate())
  if (waits) {
    await rehearse()
    write(STDOUT, readyMark)
  }
  // Waits without an event loop: nothing of a module runs meanwhile.
  const invocation: HostInvocation = JSON.parse(readFileSync(STDIN, "utf8"))
  const definition = definitions.get(invocation.function)
  if (definition === undefined) {
    write(STDERR, `there is no function ${invocation.function} in this worker's bundle\n`)
    process.exit(1)
  }
  perform(definition, invocation)
}

/** What the modules define, for whoever tries the bundle: one list of names for each. */
export const describe = async (modules: Modules) => {
  await rehearse()
  return modules.map((module) => definitionsOf(module).map(({ name }) => `${name}`))
}
