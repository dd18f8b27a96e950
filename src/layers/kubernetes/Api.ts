/** HTTP with one API server: requests with a deadline, bodies that stream, and what its answers mean. */
import { Effect, Schema, type Scope, Stream } from "effect"
import * as http from "node:http"
import * as https from "node:https"
import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls"
import type { ApiAccess } from "./ApiAccess.ts"
import { KubernetesError, type Trouble } from "./Kubernetes.ts"
import { Status } from "./Objects.ts"

/** One request. */
export interface Ask {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE"
  /** With its query. */
  readonly path: string
  readonly body?: object
  readonly contentType?: string
  /** What it is for, in RBAC's words: `create jobs`. */
  readonly verb: string
  readonly resource: string
}

export interface Api {
  /** The answer's JSON. */
  readonly ask: (request: Ask) => Effect.Effect<unknown, KubernetesError>
  /** The answer's body as it comes, until the scope closes. Fails when nothing comes for `idleMs`, if that is given. */
  readonly open: (
    request: Ask,
    idleMs?: number
  ) => Effect.Effect<Stream.Stream<Uint8Array, KubernetesError>, KubernetesError, Scope.Scope>
  /** A failure of our own with what its answer was. */
  readonly odd: (request: Ask, reason: string) => KubernetesError
}

/** A plain answer takes milliseconds; one that takes this long does not come. */
const ANSWER_MS = 30_000
/** Connections for plain requests: more wait their turn. */
const MOST_CONNECTIONS = 32
/** Of an answer that says why not. */
const MOST_REASON = 64 * 1024

const decodeStatus = Schema.decodeUnknownOption(Schema.fromJsonString(Status))

const troubleOf = (code: number): Trouble => {
  switch (code) {
    case 401:
      return "unauthorized"
    case 403:
      return "forbidden"
    case 404:
      return "absent"
    case 409:
      return "conflict"
    case 410:
      return "expired"
    case 429:
      return "busy"
    default:
      return code >= 500 ? "busy" : "invalid"
  }
}

const remedies: Readonly<Record<Trouble, string>> = {
  unreachable: "Check the API server's address and that it can be reached from here; it is tried again.",
  unauthorized: "Check the account's token or certificate; `kubectl auth whoami` shows what the server makes of it.",
  forbidden: "Give the worker's account the rights docs/kubernetes.md lists.",
  absent: "Check that the namespace exists, and that nobody else deletes what Stoker makes.",
  conflict: "Somebody else changed it; it is tried again.",
  invalid: "Check the job's image, names and limits, and the namespace's policies.",
  expired: "It is read anew.",
  busy: "The API server is overloaded or faulty; it is tried again.",
  configuration: "Check the class's `cluster`."
}

