import { assert, describe, it } from "@effect/vitest"
import { Effect, type Schema } from "effect"
import { baseEnv } from "../../src/schemas/Program.ts"
import { argvOf, limits, phase, programOf, refusalOf } from "./Programs.ts"

const file = (path: string, content = "") => ({ path, content })

describe("code: phases", () => {
  it.effect("asks for its artefacts, compiled or not", () =>
    Effect.gen(function*() {
      for (const language of ["c", "python"]) {
        const program = yield* programOf("code", { language, source: "x", artefacts: ["out"] })
        assert.deepStrictEqual(program.artefacts.map(String), ["out"], language)
      }
    }))

  it.effect("C is compiled by gcc with the class's limits and run with the job's", () =>
    Effect.gen(function*() {
      const program = yield* programOf("code", { language: "c", source: "int main(){}", stdin: "in", args: ["a", "b"] })
      assert.deepStrictEqual(program.files.map((file) => file.path), ["main.c"])
      assert.deepStrictEqual(program.phases.map((phase) => phase.name), ["compile", "run"])
      assert.strictEqual(argvOf(program, "compile"), "gcc -O2 -I. -o program main.c -lm")
      assert.strictEqual(argvOf(program, "run"), "./program a b")
      assert.strictEqual(phase(program, "compile")?.limits, limits.compile)
      assert.strictEqual(phase(program, "run")?.limits, limits.run)
      assert.strictEqual(phase(program, "compile")?.stdin.byteLength, 0)
      assert.strictEqual(new TextDecoder().decode(phase(program, "run")?.stdin), "in")
    }))

  it.effect("a C or C++ compile makes the program and nothing else, unless an option might leave more or know more", () =>
    Effect.gen(function*() {
      const productsOf = (args: Readonly<Record<string, Schema.Json>>) =>
        Effect.map(programOf("code", { language: "c", source: "", ...args }), ({ products }) => products?.map(String))
      assert.deepStrictEqual(yield* productsOf({}), ["program"])
      assert.deepStrictEqual(yield* productsOf({ language: "cpp", source: "" }), ["program"])
      const taken = yield* programOf("code", { language: "c", files: [file("main.c"), file("program")] })
      assert.deepStrictEqual(taken.products?.map(String), ["program-1"])
      assert.isUndefined(yield* productsOf({ cache: false }))
      assert.deepStrictEqual(yield* productsOf({ cache: true }), ["program"])
      const plain = [
        "-O3 -g -Wall -Wextra -Wno-unused -Werror=return-type -std=c++20 -DNAME=1 -UX -Iinclude -lpthread -L. -pthread -w -s",
        "-fsanitize=address,undefined -fno-omit-frame-pointer -fopenmp -static -m64 -mavx2 -D NAME -isystem lib extra.s"
      ]
      for (const options of plain) {
        assert.deepStrictEqual(yield* productsOf({ compilerArgs: options.split(" ") }), ["program"], options)
      }
      const others =
        "-save-temps --coverage -fprofile-generate -ftest-coverage -MD -MF -o -Wl,-Map=x -Wp,-MD,x -Wa,-a=x -march=native " +
        "-fplugin=./x.so -wrapper @options -specs=x -fdump-tree-all -fstack-usage -gsplit-dwarf -Xlinker -pg -fopt-info=x -v -time=x"
      for (const option of others.split(" ")) {
        assert.isUndefined(yield* productsOf({ compilerArgs: ["-O1", option] }), option)
      }
    }))

  it.effect("a Go build makes the program, and brings a module's own files up to date", () =>
    Effect.gen(function*() {
      const productsOf = (args: Readonly<Record<string, Schema.Json>>) =>
        Effect.map(programOf("code", { language: "go", ...args }), ({ products }) => products?.map(String))
      assert.deepStrictEqual(yield* productsOf({ source: "" }), ["program"])
      const files = [file("go.mod"), file("main.go")]
      assert.deepStrictEqual(yield* productsOf({ files }), ["program", "go.mod"])
      assert.deepStrictEqual(yield* productsOf({ files: [...files, file("go.sum")] }), ["program", "go.mod", "go.sum"])
      const plain = ["-trimpath", "-tags=a,b", "-ldflags=-s -w -X main.v=1"]
      assert.deepStrictEqual(yield* productsOf({ source: "", compilerArgs: plain }), ["program"])
      for (
        const option of ["-work", "-x", "-toolexec=./x", "-o", "-ldflags=-cpuprofile=x", "-ldflags=-X -o", "-overlay=x"]
      ) {
        assert.isUndefined(yield* productsOf({ source: "", compilerArgs: [option] }), option)
      }
    }))

  it.effect("a job of one source file and nothing else says so, for sandboxes that take only that", () =>
    Effect.gen(function*() {
      const sourceOf = (args: Readonly<Record<string, Schema.Json>>) =>
        Effect.map(programOf("code", { language: "c", source: "x", ...args }), (program) => program.source)
      assert.deepStrictEqual(yield* sourceOf({}), { language: "c", code: "x" })
      assert.deepStrictEqual(yield* sourceOf({ variant: "gcc", stdin: "", args: [], env: {}, artefacts: [] }), {
        language: "c",
        code: "x",
        variant: "gcc"
      })
      assert.deepStrictEqual(yield* sourceOf({ language: "python" }), { language: "python", code: "x" })
      const more: ReadonlyArray<Readonly<Record<string, Schema.Json>>> = [
        { variant: "clang" },
        { stdin: "in" },
        { stdinBase64: "aW4=" },
        { args: ["a"] },
        { compilerArgs: ["-O0"] },
        { env: { A: "1" } },
        { artefacts: ["out"] }
      ]
      for (const args of more) assert.isUndefined(yield* sourceOf(args), JSON.stringify(args))
      const files = yield* programOf("code", { language: "c", files: [file("main.c", "x")] })
      assert.isUndefined(files.source)
    }))

  it.effect("Python has no compile phase", () =>
    Effect.gen(function*() {
      const program = yield* programOf("code", { language: "python", source: "print(1)" })
      assert.deepStrictEqual(program.phases.map((phase) => phase.name), ["run"])
      assert.strictEqual(argvOf(program, "run"), "python3 main.py")
      assert.isUndefined(program.products)
    }))

  it.effect("Go is built without cgo, network or another toolchain", () =>
    Effect.gen(function*() {
      const program = yield* programOf("code", { language: "go", source: "package main" })
      const compile = phase(program, "compile")
      assert.deepStrictEqual(compile?.argv.slice(3), ["go", "build", "-o", "program", "main.go"])
      assert.deepInclude(compile?.env, { CGO_ENABLED: "0", GOPROXY: "off", GOTOOLCHAIN: "local" })
      assert.strictEqual(argvOf(program, "run"), "./program")
    }))

  for (
    const [language, variant, tool] of [
      ["c", "gcc", "gcc"],
      ["c", "clang", "clang"],
      ["cpp", "g++", "g++"],
      ["cpp", "cpp", "g++"],
      ["cpp", "gcc", "g++"],
      ["cpp", "clang++", "clang++"],
      ["python", "cpython3", "python3"],
      ["python", "python3", "python3"]
    ] as const
  ) {
    it.effect(`${language} as ${variant} uses ${tool}`, () =>
      Effect.map(
        programOf("code", { language, variant, source: "x" }),
        (program) => assert.strictEqual(program.phases[0].argv[0], tool)
      ))
  }

  it.effect("the job's variables are the program's, not the compiler's", () =>
    Effect.gen(function*() {
      const program = yield* programOf("code", { language: "c", source: "", env: { CPATH: "/x", LANG: "C" } })
      assert.deepStrictEqual(phase(program, "compile")?.env, { ...baseEnv })
      assert.deepStrictEqual(phase(program, "run")?.env, { ...baseEnv, CPATH: "/x", LANG: "C" })
    }))
})

