/** What is deployed, as a real API server takes it: the plain manifests, what helm makes of the chart, and its rights. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync, spawn } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { request } from "node:https"
import { join } from "node:path"
import { beforeAll } from "vitest"
import { parse, parseAllDocuments, stringify } from "yaml"
import { rights } from "../../src/layers/kubernetes/Kubernetes.ts"
import { type Ended, projectEnv } from "../support/Run.ts"
import { patience } from "../support/Slowness.ts"
import { projectRoot } from "../support/Tree.ts"
import { type Helm, helmOf } from "./Helm.ts"
import { named } from "./Rights.ts"

const admin = process.env["STOKER_TEST_KUBECONFIG"] ?? ""
const worker = process.env["STOKER_TEST_WORKER_KUBECONFIG"] ?? ""
const kubectlPath = process.env["STOKER_TEST_KUBECTL"] ?? "kubectl"
const chart = join(projectRoot, "infra/helm/stoker")
const plain = join(projectRoot, "infra/kubernetes")
const helm = helmOf()

const kubectl = (args: ReadonlyArray<string>, input = ""): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const env = { ...projectEnv, HOME: process.env["TMPDIR"] }
    const child = spawn(kubectlPath, ["--kubeconfig", admin, ...args], { env, stdio: ["pipe", "pipe", "pipe"] })
    let [stdout, stderr] = ["", ""]
    child.stdout.on("data", (part: Buffer) => stdout += part.toString())
    child.stderr.on("data", (part: Buffer) => stderr += part.toString())
    child.on("error", reject)
    child.on("close", (code) => resolve({ code: code ?? -1, stdout, stderr }))
    child.stdin.end(input)
  })

interface KubernetesObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string; readonly namespace?: string }
}

const objectsOf = (text: string): ReadonlyArray<KubernetesObject> =>
  parseAllDocuments(text).map((document) => document.toJS() as KubernetesObject | null).filter((object) =>
    object !== null
  )

/** The server's own word on each of them, field by field; nothing is made. KEDA's kinds are not this server's. */
const refusals = async (objects: ReadonlyArray<KubernetesObject>): Promise<ReadonlyArray<string>> => {
  const found: Array<string> = []
  for (const object of objects) {
    if (object.apiVersion.startsWith("keda.sh/")) continue
    // The budget's other name, which this server knows it by: the same fields.
    const asked = object.apiVersion === "policy/v1" ? { ...object, apiVersion: "policy/v1beta1" } : object
    const { code, stderr } = await kubectl(
      ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"],
      stringify(asked, { aliasDuplicateObjects: false })
    )
    if (code !== 0) found.push(`${object.kind} ${object.metadata.name}: ${stderr}`)
  }
  return found
}

const manifestFiles = readdirSync(plain).filter((name) => /^\d/.test(name)).toSorted()

beforeAll(async () => {
  for (const name of ["stoker-jobs", "elsewhere"]) {
    const made = await kubectl(["create", "namespace", name])
    if (made.code !== 0 && !made.stderr.includes("AlreadyExists")) throw new Error(made.stderr)
  }
})

describe("the plain manifests", () => {
  it.for(manifestFiles)("%s is accepted", { timeout: patience(120_000) }, async (name) => {
    const objects = objectsOf(readFileSync(join(plain, name), "utf8"))
    assert.isAbove(objects.length, 0)
    assert.deepStrictEqual(await refusals(objects), [])
  })

  it("would not be, with a field too many or of another kind", async () => {
    const [role] = objectsOf(readFileSync(join(plain, "10-worker.yaml"), "utf8")).filter(({ kind }) => kind === "Role")
    const [deployment] = objectsOf(readFileSync(join(plain, "10-worker.yaml"), "utf8")).filter(({ kind }) =>
      kind === "Deployment"
    )
    if (role === undefined || deployment === undefined) throw new Error("no Role, or no Deployment")
    const wrong = [
      { ...role, rules: [{ apiGroups: ["batch"], resource: ["jobs"], verbs: ["get"] }] },
      { ...deployment, spec: { replicas: "three" } }
    ]
    assert.strictEqual((await refusals(wrong)).length, 2)
  })
})

