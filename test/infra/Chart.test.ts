/**
 * The chart and the manifests made of it, as far as that can be said without helm; `npm run test:kubernetes` renders them, and has a
 * real API server look at them.
 */
import { assert, describe, it } from "@effect/vitest"
import { Ajv } from "ajv"
import { Result } from "effect"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { parse, parseAllDocuments } from "yaml"
import { rights } from "../../src/layers/kubernetes/Kubernetes.ts"
import { readDaemonConfig } from "../../src/schemas/DaemonText.ts"
import { workerConfigOf } from "../../src/schemas/DaemonWorker.ts"
import { faultLine } from "../../src/schemas/JsonDocument.ts"
import { run } from "../support/Run.ts"
import { projectRoot } from "../support/Tree.ts"

const chart = join(projectRoot, "infra/helm/stoker")
const plain = join(projectRoot, "infra/kubernetes")
const text = (...path: ReadonlyArray<string>) => readFileSync(join(...path), "utf8")

interface Values {
  readonly [name: string]: unknown
}
const isValues = (value: unknown): value is Values =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const values = parse(text(chart, "values.yaml")) as Values
const subchart = (name: string) => parse(text(chart, "charts", name, "values.yaml")) as Values
/** As helm sees them: with what the charts inside say. */
const all: Values = {
  ...values,
  rabbitmq: { ...subchart("rabbitmq"), ...values["rabbitmq"] as Values },
  objectstore: { ...subchart("objectstore"), ...values["objectstore"] as Values }
}

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>
  readonly $ref?: string
}
const schema = JSON.parse(text(chart, "values.schema.json")) as Schema & {
  definitions: Readonly<Record<string, Schema>>
}
const validate = new Ajv({ allErrors: true, allowUnionTypes: true }).compile(schema)

/** The value at a path replaced. */
const changed = (path: string, value: unknown): Values => {
  const copy = structuredClone(all) as Record<string, unknown>
  const names = path.split(".")
  const last = names.pop() ?? ""
  let at = copy
  for (const name of names) at = at[name] as Record<string, unknown>
  at[last] = value
  return copy
}

interface Container {
  readonly image: string
  readonly securityContext?: Values
  readonly env?: ReadonlyArray<{ readonly name: string }>
  readonly ports?: ReadonlyArray<{ readonly name: string; readonly containerPort: number }>
  readonly livenessProbe?: Values
  readonly readinessProbe?: Values
  readonly resources?: { readonly requests?: Values; readonly limits?: Values }
  readonly volumeMounts?: ReadonlyArray<{ readonly name: string }>
}
interface Template {
  readonly metadata: { readonly labels: Readonly<Record<string, string>> }
  readonly spec: {
    readonly securityContext?: Values
    readonly containers: ReadonlyArray<Container>
    readonly volumes?: ReadonlyArray<{ readonly name: string }>
    readonly terminationGracePeriodSeconds?: number
    readonly serviceAccountName?: string
  }
}
interface KubernetesObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly labels?: Readonly<Record<string, string>>
  }
  readonly spec?: Values & { readonly template?: Template; readonly selector?: unknown; readonly podSelector?: unknown }
  readonly data?: Readonly<Record<string, string>>
  readonly rules?: ReadonlyArray<Readonly<Record<"apiGroups" | "resources" | "verbs", ReadonlyArray<string>>>>
  readonly roleRef?: Values
  readonly subjects?: ReadonlyArray<Values>
}

const files = readdirSync(plain).filter((name) => /^\d.*\.yaml$/.test(name)).toSorted()
const objects = files.flatMap((name) =>
  parseAllDocuments(text(plain, name)).map((document) => document.toJS() as KubernetesObject | null)
    .filter((object) => object !== null)
)
const of = (kind: string, name: string) => {
  const found = objects.find((object) => object.kind === kind && object.metadata.name === name)
  if (found === undefined) throw new Error(`no ${kind} ${name}`)
  return found
}
const templates = objects.flatMap(({ metadata, spec }) =>
  spec?.template === undefined ? [] : [{ name: metadata.name, namespace: metadata.namespace, template: spec.template }]
)