/** One server's API, in the caller's scope. */
export const make = Effect.fnUntraced(function*(access: ApiAccess) {
  const { namespace, rejectUnauthorized, server, servername } = access
  const isPlain = server.protocol === "http:"
  const agentOf = (maxSockets: number) =>
    isPlain
      ? new http.Agent({ keepAlive: true, maxSockets })
      : new https.Agent({ keepAlive: true, maxSockets, minVersion: "TLSv1.2" })
  const [brief, lasting] = [agentOf(MOST_CONNECTIONS), agentOf(Number.POSITIVE_INFINITY)]
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      brief.destroy()
      lasting.destroy()
    })
  )

  // Made once for all connections: each would read authority and key again, and hold them.
  let secured: { readonly by: string; readonly context: SecureContext } | undefined
  const secureContext = (tls: SecureContextOptions) => {
    const by = [tls.ca, tls.cert, tls.key].map(String).join("\n")
    if (secured?.by !== by) secured = { by, context: createSecureContext({ ...tls, minVersion: "TLSv1.2" }) }
    return secured.context
  }

  const failure = (request: Ask, trouble: Trouble, reason: string, code?: number) => {
    const operation = `${request.verb} ${request.resource} in namespace ${namespace}`
    return new KubernetesError({
      trouble,
      operation,
      ...(code === undefined ? {} : { code }),
      reason,
      remedy: trouble === "forbidden"
        ? `Allow ${access.account} to ${operation} (a Role with verb ${request.verb} on ${request.resource}); ` +
          "docs/kubernetes.md has all that is needed."
        : remedies[trouble]
    })
  }

  /** Connects and sends; done with the head of the answer. */
  const send = (request: Ask, agent: http.Agent | https.Agent, anew: boolean) =>
    Effect.callback<http.IncomingMessage, KubernetesError>((resume) => {
      let sent: http.ClientRequest | undefined
      let isOver = false
      const fail = (cause: unknown) => {
        const text = cause instanceof AggregateError ? cause.errors.map(String).join("; ") : String(cause)
        resume(Effect.fail(failure(request, "unreachable", text.replace(/^Error: /, ""))))
      }
      const begin = async () => {
        const { agent: own, headers, ...tls } = await access.credentials(anew)
        if (isOver) return
        const body = request.body === undefined ? undefined : Buffer.from(JSON.stringify(request.body))
        const options: https.RequestOptions = {
          method: request.method,
          host: server.hostname.replace(/^\[|\]$/g, ""),
          port: server.port === "" ? (isPlain ? 80 : 443) : server.port,
          path: server.pathname.replace(/\/$/, "") + request.path,
          agent: own ?? agent,
          headers: {
            accept: "application/json",
            "user-agent": "stoker",
            ...headers,
            ...(body === undefined
              ? {}
              : { "content-type": request.contentType ?? "application/json", "content-length": body.length })
          },
          ...(isPlain ? {} : {
            ...(own === undefined ? { secureContext: secureContext(tls) } : {}),
            rejectUnauthorized,
            ...(servername === undefined ? {} : { servername })
          })
        }
        sent = (isPlain ? http : https).request(options)
        sent.once("response", (response) => resume(Effect.succeed(response)))
        // Also after the answer began: nobody listens there any more, and an unheard error would end the process.
        sent.on("error", fail)
        sent.end(body)
      }
      begin().catch(fail)
      return Effect.sync(() => {
        isOver = true
        sent?.destroy()
      })
    }).pipe(Effect.timeoutOrElse({
      duration: ANSWER_MS,
      orElse: () => Effect.fail(failure(request, "unreachable", `no answer within ${ANSWER_MS / 1000} s`))
    }))

  const whole = (request: Ask, response: http.IncomingMessage, most: number) =>
    Effect.callback<string, KubernetesError>((resume) => {
      const parts: Array<Buffer> = []
      let length = 0
      response.on("data", (part: Buffer) => {
        if (length < most) parts.push(part)
        length += part.length
      })
      response.once("end", () => resume(Effect.succeed(Buffer.concat(parts).toString())))
      const broken = (cause: unknown) => resume(Effect.fail(failure(request, "unreachable", String(cause))))
      response.once("error", broken)
      response.once("close", () => broken("the connection broke in the middle of an answer"))
      return Effect.sync(() => response.destroy())
    }).pipe(Effect.timeoutOrElse({
      duration: ANSWER_MS,
      orElse: () => {
        response.destroy()
        return Effect.fail(failure(request, "unreachable", `half an answer within ${ANSWER_MS / 1000} s`))
      }
    }))

  const refusal = Effect.fnUntraced(function*(request: Ask, response: http.IncomingMessage) {
    const code = response.statusCode ?? 0
    const text = yield* whole(request, response, MOST_REASON)
    const status = decodeStatus(text)
    const said = status._tag === "Some" ? status.value.message ?? status.value.reason : undefined
    return failure(request, troubleOf(code), said ?? `HTTP ${code}: ${text.slice(0, 200)}`, code)
  })

  /** A good answer's head. A token that is refused is read again, once: it may have been replaced. */
  const answered = Effect.fnUntraced(function*(request: Ask, agent: http.Agent | https.Agent) {
    for (const anew of [false, true]) {
      const response = yield* send(request, agent, anew)
      const code = response.statusCode ?? 0
      if (code >= 200 && code < 300) return response
      const error = yield* refusal(request, response)
      if (error.trouble !== "unauthorized" || anew) return yield* error
    }
    return yield* Effect.die("the second answer was returned")
  })

  const ask = Effect.fnUntraced(function*(request: Ask) {
    const response = yield* answered(request, brief)
    const text = yield* whole(request, response, Number.POSITIVE_INFINITY)
    return yield* Effect.try({
      try: (): unknown => JSON.parse(text),
      catch: () => failure(request, "busy", `its answer is no JSON: ${text.slice(0, 200)}`)
    })
  })

  const open = Effect.fnUntraced(function*(request: Ask, idleMs?: number) {
    const response = yield* Effect.acquireRelease(
      answered(request, lasting),
      (response) => Effect.sync(() => response.destroy()),
      { interruptible: true }
    )
    if (idleMs !== undefined) {
      response.setTimeout(idleMs, () => response.destroy(new Error(`silence for ${Math.round(idleMs / 1000)} s`)))
    }
    return Stream.fromAsyncIterable<Uint8Array, KubernetesError>(
      response,
      (cause) => failure(request, "unreachable", String(cause).replace(/^Error: /, ""))
    )
  })

  const api: Api = { ask, open, odd: (request, reason) => failure(request, "busy", reason) }
  return api
})
