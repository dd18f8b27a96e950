import { afterAll, assert, describe, it } from "@effect/vitest"
import { exitCodes } from "../../src/cli/ExitCode.ts"
import { Stoker } from "./Stoker.ts"

const stoker = new Stoker()
afterAll(() => stoker.dispose())

/** What, why, what to do: never where in the code. */
const isFriendly = (text: string) => {
  assert.notMatch(text, /^\s+at /m)
  assert.notInclude(text, "node_modules")
  assert.isAtMost(text.trim().split("\n").length, 3)
}

const wrong: ReadonlyArray<readonly [name: string, args: ReadonlyArray<string>, said: RegExp]> = [
  ["an unknown flag", ["run", "--bogus", "--", "true"], /--bogus/],
  ["an unknown command", ["rum", "hello.c"], /rum[^]*run/],
  ["an unknown language", ["run", "--language", "cobol", "x.cob"], /--language[^]*cobol[^]*python/],
  ["a language that does not show", ["run", "x.cob"], /x\.cob[^]*--language/],
  ["files of two languages", ["run", "a.py", "b.go"], /python, go[^]*--language/],
  ["nothing to run", ["run"], /nothing to run[^]*stoker run -- ls/],
  ["a file that is not there", ["run", "nofile.c"], /nofile\.c[^]*no such file/],
  ["a time without unit", ["run", "--wall", "10", "--", "true"], /--wall[^]*500ms/],
  ["a size below the least", ["run", "--memory", "1K", "--", "true"], /--memory[^]*4\.00 MiB to 4\.00 TiB/],
  ["a size that is none", ["run", "--output-limit", "much", "--", "true"], /--output-limit[^]*128M/],
  ["too many cores", ["run", "--cpus", "2000", "--", "true"], /--cpus[^]*0\.01 to 1024/],
  ["a variable without value", ["run", "--env", "X", "--", "true"], /--env[^]*NAME=VALUE/],
  ["a class that is not there", ["run", "--class", "huge", "--", "true"], /huge[^]*oci, process/],
  ["a contradiction", ["run", "--class", "oci", "--driver", "process", "--", "true"], /--class oci[^]*only one/],
  ["a state directory without jobs", ["status", "job-1"], /no job has run yet[^]*--state/],
  ["a worker without slots", ["worker", "--slots", "0"], /--slots[^]*1 to 10000/],
  ["a worker's class that it has not", ["worker", "--class", "process"], /process[^]*--driver/]
]

describe("the command line", () => {
  for (const [name, args, said] of wrong) {
    it(`says what is wrong with ${name}, and ends with 1`, async () => {
      const { code, stderr, stdout } = await stoker.run(args)
      assert.match(stderr, said)
      isFriendly(stderr)
      assert.deepStrictEqual({ code, stdout }, { code: 1, stdout: "" })
    })
  }

  it("documents its exit codes in --help, and asks for nothing on stderr", async () => {
    const { code, stderr, stdout } = await stoker.run(["run", "--help"])
    for (const [, meaning] of exitCodes) assert.include(stdout, meaning)
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
  })

  it("completes itself in bash", async () => {
    const { code, stdout } = await stoker.run(["--completions", "bash"])
    assert.strictEqual(code, 0)
    assert.include(stdout, "doctor")
  })
})
