/** The asking side of a worker's admin socket. */
import { Effect, Result, Schema } from "effect"
import { request } from "node:http"
import { Refused } from "../../schemas/Operation.ts"
import { textOf } from "../host/Errno.ts"
import { socketAddress } from "../host/SocketAddress.ts"
import { type Route, socketName } from "./AdminSocket.ts"

/** No answer: the worker has ended, is stopped, or is no worker at all. */
export class WorkerSilent extends Schema.TaggedError<WorkerSilent>()("WorkerSilent", { reason: Schema.String }) {
  override get message() {
    return `the worker gave no answer: ${this.reason}`
  }
}

/** The worker did not do what it was asked. */
export class WorkerRefused extends Schema.TaggedError<WorkerRefused>()("WorkerRefused", {
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.reason}. ${this.remedy}`
  }
}

interface Said {
  readonly code: number
  readonly body: string
}

const send = (socketPath: string, route: Route, body: string | undefined) =>
  Effect.callback<Said, WorkerSilent>((resume) => {
    const [method = "GET", path = "/"] = route.split(" ")
    const asking = request({ socketPath, method, path, headers: { host: "stoker" } }, (response) => {
      const chunks: Array<Buffer> = []
      response.on("data", (chunk: Buffer) => chunks.push(chunk))
      response.once(
        "end",
        () => resume(Effect.succeed({ code: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }))
      )
    })
    asking.on("error", (cause) => resume(Effect.fail(new WorkerSilent({ reason: textOf(cause) }))))
    asking.end(body)
    return Effect.sync(() => void asking.destroy())
  })

const decodeRefused = Schema.decodeUnknownResult(Schema.fromJsonString(Refused))

/** Asks the worker whose instance directory that is, and decodes its answer. */
export const ask = Effect.fnUntraced(function*<A>(
  folder: string,
  route: Route,
  answer: Schema.Codec<A, unknown>,
  options: { readonly body?: string; readonly limitMs?: number } = {}
) {
  const path = yield* socketAddress(folder, socketName).pipe(
    Effect.mapError(({ cause }) => new WorkerSilent({ reason: textOf(cause) }))
  )
  const limitMs = options.limitMs ?? 5000
  const { body, code } = yield* send(path, route, options.body).pipe(
    Effect.timeoutOrElse({
      duration: limitMs,
      orElse: () => Effect.fail(new WorkerSilent({ reason: `nothing within ${limitMs} ms` }))
    })
  )
  const refusal = code >= 400 ? decodeRefused(body) : undefined
  if (refusal !== undefined && Result.isSuccess(refusal)) return yield* new WorkerRefused(refusal.success)
  return yield* Schema.decodeUnknownEffect(Schema.fromJsonString(answer))(body).pipe(
    Effect.mapError(({ message }) => new WorkerSilent({ reason: `its answer cannot be read: ${message}` }))
  )
}, Effect.scoped)
