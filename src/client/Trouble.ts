/**
 * Why a connection does not come about, in words. gRPC and HTTP clients say little and each something else, so the way
 * there is tried once more by itself: name, TCP, TLS, and whether the server takes our certificate.
 */
import { Clock, Effect } from "effect"
import { X509Certificate } from "node:crypto"
import { connect, createSecureContext } from "node:tls"
import { ConnectionError, type ConnectionProblem } from "./StokerClient.ts"
import type { Target } from "./Target.ts"

interface Words {
  readonly problem: ConnectionProblem
  readonly reason: string
  readonly remedy: string
}

const words = (problem: ConnectionProblem, reason: string, remedy: string): Words => ({ problem, reason, remedy })

/** Ours first: errors of a handshake hardly tell whose certificate they mean. */
const ourCertificate = ({ cert, key }: Target["credentials"], nowMs: number): Words | undefined => {
  if (cert === undefined) return undefined
  try {
    const { validFrom, validTo } = new X509Certificate(cert)
    createSecureContext({ cert, ...(key === undefined ? {} : { key }) })
    if (Date.parse(validTo) < nowMs) {
      return words(
        "client-certificate",
        `your certificate expired on ${validTo}`,
        "Have it renewed: stoker certs renew."
      )
    }
    if (Date.parse(validFrom) > nowMs) {
      return words(
        "client-certificate",
        `your certificate is valid from ${validFrom} on`,
        "Check this machine's clock."
      )
    }
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error)
    return /key values mismatch/i.test(text)
      ? words(
        "credentials",
        "your key does not belong to your certificate",
        "Name the two files that were issued together."
      )
      : words(
        "credentials",
        `your certificate or key cannot be used: ${text}`,
        "Both are PEM files, as stoker certs issue writes them."
      )
  }
  return undefined
}

const codeOf = (error: unknown) =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : ""

/** What Node and OpenSSL say, in words. */
const meanings: ReadonlyArray<readonly [pattern: RegExp, words: (target: Target, text: string) => Words]> = [
  [
    /ECONNREFUSED/,
    () =>
      words("unreachable", "nobody listens there", "Check the address, and that the worker runs with this door open.")
  ],
  [
    /ENOTFOUND|EAI_AGAIN/,
    ({ address }) =>
      words(
        "unreachable",
        `the name ${address.host} is not known`,
        "Check the address, and the name service of this machine."
      )
  ],
  [
    /ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|EADDRNOTAVAIL|TIMEOUT/,
    () =>
      words(
        "unreachable",
        "nothing answers there",
        "Check the address, the network, and firewalls between you and the worker."
      )
  ],
  [
    /CERT_HAS_EXPIRED/,
    () =>
      words(
        "server-certificate",
        "the server's certificate has expired",
        "Have its operator renew it: stoker certs renew."
      )
  ],
  [
    /CERT_NOT_YET_VALID/,
    () =>
      words(
        "server-certificate",
        "the server's certificate is not valid yet",
        "Check the clocks of this machine and of the server."
      )
  ],
  [/ERR_TLS_CERT_ALTNAME_INVALID/, ({ address }) =>
    words(
      "server-certificate",
      `the server's certificate is not for ${address.host}`,
      "Use the name or address it was issued for, or have it issued for this one: stoker certs issue --host."
    )],
  [
    /SELF_SIGNED|UNABLE_TO_VERIFY|UNABLE_TO_GET_ISSUER|CERT_SIGNATURE_FAILURE|CERT_UNTRUSTED|INVALID_CA|CERT_CHAIN/,
    ({ credentials }) =>
      credentials.ca === undefined
        ? words(
          "server-certificate",
          "the server's certificate is signed by nobody this machine trusts",
          "Name the CA that signed it: --ca."
        )
        : words(
          "server-certificate",
          "the server's certificate is not signed by your CA",
          "Name the CA that signed it: --ca."
        )
  ],
  [/CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE/, ({ credentials }) =>
    credentials.cert === undefined
      ? words(
        "client-certificate",
        "the server wants a certificate, and you show none",
        "Name yours: --cert and --key."
      )
      : words(
        "client-certificate",
        "the server does not take your certificate",
        "Have one issued by its CA: stoker certs issue."
      )],
  [
    /ALERT_CERTIFICATE_EXPIRED/,
    () =>
      words(
        "client-certificate",
        "the server says that your certificate has expired",
        "Have it renewed: stoker certs renew."
      )
  ],
  [
    /ALERT_(?:UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE|DECRYPT|ACCESS)|UNSUPPORTED_CERTIFICATE/,
    () =>
      words(
        "client-certificate",
        "the server does not believe your certificate",
        "Have one issued by its CA: stoker certs issue."
      )
  ],
  [
    /TURNED_AWAY/,
    ({ credentials }) =>
      credentials.cert === undefined
        ? words(
          "client-certificate",
          "the server wants a certificate, and you show none",
          "Name yours: --cert and --key."
        )
        : words(
          "client-certificate",
          "the server ends the connection when it has seen your certificate",
          "Have one issued by its CA: stoker certs issue. If others are sent away too, it is full: try again later."
        )
  ],
  [
    /PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL/,
    () => words("tls", "it speaks no TLS 1.3", "Check the address: a worker speaks TLS 1.3 and nothing older.")
  ],
  [
    /WRONG_VERSION_NUMBER|PACKET_LENGTH|HTTP_REQUEST|NO_APPLICATION_PROTOCOL|INVALID_RECORD/,
    () => words("tls", "it speaks no TLS", "Check the address and its port: something else listens there.")
  ]
]

