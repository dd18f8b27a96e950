/** `npm run test:kubernetes`: tests of clusters on a real control plane, or a benchmark. usage: run.ts [ARGS of `vitest run`] | --bench */
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { projectEnv, run } from "../support/Run.ts"
import { projectRoot } from "../support/Tree.ts"
import { ControlPlane, programs } from "./ControlPlane.ts"
import { helmOf } from "./Helm.ts"
import * as Report from "./Report.ts"
import { givenBy, usedBy } from "./Rights.ts"

/** The worker's namespace and account, as the chart makes them. */
const release = "stoker"
const jobs = "jobs"

const say = (line: string) => process.stdout.write(`test:kubernetes: ${line}\n`)
/** What is run without arguments. */
const all = ["test/kubernetes/KubernetesExecutor.test.ts", "test/kubernetes/Worker.test.ts", "test/controlplane"]

/** Puts the chart into the cluster: its account, Role and binding are what the tests have. */
const install = async (plane: ControlPlane): Promise<string> => {
  const created = await plane.ask("POST", "/api/v1/namespaces", {
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name: release }
  })
  if (created.code !== 201) throw new Error(created.text)
  const helm = helmOf()
  if (helm !== undefined) {
    const chart = join(projectRoot, "infra/helm/stoker")
    const installed = await helm.run(
      ["install", release, chart, "-n", release, "--set", `jobs.namespace=${jobs}`, "--kubeconfig", plane.adminConfig]
    )
    if (installed.code !== 0) throw new Error(`helm install: ${installed.stderr}`)
    return `helm ${helm.version}`
  }
  // The same objects, in the namespace that the tests use.
  const text = readFileSync(join(projectRoot, "infra/kubernetes/10-worker.yaml"), "utf8")
    .replaceAll(/namespace: "?stoker-jobs"?/g, `namespace: ${jobs}`)
    .replaceAll("policy/v1\n", "policy/v1beta1\n")
  await plane.ask("POST", "/api/v1/namespaces", { apiVersion: "v1", kind: "Namespace", metadata: { name: jobs } })
  const applied = await new Promise<number | null>((resolve) => {
    const child = spawn(join(programs, "kubectl"), ["--kubeconfig", plane.adminConfig, "apply", "-f", "-"], {
      stdio: ["pipe", "ignore", "inherit"]
    })
    child.once("exit", resolve)
    child.stdin.end(text)
  })
  if (applied !== 0) throw new Error("kubectl apply of the plain manifests failed")
  return "kubectl, of the plain manifests (no helm here)"
}

let runner: ChildProcess | undefined

const runUnder = (command: ReadonlyArray<string>, env: NodeJS.ProcessEnv): Promise<number> =>
  new Promise((resolve, reject) => {
    runner = spawn("setpriv", ["--pdeathsig", "TERM", ...command], {
      cwd: projectRoot,
      env: { ...projectEnv, ...env },
      stdio: "inherit"
    })
    runner.once("error", reject)
    runner.once("exit", (code) => resolve(code ?? 1))
  })

const commandOf = (args: ReadonlyArray<string>): ReadonlyArray<string> =>
  args[0] === "--bench"
    ? [process.execPath, "bench/kubernetes.ts"]
    : ["vitest", "run", "--no-file-parallelism", ...(args.length === 0 ? all : args)]

const main = async (args: ReadonlyArray<string>): Promise<{ readonly code: number; readonly summary: string }> => {
  const folder = mkdtempSync(join(tmpdir(), "stoker-control-plane."))
  const scratch = mkdtempSync(join(tmpdir(), "stoker-test."))
  const plane = new ControlPlane(folder)
  const undo = async () => {
    await plane.stop()
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
    rmSync(scratch, { recursive: true, force: true, maxRetries: 5 })
  }
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    process.once(signal, () => {
      runner?.kill("SIGTERM")
      void undo().finally(() => process.exit(130))
    })
  }
  try {
    const began = performance.now()
    await run("chmod", ["755", scratch])
    await plane.start()
    const readySeconds = Math.round((performance.now() - began) / 100) / 10
    const installedBy = await install(plane)
    say(`ready after ${readySeconds} s; the chart installed by ${installedBy}`)
    const token = await plane.token(release, release)
    const role = await plane.ask("GET", `/apis/rbac.authorization.k8s.io/v1/namespaces/${jobs}/roles/${release}`)
    const given = givenBy((JSON.parse(role.text) as { rules: Parameters<typeof givenBy>[0] }).rules)
    const [summaryFile, results] = [join(scratch, "summary"), join(scratch, "results.json")]
    const isWhole = args.length === 0
    const commit = Report.commitOf()
    const code = await runUnder(commandOf(args), {
      TMPDIR: scratch,
      STOKER_TEST_SUMMARY: summaryFile,
      STOKER_TEST_REPORT: results,
      STOKER_TEST_KUBECONFIG: plane.adminConfig,
      STOKER_TEST_LONG: "1",
      STOKER_TEST_WORKER_KUBECONFIG: plane.config("worker.kubeconfig", token, jobs),
      STOKER_TEST_KUBECTL: join(programs, "kubectl")
    })
    if (args[0] === "--bench") return { code, summary: "" }
    if (!existsSync(summaryFile)) return { code: 1, summary: "0 passed, 1 failed" }
    const summary = readFileSync(summaryFile, "utf8").trim()
    if (!isWhole) return { code, summary }
    const used = usedBy(plane.auditLog, `system:serviceaccount:${release}:${release}`)
    const seconds = Math.round((performance.now() - began) / 1000)
    Report.write({ commit, seconds, results, used, given, installedBy, readySeconds })
    // The worker's own rights suffice, and there is none that it does not use.
    const faults = [
      ...[...given].filter((right) => !used.rights.has(right)).map((right) =>
        `the Role allows ${right}, which nothing used`
      ),
      ...[...used.refused].map((right) => `the Role lacks ${right}`),
      ...[...used.namespaces].filter((name) => name !== jobs).map((name) => `rights were used in namespace ${name}`)
    ]
    for (const fault of faults) say(fault)
    if (faults.length === 0) return { code, summary }
    const failed = Number(/(\d+) failed/.exec(summary)?.[1] ?? 0) + 1
    return { code: 1, summary: summary.replace(/\d+ failed/, `${failed} failed`) }
  } finally {
    await undo()
  }
}

const { code, summary } = await main(process.argv.slice(2)).catch((error: unknown) => {
  say(error instanceof Error ? error.message : String(error))
  return { code: 1, summary: "0 passed, 1 failed" }
})
process.stdout.write(`${summary}\n`)
process.exitCode = code
