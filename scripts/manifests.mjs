#!/usr/bin/env node
// Makes infra/kubernetes/*.yaml of the chart, for people without helm. usage: scripts/manifests.mjs [--check]
// --check writes nothing and ends with 1 where they differ. Needs helm (scripts/helm).
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, globSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseAllDocuments, stringify } from "yaml"

const root = join(import.meta.dirname, "..")
const place = join(root, "infra/kubernetes")
const chart = join(root, "infra/helm/stoker")
const values = join(place, "values.yaml")

/** Of all they are made of; a test without helm sees by it that they are stale. */
export const sourceHash = () => {
  const files = globSync("**/*", { cwd: chart, withFileTypes: true }).filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name)).concat(values).toSorted()
  const hash = createHash("sha256")
  for (const file of files) hash.update(`${file.slice(root.length)}\0`).update(readFileSync(file)).update("\0")
  return hash.digest("hex").slice(0, 16)
}

/** What only helm uses. */
const plain = (object) => {
  const { annotations, labels } = object.metadata
  if (labels?.["app.kubernetes.io/managed-by"] === "Helm") delete labels["app.kubernetes.io/managed-by"]
  const template = object.spec?.template?.metadata?.labels
  if (template?.["app.kubernetes.io/managed-by"] === "Helm") delete template["app.kubernetes.io/managed-by"]
  for (const name of Object.keys(annotations ?? {})) if (name.startsWith("helm.sh/")) delete annotations[name]
  if (annotations !== undefined && Object.keys(annotations).length === 0) delete object.metadata.annotations
  return object
}

const titles = {
  "00-namespaces.yaml": "The workers' namespace and that of their jobs.",
  "10-worker.yaml": "The workers, with their rights in the namespace of the jobs.",
  "20-rabbitmq.yaml": "A broker of one node. Leave it out where there is one.",
  "30-objectstore.yaml": "An S3-compatible store of one node. Leave it out where there is one."
}

const fileOf = (source, { kind }) =>
  kind === "Namespace"
    ? "00-namespaces.yaml"
    : source.includes("/charts/rabbitmq/")
    ? "20-rabbitmq.yaml"
    : source.includes("/charts/objectstore/")
    ? "30-objectstore.yaml"
    : "10-worker.yaml"

export const render = (helm) => {
  const scratch = mkdtempSync(join(tmpdir(), "stoker-helm-"))
  try {
    const env = { ...process.env, HELM_CACHE_HOME: scratch, HELM_CONFIG_HOME: scratch, HELM_DATA_HOME: scratch }
    const args = ["template", "stoker", chart, "--namespace", "stoker", "--values", values, "--kube-version", "1.30.0"]
    const text = execFileSync(helm, args, { env, encoding: "utf8", maxBuffer: 2 ** 24 })
    const files = new Map(Object.keys(titles).map((name) => [name, []]))
    files.get("00-namespaces.yaml").push({
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name: "stoker", labels: { "app.kubernetes.io/part-of": "stoker" } }
    })
    for (const part of text.split(/^---$/m)) {
      const source = /^# Source: (.*)$/m.exec(part)?.[1]
      if (source === undefined) continue
      for (const document of parseAllDocuments(part)) {
        const object = document.toJS()
        if (object !== null) files.get(fileOf(source, object)).push(plain(object))
      }
    }
    return new Map([...files].map(([name, objects]) => [
      name,
      `# ${titles[name]}\n# Made by scripts/manifests.mjs of infra/helm/stoker (${sourceHash()}); do not edit.\n${
        objects.map((object) => `---\n${stringify(object, { lineWidth: 0, aliasDuplicateObjects: false })}`).join("")
      }`
    ]))
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

export const helmOf = () => {
  const folder = join(root, "build/helm")
  const own = existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name, "helm")).find(existsSync) : undefined
  return own ?? "helm"
}

if (process.argv[1] === import.meta.filename) {
  const made = render(helmOf())
  const stale = [...made].filter(([name, text]) => {
    const file = join(place, name)
    return !existsSync(file) || readFileSync(file, "utf8") !== text
  })
  if (process.argv[2] === "--check") {
    for (const [name] of stale) console.error(`infra/kubernetes/${name} is not what the chart makes: run scripts/manifests.mjs`)
    process.exitCode = stale.length > 0 ? 1 : 0
  } else for (const [name, text] of stale) writeFileSync(join(place, name), text)
}
