/** `stoker jobs` as the RFD's transcripts have it. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { patience } from "../support/Slowness.ts"
import { type JobsServer, jobsServer } from "./JobsServer.ts"
import { Stoker } from "./Stoker.ts"

const stoker = new Stoker()
let server: JobsServer
beforeAll(async () => {
  server = await jobsServer()
})
afterAll(async () => {
  await stoker.dispose()
  await server.close()
})

const jobs = (args: ReadonlyArray<string>, env: NodeJS.ProcessEnv = {}, input?: string) =>
  stoker.run(["jobs", ...args], {
    env: { ...server.env, XDG_CONFIG_HOME: join(stoker.folder, "config"), ...env },
    ...(input === undefined ? {} : { input })
  })

const nowhere = { STOKER_SERVER: "", STOKER_CA: "", STOKER_CERT: "", STOKER_KEY: "" }
const last = () => server.started.at(-1)

const usage = `Usage:
  stoker jobs start fib position [flags]

Flags:
  -h, --help   help for fib
`

describe("the RFD's transcripts", () => {
  it("jobs lists its commands", async () => {
    const { code, stderr, stdout } = await jobs([])
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    assert.strictEqual(
      stdout,
      `This sub-command provides the ability to manage jobs, including
starting, stopping, getting the status, and viewing the output.

Usage:
  stoker jobs [command]

Available Commands:
  start       Start a job in the server
  status      Get the status of a job
  stop        Stop a running job
  tail        View the output of a job
  list        List jobs, newest first
  functions   List what can be started
  delete      Forget jobs that have ended

Flags:
  -h, --help   help for jobs

Use "stoker jobs [command] --help" for more information about a command.
`
    )
  })

  it("jobs start lists what can be started", async () => {
    const { code, stderr, stdout } = await jobs(["start"])
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    assert.include(
      stdout,
      `Available Commands:
  code        Runs source code in one of: c, cpp, python, go; compiles it first where the language needs it
  command     Runs a command: a list of program and arguments, or one line for the shell
  container   Runs a container image: in the cluster of a kubernetes class, or as the root of an oci sandbox
  eval        Evaluates a mathematical formula
  fib         Calculates the value of a position in the Fibonacci sequence
  noop        Does nothing and prints nothing
  wait        Waits for a set number of seconds before sending an empty HTTP POST request to a URL
`
    )
  })

  it("jobs start fib 3", async () => {
    const { code, stderr, stdout } = await jobs(["start", "fib", "3"])
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    assert.strictEqual(
      stdout,
      `Started 'Fibonacci' job, ID: XE38YM
Use 'stoker jobs tail XE38YM' to see the output of this job,
'stoker jobs stop XE38YM' to stop the job.
`
    )
    assert.deepStrictEqual([last()?.function, last()?.args], ["fib", { number: 3 }])
  })

  it("jobs start fib without its argument", async () => {
    const { code, stderr, stdout } = await jobs(["start", "fib"])
    assert.deepStrictEqual({ code, stdout }, { code: 1, stdout: "" })
    assert.strictEqual(
      stderr,
      `Error: accepts 1 arg(s), received 0
${usage}
Error: accepts 1 arg(s), received 0
`
    )
  })

  it("jobs status", async () => {
    const { code, stderr, stdout } = await jobs(["status", "XE38YM"])
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    assert.strictEqual(
      stdout,
      `Getting info for job XE38YM... DONE!

Job XE38YM: Fibonacci
Arguments:
  Number:   3
Status:     Complete
Started:    2022-07-07 16:34:03
Finished:   2022-07-07 16:34:04
Duration:   1 second
`
    )
  })

  it("jobs tail", async () => {
    const { code, stderr, stdout } = await jobs(["tail", "XE38YM"])
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    assert.strictEqual(
      stdout,
      `[JOB] Starting job 'Fibonacci'
[FIB] Calculating the value of the 3rd value in the Fibonacci sequence
[FIB] Using lookup; value is '1'.
[RESULT] 1
[JOB] Complete

Job finished, no more output, exiting tail!
`
    )
  })
})

const refused: ReadonlyArray<readonly [name: string, words: ReadonlyArray<string>, error: RegExp]> = [
  ["a negative position", ["fib", "-1"], /position must be a whole number from 1 to 100000000, not -1/],
  ["one behind --", ["fib", "--", "-1"], /position must be a whole number from 1 to/],
  ["one that is too large", ["fib", "1000000000"], /position must be .* not 1000000000/],
  ["a position that is none", ["fib", "three"], /position must be a whole number .* not "three"/],
  ["an argument too many", ["fib", "3", "4"], /accepts 1 arg\(s\), received 2/],
  ["a flag that is not there", ["fib", "3", "--bogus", "1"], /unknown flag: --bogus/],
  ["arguments that are no JSON", ["fib", "--json-args", "{"], /--json-args is no JSON/],
  ["an argument that nobody knows", ["fib", "--json-args", "{\"number\":3,\"x\":1}"], /x must be nothing of that name/],
  ["a value that is no number", ["eval", "2x", "--args", "x=two"], /--args.x must be a number, not "two"/],
  ["a value without a name", ["eval", "2x", "--args", "2"], /--args takes NAME=VALUE/],
  ["a language that is none", ["code", "--language", "cobol"], /--language must be one of c, cpp, python, go/],
  ["a flag that is needed", ["code"], /required flag\(s\) "language" not set/],
  ["a function that is not there", ["fob"], /unknown command "fob"/]
]

describe("stoker jobs", () => {
  for (const [name, words, error] of refused) {
    it(`refuses ${name} before the server is asked, with usage and 1`, async () => {
      const before = server.started.length
      const { code, stderr, stdout } = await jobs(["start", ...words])
      assert.deepStrictEqual({ code, stdout, asked: server.started.length - before }, { code: 1, stdout: "", asked: 0 })
      const lines = stderr.trim().split("\n")
      assert.match(lines[0] ?? "", error)
      assert.strictEqual(lines.at(-1), lines[0])
      assert.include(stderr, "Usage:\n  stoker jobs start")
    })
  }

  it("hands over arguments and options of every kind", async () => {
    const file = join(stoker.folder, "args.json")
    writeFileSync(file, JSON.stringify({ argv: ["cat"], stdin: "x" }))
    await jobs([
      "start",
      "--id",
      "mine",
      "eval",
      "2x + y",
      "--args",
      "x=2",
      "--args",
      "y=-3",
      "--wall",
      "2s",
      "--priority",
      "high"
    ])
    assert.deepStrictEqual(last()?.args, { expression: "2x + y", args: { x: 2, y: -3 } })
    assert.deepStrictEqual([last()?.id, last()?.limits, last()?.terms], ["mine", { wallMs: 2000 }, {
      priority: "high"
    }])
    await jobs(["start", "eval", "2x", "x=4"])
    assert.deepStrictEqual(last()?.args, { expression: "2x", args: { x: 4 } })
    await jobs([
      "start",
      "command",
      "--artefacts",
      "a.txt",
      "--artefacts",
      "b.txt",
      "--env",
      "A=1=2",
      "--",
      "ls",
      "--all",
      "-1"
    ])
    assert.deepStrictEqual(last()?.args, {
      argv: ["ls", "--all", "-1"],
      artefacts: ["a.txt", "b.txt"],
      env: { A: "1=2" }
    })
    await jobs(["start", "command", "--json-args", `@${file}`, "--files", "[{\"path\":\"a\",\"content\":\"b\"}]"])
    assert.deepStrictEqual(last()?.args, { argv: ["cat"], stdin: "x", files: [{ path: "a", content: "b" }] })
    await jobs(["start", "fib", "--json-args", "-"], {}, "{\"number\": 7}")
    assert.deepStrictEqual(last()?.args, { number: 7 })
    await jobs([
      "start",
      "wait",
      "3",
      "http://10.0.0.1/",
      "--private",
      "--class",
      "net",
      "--wait=2s",
      "--webhook",
      "https://x.example/"
    ])
    assert.deepStrictEqual(last()?.args, { seconds: 3, url: "http://10.0.0.1/", private: true })
    assert.deepStrictEqual([last()?.class, last()?.waitMs, last()?.webhook], ["net", 2000, "https://x.example/"])
  }, patience(60_000))

  it("says what of an option is wrong as all commands do", async () => {
    const { code, stderr } = await jobs(["start", "fib", "3", "--wall", "10"])
    assert.strictEqual(code, 1)
    assert.match(stderr, /^stoker: [^\n]*--wall[^\n]*500ms[^\n]*\n +`stoker jobs start fib --help`[^\n]*\n$/)
  })

  it("tells help per function, with every flag", async () => {
    const { code, stderr, stdout } = await jobs(["start", "wait", "--help"])
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    for (
      const part of [
        "stoker jobs start wait seconds url [flags]",
        "--private",
        "--json-args",
        "--wall TIME",
        "--token-file"
      ]
    ) {
      assert.include(stdout, part)
    }
  })

  it("tells the bounds of a number without the words of what found it", async () => {
    const { stderr } = await jobs(["list", "--limit", "0"])
    assert.match(stderr, /^stoker: [^\n]*--limit: "0"\. Expected: 1 to 100000\n/)
  })

  it("follows what it started, and can end with its code", async () => {
    const { code, stdout } = await jobs(["start", "fib", "3", "--follow", "--exit-code"])
    assert.strictEqual(code, 0)
    assert.match(stdout, /^Started 'Fibonacci'[^]*\n\n\[JOB\] Starting[^]*\[JOB\] Complete\n/)
  })

  it("gives a job's bytes as they are, told apart, and its exit code if asked to", async () => {
    const child = stoker.start(["jobs", "tail", "BINARY", "--raw", "--exit-code"], { env: server.env })
    const { code, stderr } = await child.ended
    assert.deepStrictEqual({ code, stderr }, { code: 3, stderr: "not text\n" })
    assert.strictEqual(
      child.stdout,
      `${String.fromCharCode(...Array.from({ length: 256 }, (_, n) => n))}\u00ff\u00fe`
    )
    assert.strictEqual((await jobs(["tail", "BINARY"])).code, 0)
  })

  it("prints JSON: one object, or one a line", async () => {
    const lines = (text: string) => text.trim().split("\n").map((line) => JSON.parse(line) as { readonly id?: string })
    assert.strictEqual(lines((await jobs(["status", "XE38YM", "--json"])).stdout)[0]?.id, "XE38YM")
    assert.deepStrictEqual(lines((await jobs(["list", "--json"])).stdout).map(({ id }) => id), [
      "XE38YM",
      "BINARY",
      "STOPPED"
    ])
    assert.strictEqual(lines((await jobs(["functions", "--json"])).stdout).length, 7)
    const events = lines((await jobs(["tail", "BINARY", "--json"])).stdout) as ReadonlyArray<{ readonly _tag?: string }>
    assert.deepStrictEqual(events.map(({ _tag }) => _tag), ["Begun", "Bytes", "Bytes", "Bytes", "Ended"])
  }, patience(30_000))

  it("lists, stops and forgets", async () => {
    const { stdout } = await jobs(["list"])
    assert.match(
      stdout,
      /^ID +FUNCTION +OWNER +RECEIVED +DURATION +STATUS\nXE38YM +fib +alice +2022-07-07 16:34:03 +1 second +Complete\n/
    )
    assert.match(
      (await jobs(["stop", "STOPPED"])).stdout,
      /Stopping job STOPPED\.\.\. DONE!\n\n[^]*Status: +Stopped \(enough\)/
    )
    const deleted = await jobs(["delete", "BINARY", "XE38YM"])
    assert.deepStrictEqual([deleted.code, deleted.stdout], [1, "Deleted job XE38YM\n"])
    assert.match(deleted.stderr, /BINARY has not ended/)
  }, patience(30_000))

  it("says what is wrong with an unknown id, and ends the line it began", async () => {
    const { code, stderr, stdout } = await jobs(["status", "NOBODY"])
    assert.deepStrictEqual({ code, stdout }, { code: 1, stdout: "Getting info for job NOBODY... FAILED!\n" })
    assert.match(stderr, /there is no job NOBODY\n {2}Check the id/)
  })

  it("lists and checks the built-in functions when there is no server, and says so", async () => {
    const listed = await jobs(["start"], nowhere)
    assert.include(listed.stdout, "fib  ")
    assert.match(listed.stderr, /built-in functions; the server's are not known: no server is named/)
    assert.match((await jobs(["start", "fib", "0"], nowhere)).stderr, /^Error: position must be/)
    const { code, stderr } = await jobs(["start", "fib", "3"], nowhere)
    assert.strictEqual(code, 1)
    assert.match(stderr, /no server is named\n {2}Name one with --server/)
  }, patience(30_000))

  it("completes functions, their flags and ids; is silent when nobody answers", async () => {
    const complete = async (words: ReadonlyArray<string>, env: NodeJS.ProcessEnv = {}) => {
      const { code, stderr, stdout } = await jobs(["complete", "--", ...words], env)
      assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
      return stdout.split("\n").filter((line) => line !== "")
    }
    assert.deepStrictEqual(await complete(["start", "e"]), ["eval"])
    assert.deepStrictEqual(await complete(["start", "code", "--language", ""]), ["c", "cpp", "python", "go"])
    assert.include(await complete(["start", "eval", "--a"]), "--args")
    assert.deepStrictEqual(await complete(["tail", "X"]), ["XE38YM"])
    assert.deepStrictEqual(await complete(["start", "f"], nowhere), [])
    assert.deepStrictEqual(await complete(["status", ""], { STOKER_SERVER: "grpc://localhost:1" }), [])
  }, patience(60_000))
})

describe("stoker context", () => {
  const env = () => ({ ...nowhere, XDG_CONFIG_HOME: join(stoker.folder, "contexts") })
  const context = (...args: ReadonlyArray<string>) => stoker.run(["context", ...args], { env: env() })
  const add = (name: string, ...more: ReadonlyArray<string>) => {
    const { ca, cert, key } = server.files
    return context("add", name, "--server", server.url, "--ca", ca, "--cert", cert, "--key", key, ...more)
  }

  it("remembers servers in a file that only its user reads; flags and environment are stronger", async () => {
    assert.strictEqual((await add("here")).code, 0)
    assert.match((await add("here")).stderr, /there is a context here already/)
    assert.strictEqual((await context("add", "there", "--server", "grpc://localhost:1")).code, 0)
    const file = join(stoker.folder, "contexts", "stoker", "contexts.json")
    const { statSync } = await import("node:fs")
    assert.strictEqual(statSync(file).mode & 0o777, 0o600)
    assert.match((await context("list")).stdout, /\* +here +grpc:/)
    const status = (...flags: ReadonlyArray<string>) =>
      stoker.run(["jobs", "status", "XE38YM", ...flags], { env: { ...env(), TZ: "UTC" } })
    assert.match((await status()).stdout, /Complete/)
    assert.match((await status("--context", "there")).stderr, /gRPC needs a certificate/)
    // A server that is named has nothing of the context that is meant.
    assert.match((await status("--server", server.url)).stderr, /gRPC needs a certificate/)
    assert.match((await status("--context", "gone")).stderr, /there is no context gone\n {2}There are: here, there/)
    await context("use", "there")
    assert.match((await status()).stderr, /gRPC needs a certificate/)
    assert.match((await status("--context", "here")).stdout, /Complete/)
    const named = await stoker.run(["jobs", "status", "XE38YM"], { env: { ...env(), STOKER_CONTEXT: "here" } })
    assert.match(named.stdout, /Complete/)
    assert.match((await context("show", "--json")).stdout, /"name":"there"/)
    await context("remove", "there")
    assert.match((await status()).stderr, /no server is named/)
    writeFileSync(file, "{")
    assert.match((await context("list")).stderr, /contexts\.json is wrong/)
  }, patience(120_000))

  it("refuses what can't be meant", async () => {
    assert.match((await context("add", "x", "--server", "ftp://x")).stderr, /ftp:\/\/x is no address/)
    assert.match((await context("add", "../x", "--server", server.url)).stderr, /is no name/)
    assert.match((await context("add", "x", "--server", server.url, "--ca", "/nofile")).stderr, /cannot be read/)
    assert.match((await context("add", "x", "--server", server.url, "--cert", server.files.cert)).stderr, /no key/)
  }, patience(60_000))
})