describe("the chart's values", () => {
  it("are what their schema allows", () => {
    assert.isTrue(validate(all), JSON.stringify(validate.errors))
  })

  it("are all described by the schema, and it describes nothing else", () => {
    const walk = (value: Values, described: Schema, path: string): ReadonlyArray<string> => {
      const resolved = described.$ref === undefined
        ? described
        : schema.definitions[described.$ref.replace("#/definitions/", "")] ?? {}
      const { properties } = resolved
      // Maps whose names are the reader's.
      if (properties === undefined) return []
      const names = Object.keys(value).filter((name) => !(name in properties)).map((name) =>
        `${path}${name} is not described`
      )
      const optional = new Set(["global", "wall", "memory", "cpus", "disk", "output", "requests", "limits"])
      const more = Object.keys(properties).filter((name) => !(name in value) && !optional.has(name))
        .map((name) => `${path}${name} has no default`)
      const deeper = Object.entries(value).flatMap(([name, inner]) =>
        isValues(inner) && properties[name] !== undefined ? walk(inner, properties[name], `${path}${name}.`) : []
      )
      return [...names, ...more, ...deeper]
    }
    assert.deepStrictEqual(walk(all, schema, ""), [])
  })

  it.for(
    [
      ["replica", 1],
      ["replicas", "1"],
      ["worker.slotz", 3],
      ["worker.slots", 0],
      ["worker.logLevel", "debug"],
      ["image.digest", "latest"],
      ["image.pullPolicy", "Sometimes"],
      ["state.type", "hostPath"],
      ["jobs.runAsUser", 0],
      ["jobs.secrets", "all"],
      ["jobs.namespace", "Not_A_Name"],
      ["jobs.ceiling.wall", "two hours"],
      ["http.port", 70_000],
      ["objectstore.secretKey", "short"],
      ["rabbitmq.storage", "much"],
      ["networkPolicy.egressPorts", []]
    ] as const
  )("%s: %s is refused", ([path, value]) => {
    assert.isFalse(validate(changed(path, value)))
  })

  it("say what each of them is", () => {
    const lines = text(chart, "values.yaml").split("\n")
    const bare = lines.filter((line, index) => /^[a-z]\w*:/.test(line) && !(lines[index - 1] ?? "").startsWith("#"))
    assert.deepStrictEqual(bare, [])
  })
})

