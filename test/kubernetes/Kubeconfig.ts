/** Kubeconfig files with one cluster, one user and one context. */
import { writeFileSync } from "node:fs"

export interface Kubeconfig {
  readonly server: string
  /** PEM. */
  readonly ca: string
  readonly user: object
  readonly namespace: string
}

/** Writes it for its user alone; gives the file's name. */
export const writeKubeconfig = (file: string, { ca, namespace, server, user }: Kubeconfig): string => {
  const name = "test"
  const content = {
    apiVersion: "v1",
    kind: "Config",
    "current-context": name,
    clusters: [{ name, cluster: { server, "certificate-authority-data": Buffer.from(ca).toString("base64") } }],
    users: [{ name, user }],
    contexts: [{ name, context: { cluster: name, user: name, namespace } }]
  }
  writeFileSync(file, JSON.stringify(content), { mode: 0o600 })
  return file
}
