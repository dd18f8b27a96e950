import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { projectRoot } from "../support/Tree.ts"
import { Stoker } from "./Stoker.ts"

const stoker = new Stoker()
const example = (name: string) => join(projectRoot, "examples", name)
const write = (name: string, text: string | Buffer) => {
  writeFileSync(join(stoker.folder, name), text)
  return name
}

beforeAll(() => void mkdirSync(join(stoker.folder, "lib")))
afterAll(() => stoker.dispose())

describe("stoker run", () => {
  it("compiles and runs C, and sums up in one line", async () => {
    const { code, stderr, stdout } = await stoker.run(["run", example("hello.c")])
    assert.match(stdout, /^Hello from C, process \d+ of my own little world\n$/)
    assert.match(stderr, /^stoker: ✔ succeeded · wall .* · cpu .* · peak memory .* · oci sandbox in .*\n$/)
    assert.strictEqual(code, 0)
  })

  it("makes no function host ready, which would double the start of a command that needs none", async () => {
    assert.strictEqual((await stoker.run(["run", "-q", "--", "true"])).code, 0)
    assert.notInclude(readdirSync(stoker.state), "functions")
  })

  it("loads neither HTTP nor TLS, which nothing of it needs", async () => {
    const spy = join(stoker.folder, "spy.cjs")
    writeFileSync(
      spy,
      `process.on("exit", () => {
  if (!require("node:worker_threads").isMainThread) return
  const loaded = process.moduleLoadList.filter((name) => /^NativeModule (https?|http2|tls)$/.test(name))
  require("node:fs").writeFileSync(${JSON.stringify(join(stoker.folder, "loaded.json"))}, JSON.stringify(loaded))
})
`
    )
    const { code } = await stoker.run(["run", "-q", "--", "true"], { env: { NODE_OPTIONS: `--require ${spy}` } })
    assert.strictEqual(code, 0)
    assert.deepStrictEqual(JSON.parse(readFileSync(join(stoker.folder, "loaded.json"), "utf8")), [])
  })

  it("shows the compiler's words when it does not compile", async () => {
    const { code, stderr, stdout } = await stoker.run(["run", write("bad.c", "int main(void) { return x; }\n")])
    assert.include(stderr, "bad.c:1:")
    assert.include(stderr, "did not compile")
    assert.deepStrictEqual({ code, stdout }, { code: 1, stdout: "" })
  })

  it("runs Python of several files with arguments, variables and standard input", async () => {
    write("lib/words.py", "def shout(text):\n    return text.upper()\n")
    const main = write(
      "start.py",
      "import os, sys\nfrom lib.words import shout\nprint(shout(sys.stdin.read()), sys.argv[1:], os.environ['WHO'])\n"
    )
    const { code, stdout } = await stoker.run(
      ["run", "--stdin", "-", "--env", "WHO=me=you", main, "lib/words.py", "--", "-a", "--json"],
      { input: "hi" }
    )
    assert.strictEqual(stdout, "HI ['-a', '--json'] me=you\n")
    assert.strictEqual(code, 0)
  })

  it("gives no standard input that was not asked for", async () => {
    const { code, stdout } = await stoker.run(["run", "-q", "--", "wc", "-c"], { input: "not for you" })
    assert.deepStrictEqual({ code, stdout }, { code: 0, stdout: "0\n" })
  })

  it("refuses a source that is a pipe, which no signal could end the reading of", async () => {
    execFileSync("mkfifo", [join(stoker.folder, "pipe.py")])
    const { code, stderr } = await stoker.run(["run", "pipe.py"])
    assert.match(stderr, /pipe\.py cannot be read: it is not a regular file/)
    assert.strictEqual(code, 1)
  })

  it("says also with -q that output was left out, and ends a job over its limit when asked to", async () => {
    const long = ["--output-limit", "10", "--", "seq", "1", "100000"]
    const kept = await stoker.run(["run", "-q", ...long])
    assert.match(kept.stderr, /bytes of stdout left out here \(--output-limit keeps more\)/)
    assert.strictEqual(kept.code, 0)
    assert.strictEqual((await stoker.run(["run", "-q", "--over-output", "kill", ...long])).code, 122)
  })

  it("tells a state directory that is no directory from one that no worker has used", async () => {
    write("plain", "")
    const { code, stderr } = await stoker.run(["list", "--state", "plain"])
    assert.match(stderr, /the state directory .*plain cannot be read: ENOTDIR.*--state/s)
    assert.strictEqual(code, 1)
  })

  it("passes bytes through exactly, each stream to its own", async () => {
    const bytes = Buffer.from(Array.from({ length: 70_000 }, (_, index) => (index * 7) % 256))
    write("bytes", bytes)
    const started = stoker.start(["run", "-q", "--stdin", "bytes", "--", "sh", "-c", "cat; echo done >&2"])
    const { code, stderr } = await started.ended
    assert.isTrue(Buffer.from(started.stdout, "latin1").equals(bytes))
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "done\n" })
  })

  it("shows output while the program still runs", async () => {
    const started = stoker.start(["run", "--", "sh", "-c", "echo first; sleep 20"])
    await started.said("stdout", "first\n")
    started.kill("SIGINT")
    assert.strictEqual((await started.ended).code, 130)
  })

  it("ends with the program's own code", async () => {
    const { code, stderr } = await stoker.run(["run", "--", "sh", "-c", "exit 3"])
    assert.include(stderr, "exited with status 3")
    assert.strictEqual(code, 3)
  })

  it("ends with 128 and the signal's number", async () => {
    const { code, stderr } = await stoker.run(["run", "--", "sh", "-c", "kill -SEGV $$"])
    assert.include(stderr, "SIGSEGV")
    assert.strictEqual(code, 139)
  })

  it("ends with 124 at the wall limit", async () => {
    const { code, stderr } = await stoker.run(["run", "--wall", "300ms", "--", "sleep", "20"])
    assert.include(stderr, "wall time limit of 300 ms")
    assert.strictEqual(code, 124)
  })

  it("ends with 137 without memory", async () => {
    const { code, stderr } = await stoker.run(["run", "--memory", "16M", "--", "python3", "-c", "x = 'a' * 10**8"])
    assert.include(stderr, "memory limit")
    assert.strictEqual(code, 137)
  })

  it("ends with 126 and the remedy when there is no such program", async () => {
    const { code, stderr } = await stoker.run(["run", "--", "no-such-program"])
    assert.match(stderr, /rejected: the program cannot be started.*Check its name/)
    assert.strictEqual(code, 126)
  })

  it("may have more than a class's usual ceiling", async () => {
    const { code, stdout } = await stoker.run(["run", "-q", "--memory", "2G", "--wall", "1h", "--", "echo", "fine"])
    assert.deepStrictEqual({ code, stdout }, { code: 0, stdout: "fine\n" })
  })

  it("prints one JSON document and nothing else with --json", async () => {
    const command = "printf '\\377'; echo err >&2; exit 4"
    const { code, stderr, stdout } = await stoker.run(["run", "--json", "--", "sh", "-c", command])
    const document = JSON.parse(stdout)
    assert.match(document.id, /^run-[a-z0-9]{10}$/)
    assert.deepInclude(document, { outcome: { _tag: "Exited", phase: "run", code: 4 }, exitCode: 4, driver: "oci" })
    assert.deepStrictEqual(Object.keys(document.output), ["stdout", "stderr"])
    assert.isAbove(document.usage.phases[0].wallMicros, 0)
    assert.deepInclude(document.output.stderr, { text: "err\n", truncated: false })
    assert.deepStrictEqual({ code, stderr }, { code: 4, stderr: "" })
  })

  it("compiles the same program once, and each time with --no-cache", async () => {
    const source = write("once.c", "int main(void) { return 5; }\n")
    const compile = async (...flags: ReadonlyArray<string>) => {
      const { code, stdout } = await stoker.run(["run", "--json", ...flags, source])
      assert.strictEqual(code, 5)
      return JSON.parse(stdout).usage.phases[0].cached === true
    }
    assert.deepStrictEqual([await compile("--no-cache"), await compile(), await compile()], [false, false, true])
    assert.isFalse(await compile("--no-cache"))
  })

  it("says in JSON what was left out", async () => {
    const { stdout } = await stoker.run(["run", "--json", "--output-limit", "10", "--", "seq", "1", "100"])
    const { output } = JSON.parse(stdout)
    assert.deepInclude(output.stdout, { bytes: 292, truncated: true, droppedBytes: 282, text: "1\n2\n3\n100\n" })
  })

  it("prints every event as a line of JSON with --events", async () => {
    const { code, stdout } = await stoker.run(["run", "--events", "--", "echo", "here"])
    const tags = stdout.trim().split("\n").map((line) => JSON.parse(line)._tag)
    assert.strictEqual(tags[0], "Received")
    assert.strictEqual(tags.at(-1), "Ended")
    assert.include(tags, "Output")
    assert.strictEqual(code, 0)
  })

  it("warns that driver process isolates nothing", async () => {
    const { code, stderr, stdout } = await stoker.run(["run", "--driver", "process", example("hello.c")])
    assert.match(stdout, /^Hello from C/)
    assert.include(stderr, "isolates nothing")
    assert.strictEqual(code, 0)
  })

  it("ends with 125 and the remedy when crun is missing", async () => {
    const { code, stderr } = await stoker.run(["run", "--", "true"], { env: { STOKER_CRUN: "/nonexistent" } })
    assert.match(stderr, /\/nonexistent: there is no such program.*apt-get install crun/)
    assert.notMatch(stderr, /^\s+at /m)
    assert.strictEqual(code, 125)
  })

  it("ends with 125 and the remedy when the state directory cannot be written", async () => {
    const file = write("file", "")
    const { code, stderr } = await stoker.run(["run", "--state", join(file, "state"), "--", "true"])
    assert.match(stderr, /open the state directory/)
    assert.notMatch(stderr, /^\s+at /m)
    assert.strictEqual(code, 125)
  })

  it("stops the job on Ctrl-C with TERM, and ends with 130", async () => {
    const started = stoker.start(["run", "--", "sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; sleep 20 & wait"])
    await started.said("stdout", "up")
    started.kill("SIGINT")
    const { code, stderr, stdout } = await started.ended
    assert.strictEqual(stdout, "up\nbye\n")
    assert.match(stderr, /stopping the job[^]*was stopped: by the user \(SIGINT\)/)
    assert.strictEqual(code, 130)
  })

  it("ends at once at the second Ctrl-C", async () => {
    const started = stoker.start(["run", "--", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"])
    await started.said("stdout", "up")
    started.kill("SIGINT")
    await started.said("stderr", "stopping the job")
    started.kill("SIGINT")
    assert.strictEqual((await started.ended).code, 130)
  })

  it("stops the job when nobody reads its output any more", async () => {
    const script = `node ${
      join(projectRoot, "src/main.ts")
    } run --wall 20s -- yes | head -n 1; echo code \${PIPESTATUS[0]}`
    const env = {
      ...process.env,
      STOKER_STATE: stoker.state,
      PATH: `${projectRoot}/node_modules/.bin:${process.env["PATH"]}`
    }
    assert.strictEqual(execFileSync("bash", ["-c", script], { env, encoding: "utf8" }), "y\ncode 141\n")
  })

  it("shares its state directory with another run at the same time", async () => {
    const both = await Promise.all(
      ["one", "two"].map((word) => stoker.run(["run", "-q", "--", "sh", "-c", `sleep 0.3; echo ${word}`]))
    )
    assert.deepStrictEqual(both.map(({ code, stdout }) => [code, stdout]), [[0, "one\n"], [0, "two\n"]])
  })

  it("leaves nothing of its jobs but rows and logs", async () => {
    assert.isAbove((await stoker.list()).length, 10)
    assert.deepStrictEqual(await stoker.leftovers(), [])
  })
})
