/**
 * A stand-in for kube-apiserver and kube-controller-manager over HTTPS: what Stoker and kubectl ask of them about Jobs,
 * pods, logs and rights, faithful where it matters to who watches. `test/kubernetes/Kubectl.test.ts` drives it with the real
 * kubectl. Faults are made by its methods.
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import { createServer, request as httpsRequest, type Server } from "node:https"
import type { Duplex } from "node:stream"
import type { TlsMaterial } from "../../src/layers/api/TlsMaterial.ts"
import { Controllers, type DeleteOptions } from "./Controllers.ts"
import { type Change, type Json, type Kind, kinds, Refusal, type Selector, stamp, Store, type Thing } from "./Store.ts"

/** What an account may do; `*` is everything. */
export interface Rule {
  readonly verbs: ReadonlyArray<string>
  readonly groups: ReadonlyArray<string>
  readonly resources: ReadonlyArray<string>
  readonly namespace?: string
}

interface Route {
  readonly kind: Kind
  readonly namespace: string | undefined
  readonly name: string | undefined
  readonly subresource: string | undefined
}

const labelSelector = (text: string): Selector => {
  const parts = text.split(",").filter((part) => part !== "").map((part): Selector => {
    const set = /^(\S+) (in|notin) \(([^)]*)\)$/.exec(part.trim())
    if (set !== null) {
      const values = (set[3] ?? "").split("|")
      return ({ metadata }) => values.includes(metadata.labels?.[set[1] ?? ""] ?? "") === (set[2] === "in")
    }
    const [, key = "", operator, value] = /^(!?[^=!]+?)(?:(==|=|!=)(.*))?$/.exec(part.trim()) ?? []
    if (operator === undefined) {
      return ({ metadata }) =>
        key.startsWith("!")
          ? metadata.labels?.[key.slice(1)] === undefined
          : metadata.labels?.[key] !== undefined
    }
    return ({ metadata }) => (metadata.labels?.[key] === value) === (operator !== "!=")
  })
  return (object) => parts.every((part) => part(object))
}

const fieldSelector = (text: string): Selector => {
  const parts = text.split(",").filter((part) => part !== "").map((part) => {
    const [, path = "", operator, value] = /^([^=!]+)(==|=|!=)(.*)$/.exec(part) ?? []
    return (object: Thing) => {
      const found = path.split(".").reduce<unknown>(
        (at, key) => typeof at === "object" && at !== null ? Reflect.get(at, key) : undefined,
        object
      )
      return (String(found ?? "") === value) === (operator !== "!=")
    }
  })
  return (object) => parts.every((part) => part(object))
}

const isPlain = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

/** RFC 7386. Strategic patches of what is tested here mean the same, but for lists of conditions. */
const merged = (into: unknown, patch: unknown): unknown => {
  if (!isPlain(patch)) return patch
  const result: Json = isPlain(into) ? { ...into } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key]
    else result[key] = merged(result[key], value)
  }
  return result
}

const statusOf = (code: number, reason: string, message: string) => ({
  kind: "Status",
  apiVersion: "v1",
  metadata: {},
  status: code < 300 ? "Success" : "Failure",
  message,
  reason,
  code
})

const label = /^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/
const subdomain = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/

interface Watcher {
  readonly response: ServerResponse
  readonly end: () => void
}

export interface ApiServerOptions {
  readonly tls: TlsMaterial
  /** How often an idle watch is told where it is. Milliseconds; the real one does so once a minute. */
  readonly bookmarkMs?: number
}

export class ApiServer {
  readonly store = new Store()
  readonly controllers: Controllers
  readonly tokens = new Map<string, string>()
  /** Absent: everything. */
  readonly rules = new Map<string, ReadonlyArray<Rule>>()
  /** Requests by what they are: `create jobs`. */
  readonly counts = new Map<string, number>()
  /** Refuses with that code what matches, as long as it says so. */
  fault: ((verb: string, resource: string, user: string) => number | undefined) | undefined
  readonly #tls: TlsMaterial
  readonly #bookmarkMs: number
  readonly #sockets = new Set<Duplex>()
  readonly #watchers = new Set<Watcher>()
  readonly #proxied = new Set<ServerResponse>()
  #server: Server | undefined
  port = 0

