/** The control plane's doors as flags and file say: where they listen, what they show, whom they let in. */
import { Effect, Option } from "effect"
import { join, resolve } from "node:path"
import type { ApiWiring } from "../wiring.ts"
import { usageFailure } from "./CliFailure.ts"
import { besideFile, type ConfigFile, readWebhookSecret } from "./ConfigFile.ts"

/** What of it stands on the command line. It is stronger than the file. */
export interface ApiFlags {
  /** HOST:PORT. */
  readonly grpc: Option.Option<string>
  /** HOST:PORT. */
  readonly http: Option.Option<string>
  /** A folder with ca.crt, server.crt and server.key, as `stoker certs` makes it. */
  readonly tls: Option.Option<string>
  readonly roles: Option.Option<string>
}

/** None: no door was asked for. */
export const apiSetup = Effect.fnUntraced(function*(flags: ApiFlags, file: ConfigFile) {
  const { ca, cert, grpc, http, identity, key, roles, tokens, webhooks } = file.content.api ?? {}
  const listen = {
    grpc: Option.getOrElse(flags.grpc, () => grpc),
    http: Option.getOrElse(flags.http, () => http)
  }
  if (listen.grpc === undefined && listen.http === undefined) return Option.none<ApiWiring>()
  const beside = (path: string | undefined) => path === undefined ? undefined : besideFile(file, path)
  const folder = Option.map(flags.tls, (path) => resolve(path))
  const shown = Option.match(folder, {
    onNone: () => ({ ca: beside(ca), cert: beside(cert), key: beside(key) }),
    onSome: (path) => ({ ca: join(path, "ca.crt"), cert: join(path, "server.crt"), key: join(path, "server.key") })
  })
  if (shown.ca === undefined || shown.cert === undefined || shown.key === undefined) {
    return yield* usageFailure(
      "callers of gRPC and HTTP are known by their certificates, and there are none",
      "Make some with `stoker certs init` and `stoker certs issue server --host NAME`, then name their folder: --tls DIR."
    )
  }
  const wanted = Option.getOrElse(Option.map(flags.roles, (path) => resolve(path)), () => beside(roles))
  const accepted = beside(tokens)
  const api: ApiWiring = {
    ...(listen.grpc === undefined ? {} : { grpc: listen.grpc }),
    ...(listen.http === undefined ? {} : { http: listen.http }),
    tls: { ca: shown.ca, cert: shown.cert, key: shown.key },
    identity: identity ?? "CN",
    ...(wanted === undefined ? {} : { roles: wanted }),
    ...(accepted === undefined ? {} : { tokens: accepted }),
    ...(webhooks === undefined ? {} : {
      webhooks: { allow: webhooks.allow, secret: yield* readWebhookSecret(file, webhooks) }
    })
  }
  return Option.some(api)
})
