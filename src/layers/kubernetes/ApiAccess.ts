/**
 * Where an API server is and how it knows us: a pod's own account, or a kubeconfig. Of `@kubernetes/client-node` only the
 * part is loaded that a user's entry needs: plugins cost nothing, OpenID and proxies its whole weight (0.3 s, 90 MB).
 */
import type { Cluster as ClientCluster, User as ClientUser } from "@kubernetes/client-node"
import { Effect, Schema } from "effect"
import { Yaml } from "effect/encoding"
import { existsSync, readFileSync } from "node:fs"
import { readFile } from "node:fs/promises"
import type { Agent } from "node:https"
import { homedir } from "node:os"
import { dirname, isAbsolute, join, resolve } from "node:path"
import type { ClusterSetup } from "../../schemas/SandboxClass.ts"
import { KubernetesError } from "./Kubernetes.ts"

/** What one request shows of us. */
export interface Credentials {
  readonly headers: Readonly<Record<string, string>>
  readonly ca?: string | Buffer
  readonly cert?: string | Buffer
  readonly key?: string | Buffer
  readonly passphrase?: string
  /** Of the client library, where connections are made in its own way. */
  readonly agent?: Agent
}

export interface ApiAccess {
  readonly server: URL
  readonly namespace: string
  readonly account: string
  readonly rejectUnauthorized: boolean
  readonly servername?: string
  /** Reads again what may have been replaced; `anew`: also what was read a moment ago, for it was refused. */
  readonly credentials: (anew: boolean) => Promise<Credentials>
}

const ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
/** Tokens are replaced long before they expire; one that is refused is read again at once. */
const REREAD_MS = 10_000

const maybe = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))
const text = maybe(Schema.String)

const FileCluster = Schema.Struct({
  server: Schema.NonEmptyString,
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": maybe(Schema.Boolean),
  "tls-server-name": text,
  "proxy-url": text
})
const FileUser = Schema.Struct({
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": text,
  token: text,
  tokenFile: text,
  username: text,
  password: text,
  as: text,
  exec: maybe(Schema.Record(Schema.String, Schema.Unknown)),
  "auth-provider": maybe(Schema.Record(Schema.String, Schema.Unknown))
})
type FileUser = typeof FileUser.Type
const FileContext = Schema.Struct({ cluster: Schema.String, user: text, namespace: text })

const named = <S extends Schema.Top>(field: string, schema: S) =>
  maybe(Schema.Array(Schema.Struct({ name: Schema.String, [field]: maybe(schema) })))

const KubeConfigFile = Schema.Struct({
  "current-context": text,
  clusters: named("cluster", FileCluster),
  users: named("user", FileUser),
  contexts: named("context", FileContext)
})
const decodeFile = Schema.decodeUnknownSync(KubeConfigFile)
const decodeCluster = Schema.decodeUnknownSync(FileCluster)
const decodeUser = Schema.decodeUnknownSync(FileUser)
const decodeContext = Schema.decodeUnknownSync(FileContext)

const REMEDY = "Set the class's `cluster` (kubeconfig, context), or KUBECONFIG; `kubectl get jobs` is to work with it."

class Unusable extends Error {}

/** A named part, with the folder its relative paths are meant from. */
interface Part {
  readonly name: string
  readonly folder: string
  readonly value: unknown
}

interface Parts {
  current: string | undefined
  readonly clusters: Array<Part>
  readonly users: Array<Part>
  readonly contexts: Array<Part>
}

/** As kubectl merges several files: the first that says something is right. */
const readParts = (files: ReadonlyArray<string>): Parts => {
  const parts: Parts = { current: undefined, clusters: [], users: [], contexts: [] }
  for (const file of files) {
    const folder = dirname(resolve(file))
    const read = decodeFile(Yaml.parse(readFileSync(file, "utf8")) ?? {})
    parts.current ??= read["current-context"] ?? undefined
    for (const { name, ...rest } of read.clusters ?? []) {
      parts.clusters.push({ name, folder, value: Object.values(rest)[0] })
    }
    for (const { name, ...rest } of read.users ?? []) parts.users.push({ name, folder, value: Object.values(rest)[0] })
    for (const { name, ...rest } of read.contexts ?? []) {
      parts.contexts.push({ name, folder, value: Object.values(rest)[0] })
    }
  }
  return parts
}

const find = (what: string, list: ReadonlyArray<Part>, name: string, where: string): Part => {
  const found = list.find((part) => part.name === name)
  if (found === undefined) throw new Unusable(`${where} has no ${what} ${name}`)
  return found
}

const within = (folder: string, path: string) => isAbsolute(path) ? path : join(folder, path)

