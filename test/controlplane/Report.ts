/** docs/kubernetes-report.md: what a run of `npm run test:kubernetes` without arguments came to. */
import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { cpus } from "node:os"
import { join, relative } from "node:path"
import { projectRoot } from "../support/Tree.ts"
import { versions } from "./ControlPlane.ts"
import type { Used } from "./Rights.ts"

const path = join(projectRoot, "docs", "kubernetes-report.md")
const git = (...args: ReadonlyArray<string>) => execFileSync("git", args, { cwd: projectRoot, encoding: "utf8" }).trim()

/** What is run: the report of the last run is no change to it. */
export const commitOf = (): string => {
  const changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/kubernetes-report.md") !== ""
  return `${git("rev-parse", "--short", "HEAD")}${changed ? ", changed" : ""}`
}

interface Results {
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly assertionResults: ReadonlyArray<{ readonly fullName: string; readonly status: string }>
  }>
}

export interface Run {
  readonly commit: string
  readonly seconds: number
  /** Of vitest's JSON reporter. */
  readonly results: string
  readonly used: Used
  readonly given: ReadonlySet<string>
  readonly installedBy: string
  readonly readySeconds: number
}

const list = (names: Iterable<string>) => [...names].toSorted().map((name) => `\`${name}\``).join(", ")

export const write = ({ commit, given, installedBy, readySeconds, results, seconds, used }: Run): void => {
  const { testResults } = JSON.parse(readFileSync(results, "utf8")) as Results
  const rows = testResults.toSorted((one, other) => one.name < other.name ? -1 : 1).flatMap(
    ({ assertionResults, name }) =>
      assertionResults.filter(({ status }) => status !== "skipped" && status !== "pending").map((
        { fullName, status }
      ) => `| ${relative(projectRoot, name)} | ${fullName.replaceAll("|", "\\|")} | ${status} |`)
  )
  const count = (status: string) => rows.filter((row) => row.endsWith(`| ${status} |`)).length
  writeFileSync(
    path,
    `# Tests on a real control plane

Written by \`npm run test:kubernetes\`; do not edit. etcd, kube-apiserver with RBAC and kube-controller-manager on loopback
(\`test/controlplane\`), with a node that runs containers as processes (\`test/kubernetes/Kubelet.ts\`).

* ${count("passed")} passed, ${count("failed")} failed
* ${
      new Date().toISOString().slice(0, 16)
    }Z, at commit ${commit}, in ${seconds} s on ${cpus().length} shared cores; the control plane was
  ready after ${readySeconds} s
* ${versions().join("; ")}
* the chart was installed by ${installedBy}; executors and workers had its account's token and no other right
* rights the worker's account has: ${list(given)}
* rights it used in ${used.requests} requests, by the API server's audit log: ${list(used.rights)}
* refused by RBAC: ${used.refused.size === 0 ? "nothing" : list(used.refused)}

| file | test | |
|---|---|---|
${rows.join("\n")}
`
  )
}