describe.skipIf(helm === undefined)("the chart", () => {
  const it1 = helm as Helm
  const accounts = "objectstore.accessKey=stoker,objectstore.secretKey=eight-or-more"
  const everything = [
    `rabbitmq.enabled=true,objectstore.enabled=true,${accounts},mstc.enabled=true,mstc.rest.enabled=true`,
    "jobs.quota.enabled=true,jobs.imagesAllow={debian:},jobs.secrets={registry},jobs.imagesDigests=true,autoscaling.enabled=true",
    "journal.existingSecret=pg,image.pullSecrets[0].name=pull,worker.priorityClassName=high,worker.podAnnotations.a=b"
  ]
  const sets = (values: ReadonlyArray<string>) => values.flatMap((value) => ["--set", value])

  it("passes helm's own examination", async () => {
    const { code, stdout } = await it1.run(["lint", "--strict", chart])
    assert.strictEqual(code, 0, stdout)
  })

  it("is what the plain manifests are made of", () => {
    execFileSync("node", [join(projectRoot, "scripts/manifests.mjs"), "--check"], { env: projectEnv, stdio: "pipe" })
  })

  it.for(
    [
      ["as it is", []],
      ["with all it has", everything],
      ["with a volume", ["state.type=claim,rbac.create=false,networkPolicy.enabled=false,jobs.namespace="]],
      ["with a broker and a store without volumes", [
        `rabbitmq.enabled=true,rabbitmq.storage=,objectstore.enabled=true,objectstore.storage=,${accounts}`
      ]]
    ] as const
  )("%s is accepted", { timeout: patience(180_000) }, async ([, values]) => {
    const { code, stderr, stdout } = await it1.run(["template", "one", chart, "-n", "elsewhere", ...sets(values)])
    assert.strictEqual(code, 0, stderr)
    const objects = objectsOf(stdout).filter(({ kind }) => kind !== "Namespace")
    assert.deepStrictEqual(await refusals(objects), [])
  })

  it.for(
    [
      ["worker.slotz=3", /slotz/],
      ["replicas=two", /replicas/],
      ["jobs.secrets=all", /secrets/],
      ["image.digest=latest", /digest/],
      ["state.type=claim,replicas=2", /claim is for one worker/],
      ["autoscaling.enabled=true", /autoscaling needs a broker/],
      ["mstc.enabled=true", /mstc needs a broker/],
      ["objectstore.enabled=true", /accessKey is needed/],
      ["store.endpoint=https://store.example", /store.endpoint needs store.workerSecret/]
    ] as const
  )("%s is refused, and said why", async ([value, why]) => {
    const { code, stderr } = await it1.run(["template", "one", chart, "--set", value])
    assert.notStrictEqual(code, 0)
    assert.match(stderr, why)
  })

  it("is installed, upgraded and taken away; the broker's password stays, and the jobs' namespace", {
    timeout: patience(180_000)
  }, async () => {
    const at = ["-n", "elsewhere", "--kubeconfig", admin]
    const usual = ["rabbitmq.enabled=true", "jobs.namespace=elsewhere-jobs"]
    const secret = () =>
      kubectl(["-n", "elsewhere", "get", "secret", "two-rabbitmq", "-o", "jsonpath={.data.password} {.data.url}"])
    const installed = await it1.run(["install", "two", chart, ...at, ...sets(usual)])
    assert.strictEqual(installed.code, 0, installed.stderr)
    assert.match(installed.stdout, /run them in namespace elsewhere-jobs/)
    const before = (await secret()).stdout
    const [password = "", url = ""] = before.split(" ").map((text) => Buffer.from(text, "base64").toString())
    assert.match(password, /^[A-Za-z0-9]{32}$/)
    assert.strictEqual(url, `amqp://stoker:${password}@two-rabbitmq:5672/`)
    const upgraded = await it1.run(["upgrade", "two", chart, ...at, ...sets([...usual, "worker.slots=7"])])
    assert.strictEqual(upgraded.code, 0, upgraded.stderr)
    assert.strictEqual((await secret()).stdout, before)
    const configuration = await kubectl([
      "-n",
      "elsewhere",
      "get",
      "configmap",
      "two",
      "-o",
      "jsonpath={.data.stoker\\.json}"
    ])
    assert.strictEqual((JSON.parse(configuration.stdout) as { slots: number }).slots, 7)
    const removed = await it1.run(["uninstall", "two", ...at])
    assert.strictEqual(removed.code, 0, removed.stderr)
    const left = await kubectl([
      "-n",
      "elsewhere",
      "get",
      "all,configmap,role,rolebinding,networkpolicy,pdb,secret",
      "-l",
      "app.kubernetes.io/instance=two",
      "-o",
      "name"
    ])
    assert.strictEqual(left.stdout, "", left.stderr)
    assert.strictEqual(
      (await kubectl(["get", "namespace", "elsewhere-jobs", "-o", "name"])).stdout,
      "namespace/elsewhere-jobs\n"
    )
  })
})