/** A file that may be replaced, or what stands in the configuration itself. */
const material = (folder: string, file: string | null | undefined, data: string | null | undefined) => {
  if (file !== null && file !== undefined && file !== "") return () => readFile(within(folder, file))
  const bytes = data === null || data === undefined || data === "" ? undefined : Buffer.from(data, "base64")
  return () => Promise.resolve(bytes)
}

const bearer = (token: string) => ({ authorization: `Bearer ${token.trim()}` })

/** Runs the plugin of a user's entry; what it said holds until it expires. */
const plugin = (name: string, folder: string, exec: Readonly<Record<string, unknown>>) => {
  const command = typeof exec["command"] === "string" ? exec["command"] : ""
  // One with a folder in its name is meant from the file's place.
  const where = command.includes("/") ? within(folder, command) : command
  const user: ClientUser = { name, exec: { ...exec, command: where } }
  const fresh = async () => {
    const { ExecAuth } = await import("@kubernetes/client-node/dist/exec_auth.js")
    return new ExecAuth()
  }
  let auth: ReturnType<typeof fresh> | undefined
  return async (anew: boolean): Promise<Credentials> => {
    if (anew) auth = undefined
    auth ??= fresh()
    const options: { headers: Record<string, string>; cert?: string; key?: string } = { headers: {} }
    await (await auth).applyAuthentication(user, options)
    const { cert, headers, key } = options
    return { headers, ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }) }
  }
}

/** Everything else a kubeconfig may say, by the client library as a whole. */
const library = (cluster: ClientCluster, user: ClientUser) => {
  const make = async () => {
    const { KubeConfig } = await import("@kubernetes/client-node/dist/config.js")
    const config = new KubeConfig()
    config.loadFromClusterAndUser(cluster, user)
    return config
  }
  let made: ReturnType<typeof make> | undefined
  return async (anew: boolean): Promise<Credentials> => {
    if (anew) made = undefined
    made ??= make()
    const options: { headers?: Record<string, string>; agent?: Agent; auth?: string } = {}
    await (await made).applyToHTTPSOptions(options)
    const basic = options.auth === undefined
      ? {}
      : { authorization: `Basic ${Buffer.from(options.auth).toString("base64")}` }
    return {
      headers: { ...basic, ...options.headers },
      ...(options.agent === undefined ? {} : { agent: options.agent })
    }
  }
}

const userHeaders = async (user: FileUser, folder: string): Promise<Record<string, string>> => {
  const as = typeof user.as === "string" && user.as !== "" ? { "impersonate-user": user.as } : {}
  if (typeof user.tokenFile === "string" && user.tokenFile !== "") {
    return { ...as, ...bearer(await readFile(within(folder, user.tokenFile), "utf8")) }
  }
  if (typeof user.token === "string" && user.token !== "") return { ...as, ...bearer(user.token) }
  if (typeof user.username === "string" && user.username !== "") {
    const pair = Buffer.from(`${user.username}:${user.password ?? ""}`).toString("base64")
    return { ...as, authorization: `Basic ${pair}` }
  }
  return as
}

/** What was read stays for a moment. */
const remembered = (read: (anew: boolean) => Promise<Credentials>): ApiAccess["credentials"] => {
  let last: { readonly at: number; readonly credentials: Promise<Credentials> } | undefined
  return (anew) => {
    const at = performance.now()
    if (anew || last === undefined || at - last.at > REREAD_MS) last = { at, credentials: read(anew) }
    const { credentials } = last
    // A file that could not be read just now is tried again with the next request.
    return credentials.catch((cause: unknown) => {
      if (last?.credentials === credentials) last = undefined
      throw cause
    })
  }
}

