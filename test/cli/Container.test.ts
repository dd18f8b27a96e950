/** Containers from the command line: in this host's sandboxes with `run`, in a cluster with `submit`. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { namespace, world as makeWorld } from "../kubernetes/World.ts"
import { compiled, toolImage } from "../oci/ToolImage.ts"
import { Stoker } from "./Stoker.ts"

const stoker = new Stoker()
afterAll(() => stoker.dispose())

const wrong = async (words: ReadonlyArray<string>, ...told: ReadonlyArray<string>) => {
  const { code, stderr, stdout } = await stoker.run(words)
  for (const text of told) assert.include(stderr, text)
  assert.deepStrictEqual({ code, stdout }, { code: 1, stdout: "" }, stderr)
}

const submit = (...words: ReadonlyArray<string>) => ["submit", ...words]

/** One static program that says its name and its arguments. */
const image = () => {
  const tool = compiled(
    stoker.folder,
    `#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
  for (int i = 0; i < argc; i++) printf("%s|", argv[i]);
  printf("%s\\n", getenv("WHO") ? getenv("WHO") : "nobody");
  return 0;
}`
  )
  return toolImage(join(stoker.folder, "image"), tool, { entrypoint: ["/say"], cmd: ["usual"] }, ["say", "other"])
}

describe("containers on the command line", () => {
  it("what makes no sense is told with what to write instead", async () => {
    await wrong(
      submit("--image", "debian:12", "hello.c"),
      "takes no hello.c",
      "behind --: --image debian:12 -- PROGRAM"
    )
    await wrong(submit("--image", "debian:12", "--stdin", "-"), "takes no --stdin")
    await wrong(submit("--image", "debian 12", "--", "true"), "image", "an image's reference, such as debian:12")
    await wrong(submit("--bucket", "in-put", "--", "true"), "--bucket means nothing without --image")
    await wrong(submit("--image", "debian:12", "--prefix", "a"), "--prefix means nothing without --bucket")
    await wrong(submit("--image", "debian:12", "--bucket", "A_B"), "a bucket's name")
    await wrong(submit("--image", "debian:12", "--secret", "NAME=secret"), "NAME=SECRET:KEY")
    await wrong(submit(), "a command behind -- (stoker submit -- ls -l), or an image (--image debian:12)")
    const amqp = await stoker.run(submit("--image", "debian:12", "--", "true"), {
      env: { AMQP_URL: "amqp://127.0.0.1:1" }
    })
    assert.match(amqp.stderr, /cannot say --image[^]*unset AMQP_URL/)
    assert.strictEqual(amqp.code, 1)
  })

  it("all that is said of one becomes the arguments of `container`, and no limit that clusters refuse", async () => {
    const words = "--image registry.example/tool:1 --entrypoint /bin/sh --env A=b=c --wall 5m --class cluster " +
      "--bucket in-put --output-bucket out-put --prefix run1 --secret TOKEN=store.keys:token --pull-secret registry " +
      "--artefact made"
    const { stderr, stdout } = await stoker.run(submit(...words.split(" "), "--", "-c", "echo $A"))
    const database = new DatabaseSync(join(stoker.state, "journal.sqlite"))
    const row = database.prepare("select request from jobs where id = ?").get(stdout.trim())
    database.close()
    const { args, function: name, limits } = JSON.parse(String(row?.["request"]))
    assert.strictEqual(name, "container", stderr)
    assert.deepStrictEqual(limits, { wallMs: 300_000 })
    assert.deepStrictEqual(args, {
      image: "registry.example/tool:1",
      command: ["/bin/sh"],
      args: ["-c", "echo $A"],
      env: { A: "b=c" },
      buckets: { input: "in-put", output: "out-put", prefix: "run1" },
      secrets: { TOKEN: { secret: "store.keys", key: "token" } },
      pullSecret: "registry",
      artefacts: ["made"]
    })
  })

  it("`run` makes the image its sandbox's root; arguments and entry point are replaced as docker does", async () => {
    const own = image()
    const said = async (...words: ReadonlyArray<string>) => {
      const { code, stderr, stdout } = await stoker.run(["run", "-q", "--image", own, ...words])
      assert.strictEqual(code, 0, stderr)
      return stdout
    }
    assert.strictEqual(await said(), "/say|usual|nobody\n")
    assert.strictEqual(await said("--env", "WHO=you", "--", "a", "b c"), "/say|a|b c|you\n")
    assert.strictEqual(await said("--entrypoint", "/other", "--", "a"), "/other|a|nobody\n")
    const bare = await stoker.run(["run", "--driver", "process", "--image", own])
    assert.match(bare.stderr, /does not run images that jobs bring[^]*kubernetes or oci/)
    assert.strictEqual(bare.code, 126)
  }, 60_000)

  it.live("`submit --wait` runs it in the cluster of a class, and shows its output", () =>
    Effect.gen(function*() {
      const { kubeconfig } = yield* makeWorld
      const file = join(stoker.folder, "stoker.json")
      const cluster = { kubeconfig, namespace }
      const classes = [{ name: "cluster", driver: "kubernetes", cluster, images: { allow: ["debian"] } }]
      writeFileSync(file, JSON.stringify({ classes, stateDirectory: stoker.state }))
      yield* Effect.promise(async () => {
        const worker = stoker.start(["worker", "--config", file])
        await worker.said("stderr", "\"consuming\"")
        const ended = await stoker.run(
          submit(
            "--wait",
            "--wall",
            "1m",
            "--image",
            "debian:12",
            "--env",
            "WHO=you",
            "--",
            "sh",
            "-c",
            "echo hello $WHO; exit 3"
          )
        )
        assert.strictEqual(ended.stdout, "hello you\n", ended.stderr)
        assert.strictEqual(ended.code, 3)
        const refused = await stoker.run(submit("--wait", "--image", "alpine:3", "--", "true"))
        assert.match(refused.stderr, /takes no image alpine:3[^]*begins with debian/)
        assert.strictEqual(refused.code, 126)
        worker.kill("SIGTERM")
        assert.strictEqual((await worker.ended).code, 0)
      })
    }).pipe(Effect.scoped), 60_000)
})
