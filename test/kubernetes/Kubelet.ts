/**
 * A node for tests: takes pods that nobody runs, runs their container as a process here, tells what becomes of it, and
 * serves its output. It speaks to whatever API server it is given, ours or a real one. What goes wrong is asked for by the
 * image's name (`registry.test/...`) or by its methods.
 */
import { type ChildProcess, spawn } from "node:child_process"
import type { ServerResponse } from "node:http"
import { Agent, createServer, request as httpsRequest, type Server } from "node:https"
import type { TlsMaterial } from "../../src/layers/api/TlsMaterial.ts"
import { type Json, stamp, type Thing } from "./Store.ts"

export interface Access {
  readonly url: string
  readonly ca: string
  readonly token: string
}

interface Entry {
  /** Nanoseconds since 1970. */
  readonly at: bigint
  readonly bytes: Buffer
  /** Begins a line: the one before it ended with a newline. */
  readonly isLine: boolean
}

interface Running {
  readonly entries: Array<Entry>
  readonly followers: Set<() => void>
  child: ChildProcess | undefined
  isDone: boolean
  isDoomed: boolean
  /** How its end is told instead of as it was. */
  end: { reason: string; exitCode: number } | undefined
}

interface Container {
  readonly name: string
  readonly image: string
  readonly command?: ReadonlyArray<string>
  readonly args?: ReadonlyArray<string>
  readonly env?: ReadonlyArray<{
    readonly name: string
    readonly value?: string
    readonly valueFrom?: { readonly secretKeyRef?: { readonly name: string; readonly key: string } }
  }>
  readonly envFrom?: ReadonlyArray<{ readonly secretRef?: { readonly name: string } }>
}

/** How a runtime cuts lines that do not end. */
const LONGEST_LINE = 16_384
const started = process.hrtime.bigint()
const startedAt = BigInt(Date.now()) * 1_000_000n
const nowNanos = () => startedAt + (process.hrtime.bigint() - started)

const timeOf = (at: bigint) => {
  const [seconds, nanos] = [at / 1_000_000_000n, at % 1_000_000_000n]
  // Go leaves out zeros at the end.
  const fraction = nanos === 0n ? "" : `.${String(nanos).padStart(9, "0").replace(/0+$/, "")}`
  return `${new Date(Number(seconds) * 1000).toISOString().slice(0, 19)}${fraction}Z`
}

/** As Kubernetes replaces `$(NAME)` and `$$`. */
const expanded = (text: string, env: Readonly<Record<string, string>>) =>
  text.replaceAll(
    /\$\$|\$\(([^)]*)\)/g,
    (whole, name: string | undefined) => name === undefined ? "$" : env[name] ?? whole
  )

const killGroup = (child: ChildProcess | undefined, signal: NodeJS.Signals) => {
  if (child?.pid === undefined) return
  try {
    process.kill(-child.pid, signal)
  } catch {
    // All of it has ended.
  }
}

export class Kubelet {
  readonly node: string
  readonly #access: Access
  readonly #tls: TlsMaterial
  readonly #agent: Agent
  readonly #pods = new Map<string, Running>()
  readonly #secrets = new Map<string, Record<string, string>>()
  #server: Server | undefined
  #isStopped = false
  port = 0
  /** Container starts by Job name: how often something really ran. */
  readonly starts = new Map<string, number>()
  /** Milliseconds between a pod's arrival and its start. */
  delayMs = 0

  constructor(access: Access, tls: TlsMaterial, node = "node-1") {
    this.#access = access
    this.#tls = tls
    this.node = node
    this.#agent = new Agent({ keepAlive: true, maxSockets: 16 })
  }