describe("code: files", () => {
  it.effect("only C sources are compiled, the job's compiler options come after them", () =>
    Effect.gen(function*() {
      const program = yield* programOf("code", {
        language: "c",
        files: [file("src/a.c"), file("inc/a.h"), file("b.c"), file("data.txt")],
        compilerArgs: ["-Wall", "-lpthread"]
      })
      assert.strictEqual(argvOf(program, "compile"), "gcc -O2 -I. -o program src/a.c b.c -Wall -lpthread -lm")
    }))

  it.effect("C++ takes all the usual endings", () =>
    Effect.map(
      programOf("code", {
        language: "cpp",
        files: ["a.cpp", "b.cc", "c.cxx", "d.C", "e.c", "f.hpp"].map((path) => file(path))
      }),
      (program) => assert.strictEqual(argvOf(program, "compile"), "g++ -O2 -I. -o program a.cpp b.cc c.cxx d.C e.c -lm")
    ))

  it.effect("a file's name is never an option", () =>
    Effect.map(
      programOf("code", { language: "c", files: [file("-o.c"), file("@x.c")] }),
      (program) => assert.strictEqual(argvOf(program, "compile"), "gcc -O2 -I. -o program ./-o.c ./@x.c -lm")
    ))

  it.effect("the program's name is one that no file or directory has", () =>
    Effect.gen(function*() {
      const program = yield* programOf("code", {
        language: "c",
        files: [file("main.c"), file("program"), file("program-1/data")]
      })
      assert.strictEqual(argvOf(program, "run"), "./program-2")
    }))

  it.effect("content can be base64, and executable", () =>
    Effect.gen(function*() {
      const program = yield* programOf("code", {
        language: "python",
        files: [file("main.py"), { path: "tool", contentBase64: "AP8=", executable: true }],
        stdinBase64: "AAE="
      })
      assert.deepStrictEqual(
        program.files[1],
        { path: "tool", content: new Uint8Array([0, 255]), executable: true } as never
      )
      assert.deepStrictEqual(phase(program, "run")?.stdin, new Uint8Array([0, 1]))
    }))

  it.effect("Python starts at entry, at main.py, or at the only source", () =>
    Effect.gen(function*() {
      const files = [file("main.py"), file("other/start.py")]
      assert.strictEqual(argvOf(yield* programOf("code", { language: "python", files }), "run"), "python3 main.py")
      const entered = yield* programOf("code", { language: "python", files, entry: "other/start.py" })
      assert.strictEqual(argvOf(entered, "run"), "python3 other/start.py")
      const single = yield* programOf("code", { language: "python", files: [file("x.py"), file("x.txt")] })
      assert.strictEqual(argvOf(single, "run"), "python3 x.py")
      assert.include(
        yield* refusalOf("code", { language: "python", files: [file("x.py"), file("y.py")] }),
        "which file is to be run is not clear. Name one main.py, or give entry."
      )
    }))

  it.effect("Go builds a module's package, or loose files without their tests", () =>
    Effect.gen(function*() {
      const packages = (args: object) =>
        Effect.map(
          programOf("code", { language: "go", ...args }),
          (program) => [program.phases[0].argv.slice(7), program.phases[0].env["GOFLAGS"]]
        )
      const module = [file("go.mod"), file("main.go"), file("cmd/x/main.go")]
      assert.deepStrictEqual(yield* packages({ files: module }), [["."], "-mod=mod -buildvcs=false"])
      assert.deepStrictEqual(yield* packages({ files: module, entry: "cmd/x/main.go" }), [
        ["./cmd/x"],
        "-mod=mod -buildvcs=false"
      ])
      assert.deepStrictEqual(yield* packages({ files: [...module, file("vendor/modules.txt")] }), [
        ["."],
        "-buildvcs=false"
      ])
      assert.deepStrictEqual(
        yield* packages({ files: [file("a.go"), file("b.go"), file("a_test.go"), file("d/c.go")] }),
        [
          ["a.go", "b.go"],
          "-buildvcs=false"
        ]
      )
    }))
})

