/** How a cluster is reached: a pod's own account, kubeconfigs as kubectl merges them, plugins. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { examineCluster } from "../../src/cli/ClusterChecks.ts"
import * as ApiAccess from "../../src/layers/kubernetes/ApiAccess.ts"
import { rights } from "../../src/layers/kubernetes/Kubernetes.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { runs } from "./Runs.ts"
import { classOf, configFor, containerOf, realKubeconfig, world as makeWorld } from "./World.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "kube-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** For as long as the scope: these variables of the environment. */
const environment = (values: Readonly<Record<string, string | undefined>>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const before = Object.keys(values).map((name) => [name, process.env[name]] as const)
      const set = (entries: ReadonlyArray<readonly [string, string | undefined]>) => {
        for (const [name, value] of entries) {
          if (value === undefined) delete process.env[name]
          else process.env[name] = value
        }
      }
      set(Object.entries(values))
      return () => set(before)
    }),
    (restore) => Effect.sync(restore)
  )

describe("how a cluster is reached", () => {
  it.effect("in a pod: its own account, read again when it is replaced", () =>
    Effect.gen(function*() {
      const path = yield* folder
      yield* environment({ KUBERNETES_SERVICE_HOST: "10.0.0.1", KUBERNETES_SERVICE_PORT: "6443" })
      for (const [name, text] of [["token", "one\n"], ["ca.crt", "authority"], ["namespace", "here\n"]] as const) {
        writeFileSync(join(path, name), text)
      }
      const access = yield* ApiAccess.load({}, path)
      assert.deepStrictEqual([access.server.href, access.namespace], ["https://10.0.0.1:6443/", "here"])
      const { ca, headers } = yield* Effect.promise(() => access.credentials(false))
      assert.deepStrictEqual([headers["authorization"], String(ca)], ["Bearer one", "authority"])
      writeFileSync(join(path, "token"), "two")
      const again = yield* Effect.promise(() => access.credentials(true))
      assert.strictEqual(again.headers["authorization"], "Bearer two")
      assert.strictEqual((yield* ApiAccess.load({ namespace: "there" }, path)).namespace, "there")
    }).pipe(Effect.scoped))

  it.effect("several kubeconfigs are one; YAML, paths beside the file, another context", () =>
    Effect.gen(function*() {
      const path = yield* folder
      mkdirSync(join(path, "other"))
      writeFileSync(
        join(path, "a"),
        "apiVersion: v1\nkind: Config\ncurrent-context: prod\ncontexts:\n- name: prod\n  context:\n    cluster: c1\n" +
          "    user: u1\n    namespace: ns1\n- context: {cluster: c2, user: u2}\n  name: test\n"
      )
      writeFileSync(
        join(path, "other", "b"),
        "current-context: none\nclusters:\n- name: c1\n  cluster:\n    server: https://one.example:6443\n" +
          "    certificate-authority: ca.pem\n- name: c2\n  cluster: {server: \"https://two.example\", insecure-skip-tls-verify: true}\n" +
          "users:\n- name: u1\n  user: {tokenFile: token}\n- name: u2\n  user: {username: me, password: secret}\n"
      )
      writeFileSync(join(path, "other", "ca.pem"), "authority")
      writeFileSync(join(path, "other", "token"), "t")
      yield* environment({
        KUBERNETES_SERVICE_HOST: undefined,
        KUBECONFIG: [join(path, "a"), join(path, "absent"), join(path, "other", "b")].join(":")
      })
      const access = yield* ApiAccess.load({})
      assert.deepStrictEqual([access.server.host, access.namespace], ["one.example:6443", "ns1"])
      const { ca, headers } = yield* Effect.promise(() => access.credentials(false))
      assert.deepStrictEqual([String(ca), headers["authorization"]], ["authority", "Bearer t"])
      const other = yield* ApiAccess.load({ context: "test" })
      assert.deepStrictEqual([other.rejectUnauthorized, other.namespace], [false, "default"])
      const basic = yield* Effect.promise(() => other.credentials(false))
      assert.strictEqual(basic.headers["authorization"], `Basic ${Buffer.from("me:secret").toString("base64")}`)
      const wrong = yield* Effect.flip(ApiAccess.load({ context: "nowhere" }))
      assert.match(wrong.message, /has no context nowhere/)
    }).pipe(Effect.scoped))

  it.live.skipIf(realKubeconfig !== undefined)(
    "by a plugin, which is asked again when what it said is refused",
    () =>
      Effect.gen(function*() {
        const { run, world } = yield* runs
        const credential = (token: string) =>
          JSON.stringify({ apiVersion: "client.authentication.k8s.io/v1", kind: "ExecCredential", status: { token } })
        const program = join(world.folder, "plugin")
        const say = (token: string) => {
          writeFileSync(program, `#!/bin/sh\ncat <<'X'\n${credential(token)}\nX\n`)
          chmodSync(program, 0o755)
        }
        say("plugged")
        world.api?.tokens.set("plugged", "plugged")
        const exec = { apiVersion: "client.authentication.k8s.io/v1", command: "./plugin", interactiveMode: "Never" }
        const options = { class: classOf(configFor(world, "plugin-config", { exec })) }
        const exited = Outcome.cases.Exited.make({ phase: "run", code: 0 })
        assert.deepStrictEqual((yield* run(containerOf("true"), options)).outcome, exited)
        say("replaced")
        world.api?.tokens.set("replaced", "plugged")
        world.api?.tokens.delete("plugged")
        assert.deepStrictEqual((yield* run(containerOf("true"), options)).outcome, exited)
      }).pipe(Effect.scoped)
  )

  it.live.skipIf(realKubeconfig !== undefined)(
    "the doctor asks for each right, and names those that are missing",
    () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const setup = { kubeconfig: world.kubeconfig }
        const fine = yield* examineCluster(setup)
        assert.deepStrictEqual(fine.map(({ status }) => status), ["ok", "ok", "ok"])
        assert.match(fine[2]?.detail ?? "", new RegExp(`all ${rights.length}`))
        world.api?.rules.set("admin", [{ verbs: ["get", "list", "watch"], groups: ["*"], resources: ["*"] }])
        const lacking = (yield* examineCluster(setup)).find(({ name }) => name === "rights")
        assert.strictEqual(
          lacking?.detail,
          "it may not create jobs, patch jobs, delete jobs, delete pods in namespace jobs"
        )
        world.api?.tokens.clear()
        const unknown = (yield* examineCluster(setup)).find(({ status }) => status === "missing")
        assert.match(`${unknown?.name}: ${unknown?.detail}`, /^API server: Unauthorized/)
        yield* Effect.promise(async () => world.api?.away())
        const away = (yield* examineCluster(setup)).find(({ status }) => status === "missing")
        assert.match(away?.detail ?? "", /ECONNREFUSED/)
        yield* Effect.promise(async () => world.api?.listen())
      }).pipe(Effect.scoped)
  )
})