  async start(): Promise<void> {
    const server = createServer(
      { cert: this.#tls.cert, key: this.#tls.key },
      (request, response) => this.#serveLog(new URL(request.url ?? "/", "https://x"), response)
    )
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    const address = server.address()
    this.port = typeof address === "object" && address !== null ? address.port : 0
    this.#server = server
    const node = {
      apiVersion: "v1",
      kind: "Node",
      metadata: { name: this.node, labels: { "kubernetes.io/hostname": this.node } }
    }
    await this.call("POST", "/api/v1/nodes", node).catch(() => undefined)
    await this.call("PATCH", `/api/v1/nodes/${this.node}/status`, {
      status: {
        addresses: [{ type: "InternalIP", address: "127.0.0.1" }],
        daemonEndpoints: { kubeletEndpoint: { Port: this.port } },
        conditions: [{
          type: "Ready",
          status: "True",
          reason: "KubeletReady",
          lastHeartbeatTime: stamp(),
          lastTransitionTime: stamp()
        }],
        capacity: { pods: "1000", cpu: "64", memory: "64Gi" },
        allocatable: { pods: "1000", cpu: "64", memory: "64Gi" }
      }
    }, "application/merge-patch+json")
    void this.#watch()
  }

  /** Ends at once, with its processes; what it had told stays told. */
  async stop(): Promise<void> {
    this.#isStopped = true
    for (const { child } of this.#pods.values()) killGroup(child, "SIGKILL")
    this.#agent.destroy()
    const server = this.#server
    server?.closeAllConnections()
    await new Promise<void>((resolve) => server === undefined ? resolve() : server.close(() => resolve()))
  }

  get running(): number {
    return [...this.#pods.values()].filter(({ child, isDone }) => child !== undefined && !isDone).length
  }

  /** One request to the API server; refusals are thrown. */
  call(method: string, path: string, body?: object, type = "application/json"): Promise<Thing> {
    return new Promise((resolve, reject) => {
      const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body))
      const url = new URL(this.#access.url)
      const request = httpsRequest({
        host: url.hostname,
        port: url.port,
        path,
        method,
        agent: this.#agent,
        ca: this.#access.ca,
        headers: {
          authorization: `Bearer ${this.#access.token}`,
          ...(bytes === undefined ? {} : { "content-type": type, "content-length": bytes.length })
        }
      }, (response) => {
        const parts: Array<Buffer> = []
        response.on("data", (part: Buffer) => parts.push(part))
        response.on("error", reject)
        response.on("end", () => {
          const text = Buffer.concat(parts).toString()
          if ((response.statusCode ?? 500) >= 300) {
            reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`))
          } else resolve(text === "" ? {} as Thing : JSON.parse(text) as Thing)
        })
      })
      request.on("error", reject)
      request.end(bytes)
    })
  }

  /** Objects, and the version of their list. */
  async list(path: string): Promise<{ readonly items: ReadonlyArray<Thing>; readonly version: string }> {
    const { items, metadata } = await this.call("GET", path)
    return { items: items as ReadonlyArray<Thing>, version: metadata.resourceVersion }
  }

  async #watch(): Promise<void> {
    while (!this.#isStopped) {
      try {
        const { items, version } = await this.list("/api/v1/pods")
        for (const pod of items) this.#seen(pod)
        await this.#follow(version)
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
    }
  }

  #follow(version: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const url = new URL(this.#access.url)
      const request = httpsRequest({
        host: url.hostname,
        port: url.port,
        path: `/api/v1/pods?watch=true&resourceVersion=${version}&allowWatchBookmarks=true`,
        agent: this.#agent,
        ca: this.#access.ca,
        headers: { authorization: `Bearer ${this.#access.token}` }
      }, (response) => {
        let rest = ""
        response.setEncoding("utf8")
        response.on("data", (part: string) => {
          const lines = (rest + part).split("\n")
          rest = lines.pop() ?? ""
          for (const line of lines) {
            const { object, type } = JSON.parse(line) as { type: string; object: Thing }
            if (type === "ADDED" || type === "MODIFIED") this.#seen(object)
            else if (type === "DELETED") this.#forget(object)
          }
        })
        response.on("end", resolve)
        response.on("error", reject)
        response.on("close", resolve)
      })
      request.on("error", reject)
      request.end()
    })
  }

  #seen(pod: Thing): void {
    const { deletionTimestamp, name, uid } = pod.metadata
    const node = pod.spec?.["nodeName"]
    if (node === undefined || node === "") {
      if (deletionTimestamp === undefined) void this.#schedule(pod)
      return
    }
    if (node !== this.node) return
    const known = this.#pods.get(uid)
    if (deletionTimestamp !== undefined) {
      if (known === undefined || known.isDone || known.child === undefined) void this.#bury(pod, known)
      else this.#doom(pod, known)
      return
    }
    if (known !== undefined || ["Succeeded", "Failed"].includes(String(pod.status?.["phase"]))) return
    const running: Running = {
      entries: [],
      followers: new Set(),
      child: undefined,
      isDone: false,
      isDoomed: false,
      end: undefined
    }
    this.#pods.set(uid, running)
    setTimeout(() =>
      void this.#begin(pod, running).catch((cause: unknown) => {
        if (!this.#isStopped) process.stderr.write(`kubelet: ${name}: ${String(cause)}\n`)
      }), this.delayMs)
  }

  /** Takes what fits its labels; what does not is told so, as a scheduler would. */
  async #schedule(pod: Thing): Promise<void> {
    const selector = (pod.spec?.["nodeSelector"] ?? {}) as Record<string, string>
    const path = `/api/v1/namespaces/${pod.metadata.namespace}/pods/${pod.metadata.name}`
    if (Object.entries(selector).some(([key, value]) => key !== "kubernetes.io/hostname" || value !== this.node)) {
      await this.#patch(pod, {
        conditions: [{
          type: "PodScheduled",
          status: "False",
          reason: "Unschedulable",
          message: "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
        }]
      })
      return
    }
    await this.call("POST", `${path}/binding`, {
      apiVersion: "v1",
      kind: "Binding",
      metadata: { name: pod.metadata.name },
      target: { apiVersion: "v1", kind: "Node", name: this.node }
    }).catch(() => undefined)
  }

  async #patch(pod: Thing, status: Json): Promise<void> {
    if (this.#isStopped) return
    const path = `/api/v1/namespaces/${pod.metadata.namespace}/pods/${pod.metadata.name}/status`
    for (let attempt = 0; attempt < 600 && !this.#isStopped; attempt++) {
      try {
        await this.call("PATCH", path, { status }, "application/merge-patch+json")
        return
      } catch (cause) {
        if (/ 404 | 409 /.test(String(cause))) return
        await new Promise((resolve) => setTimeout(resolve, 200))
      }
    }
  }

  #status(pod: Thing, state: Json): Json {
    const [container] = (pod.spec?.["containers"] ?? []) as ReadonlyArray<Container>
    return {
      containerStatuses: [{
        name: container?.name,
        image: container?.image,
        imageID: "",
        ready: state["running"] !== undefined,
        restartCount: 0,
        state
      }]
    }
  }