describe("the plain manifests", () => {
  it("are made of the chart as it is", async () => {
    // The chart's hash; that they are what helm makes of it is examined where helm is.
    const { stdout } = await run("node", [
      "--input-type=module",
      "-e",
      `import { sourceHash } from ${
        JSON.stringify(join(projectRoot, "scripts/manifests.mjs"))
      }; process.stdout.write(sourceHash())`
    ])
    for (const name of files) {
      assert.include(text(plain, name), `infra/helm/stoker (${stdout});`, "run scripts/manifests.mjs")
    }
  })

  it("give the worker exactly the rights its executor has use for", () => {
    const [given, needed] = [new Set<string>(), new Set<string>()]
    for (const { apiGroups, resources, verbs } of of("Role", "stoker").rules ?? []) {
      for (const group of apiGroups) {
        for (const resource of resources) for (const verb of verbs) given.add(`${verb} ${group}/${resource}`)
      }
    }
    for (const { group, resource, verb } of rights) needed.add(`${verb} ${group}/${resource}`)
    assert.deepStrictEqual([...given].toSorted(), [...needed].toSorted())
    assert.strictEqual(of("Role", "stoker").metadata.namespace, "stoker-jobs")
    const binding = of("RoleBinding", "stoker")
    assert.deepStrictEqual(binding.subjects, [{ kind: "ServiceAccount", name: "stoker", namespace: "stoker" }])
    assert.isEmpty(objects.filter(({ kind }) => kind.startsWith("ClusterRole")))
    assert.strictEqual(of("Deployment", "stoker").spec?.template?.spec.serviceAccountName, "stoker")
  })

  it("hold a configuration that a worker takes", () => {
    const read = readDaemonConfig(of("ConfigMap", "stoker").data?.["stoker.json"] ?? "")
    const config = workerConfigOf(Result.getOrThrowWith(read, (faults) => new Error(faults.map(faultLine).join("\n"))))
    const [made] = config.classes
    assert.strictEqual(made.driver, "kubernetes")
    assert.deepInclude(made.cluster, { namespace: "stoker-jobs", runAsUser: 65_532, storeSecret: "stoker-store" })
    assert.strictEqual(config.objectStore?.endpoint, "http://stoker-objectstore.stoker.svc:9000")
    const grace = of("Deployment", "stoker").spec?.template?.spec.terminationGracePeriodSeconds ?? 0
    assert.isAtLeast(grace * 1000, config.drainMs + 30_000)
  })

  it("run nobody as root, with no capability and no more than is said", () => {
    assert.isAtLeast(templates.length, 3)
    for (const { name, template: { spec } } of templates) {
      assert.deepInclude(spec.securityContext, { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } }, name)
      assert.isAbove(Number(spec.securityContext?.["runAsUser"]), 0)
      for (const container of spec.containers) {
        const { livenessProbe, readinessProbe, resources, securityContext, volumeMounts = [] } = container
        assert.deepInclude(securityContext, { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } }, name)
        assert.isDefined(livenessProbe, name)
        assert.isDefined(readinessProbe, name)
        assert.isDefined(resources?.limits?.["memory"], name)
        // No host in front of it: that is the cluster's business.
        assert.notMatch(container.image, /^[^/]*[.:][^/]*\//, "an image names a registry")

        const claims = (objects.find((object) => object.metadata.name === name && object.spec?.template !== undefined)
          ?.spec?.["volumeClaimTemplates"] ?? []) as ReadonlyArray<KubernetesObject>
        const volumes = new Set([
          ...(spec.volumes ?? []).map((volume) => volume.name),
          ...claims.map(({ metadata }) => metadata.name)
        ])
        assert.deepStrictEqual(volumeMounts.filter((mount) => !volumes.has(mount.name)), [], name)
      }
    }
  })

  it("select the pods they mean, and only those", () => {
    const chosenBy = (labels: Readonly<Record<string, string>>, namespace: string | undefined) =>
      templates.filter(({ namespace: own, template }) =>
        own === namespace &&
        Object.entries(labels).every(([name, value]) => template.metadata.labels[name] === value)
      ).map(({ name }) => name)
    const expected: Readonly<Record<string, ReadonlyArray<string>>> = {
      "stoker-jobs": []
    }
    const kinds = ["Service", "PodDisruptionBudget", "NetworkPolicy", "Deployment", "StatefulSet"]
    for (
      const { kind, metadata: { name, namespace }, spec } of objects.filter((object) => kinds.includes(object.kind))
    ) {
      const selector = (spec?.podSelector ?? spec?.selector ?? {}) as {
        readonly matchLabels?: Readonly<Record<string, string>>
      } & Readonly<Record<string, string>>
      const chosen = chosenBy(selector.matchLabels ?? selector, namespace)
      assert.deepStrictEqual(chosen, [...(expected[name] ?? [name])], `${kind} ${name}`)
    }
  })

  it("ask the worker's probes where the worker has them", () => {
    const [container] = of("Deployment", "stoker").spec?.template?.spec.containers ?? []
    const port = container?.ports?.find(({ name }) => name === "http")?.containerPort
    const { http } = JSON.parse(of("ConfigMap", "stoker").data?.["stoker.json"] ?? "{}") as { http: { listen: string } }
    assert.strictEqual(http.listen, `0.0.0.0:${port}`)
    assert.deepInclude(container?.livenessProbe, { httpGet: { path: "/livez", port: "http" } })
    assert.deepInclude(container?.readinessProbe, { httpGet: { path: "/readyz", port: "http" } })
    assert.include(container?.env?.map(({ name }) => name) ?? [], "AMQP_URL")
    assert.deepInclude(container?.securityContext, { readOnlyRootFilesystem: true })
  })

  it("name no secret's content", () => {
    assert.isEmpty(objects.filter(({ kind }) => kind === "Secret"))
  })
})
