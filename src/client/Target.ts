/** Where a worker is, and what we show it of ourselves. */
import { Effect } from "effect"
import { readFile } from "node:fs/promises"
import { ConnectionError } from "./StokerClient.ts"

/** How a worker is spoken to. */
export interface Address {
  readonly protocol: "grpc" | "https"
  readonly host: string
  readonly port: number
  /** `grpc://host:port` or `https://host:port`. */
  readonly text: string
}

/** PEM, or a token. What the server is and who the caller is are two things: a token needs no certificate. */
export interface Credentials {
  /** Whom the server's certificate must be signed by. Absent: the authorities that Node trusts. */
  readonly ca?: string
  /** With its chain, the leaf first. */
  readonly cert?: string
  readonly key?: string
  readonly token?: string
}

/** A worker to connect to. */
export interface Target {
  readonly address: Address
  readonly credentials: Credentials
}

/** The files of `Credentials`. */
export interface CredentialFiles {
  readonly ca?: string | undefined
  readonly cert?: string | undefined
  readonly key?: string | undefined
  readonly tokenFile?: string | undefined
}

const usualPorts = { grpc: 7077, https: 7078 } as const

/** Reads `grpc://host:port` or `https://host:port`; undefined if it is neither. */
export const parseAddress = (text: string): Address | undefined => {
  const match = /^(grpc|https):\/\/(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?\/?$/i.exec(text.trim())
  if (match === null) return undefined
  const protocol = match[1]?.toLowerCase() === "grpc" ? "grpc" : "https"
  const port = match[3] === undefined ? usualPorts[protocol] : Number(match[3])
  const host = (match[2] ?? "").replaceAll(/^\[|\]$/g, "")
  return port < 1 || port > 65_535
    ? undefined
    : { protocol, host, port, text: `${protocol}://${host.includes(":") ? `[${host}]` : host}:${port}` }
}

const unusable = (server: string, reason: string, remedy: string, cause?: unknown) =>
  new ConnectionError({ problem: "credentials", server, reason, remedy, ...(cause === undefined ? {} : { cause }) })

const read = (server: string, what: string, path: string) =>
  Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: (cause) =>
      unusable(
        server,
        `the ${what} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
        "Check the path, and that you may read it.",
        cause
      )
  })

/** Reads the files that say who we are and whom we believe. */
export const readCredentials = Effect.fnUntraced(function*(
  server: string,
  { ca, cert, key, tokenFile }: CredentialFiles
): Effect.fn.Return<Credentials, ConnectionError> {
  if ((cert === undefined) !== (key === undefined)) {
    const missing = cert === undefined ? "certificate" : "key"
    return yield* unusable(
      server,
      `there is a ${cert === undefined ? "key" : "certificate"} and no ${missing}`,
      `Name the ${missing} too.`
    )
  }
  const token = tokenFile === undefined ? undefined : (yield* read(server, "token file", tokenFile)).trim()
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
    return yield* unusable(server, `there is no token in ${tokenFile}`, "It holds one line, the token.")
  }
  return {
    ...(ca === undefined ? {} : { ca: yield* read(server, "CA's certificate", ca) }),
    ...(cert === undefined ? {} : { cert: yield* read(server, "certificate", cert) }),
    ...(key === undefined ? {} : { key: yield* read(server, "key", key) }),
    ...(token === undefined ? {} : { token })
  }
})
