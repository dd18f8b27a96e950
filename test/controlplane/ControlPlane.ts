/** A real control plane on loopback, of the programs scripts/control-plane makes: etcd, API server, controllers. */
import { type ChildProcess, spawn } from "node:child_process"
import { generateKeyPairSync } from "node:crypto"
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs"
import { request } from "node:https"
import { createServer } from "node:net"
import { join } from "node:path"
import { writeKubeconfig } from "../kubernetes/Kubeconfig.ts"
import { projectRoot } from "../support/Tree.ts"

export const programs = join(projectRoot, "build/kubernetes/current")

/** What it is made of, one package a line. */
export const versions = (): ReadonlyArray<string> => [
  ...readFileSync(join(programs, "packages"), "utf8").trim().split("\n"),
  readFileSync(join(programs, "compiler"), "utf8").trim()
]

const freePorts = async (count: number): Promise<ReadonlyArray<number>> => {
  const servers = Array.from({ length: count }, () => createServer())
  const ports = await Promise.all(
    servers.map((server) =>
      new Promise<number>((resolve) =>
        server.listen(0, "127.0.0.1", () => {
          const address = server.address()
          resolve(typeof address === "object" && address !== null ? address.port : 0)
        })
      )
    )
  )
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

export interface Answer {
  readonly code: number
  readonly text: string
}

/** One life of it; everything lies in `folder`. */
export class ControlPlane {
  readonly folder: string
  readonly #children: Array<{ readonly name: string; readonly child: ChildProcess }> = []
  #isStopped = false
  server = ""
  /** PEM of the authority of the API server's certificate. */
  ca = ""

  constructor(folder: string) {
    this.folder = folder
  }

  get adminToken(): string {
    return "admin-of-the-tests"
  }

  get adminConfig(): string {
    return join(this.folder, "admin.kubeconfig")
  }

  /** Where the API server writes down who asked for what. */
  get auditLog(): string {
    return join(this.folder, "audit.log")
  }

  /** A kubeconfig for a token. */
  config(name: string, token: string, namespace: string): string {
    return writeKubeconfig(join(this.folder, name), { server: this.server, ca: this.ca, user: { token }, namespace })
  }

  #spawn(name: string, args: ReadonlyArray<string>): void {
    if (this.#isStopped) throw new Error("stopped while it started")
    const log = openSync(join(this.folder, `${name}.log`), "a")
    // Should we be killed, the kernel ends it too.
    const child = spawn("setpriv", ["--pdeathsig", "KILL", join(programs, name), ...args], {
      cwd: this.folder,
      stdio: ["ignore", log, log]
    })
    closeSync(log)
    this.#children.push({ name, child })
  }

  #said(name: string): string {
    const file = join(this.folder, `${name}.log`)
    return existsSync(file) ? readFileSync(file, "utf8").slice(-3000) : ""
  }

  async #until(what: string, is: () => Promise<boolean>): Promise<void> {
    for (let round = 0; round < 1200; round++) {
      const ended = this.#children.find(({ child }) => child.exitCode !== null || child.signalCode !== null)
      if (ended !== undefined) throw new Error(`${ended.name} ended:\n${this.#said(ended.name)}`)
      if (await is().catch(() => false)) return
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    throw new Error(`never ${what}:\n${this.#children.map(({ name }) => this.#said(name)).join("\n")}`)
  }

  async start(): Promise<void> {
    const [client = 0, peer = 0, api = 0, manager = 0] = await freePorts(4)
    const [clientUrl, peerUrl] = [`http://127.0.0.1:${client}`, `http://127.0.0.1:${peer}`]
    mkdirSync(join(this.folder, "certs"), { recursive: true })
    const pair = generateKeyPairSync("rsa", {
      modulusLength: 2048,
      publicKeyEncoding: { type: "spki", format: "pem" },
      privateKeyEncoding: { type: "pkcs1", format: "pem" }
    })
    const file = (name: string, text: string) => {
      writeFileSync(join(this.folder, name), text, { mode: 0o600 })
      return join(this.folder, name)
    }
    const [accountKey, accountPublic] = [file("accounts.key", pair.privateKey), file("accounts.pub", pair.publicKey)]
    const tokens = file("tokens.csv", `${this.adminToken},admin,1,system:masters\n`)
    const audit = file(
      "audit.yaml",
      JSON.stringify({
        apiVersion: "audit.k8s.io/v1",
        kind: "Policy",
        omitStages: ["RequestReceived"],
        rules: [{ level: "Metadata", userGroups: ["system:serviceaccounts"] }, { level: "None" }]
      })
    )
    this.#spawn("etcd", [
      "--data-dir",
      join(this.folder, "etcd"),
      "--listen-client-urls",
      clientUrl,
      "--advertise-client-urls",
      clientUrl,
      "--listen-peer-urls",
      peerUrl,
      "--initial-advertise-peer-urls",
      peerUrl,
      "--initial-cluster",
      `default=${peerUrl}`,
      "--unsafe-no-fsync"
    ])
    this.#spawn("kube-apiserver", [
      `--etcd-servers=${clientUrl}`,
      "--bind-address=127.0.0.1",
      `--secure-port=${api}`,
      // A network of our own has no default route to find one by; nobody asks for it.
      "--advertise-address=192.0.2.1",
      "--endpoint-reconciler-type=none",
      `--cert-dir=${join(this.folder, "certs")}`,
      "--service-cluster-ip-range=10.0.0.0/24",
      "--service-account-issuer=https://kubernetes.default.svc",
      `--service-account-key-file=${accountPublic}`,
      `--service-account-signing-key-file=${accountKey}`,
      "--authorization-mode=RBAC",
      `--token-auth-file=${tokens}`,
      "--enable-priority-and-fairness=false",
      "--feature-gates=TTLAfterFinished=true",
      `--audit-policy-file=${audit}`,
      `--audit-log-path=${this.auditLog}`,
      "--audit-log-mode=blocking"
    ])
    this.server = `https://127.0.0.1:${api}`
    const certificate = join(this.folder, "certs", "apiserver.crt")
    await this.#until("made a certificate", () => Promise.resolve(existsSync(certificate)))
    await this.#until("ready", async () => {
      this.ca = readFileSync(certificate, "utf8")
      return (await this.ask("GET", "/readyz")).code === 200
    })
    const admin = this.config("admin.kubeconfig", this.adminToken, "default")
    this.#spawn("kube-controller-manager", [
      `--kubeconfig=${admin}`,
      `--authentication-kubeconfig=${admin}`,
      `--authorization-kubeconfig=${admin}`,
      "--controllers=job,garbagecollector,namespace,podgc,ttl-after-finished,serviceaccount,serviceaccount-token,resourcequota",
      "--feature-gates=TTLAfterFinished=true",
      `--service-account-private-key-file=${accountKey}`,
      `--root-ca-file=${certificate}`,
      // As a cluster of some size has them; the defaults make 200 Jobs wait for ten seconds each.
      "--kube-api-qps=1000",
      "--kube-api-burst=2000",
      "--leader-elect=false",
      "--port=0",
      `--secure-port=${manager}`,
      "--bind-address=127.0.0.1"
    ])
    await this.#until(
      "has accounts",
      async () => (await this.ask("GET", "/api/v1/namespaces/default/serviceaccounts/default")).code === 200
    )
  }

  /** One request, by the administrator unless another token is given. */
  ask(
    method: string,
    path: string,
    body?: object,
    token = this.adminToken,
    type = "application/json"
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body))
      const asked = request(new URL(path, this.server), {
        method,
        ca: this.ca,
        headers: {
          authorization: `Bearer ${token}`,
          ...(bytes === undefined ? {} : { "content-type": type, "content-length": bytes.length })
        }
      }, (response) => {
        const parts: Array<Buffer> = []
        response.on("data", (part: Buffer) => parts.push(part))
        response.on("error", reject)
        response.on("end", () => resolve({ code: response.statusCode ?? 0, text: Buffer.concat(parts).toString() }))
      })
      asked.on("error", reject)
      asked.end(bytes)
    })
  }

  /** A token of an account, as pods are given. */
  async token(namespace: string, account: string): Promise<string> {
    const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`
    const { code, text } = await this.ask("POST", path, {
      apiVersion: "authentication.k8s.io/v1",
      kind: "TokenRequest",
      spec: { expirationSeconds: 4 * 3600 }
    })
    if (code !== 201) throw new Error(`no token for ${namespace}/${account}: ${code} ${text}`)
    return (JSON.parse(text) as { status: { token: string } }).status.token
  }

  /** The last one started ends first. */
  async stop(): Promise<void> {
    this.#isStopped = true
    for (const { child } of this.#children.splice(0).toReversed()) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const ended = new Promise((resolve) => child.once("exit", resolve))
      child.kill("SIGTERM")
      const late = setTimeout(() => child.kill("SIGKILL"), 10_000)
      await ended
      clearTimeout(late)
    }
  }
}
