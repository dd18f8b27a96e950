/** The stand-in is what kubectl takes it for: whoever trusts its tests may look here why. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { run } from "../support/Run.ts"
import { world as makeWorld } from "./World.ts"

const manifest = (name: string, script: string, more: object = {}) =>
  JSON.stringify({
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name, labels: { app: "kubectl" } },
    spec: {
      backoffLimit: 0,
      template: {
        spec: {
          restartPolicy: "Never",
          containers: [{ name: "main", image: "debian:12", command: ["/bin/sh", "-c", script] }]
        }
      },
      ...more
    }
  })

const opened = Effect.gen(function*() {
  const world = yield* makeWorld
  const kubectl = (...args: ReadonlyArray<string>) =>
    Effect.promise(() =>
      run("kubectl", ["--kubeconfig", world.kubeconfig, ...args], {
        env: { ...process.env, HOME: world.folder, KUBECACHEDIR: join(world.folder, "cache") }
      })
    )
  const apply = (name: string, script: string, more?: object) => {
    const file = join(world.folder, `${name}.json`)
    writeFileSync(file, manifest(name, script, more))
    return kubectl("create", "--validate=false", "-f", file)
  }
  return { world, kubectl, apply }
})

describe("kubectl on the stand-in", () => {
  it.live("creates, waits, reads logs, gets and deletes", () =>
    Effect.gen(function*() {
      const { apply, kubectl } = yield* opened
      const created = yield* apply("hello", "echo one; sleep 0.3; echo two")
      assert.strictEqual(created.stdout, "job.batch/hello created\n", created.stderr)
      const again = yield* apply("hello", "true")
      assert.match(again.stderr, /AlreadyExists/)
      const waited = yield* kubectl("wait", "--for=condition=complete", "job/hello", "--timeout=20s")
      assert.strictEqual(waited.stdout, "job.batch/hello condition met\n", waited.stderr)
      const logs = yield* kubectl("logs", "-f", "job/hello")
      assert.strictEqual(logs.stdout, "one\ntwo\n", logs.stderr)
      const timed = yield* kubectl("logs", "job/hello", "--timestamps")
      assert.match(timed.stdout, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z one\n\d{4}.*Z two\n$/)
      const listed = yield* kubectl("get", "jobs,pods", "-l", "app=kubectl", "-o", "name")
      assert.strictEqual(listed.stdout, "job.batch/hello\n", listed.stderr)
      const pods = yield* kubectl("get", "pods", "-l", "job-name=hello", "-o", "jsonpath={.items[*].status.phase}")
      assert.strictEqual(pods.stdout, "Succeeded", pods.stderr)
      const table = yield* kubectl("get", "jobs")
      assert.match(table.stdout, /hello/, table.stderr)
      const deleted = yield* kubectl("delete", "job", "hello", "--timeout=20s")
      assert.match(deleted.stdout, /deleted/, deleted.stderr)
      const gone = yield* kubectl("get", "job", "hello")
      assert.match(gone.stderr, /NotFound/)
      const none = yield* kubectl("get", "pods", "-o", "name")
      assert.strictEqual(none.stdout, "")
    }).pipe(Effect.scoped))

  it.live("follows a log while it is written, and deletes what runs, foreground and background", () =>
    Effect.gen(function*() {
      const { apply, kubectl, world } = yield* opened
      yield* apply("long", "echo begun; sleep 100")
      yield* kubectl("wait", "--for=condition=ready", "pod", "-l", "job-name=long", "--timeout=20s")
      const heard = yield* Effect.callback<string>((resume) => {
        const child = spawn("kubectl", ["--kubeconfig", world.kubeconfig, "logs", "-f", "job/long"], {
          env: { ...process.env, HOME: world.folder }
        })
        child.stdout.once("data", (part: Buffer) => resume(Effect.succeed(part.toString())))
        return Effect.sync(() => child.kill())
      }).pipe(Effect.timeout("20 seconds"))
      assert.strictEqual(heard, "begun\n")
      const foreground = yield* kubectl("delete", "job", "long", "--cascade=foreground", "--timeout=20s")
      assert.strictEqual(foreground.code, 0, foreground.stderr)
      assert.strictEqual((yield* kubectl("get", "pods", "-o", "name")).stdout, "")
      assert.strictEqual(world.kubelet.running, 0)
      yield* apply("other", "sleep 100")
      yield* kubectl("wait", "--for=condition=ready", "pod", "-l", "job-name=other", "--timeout=20s")
      yield* kubectl("delete", "job", "other", "--timeout=20s")
      const pods = yield* kubectl("wait", "--for=delete", "pod", "-l", "job-name=other", "--timeout=20s")
      assert.strictEqual(pods.code, 0, pods.stderr)
    }).pipe(Effect.scoped))

  it.live("sees failures, deadlines, TTLs and rights as they are", () =>
    Effect.gen(function*() {
      const { apply, kubectl, world } = yield* opened
      yield* apply("bad", "exit 3")
      const failed = yield* kubectl("wait", "--for=condition=failed", "job/bad", "--timeout=20s")
      assert.strictEqual(failed.code, 0, failed.stderr)
      const path = "jsonpath={.status.conditions[?(@.type==\"Failed\")].reason}"
      assert.strictEqual((yield* kubectl("get", "job", "bad", "-o", path)).stdout, "BackoffLimitExceeded")
      yield* apply("late", "sleep 100", { activeDeadlineSeconds: 1 })
      yield* kubectl("wait", "--for=condition=failed", "job/late", "--timeout=20s")
      assert.strictEqual((yield* kubectl("get", "job", "late", "-o", path)).stdout, "DeadlineExceeded")
      yield* apply("brief", "true", { ttlSecondsAfterFinished: 1 })
      const gone = yield* kubectl("wait", "--for=delete", "job/brief", "--timeout=20s")
      assert.strictEqual(gone.code, 0, gone.stderr)
      const patched = yield* kubectl(
        "patch",
        "job",
        "bad",
        "--type=merge",
        "-p",
        JSON.stringify({ spec: { template: { spec: { restartPolicy: "OnFailure" } } } })
      )
      assert.match(patched.stderr, /immutable/)
      assert.strictEqual((yield* kubectl("auth", "can-i", "create", "jobs")).stdout, "yes\n")
      world.api?.rules.set("admin", [{ verbs: ["get", "list"], groups: ["*"], resources: ["*"] }])
      assert.strictEqual((yield* kubectl("auth", "can-i", "create", "jobs")).stdout, "no\n")
      const forbidden = yield* apply("never", "true")
      assert.match(forbidden.stderr, /forbidden: User "admin" cannot create resource "jobs" in API group "batch"/)
    }).pipe(Effect.scoped))
})
