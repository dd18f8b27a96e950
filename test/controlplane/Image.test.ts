/**
 * The worker's image, as scripts/image makes it of the Containerfile: run as its user, without any capability, on a read-only root,
 * with the rights of the chart's account. It takes the requests of the MSTC worker's Python client.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { world as makeWorld } from "../kubernetes/World.ts"
import { Broker } from "../support/Broker.ts"
import { freePort } from "../support/Ports.ts"
import { run } from "../support/Run.ts"
import { patience } from "../support/Slowness.ts"
import { projectRoot } from "../support/Tree.ts"

const layout = join(projectRoot, "build/image.oci")

interface RuntimeConfig {
  readonly process: {
    readonly args: ReadonlyArray<string>
    readonly env: ReadonlyArray<string>
    readonly cwd: string
    readonly user: { readonly uid: number; readonly gid: number }
  }
}

/** What a runtime does for a pod, in a mount namespace that ends with the program. Becomes the program. */
const enter = `
root=$1 state=$2 configuration=$3 uid=$4 gid=$5
shift 5
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$state" "$root/var/lib/stoker"
mount --bind "$configuration" "$root/etc/stoker"
mount -o remount,bind,ro "$root/etc/stoker"
mount -t tmpfs tmpfs "$root/tmp"
chmod 1777 "$root/tmp"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
exec /usr/sbin/chroot "$root" /usr/bin/setpriv --reuid "$uid" --regid "$gid" --clear-groups --bounding-set -all --inh-caps -all \\
  --no-new-privs --pdeathsig KILL "$@"
`

const unpacked = Effect.fnUntraced(function*(folder: string) {
  const bundle = join(folder, "bundle")
  const done = yield* Effect.promise(() => run("umoci", ["unpack", "--image", `${layout}:0.1.0`, bundle]))
  assert.strictEqual(done.code, 0, done.stderr)
  const { process: config } = JSON.parse(readFileSync(join(bundle, "config.json"), "utf8")) as RuntimeConfig
  const [state, configuration] = [join(folder, "image-state"), join(folder, "image-configuration")]
  for (const path of [folder, bundle, configuration]) {
    mkdirSync(path, { recursive: true })
    chmodSync(path, 0o755)
  }
  mkdirSync(state)
  yield* Effect.promise(() => run("chown", [`${config.user.uid}:${config.user.gid}`, state]))
  const start = (args: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}) => {
    const { gid, uid } = config.user
    const command = [
      "--mount",
      "--propagation",
      "private",
      "/bin/sh",
      "-ec",
      enter,
      "sh",
      join(bundle, "rootfs"),
      state,
      configuration
    ]
    return spawn("unshare", [...command, `${uid}`, `${gid}`, ...args], {
      env: {
        ...Object.fromEntries(config.env.map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string])),
        ...env
      },
      stdio: ["ignore", "pipe", "pipe"]
    })
  }
  return { config, configuration, start, entry: config.args.slice(0, 1) }
})

const heard = (child: ReturnType<typeof spawn>) => {
  const all = { text: "" }
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (part: Buffer) => all.text += part.toString())
  return all
}