  constructor({ bookmarkMs = 1000, tls }: ApiServerOptions) {
    this.#tls = tls
    this.#bookmarkMs = bookmarkMs
    this.controllers = new Controllers(this.store)
  }

  get url(): string {
    return `https://127.0.0.1:${this.port}`
  }

  async listen(port = 0): Promise<void> {
    const server = createServer({ cert: this.#tls.cert, key: this.#tls.key }, (request, response) => {
      this.#serve(request, response).catch((cause: unknown) => {
        const refusal = cause instanceof Refusal ? cause : new Refusal(500, "InternalError", String(cause))
        if (response.headersSent) response.destroy()
        else this.#answer(response, refusal.code, statusOf(refusal.code, refusal.reason, refusal.message))
      })
    })
    server.on("connection", (socket) => {
      this.#sockets.add(socket)
      socket.on("close", () => this.#sockets.delete(socket))
    })
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject)
      server.listen(port === 0 ? this.port : port, "127.0.0.1", resolve)
    })
    const address = server.address()
    this.port = typeof address === "object" && address !== null ? address.port : 0
    this.#server = server
  }

  /** Gone from one moment to the next, with all its connections. What it stored stays, as etcd would. */
  async away(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    for (const socket of this.#sockets) socket.destroy()
    await new Promise<void>((resolve) => server === undefined ? resolve() : server.close(() => resolve()))
  }

  async close(): Promise<void> {
    this.controllers.stop()
    await this.away()
  }

  /** Ends every watch, cleanly or as networks do. */
  dropWatches(cleanly = false): void {
    for (const { end, response } of this.#watchers) {
      if (cleanly) end()
      else response.destroy()
    }
  }

  /** Breaks every log that is being followed. */
  dropLogs(): void {
    for (const response of this.#proxied) response.destroy()
  }

  get watches(): number {
    return this.#watchers.size
  }

  #answer(response: ServerResponse, code: number, body: unknown) {
    const bytes = Buffer.from(JSON.stringify(body))
    response.writeHead(code, { "content-type": "application/json", "content-length": bytes.length }).end(bytes)
  }

  #user(request: IncomingMessage): string {
    const token = /^Bearer (.*)$/.exec(request.headers.authorization ?? "")?.[1]
    const user = token === undefined ? undefined : this.tokens.get(token)
    if (user === undefined) throw new Refusal(401, "Unauthorized", "Unauthorized")
    return user
  }

  #allowed(user: string, verb: string, group: string, resource: string, namespace: string | undefined): boolean {
    const rules = this.rules.get(user)
    const among = (list: ReadonlyArray<string>, value: string) => list.includes("*") || list.includes(value)
    return rules === undefined ||
      rules.some((rule) =>
        among(rule.verbs, verb) && among(rule.groups, group) && among(rule.resources, resource) &&
        (rule.namespace === undefined || rule.namespace === namespace)
      )
  }

  #route(path: string): Route | undefined {
    const match = /^\/(?:api\/(v1)|apis\/([^/]+)\/(v1))\/(.*)$/.exec(path)
    if (match === null) return undefined
    const group = match[2] ?? ""
    const parts = (match[4] ?? "").split("/").filter((part) => part !== "").map(decodeURIComponent)
    const isScoped = parts[0] === "namespaces" && parts.length > 2
    const namespace = isScoped ? parts[1] : undefined
    const [plural, name, subresource] = isScoped ? parts.slice(2) : parts
    const kind = kinds.find((each) => each.group === group && each.plural === plural)
    return kind === undefined ? undefined : { kind, namespace, name, subresource }
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", this.url)
    const query = url.searchParams
    const parts: Array<Buffer> = []
    for await (const part of request) parts.push(part as Buffer)
    const text = Buffer.concat(parts).toString()
    const body: unknown = text === "" ? undefined : JSON.parse(text)
    if (["/readyz", "/livez", "/healthz"].includes(url.pathname)) {
      response.writeHead(200).end("ok")
      return
    }
    const user = this.#user(request)
    const discovered = this.#discovery(url.pathname)
    if (discovered !== undefined) return this.#answer(response, 200, discovered)
    if (url.pathname === "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews") {
      return this.#answer(response, 201, this.#review(user, body))
    }
    const route = this.#route(url.pathname)
    if (route === undefined) throw new Refusal(404, "NotFound", "the server could not find the requested resource")
    const { kind, name, namespace, subresource } = route
    const isWatch = query.get("watch") === "true" || query.get("watch") === "1"
    const method = request.method ?? "GET"
    const verb = method === "GET"
      ? name === undefined ? (isWatch ? "watch" : "list") : "get"
      : { POST: "create", PUT: "update", PATCH: "patch", DELETE: name === undefined ? "deletecollection" : "delete" }[
        method
      ] ?? method
    const resource = subresource === undefined ? kind.plural : `${kind.plural}/${subresource}`
    const count = `${verb} ${resource}`
    this.counts.set(count, (this.counts.get(count) ?? 0) + 1)
    const fault = this.fault?.(verb, resource, user)
    if (fault !== undefined) {
      throw new Refusal(fault, fault === 429 ? "TooManyRequests" : "InternalError", "a fault was asked for")
    }
    if (!this.#allowed(user, verb, kind.group, resource, namespace)) {
      throw new Refusal(
        403,
        "Forbidden",
        `${resource}${
          kind.group === "" ? "" : `.${kind.group}`
        } is forbidden: User "${user}" cannot ${verb} resource ` +
          `"${resource}" in API group "${kind.group}" in the namespace "${namespace ?? ""}"`
      )
    }
    if (verb === "list") return this.#answer(response, 200, this.#list(route, query))
    if (verb === "watch") return this.#watch(route, query, response)
    if (subresource === "log" && name !== undefined) return await this.#log(route, name, query, response)
    if (verb === "create" && subresource === "binding" && name !== undefined) {
      return this.#answer(response, 201, this.#bind(namespace ?? "", name, body))
    }
    if (verb === "create") return this.#answer(response, 201, this.#create(kind, namespace ?? "", body, query))
    if (name === undefined) throw new Refusal(405, "MethodNotAllowed", `${verb} is not allowed here`)
    const scope = namespace ?? ""
    if (verb === "get") return this.#answer(response, 200, this.store.get(kind, scope, name))
    if (verb === "delete") return this.#answer(response, 200, this.#delete(kind, scope, name, body, query))
    const before = this.store.get(kind, scope, name)
    const given = verb === "patch" ? merged(before, body) : body
    this.#answer(response, 200, this.#write(kind, before, given as Thing, subresource))
  }

  #review(user: string, body: unknown) {
    const asked = (body as { spec?: { resourceAttributes?: Record<string, string> } }).spec?.resourceAttributes ?? {}
    const { group = "", namespace, resource = "", subresource, verb = "" } = asked
    const whole = subresource === undefined || subresource === "" ? resource : `${resource}/${subresource}`
    return {
      ...(body as Json),
      status: { allowed: this.#allowed(user, verb, group, whole, namespace), reason: "" }
    }
  }

  #discovery(path: string): Json | undefined {
    const resources = (group: string, version: string) => ({
      kind: "APIResourceList",
      apiVersion: "v1",
      groupVersion: group === "" ? version : `${group}/${version}`,
      resources: kinds.filter((kind) => kind.group === group).flatMap((kind) => [
        {
          name: kind.plural,
          singularName: kind.kind.toLowerCase(),
          namespaced: kind.namespaced,
          kind: kind.kind,
          verbs: ["create", "delete", "get", "list", "patch", "update", "watch"],
          ...(kind.plural === "pods" ? { shortNames: ["po"] } : {})
        },
        ...(kind.plural === "pods"
          ? [{ name: "pods/log", singularName: "", namespaced: true, kind: "Pod", verbs: ["get"] }]
          : [])
      ])
    })
    switch (path) {
      case "/version":
        return { major: "1", minor: "31", gitVersion: "v1.31.0-standin", platform: "linux/amd64" }
      case "/api":
        return { kind: "APIVersions", versions: ["v1"], serverAddressByClientCIDRs: [] }
      case "/apis":
        return {
          kind: "APIGroupList",
          apiVersion: "v1",
          groups: [{
            name: "batch",
            versions: [{ groupVersion: "batch/v1", version: "v1" }],
            preferredVersion: { groupVersion: "batch/v1", version: "v1" }
          }, {
            name: "authorization.k8s.io",
            versions: [{ groupVersion: "authorization.k8s.io/v1", version: "v1" }],
            preferredVersion: { groupVersion: "authorization.k8s.io/v1", version: "v1" }
          }]
        }
      case "/api/v1":
        return resources("", "v1")
      case "/apis/batch/v1":
        return resources("batch", "v1")
      case "/apis/authorization.k8s.io/v1":
        return {
          kind: "APIResourceList",
          apiVersion: "v1",
          groupVersion: "authorization.k8s.io/v1",
          resources: [{
            name: "selfsubjectaccessreviews",
            singularName: "selfsubjectaccessreview",
            namespaced: false,
            kind: "SelfSubjectAccessReview",
            verbs: ["create"]
          }]
        }
      default:
        return undefined
    }
  }

  #selector(query: URLSearchParams): Selector {
    const labels = labelSelector(query.get("labelSelector") ?? "")
    const fields = fieldSelector(query.get("fieldSelector") ?? "")
    return (object) => labels(object) && fields(object)
  }

  #list({ kind, name, namespace }: Route, query: URLSearchParams) {
    const selector = this.#selector(query)
    const all = this.store.list(
      kind,
      namespace,
      (object) => selector(object) && (name === undefined || object.metadata.name === name)
    )
    const limit = Number(query.get("limit") ?? 0)
    const after = query.get("continue")
    const version = after === null ? this.store.version : Number(after.split(" ")[0])
    // A continued list is of the moment at which it began.
    if (version < this.store.oldest) throw new Refusal(410, "Expired", "The provided continue parameter is too old")
    const from = after === null
      ? 0
      : all.findIndex(({ metadata }) => metadata.name > after.slice(after.indexOf(" ") + 1))
    const rest = from < 0 ? [] : all.slice(from)
    const page = limit > 0 ? rest.slice(0, limit) : rest
    const isMore = page.length < rest.length
    return {
      kind: `${kind.kind}List`,
      apiVersion: kind.group === "" ? kind.version : `${kind.group}/${kind.version}`,
      metadata: {
        resourceVersion: String(version),
        ...(isMore
          ? {
            continue: `${version} ${page.at(-1)?.metadata.name ?? ""}`,
            remainingItemCount: rest.length - page.length
          }
          : {})
      },
      items: page
    }
  }

  #watch({ kind, namespace }: Route, query: URLSearchParams, response: ServerResponse) {
    const selector = this.#selector(query)
    const asked = query.get("resourceVersion") ?? ""
    const hasBookmarks = query.get("allowWatchBookmarks") === "true"
    const matches = (object: Thing | undefined) =>
      object !== undefined && (namespace === undefined || object.metadata.namespace === namespace) && selector(object)
    const isFromNow = asked === "" || asked === "0"
    const missed = isFromNow ? [] : this.store.since(Number(asked))
    response.writeHead(200, { "content-type": "application/json" })
    response.flushHeaders()
    const send = (type: string, object: unknown) => void response.write(`${JSON.stringify({ type, object })}\n`)
    const tell = ({ before, kind: changed, object, type, version }: Change) => {
      if (changed !== kind) return
      const [was, is] = [matches(before), matches(object)]
      const shown = { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } }
      if (type === "DELETED" ? is || was : was && !is) send("DELETED", shown)
      else if (is) send(was ? "MODIFIED" : "ADDED", shown)
    }
    if (isFromNow) { for (const object of this.store.list(kind, namespace, selector)) send("ADDED", object) }
    missed.forEach(tell)
    const unlisten = this.store.onChange(tell)
    const bookmark = () =>
      send("BOOKMARK", {
        kind: kind.kind,
        apiVersion: kind.group === "" ? kind.version : `${kind.group}/${kind.version}`,
        metadata: { resourceVersion: String(this.store.version), creationTimestamp: null }
      })
    const bookmarks = hasBookmarks ? setInterval(bookmark, this.#bookmarkMs) : undefined
    const seconds = Number(query.get("timeoutSeconds") ?? 1800)
    const end = () => {
      unlisten()
      if (response.writableEnded) return
      if (hasBookmarks) bookmark()
      clearInterval(bookmarks)
      response.end()
    }
    const timer = setTimeout(end, seconds * 1000)
    const watcher = { response, end }
    this.#watchers.add(watcher)
    response.on("close", () => {
      unlisten()
      clearInterval(bookmarks)
      clearTimeout(timer)
      this.#watchers.delete(watcher)
    })
  }

  #create(kind: Kind, namespace: string, body: unknown, query: URLSearchParams): Thing {
    const given = body as Thing
    if (given?.metadata === undefined) throw new Refusal(400, "BadRequest", "the object has no metadata")
    if (kind.namespaced && this.store.find(this.#namespaces, "", namespace) === undefined) {
      throw new Refusal(404, "NotFound", `namespaces "${namespace}" not found`)
    }
    const invalid = (field: string, why: string) => {
      throw new Refusal(
        422,
        "Invalid",
        `${kind.kind}.${kind.group} "${given.metadata.name}" is invalid: ${field}: ${why}`
      )
    }
    if (given.metadata.name !== undefined && !subdomain.test(given.metadata.name)) {
      invalid(
        "metadata.name",
        `Invalid value: "${given.metadata.name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'`
      )
    }
    for (const [key, value] of Object.entries(given.metadata.labels ?? {})) {
      if (!label.test(value) || value.length > 63) invalid("metadata.labels", `Invalid value: "${value}" of ${key}`)
    }
    const object: Thing = {
      ...given,
      apiVersion: kind.group === "" ? kind.version : `${kind.group}/${kind.version}`,
      kind: kind.kind
    }
    if (kind.plural === "jobs") {
      const template = object.spec?.["template"] as { spec?: Json } | undefined
      const policy = template?.spec?.["restartPolicy"]
      if (policy !== "Never" && policy !== "OnFailure") {
        invalid("spec.template.spec.restartPolicy", `Required value: valid values: "OnFailure", "Never"`)
      }
      if (given.metadata.name !== undefined && given.metadata.name.length > 63) {
        invalid("metadata.name", "must be no more than 63 characters")
      }
      object.spec = {
        parallelism: 1,
        completions: 1,
        backoffLimit: 6,
        completionMode: "NonIndexed",
        suspend: false,
        podReplacementPolicy: "TerminatingOrFailed",
        manualSelector: false,
        ...object.spec
      }
      object.status = {}
    }
    if (query.get("dryRun") === "All") return object
    const made = this.store.create(kind, namespace, object)
    if (kind.plural !== "jobs") return made
    // Selected by what only it has.
    return this.store.change(kind, namespace, made.metadata.name, ({ metadata: { name, uid }, spec }) => {
      if (spec === undefined) return
      const template = spec["template"] as { metadata?: Json; spec: Json }
      spec["selector"] = { matchLabels: { "batch.kubernetes.io/controller-uid": uid } }
      spec["template"] = {
        ...template,
        metadata: {
          ...template.metadata,
          labels: {
            ...template.metadata?.["labels"] as Json,
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": name,
            "controller-uid": uid,
            "job-name": name
          }
        }
      }
    }) ?? made
  }

  get #namespaces(): Kind {
    const found = kinds.find(({ plural }) => plural === "namespaces")
    if (found === undefined) throw new Error("no namespaces")
    return found
  }

  #write(kind: Kind, before: Thing, given: Thing, subresource: string | undefined): Thing {
    if (subresource === "status") {
      return this.store.update(kind, {
        ...before,
        status: given.status ?? {},
        metadata: { ...before.metadata, resourceVersion: given.metadata.resourceVersion }
      })
    }
    const template = ({ spec }: Thing) => JSON.stringify(spec?.["template"])
    if (kind.plural === "jobs" && template(before) !== template(given)) {
      throw new Refusal(
        422,
        "Invalid",
        `Job.batch "${before.metadata.name}" is invalid: spec.template: field is immutable`
      )
    }
    return this.store.update(kind, {
      ...given,
      ...(before.status === undefined ? {} : { status: before.status })
    })
  }

  #delete(kind: Kind, namespace: string, name: string, body: unknown, query: URLSearchParams): unknown {
    const before = this.store.get(kind, namespace, name)
    const said = (body ?? {}) as DeleteOptions
    const grace = query.get("gracePeriodSeconds")
    const options: DeleteOptions = {
      ...said,
      ...(query.get("propagationPolicy") === null ? {} : { propagationPolicy: query.get("propagationPolicy") ?? "" }),
      ...(grace === null ? {} : { gracePeriodSeconds: Number(grace) })
    }
    const uid = options.preconditions?.uid
    if (uid !== undefined && uid !== before.metadata.uid) {
      throw new Refusal(
        409,
        "Conflict",
        `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${before.metadata.uid}`
      )
    }
    const after = this.controllers.remove(kind, before, options)
    return this.store.find(kind, namespace, name) === undefined
      ? { ...statusOf(200, "", ""), details: { name, kind: kind.plural, uid: before.metadata.uid } }
      : after
  }

  #bind(namespace: string, name: string, body: unknown): unknown {
    const target = (body as { target?: { name?: string } }).target?.name ?? ""
    const pods = kinds.find(({ plural }) => plural === "pods")
    if (pods === undefined) throw new Error("no pods")
    const pod = this.store.get(pods, namespace, name)
    if ((pod.spec?.["nodeName"] ?? "") !== "") {
      throw new Refusal(409, "Conflict", `pod ${name} is already assigned to node "${String(pod.spec?.["nodeName"])}"`)
    }
    this.store.change(pods, namespace, name, (object) => {
      object.spec = { ...object.spec, nodeName: target }
      object.status = {
        ...object.status,
        conditions: [{ type: "PodScheduled", status: "True", lastTransitionTime: stamp() }]
      }
    })
    return statusOf(201, "", "")
  }

  /** From the node's kubelet, as the API server does it. */
  async #log({ kind, namespace = "" }: Route, name: string, query: URLSearchParams, response: ServerResponse) {
    const pod = this.store.get(kind, namespace, name)
    const containers = (pod.spec?.["containers"] ?? []) as ReadonlyArray<{ name: string }>
    const container = query.get("container") ?? containers[0]?.name ?? ""
    if (!containers.some((each) => each.name === container)) {
      throw new Refusal(400, "BadRequest", `container ${container} is not valid for pod ${name}`)
    }
    const nodeName = pod.spec?.["nodeName"]
    const nodes = kinds.find(({ plural }) => plural === "nodes")
    const node = typeof nodeName === "string" && nodes !== undefined ? this.store.find(nodes, "", nodeName) : undefined
    const states = (pod.status?.["containerStatuses"] ?? []) as ReadonlyArray<
      { state?: { waiting?: { reason?: string } } }
    >
    if (
      nodeName === undefined || nodeName === "" || states[0] === undefined || states[0].state?.waiting !== undefined
    ) {
      const reason = states[0]?.state?.waiting?.reason ?? "ContainerCreating"
      throw new Refusal(400, "BadRequest", `container "${container}" in pod "${name}" is waiting to start: ${reason}`)
    }
    if (node === undefined) throw new Refusal(404, "NotFound", `nodes "${String(nodeName)}" not found`)
    const port = (node.status?.["daemonEndpoints"] as { kubeletEndpoint?: { Port?: number } })?.kubeletEndpoint?.Port ??
      0
    query.delete("container")
    await new Promise<void>((resolve, reject) => {
      const path = `/containerLogs/${namespace}/${name}/${container}?${query}`
      const upstream = httpsRequest({ host: "127.0.0.1", port, path, rejectUnauthorized: false, agent: false })
      upstream.once(
        "error",
        (cause) => reject(new Refusal(500, "InternalError", `Get "https://127.0.0.1:${port}": ${String(cause)}`))
      )
      upstream.once("response", (answer) => {
        if ((answer.statusCode ?? 500) >= 300) {
          answer.resume()
          reject(
            new Refusal(
              answer.statusCode ?? 500,
              "NotFound",
              `the server could not find the requested resource (log of ${name})`
            )
          )
          return
        }
        response.writeHead(200, { "content-type": "text/plain" })
        response.flushHeaders()
        this.#proxied.add(response)
        response.once("close", () => {
          this.#proxied.delete(response)
          upstream.destroy()
          resolve()
        })
        upstream.removeAllListeners("error").on("error", () => response.destroy())
        answer.on("error", () => response.destroy())
        answer.pipe(response)
      })
      upstream.end()
    })
  }
}
