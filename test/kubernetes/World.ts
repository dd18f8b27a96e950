/** A cluster for tests: the stand-in with a node, or a real control plane named by STOKER_TEST_KUBECONFIG; and what to run. */
import { Effect, type Scope } from "effect"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parse } from "yaml"
import type { Container } from "../../src/schemas/Container.ts"
import { ClassName, FunctionName, IntakeName, JobId, Owner } from "../../src/schemas/Ids.ts"
import type { Job } from "../../src/schemas/Job.ts"
import { type Limits, standardDefaults } from "../../src/schemas/Limits.ts"
import type { Program } from "../../src/schemas/Program.ts"
import type { SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import { certificates } from "../support/Certs.ts"
import { ApiServer } from "./ApiServer.ts"
import { writeKubeconfig } from "./Kubeconfig.ts"
import { Kubelet } from "./Kubelet.ts"

export const namespace = "jobs"

/** Set by `npm run test:kubernetes`: a kubeconfig of a control plane that is no stand-in, with all rights. */
export const realKubeconfig = process.env["STOKER_TEST_KUBECONFIG"]

/** And one of an account that has our Role and nothing else: what executors are given there. */
const workerKubeconfig = process.env["STOKER_TEST_WORKER_KUBECONFIG"]

export interface World {
  /** What executors are given: of an account with all rights, on a real control plane with our Role's alone. */
  readonly kubeconfig: string
  readonly folder: string
  readonly kubelet: Kubelet
  /** Absent: a real control plane, which makes no faults on demand. */
  readonly api: ApiServer | undefined
}

/** A kubeconfig for another account of the stand-in. */
export const configFor = (world: World, name: string, user: object): string => {
  if (world.api === undefined) throw new Error("a real control plane has accounts of its own")
  const { cluster } = (parse(readFileSync(world.kubeconfig, "utf8")) as {
    clusters: [{ cluster: { server: string; "certificate-authority-data": string } }]
  }).clusters[0]
  const ca = Buffer.from(cluster["certificate-authority-data"], "base64").toString()
  return writeKubeconfig(join(world.folder, name), { server: cluster.server, ca, user, namespace })
}

const standIn = async (folder: string): Promise<World> => {
  const { server: tls } = await certificates()
  const api = new ApiServer({ tls })
  await api.listen()
  api.tokens.set("all", "admin")
  const kubeconfig = writeKubeconfig(join(folder, "kubeconfig"), {
    server: api.url,
    ca: tls.ca,
    user: { token: "all" },
    namespace
  })
  api.tokens.set("node", "kubelet")
  const kubelet = new Kubelet({ url: api.url, ca: tls.ca, token: "node" }, tls)
  await kubelet.call("POST", "/api/v1/namespaces", {
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name: namespace }
  })
  await kubelet.start()
  return { kubeconfig, folder, kubelet, api }
}

/** What the test before left in the namespace goes: nodes that are gone end no pods. */
const emptied = async (kubelet: Kubelet): Promise<void> => {
  const [jobs, pods] = [`/apis/batch/v1/namespaces/${namespace}/jobs`, `/api/v1/namespaces/${namespace}/pods`]
  for (let round = 0; round < 300; round++) {
    await kubelet.call("DELETE", jobs, { propagationPolicy: "Background" })
    await kubelet.call("DELETE", pods, { gracePeriodSeconds: 0 })
    const lists = await Promise.all([jobs, pods].map((path) => kubelet.list(path)))
    if (lists.every(({ items }) => items.length === 0)) return
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error("the namespace does not become empty")
}

const real = async (folder: string, kubeconfig: string): Promise<World> => {
  const { server: tls } = await certificates()
  const config = parse(readFileSync(kubeconfig, "utf8")) as {
    clusters: [{ cluster: { server: string; "certificate-authority"?: string; "certificate-authority-data"?: string } }]
    users: [{ user: { token: string } }]
  }
  const { cluster } = config.clusters[0]
  const ca = cluster["certificate-authority-data"] === undefined
    ? readFileSync(cluster["certificate-authority"] ?? "", "utf8")
    : Buffer.from(cluster["certificate-authority-data"], "base64").toString()
  const kubelet = new Kubelet(
    { url: cluster.server, ca, token: config.users[0].user.token },
    tls,
    `node-${process.pid}`
  )
  await kubelet.call("POST", "/api/v1/namespaces", {
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name: namespace }
  })
    .catch(() => undefined)
  await emptied(kubelet)
  await kubelet.start()
  return { kubeconfig: workerKubeconfig ?? kubeconfig, folder, kubelet, api: undefined }
}

/** The cluster, until the scope closes. */
export const world: Effect.Effect<World, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(() => {
    const folder = mkdtempSync(join(tmpdir(), "k8s-"))
    return realKubeconfig === undefined ? standIn(folder) : real(folder, realKubeconfig)
  }),
  ({ api, folder, kubelet }) =>
    Effect.promise(async () => {
      await kubelet.stop()
      await kubelet.call("DELETE", `/api/v1/nodes/${kubelet.node}`).catch(() => undefined)
      await api?.close()
      rmSync(folder, { recursive: true, force: true })
    })
)

let number = 0

/** A job nobody else has. */
export const makeJob = (id = `job-${process.pid}-${Date.now().toString(36)}-${number++}`): Job => ({
  id: JobId.make(id),
  owner: Owner.make("local"),
  intake: IntakeName.make("test"),
  function: FunctionName.make("container"),
  args: {},
  limits: {}
})

export const classOf = (kubeconfig: string, more: Partial<SandboxClass> = {}): SandboxClass => ({
  ...standardClass("cluster", "kubernetes"),
  name: ClassName.make("cluster"),
  ...more,
  cluster: { kubeconfig, namespace, ...more.cluster }
})

/** A script as a container job. */
export const containerOf = (script: string, more: Partial<Container> = {}): Container => ({
  image: "debian:12",
  name: "test",
  command: ["/bin/sh", "-c", script],
  env: {},
  secrets: {},
  ...more
})

export const programOf = (container: Container, limits: Partial<Limits> = {}): Program => ({
  files: [],
  phases: [{
    name: "run",
    argv: ["container"],
    env: {},
    stdin: new Uint8Array(),
    limits: { ...standardDefaults, wallMs: 60_000, outputBytes: 64 * 1024 * 1024, ...limits }
  }],
  artefacts: [],
  container
})
