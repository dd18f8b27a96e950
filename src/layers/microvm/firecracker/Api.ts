/** The asking side of Firecracker's API: HTTP over a unix socket in a jail. What answers may be under a guest's control. */
import { Effect, Schema } from "effect"
import { request } from "node:http"
import { codeOf, textOf } from "../../host/Errno.ts"
import { socketAddress } from "../../host/SocketAddress.ts"
import { type Call, Fault, InstanceInfo } from "./Requests.ts"

/** More is no answer of Firecracker's, in bytes: the longest that we ask for has some hundred. */
const MOST_ANSWER_BYTES = 65_536

/** Of a refusal's text, in characters. */
const MOST_TOLD = 1000

/** Between two looks whether the socket is there: it takes some ten milliseconds after the process began. */
const PAUSE = "5 millis"

/** A call that did not do what it should. */
export class ApiError extends Schema.TaggedError<ApiError>()("ApiError", {
  /** `PUT /drives/rootfs` */
  call: Schema.String,
  /** `refused`: Firecracker said why. `silent`: no answer in time. `gone`: no connection, or it broke. `garbage`: no HTTP of Firecracker's. */
  kind: Schema.Literals(["refused", "silent", "gone", "garbage"]),
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.call}: ${this.reason}`
  }
}

interface Answer {
  readonly status: number
  readonly body: string
}

const send = (socketPath: string, method: string, path: string, body: string | undefined) =>
  Effect.callback<Answer, ApiError>((resume) => {
    const name = `${method} ${path}`
    const fail = (kind: ApiError["kind"], reason: string, cause?: unknown) =>
      resume(Effect.fail(new ApiError({ call: name, kind, reason, ...(cause === undefined ? {} : { cause }) })))
    const headers = body === undefined
      ? { host: "localhost", accept: "application/json" }
      : {
        host: "localhost",
        accept: "application/json",
        "content-type": "application/json",
        "content-length": Buffer.byteLength(body)
      }
    const asking = request({ socketPath, method, path, headers, agent: false }, (response) => {
      const chunks: Array<Buffer> = []
      let bytes = 0
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes <= MOST_ANSWER_BYTES) return void chunks.push(chunk)
        fail("garbage", `the answer is longer than ${MOST_ANSWER_BYTES} bytes`)
        asking.destroy()
      })
      response.once("error", (cause) => fail("gone", `the answer broke off: ${textOf(cause)}`, cause))
      response.once(
        "end",
        () => resume(Effect.succeed({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }))
      )
    })
    asking.on("error", (cause) =>
      codeOf(cause).startsWith("HPE_")
        ? fail("garbage", `the answer is no HTTP: ${textOf(cause)}`, cause)
        : fail("gone", textOf(cause), cause))
    asking.end(body)
    return Effect.sync(() => void asking.destroy())
  })

const decodeFault = Schema.decodeUnknownOption(Schema.fromJsonString(Fault))
const decodeInfo = Schema.decodeUnknownEffect(Schema.fromJsonString(InstanceInfo))

const unexpected = (name: string, { body, status }: Answer) => {
  const fault = decodeFault(body)
  return fault._tag === "Some"
    ? new ApiError({ call: name, kind: "refused", reason: fault.value.fault_message.slice(0, MOST_TOLD) })
    : new ApiError({
      call: name,
      kind: "garbage",
      reason: `the answer is status ${status} with ${JSON.stringify(body.slice(0, 200))}`
    })
}

export interface Api {
  /** Waits until it answers at all. Fails as `silent` after the limit, and at once where what answers is not Firecracker. */
  readonly up: (limitMs: number) => Effect.Effect<InstanceInfo, ApiError>
  /** One call; the limit is for its whole answer. */
  readonly call: (call: Call, limitMs: number) => Effect.Effect<void, ApiError>
}

/** That of the socket in a folder, which may lie deeper than a socket's path can say. */
export const make = (folder: string, name: string): Api => {
  const asked = (method: string, path: string, limitMs: number, body?: string) =>
    Effect.scoped(Effect.flatMap(
      Effect.mapError(socketAddress(folder, name), ({ cause }) =>
        new ApiError({ call: `${method} ${path}`, kind: "gone", reason: textOf(cause), cause })),
      (address) =>
        send(address, method, path, body)
    )).pipe(
      Effect.timeoutOrElse({
        duration: limitMs,
        orElse: () =>
          Effect.fail(
            new ApiError({ call: `${method} ${path}`, kind: "silent", reason: `no answer within ${limitMs} ms` })
          )
      })
    )

  const info = (limitMs: number) =>
    Effect.flatMap(asked("GET", "/", limitMs), (answer) =>
      answer.status === 200
        ? Effect.mapError(
          decodeInfo(answer.body),
          (cause) =>
            new ApiError({ call: "GET /", kind: "garbage", reason: `the answer says nothing of a machine`, cause })
        )
        : Effect.fail(unexpected("GET /", answer)))

  return {
    up: (limitMs) => {
      const look: Effect.Effect<InstanceInfo, ApiError> = Effect.catchIf(
        info(limitMs),
        ({ kind }) => kind === "gone",
        () => Effect.andThen(Effect.sleep(PAUSE), look)
      )
      return look.pipe(
        Effect.timeoutOrElse({
          duration: limitMs,
          orElse: () =>
            Effect.fail(
              new ApiError({ call: "GET /", kind: "silent", reason: `nothing listens within ${limitMs} ms` })
            )
        })
      )
    },
    call: ({ body, method, path }, limitMs) =>
      Effect.flatMap(asked(method, path, limitMs, body), (answer) =>
        answer.status === 204 && answer.body === ""
          ? Effect.void
          : Effect.fail(unexpected(`${method} ${path}`, answer)))
  }
}
