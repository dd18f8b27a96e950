import { assert, describe, it } from "@effect/vitest"
import { Effect, type Schema } from "effect"
import { programOf } from "./Programs.ts"
import { runProgram } from "./RunProgram.ts"

const run = (args: Schema.Json) =>
  Effect.flatMap(programOf("code", args), (program) => Effect.promise(() => runProgram(program)))

describe("code with this machine's toolchains", () => {
  it.live("C: several files, a header, the mathematics library, input and arguments", () =>
    Effect.gen(function*() {
      const { phases } = yield* run({
        language: "c",
        files: [
          {
            path: "main.c",
            content: "#include <stdio.h>\n#include \"inc/half.h\"\nint main(int n, char **v) {\n"
              + "  double x; scanf(\"%lf\", &x); printf(\"%s %.1f\\n\", v[1], half(x)); return n; }\n"
          },
          {
            path: "lib/half.c",
            content: "#include <math.h>\n#include <inc/half.h>\ndouble half(double x) { return sqrt(x); }\n"
          },
          { path: "inc/half.h", content: "double half(double x);\n" }
        ],
        stdin: "16",
        args: ["root"]
      })
      assert.deepStrictEqual(phases.map(({ code, stdout }) => [code, stdout]), [[0, ""], [2, "root 4.0\n"]])
    }))

  it.live("C that does not compile is not run, and the compiler says where", () =>
    Effect.gen(function*() {
      const { phases } = yield* run({ language: "c", source: "int main() { return x; }" })
      assert.strictEqual(phases.length, 1)
      assert.notStrictEqual(phases[0]?.code, 0)
      assert.match(phases[0]?.stderr ?? "", /^main\.c:.*error: .x. undeclared/ms)
    }))

  it.live("C++ with a standard of the job's choice", () =>
    Effect.gen(function*() {
      const { phases } = yield* run({
        language: "cpp",
        source: "#include <iostream>\n#include <span>\nint main() { std::cout << __cplusplus / 100; }",
        compilerArgs: ["-std=c++20"]
      })
      assert.strictEqual(phases[1]?.stdout, "2020")
    }))

  it.live("Python with a module beside it", () =>
    Effect.gen(function*() {
      const { phases } = yield* run({
        language: "python",
        files: [
          {
            path: "app/main.py",
            content: "import sys, helper\nprint(helper.twice(int(sys.stdin.read())), sys.argv[1])"
          },
          { path: "app/helper.py", content: "def twice(n): return 2 * n" }
        ],
        entry: "app/main.py",
        stdin: "21",
        args: ["ä"]
      })
      assert.deepStrictEqual(phases, [{ name: "run", code: 0, stdout: "42 ä\n", stderr: "" }])
    }))

  it.live("Go: loose files, and nothing left of the build", () =>
    Effect.gen(function*() {
      const { left, phases } = yield* run({
        language: "go",
        source: "package main\n\nfunc main() { println(\"loose\") }\n"
      })
      assert.deepStrictEqual(phases.map(({ code, stderr }) => [code, stderr]), [[0, ""], [0, "loose\n"]])
      assert.deepStrictEqual(left, [])
    }))

  it.live("Go: a module with packages", () =>
    Effect.gen(function*() {
      const { phases } = yield* run({
        language: "go",
        files: [
          { path: "go.mod", content: "module example.test/m\n\ngo 1.19\n" },
          {
            path: "cmd/m/main.go",
            content: "package main\n\nimport \"example.test/m/in\"\n\nfunc main() { println(in.N) }\n"
          },
          { path: "in/in.go", content: "package in\n\nconst N = 7\n" }
        ],
        entry: "cmd/m/main.go"
      })
      assert.deepStrictEqual(phases.map(({ code, stderr }) => [code, stderr]), [[0, ""], [0, "7\n"]])
    }))

  it.live("Go that needs a module from outside fails at once, saying so", () =>
    Effect.gen(function*() {
      const { phases } = yield* run({
        language: "go",
        files: [
          { path: "go.mod", content: "module example.test/m\n\ngo 1.19\n\nrequire example.test/other v1.0.0\n" },
          { path: "main.go", content: "package main\n\nimport _ \"example.test/other\"\n\nfunc main() {}\n" }
        ]
      })
      assert.strictEqual(phases.length, 1)
      assert.include(phases[0]?.stderr, "module lookup disabled by GOPROXY=off")
    }))
})
