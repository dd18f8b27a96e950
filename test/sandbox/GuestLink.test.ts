/** What a job can do to the worker's memory by what it writes. */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { PassThrough } from "node:stream"
import * as GuestLink from "../../src/layers/sandbox/GuestLink.ts"

const STARTED = 0x84
const STDOUT = 0x85
const EXITED = 0x87

const frame = (type: number, seq: number, payload: Uint8Array) => {
  const head = Buffer.alloc(9)
  head.writeUInt32LE(payload.length, 0)
  head[4] = type
  head.writeUInt32LE(seq, 5)
  return Buffer.concat([head, payload])
}

it.live(
  "single bytes of output pause the guest as their cost in memory demands, and all of them arrive",
  () =>
    Effect.gen(function*() {
      const output = new PassThrough({ highWaterMark: 4 * 1024 * 1024 })
      const input = new PassThrough()
      input.resume()
      const link = GuestLink.make("test", input, output)
      const request = {
        cwd: "",
        argv: ["x"],
        env: {},
        limits: { fileBytes: 4096, openFiles: 16, stackBytes: 65_536, cpuSeconds: 1 }
      } as const
      const bytes = 100_000
      let taken = 0
      let open: () => void = () => {}
      const opened = new Promise<void>((resolve) => {
        open = resolve
      })
      const running = yield* link.run(request, new Uint8Array()).pipe(
        // Nobody takes anything until we say so.
        Stream.runForEach((event) =>
          Effect.andThen(Effect.promise(() => opened), Effect.sync(() => event._tag === "Output" && (taken += 1)))
        ),
        Effect.forkChild({ startImmediately: true })
      )
      const piece = frame(STDOUT, 1, Buffer.from("x"))
      output.write(frame(STARTED, 1, Buffer.from([7, 0, 0, 0])))
      // In chunks as a socket gives them, so that a pause takes effect between two.
      for (let sent = 0; sent < bytes; sent += 1000) {
        output.write(Buffer.concat(Array.from({ length: 1000 }, () => piece)))
      }
      output.write(frame(EXITED, 1, Buffer.alloc(37)))
      while (output.readableFlowing !== false) yield* Effect.sleep(5)
      // What waits in the stream has not become objects.
      assert.isAbove(output.readableLength, 9 * bytes)
      open()
      yield* Fiber.join(running)
      assert.strictEqual(taken, bytes)
    }),
  20_000
)