describe("code: refusals say what would be right", () => {
  const refused = (name: string, args: object, ...words: ReadonlyArray<string>) =>
    it.effect(name, () =>
      Effect.map(refusalOf("code", { language: "c", ...args }), (text) => {
        for (const word of words) assert.include(text, word)
      }))

  refused("an unknown language", { language: "rust", source: "" }, `"c" | "cpp" | "python" | "go"`, "language")
  refused("an unknown variant", { variant: "tcc", source: "" }, `c has no variant "tcc". Use one of: gcc, clang`)
  refused("a variant that is a word of JavaScript", { variant: "constructor", source: "" }, "has no variant")
  refused("nothing to run", {}, "there is nothing to run")
  refused("source and files", { source: "", files: [file("a.c")] }, "there are both source and files")
  refused("no source among the files", { files: [file("a.h")] }, "none of the files is a C source", "ends with .c")
  refused("a path that leads out", { files: [file("../a.c")] }, "a relative path inside the workspace")
  refused("an absolute path", { files: [file("/etc/a.c")] }, "a relative path inside the workspace")
  refused("a path twice", { files: [file("a.c"), file("a.c")] }, "the file a.c is there twice")
  refused("a file that must be a directory", { files: [file("a"), file("a/b.c")] }, "a is a file, and a/b.c needs")
  refused("a file without content", { files: [{ path: "a.c" }] }, "the file a.c has no content")
  refused("a file with two contents", { files: [{ ...file("a.c"), contentBase64: "" }] }, "a.c has two contents")
  refused("broken base64", { files: [{ path: "a.c", contentBase64: "%" }] }, "Base64")
  refused("two inputs", { source: "", stdin: "", stdinBase64: "" }, "there are two standard inputs")
  refused("an impossible variable", { source: "", env: { "A=B": "" } }, "variable names without '='")
  refused("a NUL in an argument", { source: "", args: ["\u0000"] }, "text without NUL bytes")
  refused("an entry for C", { source: "", entry: "main.c" }, "entry means nothing for c")
  refused(
    "an entry that is not there",
    { language: "python", source: "", entry: "x.py" },
    "x.py is not among the files"
  )
  refused("compiler options for Python", { language: "python", source: "", compilerArgs: ["-O"] }, "has no compiler")
  refused("Go without Go", { language: "go", files: [file("a.txt")] }, "neither a go.mod nor a Go source in the root")
})
