/** The life of a worker in a process of its own, for tests that end it: says `up`, drains at SIGTERM, fails with its words. */
import { Effect, Layer, Logger } from "effect"
import * as Worker from "../../src/actors/Worker.ts"

export const serve = <E, R>(worker: Layer.Layer<Worker.Worker | R, E>): void => {
  const program = Effect.gen(function*() {
    const { drain, failure } = yield* Worker.Worker
    process.stdout.write("up\n")
    const signalled = Effect.callback<void>((resume) => {
      process.once("SIGTERM", () => resume(Effect.void))
    })
    yield* Effect.raceFirst(failure, signalled)
    yield* drain
  }).pipe(Effect.provide(Layer.provideMerge(worker, Logger.layer([Logger.consoleLogFmt]))))
  Effect.runPromise(program).then(
    () => process.exit(0),
    (error: unknown) => {
      process.stderr.write(`${String(error)}\n`)
      process.exit(1)
    }
  )
}