const fromFiles = (files: ReadonlyArray<string>, setup: ClusterSetup): ApiAccess => {
  const parts = readParts(files)
  const where = files.join(":")
  const contextName = setup.context ?? parts.current
  if (contextName === undefined || contextName === "") throw new Unusable(`${where} has no current context`)
  const context = decodeContext(find("context", parts.contexts, contextName, where).value)
  const clusterPart = find("cluster", parts.clusters, context.cluster, where)
  const cluster = decodeCluster(clusterPart.value)
  const isAnonymous = context.user === null || context.user === undefined || context.user === ""
  const userPart = isAnonymous
    ? { name: "", folder: clusterPart.folder, value: {} }
    : find("user", parts.users, context.user ?? "", where)
  const user = decodeUser(userPart.value ?? {})
  const ca = material(clusterPart.folder, cluster["certificate-authority"], cluster["certificate-authority-data"])
  const cert = material(userPart.folder, user["client-certificate"], user["client-certificate-data"])
  const key = material(userPart.folder, user["client-key"], user["client-key-data"])
  const isInsecure = cluster["insecure-skip-tls-verify"] === true

  const heavy = (cluster["proxy-url"] ?? "") !== "" || (user["auth-provider"] ?? undefined) !== undefined
    ? library(
      {
        name: clusterPart.name,
        server: cluster.server,
        skipTLSVerify: isInsecure,
        ...optional("tlsServerName", cluster["tls-server-name"]),
        ...optional("proxyUrl", cluster["proxy-url"]),
        ...optional("caData", cluster["certificate-authority-data"]),
        ...path("caFile", clusterPart.folder, cluster["certificate-authority"])
      },
      {
        name: userPart.name,
        ...optional("authProvider", user["auth-provider"]),
        ...optional("exec", user.exec),
        ...optional("token", user.token),
        ...optional("username", user.username),
        ...optional("password", user.password),
        ...optional("impersonateUser", user.as),
        ...optional("certData", user["client-certificate-data"]),
        ...optional("keyData", user["client-key-data"]),
        ...path("certFile", userPart.folder, user["client-certificate"]),
        ...path("keyFile", userPart.folder, user["client-key"])
      }
    )
    : undefined
  const exec = user.exec === null || user.exec === undefined
    ? undefined
    : plugin(userPart.name, userPart.folder, user.exec)
  const read = async (anew: boolean): Promise<Credentials> => {
    if (heavy !== undefined) return heavy(anew)
    const [authority, certificate, secret, headers, said] = await Promise.all([
      ca(),
      cert(),
      key(),
      userHeaders(user, userPart.folder),
      exec?.(anew)
    ])
    return {
      ...(authority === undefined ? {} : { ca: authority }),
      ...(certificate === undefined ? {} : { cert: certificate }),
      ...(secret === undefined ? {} : { key: secret }),
      ...said,
      headers: { ...headers, ...said?.headers }
    }
  }
  return {
    server: new URL(cluster.server),
    namespace: setup.namespace ?? context.namespace ?? "default",
    account: `context ${contextName} of ${where}`,
    rejectUnauthorized: !isInsecure,
    ...optional("servername", cluster["tls-server-name"]),
    credentials: remembered(read)
  }
}

const optional = <K extends string, A>(key: K, value: A | null | undefined): Partial<Record<K, A>> => {
  const found: Partial<Record<K, A>> = {}
  if (value !== null && value !== undefined) found[key] = value
  return found
}

const path = <K extends string>(key: K, folder: string, value: string | null | undefined) =>
  optional(key, value === null || value === undefined || value === "" ? undefined : within(folder, value))

const ofPod = (host: string, setup: ClusterSetup, folder: string): ApiAccess => {
  const port = process.env["KUBERNETES_SERVICE_PORT"] ?? "443"
  return {
    server: new URL(`https://${host.includes(":") ? `[${host}]` : host}:${port}`),
    namespace: setup.namespace ?? readFileSync(join(folder, "namespace"), "utf8").trim(),
    account: "the pod's own account",
    rejectUnauthorized: true,
    credentials: remembered(async () => ({
      ca: await readFile(join(folder, "ca.crt")),
      headers: bearer(await readFile(join(folder, "token"), "utf8"))
    }))
  }
}

const sources = (setup: ClusterSetup, folder: string): ApiAccess => {
  if (setup.kubeconfig !== undefined) return fromFiles([setup.kubeconfig], setup)
  const host = process.env["KUBERNETES_SERVICE_HOST"] ?? ""
  if (host !== "" && setup.context === undefined && existsSync(join(folder, "token"))) return ofPod(host, setup, folder)
  const listed = (process.env["KUBECONFIG"] ?? "").split(":").filter((file) => file !== "")
  const files = listed.length > 0 ? listed.filter((file) => existsSync(file)) : [join(homedir(), ".kube", "config")]
  if (files.length === 0) throw new Unusable(`KUBECONFIG names no file that is there: ${listed.join(":")}`)
  return fromFiles(files, setup)
}

/**
 * The setup's kubeconfig; else the account of the pod we are in; else KUBECONFIG; else the user's own. Reads files, and
 * reaches for nothing. `accountFolder`: where a pod finds its account.
 */
export const load = (setup: ClusterSetup, accountFolder: string = ACCOUNT): Effect.Effect<ApiAccess, KubernetesError> =>
  Effect.try({
    try: () => sources(setup, accountFolder),
    catch: (cause) =>
      new KubernetesError({
        trouble: "configuration",
        operation: "read how the cluster is reached",
        reason: cause instanceof Error ? cause.message : String(cause),
        remedy: REMEDY
      })
  })