describe.skipIf(!existsSync(layout))("the worker's image", () => {
  it.live("is nobody's root, and says its version", () =>
    Effect.gen(function*() {
      const { folder } = yield* makeWorld
      const { config, entry, start } = yield* unpacked(folder)
      assert.deepInclude(config.user, { uid: 65_532, gid: 65_532 })
      assert.deepStrictEqual([...config.args], ["/opt/stoker/bin/stoker", "worker"])
      const child = start([...entry, "--version"])
      const said = heard(child)
      yield* Effect.promise(() => once(child, "close"))
      assert.match(said.text, /^stoker v\d+\.\d+\.\d+\n$/)
      const root = start(["/bin/sh", "-c", "id -u; touch /x 2>&1; grep CapBnd /proc/self/status"])
      const answer = heard(root)
      yield* Effect.promise(() => once(root, "close"))
      assert.match(answer.text, /^65532\ntouch: .*Read-only file system\nCapBnd:\s+0+\n$/)
    }).pipe(Effect.scoped), patience(120_000))

  it.live(
    "serves the old Python client and its own command with Jobs of a real cluster, and drains at SIGTERM",
    () =>
      Effect.gen(function*() {
        const world = yield* makeWorld
        const { configuration, entry, start } = yield* unpacked(world.folder)
        const broker = yield* Effect.acquireRelease(
          Effect.promise(() => Broker.acquire()),
          (one) => Effect.promise(() => one.release())
        )
        const port = yield* Effect.promise(() => freePort())
        copyFileSync(world.kubeconfig, join(configuration, "kubeconfig"))
        chmodSync(join(configuration, "kubeconfig"), 0o644)
        writeFileSync(
          join(configuration, "stoker.json"),
          JSON.stringify({
            classes: [{
              name: "cluster",
              driver: "kubernetes",
              cluster: { kubeconfig: "/etc/stoker/kubeconfig", namespace: "jobs" },
              ceiling: { wall: "1h" }
            }],
            mstc: { class: "cluster" },
            amqp: { urlEnv: "AMQP_URL" },
            http: { listen: `127.0.0.1:${port}` }
          }),
          { mode: 0o644 }
        )
        const worker = yield* Effect.acquireRelease(
          Effect.sync(() =>
            start([...entry, "worker", "--config", "/etc/stoker/stoker.json"], { AMQP_URL: broker.url })
          ),
          (child) => Effect.sync(() => child.kill("SIGKILL"))
        )
        const said = heard(worker)
        const probe = (path: string) =>
          Effect.promise(() => fetch(`http://127.0.0.1:${port}${path}`).then(({ status }) => status, () => 0))
        for (let round = 0; (yield* probe("/readyz")) !== 200; round++) {
          if (round > patience(600) || worker.exitCode !== null) assert.fail(`never ready:\n${said.text}`)
          yield* Effect.sleep(100)
        }
        assert.strictEqual(yield* probe("/livez"), 200)
        const status = readFileSync(`/proc/${worker.pid}/status`, "utf8")
        assert.match(status, /^Uid:\t65532\t65532\t65532\t65532$/m)
        assert.match(status, /^CapEff:\t0+$/m)
        const client = join(projectRoot, "test/mstc/old_client.py")
        const request = { image: "debian:12", jobName: "test-job", inputBucket: "in-put", timeOut: 1 }
        const told = yield* Effect.promise(() =>
          run("/usr/bin/python3", [client, broker.url, "mstc.exchange", JSON.stringify(request), "60"])
        )
        assert.match(told.stdout, /"result": "Job test-job-[0-9a-f-]{36} complete\."/, told.stderr + said.text)
        const jobs = yield* Effect.promise(() => world.kubelet.list("/apis/batch/v1/namespaces/jobs/jobs"))
        assert.lengthOf(jobs.items, 1)
        // As docs/deploy.md has it, with `kubectl exec`.
        const words = [
          "env",
          "-u",
          "AMQP_URL",
          "stoker",
          "submit",
          "--wait",
          "--image",
          "debian:12",
          "--",
          "echo",
          "hello"
        ]
        const submit = start(words, { AMQP_URL: broker.url })
        const answer = heard(submit)
        const [submitted] = (yield* Effect.promise(() => once(submit, "close"))) as [number | null]
        assert.strictEqual(submitted, 0, answer.text)
        assert.match(answer.text, /^hello$/m)
        const ended = once(worker, "exit")
        worker.kill("SIGTERM")
        const [code] = (yield* Effect.promise(() => ended)) as [number | null]
        assert.strictEqual(code, 0, said.text)
      }).pipe(Effect.scoped),
    patience(180_000)
  )
})