  async #waiting(pod: Thing, reason: string, message: string): Promise<void> {
    await this.#patch(pod, { phase: "Pending", ...this.#status(pod, { waiting: { reason, message } }) })
  }

  async #environment(pod: Thing, { env = [], envFrom = [] }: Container): Promise<Record<string, string>> {
    const secret = async (name: string): Promise<Record<string, string>> => {
      const known = this.#secrets.get(name)
      if (known !== undefined) return known
      const found = await this.call("GET", `/api/v1/namespaces/${pod.metadata.namespace}/secrets/${name}`).catch(() => {
        throw new Error(`secret "${name}" not found`)
      })
      const data = Object.entries((found["data"] ?? {}) as Record<string, string>)
      const values = Object.fromEntries(data.map(([key, value]) => [key, Buffer.from(value, "base64").toString()]))
      this.#secrets.set(name, values)
      return values
    }
    const made: Record<string, string> = {}
    for (const { secretRef } of envFrom) {
      Object.assign(made, secretRef === undefined ? {} : await secret(secretRef.name))
    }
    for (const { name, value = "", valueFrom } of env) {
      const reference = valueFrom?.secretKeyRef
      if (reference === undefined) made[name] = expanded(value, made)
      else {
        const found = (await secret(reference.name))[reference.key]
        if (found === undefined) {
          throw new Error(`couldn't find key ${reference.key} in Secret ${pod.metadata.namespace}/${reference.name}`)
        }
        made[name] = found
      }
    }
    return made
  }

  async #begin(pod: Thing, running: Running): Promise<void> {
    const [container] = (pod.spec?.["containers"] ?? []) as ReadonlyArray<Container>
    if (container === undefined) throw new Error("a pod without containers")
    const { args = [], command = [], image } = container
    await this.#waiting(pod, "ContainerCreating", "")
    if (/[A-Z]/.test(image.split(":")[0] ?? "")) {
      return await this.#waiting(
        pod,
        "InvalidImageName",
        `Failed to apply default image tag "${image}": couldn't parse image name: repository name must be lowercase`
      )
    }
    const pulls: Record<string, string> = {
      missing:
        `failed to pull and unpack image "${image}": failed to resolve reference "${image}": ${image}: not found`,
      away: `failed to do request: Head "https://registry.test/v2/": dial tcp 192.0.2.1:443: i/o timeout`,
      private: `failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized`
    }
    const fault = /^registry\.test\/([a-z-]+)/.exec(image)?.[1] ?? ""
    const pull = pulls[fault]
    if (pull !== undefined) {
      await this.#waiting(pod, "ErrImagePull", pull)
      setTimeout(() => void this.#waiting(pod, "ImagePullBackOff", `Back-off pulling image "${image}"`), 200)
      return
    }
    if (fault === "never") {
      return await this.#waiting(
        pod,
        "ErrImageNeverPull",
        `Container image "${image}" is not present with pull policy of Never`
      )
    }
    if (fault === "broken") return await this.#waiting(pod, "RunContainerError", "context deadline exceeded")
    if (fault === "slow") await new Promise((resolve) => setTimeout(resolve, 1000))
    let env: Record<string, string>
    try {
      env = await this.#environment(pod, container)
    } catch (cause) {
      await this.#waiting(pod, "CreateContainerConfigError", cause instanceof Error ? cause.message : String(cause))
      return
    }
    const argv = [...command, ...args].map((text) => expanded(text, env))
    const [program = "/bin/true", ...rest] = argv
    const owner = pod.metadata.ownerReferences?.[0]?.name ?? pod.metadata.name
    if (running.isDoomed || this.#isStopped) return
    const child = spawn(program, rest, {
      env: { PATH: "/usr/local/bin:/usr/bin:/bin", ...env },
      cwd: "/tmp",
      // A group of its own, in place of a pod's process namespace.
      detached: true,
      stdio: ["ignore", "pipe", "pipe"]
    })
    running.child = child
    const startedAt = stamp()
    const refused = await new Promise<Error | undefined>((resolve) => {
      child.once("error", resolve)
      child.once("spawn", () => resolve(undefined))
    })
    child.once("exit", () => killGroup(child, "SIGKILL"))
    if (refused !== undefined) {
      running.isDone = true
      await this.#ended(pod, running, {
        exitCode: 128,
        reason: "StartError",
        message: `failed to create containerd task: exec: "${program}": executable file not found in $PATH: unknown`,
        startedAt: "1970-01-01T00:00:00Z",
        finishedAt: stamp()
      })
      return
    }
    this.starts.set(owner, (this.starts.get(owner) ?? 0) + 1)
    this.#collect(child, running)
    const closed = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) =>
      child.once("close", (code, signal) => resolve({ code, signal }))
    )
    await this.#patch(pod, {
      phase: "Running",
      startTime: startedAt,
      conditions: [
        { type: "PodScheduled", status: "True" },
        { type: "Ready", status: "True" },
        { type: "ContainersReady", status: "True" }
      ],
      ...this.#status(pod, { running: { startedAt } })
    })
    const { code, signal } = await closed
    running.isDone = true
    for (const wake of running.followers) wake()
    const numbers: Record<string, number> = { SIGKILL: 9, SIGTERM: 15, SIGSEGV: 11, SIGABRT: 6, SIGINT: 2 }
    const exitCode = code ?? 128 + (numbers[signal ?? ""] ?? 1)
    await this.#ended(pod, running, {
      exitCode,
      reason: exitCode === 0 ? "Completed" : fault === "oom" ? "OOMKilled" : "Error",
      ...running.end,
      startedAt,
      finishedAt: stamp(),
      containerID: `test://${pod.metadata.uid}`
    })
  }

  async #ended(pod: Thing, running: Running, terminated: Json): Promise<void> {
    await this.#patch(pod, {
      phase: terminated["exitCode"] === 0 ? "Succeeded" : "Failed",
      ...this.#status(pod, { terminated })
    })
    if (running.isDoomed) await this.#bury(pod, running)
  }

  /** Lines with their times, cut as container runtimes cut them. */
  #collect(child: ChildProcess, running: Running): void {
    for (const stream of [child.stdout, child.stderr]) {
      let rest = Buffer.alloc(0)
      let isLine = true
      const add = (bytes: Buffer) => {
        running.entries.push({ at: nowNanos(), bytes, isLine })
        isLine = bytes.at(-1) === 10
      }
      stream?.on("data", (part: Buffer) => {
        rest = Buffer.concat([rest, part])
        for (;;) {
          const newline = rest.indexOf(10)
          const end = newline < 0
            ? (rest.length >= LONGEST_LINE ? LONGEST_LINE : 0)
            : Math.min(newline + 1, LONGEST_LINE)
          if (end === 0) break
          add(rest.subarray(0, end))
          rest = rest.subarray(end)
        }
        for (const wake of running.followers) wake()
      })
      stream?.on("end", () => {
        if (rest.length > 0) add(rest)
        for (const wake of running.followers) wake()
      })
    }
  }

  /** SIGTERM, and SIGKILL after the grace. */
  #doom(pod: Thing, running: Running): void {
    const grace = pod.metadata.deletionGracePeriodSeconds ?? 30
    if (!running.isDoomed) {
      running.isDoomed = true
      killGroup(running.child, "SIGTERM")
    }
    setTimeout(() => {
      if (!running.isDone) killGroup(running.child, "SIGKILL")
    }, grace * 1000)
  }

  async #bury(pod: Thing, running: Running | undefined): Promise<void> {
    if (running !== undefined) running.isDoomed = true
    if (this.#isStopped) return
    const path = `/api/v1/namespaces/${pod.metadata.namespace}/pods/${pod.metadata.name}`
    await this.call("DELETE", path, { gracePeriodSeconds: 0, preconditions: { uid: pod.metadata.uid } }).catch(() =>
      undefined
    )
  }

  #forget(pod: Thing): void {
    const running = this.#pods.get(pod.metadata.uid)
    if (running === undefined) return
    killGroup(running.child, "SIGKILL")
    this.#pods.delete(pod.metadata.uid)
  }

  async #find(job: string): Promise<{ pod: Thing; running: Running }> {
    const { items: [pod] } = await this.list(`/api/v1/pods?labelSelector=job-name%3D${job}`)
    const running = pod === undefined ? undefined : this.#pods.get(pod.metadata.uid)
    if (pod === undefined || running === undefined) throw new Error(`no pod of ${job} here`)
    return { pod, running }
  }

  /** The pod of that Job is evicted for want of something. */
  async evict(job: string, message: string): Promise<void> {
    const { pod, running } = await this.#find(job)
    running.end = { reason: "Error", exitCode: 137 }
    await this.#patch(pod, {
      phase: "Failed",
      reason: "Evicted",
      message,
      conditions: [{ type: "DisruptionTarget", status: "True", reason: "TerminationByKubelet", message }]
    })
    killGroup(running.child, "SIGKILL")
  }

  /** The kernel kills the container of that Job for want of memory. */
  async outOfMemory(job: string): Promise<void> {
    const { running } = await this.#find(job)
    running.end = { reason: "OOMKilled", exitCode: 137 }
    killGroup(running.child, "SIGKILL")
  }

  #serveLog(url: URL, response: ServerResponse): void {
    const [, , namespace, name] = url.pathname.split("/")
    void this.call("GET", `/api/v1/namespaces/${namespace}/pods/${name}`).then(
      ({ metadata }) => this.#sendLog(this.#pods.get(metadata.uid), url.searchParams, response),
      () => response.writeHead(404).end()
    )
  }

  #sendLog(running: Running | undefined, query: URLSearchParams, response: ServerResponse): void {
    if (running === undefined) {
      response.writeHead(404).end()
      return
    }
    const isTimed = query.get("timestamps") === "true"
    const sinceTime = query.get("sinceTime")
    const sinceSeconds = query.get("sinceSeconds")
    // In whole seconds, as the API hands it on.
    const since = sinceTime !== null
      ? BigInt(Math.floor(Date.parse(sinceTime) / 1000)) * 1_000_000_000n
      : sinceSeconds !== null
      ? nowNanos() - BigInt(sinceSeconds) * 1_000_000_000n
      : 0n
    const tail = query.get("tailLines")
    let at = running.entries.findIndex((entry) => entry.at >= since)
    if (at < 0) at = running.entries.length
    if (tail !== null) at = Math.max(at, running.entries.length - Number(tail))
    response.writeHead(200, { "content-type": "text/plain" })
    response.flushHeaders()
    let isWaiting = false
    const more = () => {
      if (isWaiting) return
      while (at < running.entries.length) {
        const parts: Array<Buffer> = []
        for (let size = 0; at < running.entries.length && size < 65_536; at += 1) {
          const entry = running.entries[at]
          if (entry === undefined) break
          if (isTimed && entry.isLine) parts.push(Buffer.from(`${timeOf(entry.at)} `))
          parts.push(entry.bytes)
          size += entry.bytes.length
        }
        if (!response.write(Buffer.concat(parts))) {
          isWaiting = true
          response.once("drain", () => {
            isWaiting = false
            more()
          })
          return
        }
      }
      if (running.isDone || query.get("follow") !== "true") response.end()
    }
    running.followers.add(more)
    response.on("close", () => running.followers.delete(more))
    more()
  }
}