const inWords = (target: Target, text: string): Words | undefined =>
  meanings.find(([pattern]) => pattern.test(text))?.[1](target, text)

/** How long the way there is tried, and how long a server that let us in has for changing its mind (TLS 1.3 does that). */
const PROBE_MS = 3000
const AFTERTHOUGHT_MS = 300

/** With TLS 1.3 a client is in before its certificate was looked at; some servers then end it without a word. */
const TURNED_AWAY = new Error("TURNED_AWAY")

/** What comes of a handshake, undefined if it holds. */
const handshake = ({ address, credentials }: Target): Effect.Effect<{ readonly text: string } | undefined> =>
  Effect.callback((resume) => {
    const told = (error?: unknown) =>
      resume(Effect.succeed(
        error === undefined
          ? undefined
          : { text: `${codeOf(error)} ${error instanceof Error ? error.message : String(error)}` }
      ))
    const { ca, cert, key } = credentials
    let settled: NodeJS.Timeout | undefined
    const socket = connect({
      host: address.host,
      port: address.port,
      minVersion: "TLSv1.3",
      ...(address.protocol === "grpc" ? { ALPNProtocols: ["h2"] } : {}),
      ...(/^[\d.]+$|:/.test(address.host) ? {} : { servername: address.host }),
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key })
    })
    let isIn = false
    socket.on("error", (error) => told(isIn && !codeOf(error).startsWith("ERR_SSL") ? TURNED_AWAY : error))
    socket.on("close", () => told(isIn ? TURNED_AWAY : new Error("the server closed the connection")))
    socket.on("secureConnect", () => {
      isIn = true
      settled = setTimeout(() => told(), AFTERTHOUGHT_MS)
    })
    return Effect.sync(() => {
      clearTimeout(settled)
      socket.destroy()
    })
  })

/** Fails if certificate and key of ours cannot be used, whatever is at the other end. */
export const usable = (target: Target): Effect.Effect<void, ConnectionError> =>
  Effect.flatMap(Clock.currentTimeMillis, (nowMs) => {
    const own = ourCertificate(target.credentials, nowMs)
    return own === undefined
      ? Effect.void
      : Effect.fail(new ConnectionError({ ...own, server: target.address.text }))
  })

/** What to tell of a connection that failed; `cause` is what the client said. */
export const troubleOf = Effect.fnUntraced(function*(
  target: Target,
  cause: unknown
): Effect.fn.Return<ConnectionError> {
  const text = `${codeOf(cause)} ${cause instanceof Error ? cause.message : String(cause)}`
  const own = ourCertificate(target.credentials, yield* Clock.currentTimeMillis)
  const probed = own === undefined
    ? yield* Effect.suspend(() => handshake(target)).pipe(
      Effect.timeoutOrElse({ duration: PROBE_MS, orElse: () => Effect.succeed({ text: "ETIMEDOUT" }) }),
      Effect.catchDefect((defect) => Effect.succeed({ text: String(defect) }))
    )
    : undefined
  const lost = words(
    "lost",
    `the connection was lost (${text.trim().slice(0, 200)})`,
    "Try again; look at the worker's log if it stays so."
  )
  const found = own ?? (probed === undefined ? undefined : inWords(target, probed.text) ?? inWords(target, text)) ??
    (probed === undefined ? lost : words(
      "unreachable",
      `no connection comes about (${probed.text.trim().slice(0, 200)})`,
      "Check the address and your certificates; look at the worker's log."
    ))
  return new ConnectionError({ ...found, server: target.address.text, cause })
})
