/** Roles and tokens from real files, which change under a running worker. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Logger, References, Result } from "effect"
import { createHash } from "node:crypto"
import { renameSync } from "node:fs"
import { join } from "node:path"
import { json } from "../../src/cli/Loggers.ts"
import * as Access from "../../src/layers/api/Access.ts"
import { audit, auditStranger } from "../../src/layers/api/Audit.ts"
import * as Tokens from "../../src/layers/api/Tokens.ts"
import type { Caller, Method } from "../../src/schemas/Access.ts"
import { Owner } from "../../src/schemas/Ids.ts"
import { Tree } from "../support/Tree.ts"
import { until } from "../worker/until.ts"

const treeOf = (files: Readonly<Record<string, string>>) =>
  Effect.acquireRelease(Effect.sync(() => Tree.of(files)), (tree) => Effect.sync(() => tree[Symbol.dispose]()))

const listening = () => {
  const lines: Array<{ level: string; message: string; annotations: Record<string, unknown> }> = []
  return {
    lines,
    layer: Layer.merge(
      Logger.layer([Logger.map(json, (line) => void lines.push(JSON.parse(line)))]),
      Layer.succeed(References.MinimumLogLevel, "All")
    )
  }
}

const caller = (name: string, via: Caller["via"] = "certificate"): Caller => ({ name: Owner.make(name), via })

const replace = (tree: Tree, name: string, text: string) => {
  tree.write(`${name}.new`, text)
  renameSync(join(tree.path, `${name}.new`), join(tree.path, name))
}

describe("roles", () => {
  const begun = (tree: Tree) =>
    Effect.map(
      Layer.build(Access.layerFile(join(tree.path, "roles.json"), { poll: "200 millis" })),
      (context) => Context.get(context, Access.Access)
    )
  const becomes = (access: Access.Access["Service"], who: Caller, method: Method, right: string) =>
    Effect.promise(() =>
      until(`${who.name} ${right}`, async () => (await Effect.runPromise(access.right(who, method))) === right)
    )

  it.live("hold for each method, for who is named and for all others", () =>
    Effect.gen(function*() {
      const tree = yield* treeOf({
        "roles.json": `{
          // Who is not here may look.
          "users": { "admin": "super", "alice": { "start": "own", "stop": "none" }, "*": { "status": "own" } }
        }`
      })
      const { right } = yield* begun(tree)
      assert.strictEqual(yield* right(caller("admin"), "delete"), "super")
      assert.strictEqual(yield* right(caller("alice"), "start"), "own")
      assert.strictEqual(yield* right(caller("alice"), "stop"), "none")
      assert.strictEqual(yield* right(caller("alice"), "status"), "none")
      assert.strictEqual(yield* right(caller("bob"), "status"), "own")
      assert.strictEqual(yield* right(caller("bob"), "start"), "none")
      assert.strictEqual(yield* right(caller("constructor"), "start"), "none")
      assert.strictEqual(yield* right(caller("local", "local"), "stop"), "super")
      assert.strictEqual(yield* right(caller("local"), "stop"), "none")
    }))

  it.live("are the standard ones without a file", () =>
    Effect.gen(function*() {
      const { right } = Context.get(yield* Layer.build(Access.layerFixed()), Access.Access)
      assert.strictEqual(yield* right(caller("alice"), "start"), "own")
    }))

  it.live("change with their file; one that cannot be read keeps the former and is told", () => {
    const { layer, lines } = listening()
    return Effect.gen(function*() {
      const tree = yield* treeOf({ "roles.json": `{"users": {"*": "own"}}` })
      const access = yield* begun(tree)
      assert.strictEqual(yield* access.right(caller("alice"), "stop"), "own")
      replace(tree, "roles.json", `{"users": {"alice": "super"}}`)
      yield* becomes(access, caller("alice"), "stop", "super")
      assert.strictEqual(yield* access.right(caller("bob"), "stop"), "none")
      replace(tree, "roles.json", `{"users": {"alice": {"stopp": "own"}}}`)
      yield* Effect.promise(() => until("an error", () => lines.some(({ level }) => level === "ERROR")))
      assert.match(lines.find(({ level }) => level === "ERROR")?.message ?? "", /the roles.*former stay.*users\.alice/)
      assert.strictEqual(yield* access.right(caller("alice"), "stop"), "super")
      tree.remove("roles.json")
      yield* Effect.promise(() => until("another", () => lines.filter(({ level }) => level === "ERROR").length > 1))
      assert.strictEqual(yield* access.right(caller("alice"), "stop"), "super")
      tree.write("roles.json", `{"users": {"bob": "own"}}`)
      yield* becomes(access, caller("alice"), "stop", "none")
    }).pipe(Effect.scoped, Effect.provide(layer))
  })

  const broken: ReadonlyArray<readonly [name: string, text: string, said: RegExp]> = [
    ["is not JSON", `{"users": {"alice": own}}`, /breaks off at line 1, column 21/],
    ["has a right there is not", `{"users": {"alice": "all"}}`, /users\.alice is "all"/],
    ["has a method there is not", `{"users": {"alice": {"kill": "own"}}}`, /users\.alice/],
    ["has a name that nobody can have", `{"users": {"alice smith": "own"}}`, /users.*names of users/],
    ["has nothing in it", ``, /breaks off/],
    ["has a field there is not", `{"users": {}, "groups": {}}`, /groups.*no such field/]
  ]
  for (const [name, text, said] of broken) {
    it.live(`are an error at the start when the file ${name}`, () =>
      Effect.gen(function*() {
        const tree = yield* treeOf({ "roles.json": text })
        const refused = yield* Effect.flip(begun(tree))
        assert.match(refused.reason, said)
        assert.match(refused.remedy, /"users"/)
        assert.strictEqual(refused.file, join(tree.path, "roles.json"))
      }))
  }
})

describe("tokens", () => {
  const sha256 = (token: string) => createHash("sha256").update(token).digest("hex")
  const fileOf = (...tokens: ReadonlyArray<object>) => JSON.stringify({ tokens })
  const begun = (tree: Tree) =>
    Effect.map(
      Layer.build(Tokens.layerFile(join(tree.path, "tokens.json"), { poll: "200 millis" })),
      (context) => Context.get(context, Tokens.Tokens)
    )
  const asked = (tokens: Tokens.Tokens["Service"], authorization?: string) =>
    Effect.map(
      tokens.callerOf(authorization, "1.2.3.4:5"),
      (answer) => Result.isSuccess(answer) ? answer.success : answer.failure.reason
    )

  it.live("stand for who they were made for, until they end or are taken out", () =>
    Effect.gen(function*() {
      const tree = yield* treeOf({
        "tokens.json": fileOf(
          { name: "ci", sha256: sha256("old"), expiresAt: "2020-01-01T00:00:00Z" },
          { name: "ci", sha256: sha256("new"), expiresAt: "2999-01-01T00:00:00Z" },
          { name: "robot", sha256: sha256("r2d2") }
        )
      })
      const tokens = yield* begun(tree)
      assert.isTrue(tokens.accepted)
      assert.deepStrictEqual(yield* asked(tokens, "Bearer new"), { ...caller("ci", "token"), from: "1.2.3.4:5" })
      assert.deepStrictEqual(yield* asked(tokens, "bearer r2d2"), { ...caller("robot", "token"), from: "1.2.3.4:5" })
      assert.match(String(yield* asked(tokens, "Bearer old")), /expired/)
      assert.match(String(yield* asked(tokens, "Bearer other")), /not known/)
      assert.match(String(yield* asked(tokens, `Bearer ${sha256("r2d2")}`)), /not known/)
      assert.match(String(yield* asked(tokens)), /no token/)
      for (const header of ["", "Bearer", "Bearer ", "Basic new", "Bearer new more", "Bearer a\nb", "new"]) {
        assert.match(String(yield* asked(tokens, header)), /no bearer token/, header)
      }
      replace(tree, "tokens.json", fileOf({ name: "robot", sha256: sha256("c3po") }))
      yield* Effect.promise(() =>
        until("r2d2 is out", async () =>
          (await Effect.runPromise(asked(tokens, "Bearer r2d2"))) === "the token is not known")
      )
      assert.deepInclude(yield* asked(tokens, "Bearer c3po"), caller("robot", "token"))
    }))

  it.live("are refused at the start where the file is wrong, without a word of what is in it", () =>
    Effect.gen(function*() {
      const tree = yield* treeOf({ "tokens.json": fileOf({ name: "ci", sha256: "a-token-in-clear" }) })
      const refused = yield* Effect.flip(begun(tree))
      assert.match(refused.message, /tokens\.json.*tokens\[0\]\.sha256.*64 hex/)
      assert.notInclude(refused.message, "in-clear")
    }))

  it.live("are off without a file", () =>
    Effect.gen(function*() {
      const tokens = Context.get(yield* Layer.build(Tokens.layerNone), Tokens.Tokens)
      assert.isFalse(tokens.accepted)
      assert.match(String(yield* asked(tokens, "Bearer new")), /takes no tokens/)
    }))
})

describe("the audit log", () => {
  it.live("has one line for each decision, in one shape", () => {
    const { layer, lines } = listening()
    return Effect.gen(function*() {
      yield* audit({
        caller: { ...caller("alice"), from: "10.0.0.1:5" },
        method: "stop",
        job: "job-1",
        right: "own",
        allowed: true,
        outcome: "ok"
      })
      yield* audit({
        caller: caller("bob", "token"),
        method: "start",
        right: "none",
        allowed: false,
        outcome: "forbidden"
      })
      yield* audit({
        caller: caller("bob"),
        method: "status",
        job: "x\nevil",
        right: "own",
        allowed: true,
        outcome: "invalid-request"
      })
      yield* auditStranger({ _tag: "Unauthenticated", reason: "no token was sent", remedy: "" }, "10.0.0.2:6")
      const names = ["audit", "caller", "via", "from", "method", "jobId", "right", "decision", "outcome"]
      assert.deepStrictEqual(
        lines.map(({ level, annotations }) => [level, ...names.map((name) => annotations[name])]),
        [
          ["INFO", true, "alice", "certificate", "10.0.0.1:5", "stop", "job-1", "own", "allowed", "ok"],
          ["WARN", true, "bob", "token", "-", "start", "-", "none", "denied", "forbidden"],
          ["INFO", true, "bob", "certificate", "-", "status", "malformed", "own", "allowed", "invalid-request"],
          ["WARN", true, "-", "-", "10.0.0.2:6", "-", "-", "-", "denied", "unauthenticated"]
        ]
      )
      assert.isTrue(lines.slice(0, 3).every(({ annotations }) => Object.keys(annotations).length === names.length))
      assert.strictEqual(lines[3]?.annotations["reason"], "no token was sent")
    }).pipe(Effect.provide(layer))
  })
})
