import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { argvOf, phase, programOf, refusalOf } from "./Programs.ts"
import { runProgram } from "./RunProgram.ts"

describe("command", () => {
  it.effect("a list is run as it is", () =>
    Effect.gen(function*() {
      const program = yield* programOf("command", { argv: ["echo", "a b", "$HOME"], env: { A: "1" }, stdin: "x" })
      assert.deepStrictEqual(phase(program, "run")?.argv, ["echo", "a b", "$HOME"])
      assert.strictEqual(phase(program, "run")?.env["A"], "1")
      assert.deepStrictEqual(program.phases.map((phase) => phase.name), ["run"])
    }))

  it.effect("a line goes to the shell", () =>
    Effect.map(
      programOf("command", { command: "echo a | wc -c" }),
      (program) => assert.strictEqual(argvOf(program, "run"), "/bin/sh -c echo a | wc -c")
    ))

  it.live("reads its files and its input", () =>
    Effect.gen(function*() {
      const program = yield* programOf("command", {
        command: "./d/tool | cat - d/data",
        files: [
          { path: "d/tool", content: "#!/bin/sh\ntr a-z A-Z\n", executable: true },
          { path: "d/data", contentBase64: "ZGF0YQ==" }
        ],
        stdin: "input "
      })
      const { phases } = yield* Effect.promise(() => runProgram(program))
      assert.deepStrictEqual(phases, [{ name: "run", code: 0, stdout: "INPUT data", stderr: "" }])
    }))

  it.effect("asks for its artefacts", () =>
    Effect.gen(function*() {
      const program = yield* programOf("command", { command: "a", artefacts: ["x", "d/y z"] })
      assert.deepStrictEqual(program.artefacts.map(String), ["x", "d/y z"])
      assert.deepStrictEqual((yield* programOf("command", { command: "a" })).artefacts, [])
    }))

  for (
    const [name, args, words] of [
      ["nothing", {}, "there is no command. Give either argv (a list) or command (a line for the shell)."],
      ["both", { argv: ["a"], command: "a" }, "there are both argv and command"],
      ["an empty line", { command: "" }, "a command that is not empty"],
      ["an empty list", { argv: [] }, "argv"],
      ["a NUL", { command: "\u0000" }, "text without NUL bytes"],
      ["an artefact that lies outside", { command: "a", artefacts: ["../x"] }, "inside the workspace"],
      ["an absolute artefact", { command: "a", artefacts: ["/etc/passwd"] }, "inside the workspace"],
      ["an artefact of two lines", { command: "a", artefacts: ["a\nb"] }, "without control characters"],
      ["an artefact twice", { command: "a", artefacts: ["a", "b", "a"] }, "each artefact once"],
      [
        "too many artefacts",
        { command: "a", artefacts: Array.from({ length: 1001 }, (_, n) => `${n}`) },
        "at most 1000"
      ],
      ["artefacts of too long names", {
        command: "a",
        artefacts: Array.from({ length: 20 }, (_, n) => `${n}`.padEnd(4000, "x"))
      }, "65536 bytes together"],
      ["a path that leads out", { command: "a", files: [{ path: "a/../b", content: "" }] }, "inside the workspace"]
    ] as const
  ) {
    it.effect(`refuses ${name}, saying why`, () =>
      Effect.map(refusalOf("command", args), (text) => assert.include(text, words)))
  }
})