interface Rule {
  readonly verbs: ReadonlyArray<string>
  readonly apiGroups?: ReadonlyArray<string>
  readonly resources?: ReadonlyArray<string>
}

describe("the worker's account", () => {
  const config = () =>
    parse(readFileSync(worker, "utf8")) as {
      clusters: [{ cluster: { server: string; "certificate-authority-data": string } }]
      users: [{ user: { token: string } }]
    }
  const ask = (
    method: string,
    path: string,
    body?: object
  ): Promise<{ readonly code: number; readonly text: string }> =>
    new Promise((resolve, reject) => {
      const { clusters: [{ cluster }], users: [{ user }] } = config()
      const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body))
      const asked = request(new URL(path, cluster.server), {
        method,
        ca: Buffer.from(cluster["certificate-authority-data"], "base64"),
        headers: {
          authorization: `Bearer ${user.token}`,
          ...(bytes === undefined ? {} : { "content-type": "application/json", "content-length": bytes.length })
        }
      }, (response) => {
        let text = ""
        response.on("data", (part: Buffer) => text += part.toString())
        response.on("end", () => resolve({ code: response.statusCode ?? 0, text }))
      })
      asked.on("error", reject)
      asked.end(bytes)
    })

  /** As the server itself lists them; what every account may ask about itself is left out. */
  const rulesIn = async (namespace: string): Promise<ReadonlySet<string>> => {
    const { code, text } = await ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {
      apiVersion: "authorization.k8s.io/v1",
      kind: "SelfSubjectRulesReview",
      spec: { namespace }
    })
    assert.strictEqual(code, 201, text)
    const { resourceRules } = (JSON.parse(text) as { status: { resourceRules: ReadonlyArray<Rule> } }).status
    return new Set(
      resourceRules.flatMap(({ apiGroups = [], resources = [], verbs }) =>
        apiGroups.filter((group) => group !== "authorization.k8s.io").flatMap((group) =>
          resources.flatMap((resource) => verbs.map((verb) => named(verb, group, resource)))
        )
      )
    )
  }

  it("may exactly what the executor does, in the jobs' namespace and nowhere else", async () => {
    const needed = new Set(rights.map(({ group, resource, verb }) => named(verb, group, resource)))
    assert.deepStrictEqual([...await rulesIn("jobs")].toSorted(), [...needed].toSorted())
    for (const namespace of ["default", "kube-system", "stoker", "stoker-jobs"]) {
      assert.deepStrictEqual([...await rulesIn(namespace)], [], namespace)
    }
  })

  it.for(
    [
      ["GET", "/api/v1/namespaces/jobs/secrets"],
      ["GET", "/api/v1/namespaces/stoker/secrets"],
      ["GET", "/api/v1/namespaces/jobs/configmaps"],
      ["POST", "/api/v1/namespaces/jobs/pods"],
      ["POST", "/api/v1/namespaces/jobs/pods/any/exec"],
      ["POST", "/api/v1/namespaces/jobs/serviceaccounts/default/token"],
      ["DELETE", "/apis/batch/v1/namespaces/jobs/jobs"],
      ["PUT", "/apis/batch/v1/namespaces/jobs/jobs/any"],
      ["GET", "/apis/batch/v1/namespaces/default/jobs"],
      ["GET", "/apis/batch/v1/jobs"],
      ["GET", "/api/v1/pods"],
      ["GET", "/api/v1/nodes"],
      ["POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/jobs/rolebindings"]
    ] as const
  )("is refused %s %s", async ([method, path]) => {
    const { code, text } = await ask(method, path, method === "GET" ? undefined : {})
    assert.strictEqual(code, 403, text)
  })
})
