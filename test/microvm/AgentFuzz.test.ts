import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { readdirSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { tempDir } from "../guest/Native.ts"
import { projectRoot } from "../support/Tree.ts"
import { agent, ask, runs } from "./AgentProcess.ts"

const SEED = Number(process.env["SEED"] ?? 1)

/** Numbers from 0 to below `most`, the same for each seed. */
const chances = (seed: number) => {
  let state = (seed * 2_654_435_761 + 1) >>> 0
  return (most: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * most)
  }
}

/** The parsers with whatever finds faults in memory that this compiler has. */
const build = Effect.map(tempDir, (folder) => {
  const program = join(folder, "agent-fuzz")
  const sources = ["test/microvm/agent-fuzz.c", "native/agent/json.c", "native/agent/http.c"]
  const compile = (...options: ReadonlyArray<string>) =>
    spawnSync("gcc", ["-std=gnu11", "-g", "-O1", ...options, "-o", program, ...sources], { cwd: projectRoot })
  const checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
  if (compile(...checks).status !== 0) {
    const plain = compile()
    assert.strictEqual(plain.status, 0, plain.stderr.toString())
  }
  return (args: ReadonlyArray<string>, input?: Uint8Array) => {
    const { status, stderr, stdout } = spawnSync(program, args, {
      input,
      maxBuffer: 64 * 1024 * 1024,
      env: { ASAN_OPTIONS: "detect_leaks=0" }
    })
    assert.strictEqual(status, 0, stderr.toString().slice(0, 2000))
    return stdout.toString()
  }
})

const seeds = [
  "{\"id\":\"1\",\"code\":\"print('ä')\\n\\u00e4\\ud83d\\ude00\",\"language\":\"c\",\"variant\":\"TODO\"}",
  "{\"code\":\"\\\\\\\"\\/\\b\\f\\n\\r\\t\",\"m\":[1,-2.5e+3,0,{\"a\":null},true,false,[]],\"n\":{\"o\":\"p\"}}",
  " { \"code\" : \"😀\" , \"z\" : -0.0E-1 }\n"
].map((text) => Buffer.from(text))

const spoil = (chance: (most: number) => number): Buffer => {
  let bytes = Buffer.from(seeds[chance(seeds.length)] ?? "")
  for (let left = chance(4); left > 0; left--) {
    const at = chance(bytes.length)
    const put = chance(3) === 0 ? chance(256) : "\"\\{}[]:,u0-.e \t".charCodeAt(chance(15))
    const drop = chance(3) === 0 ? 0 : 1
    bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from(chance(3) === 0 ? [] : [put]), bytes.subarray(at + drop)])
  }
  return bytes
}

/** The code in it in hexadecimal; undefined if it is no JSON object, or its fields are of other types. */
const judged = (bytes: Uint8Array): string | undefined => {
  try {
    const value = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)) as Record<
      string,
      unknown
    >
    if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined
    const wanted = ["id", "code", "language", "variant"].map((name) => Object.hasOwn(value, name) ? value[name] : null)
    if (!wanted.every((field) => typeof field === "string" || field === null)) return undefined
    return Buffer.from(String(wanted[1] ?? "").toWellFormed()).toString("hex")
  } catch {
    return undefined
  }
}

describe("the agent's parsers", () => {
  it.live("keep their promises whatever comes", () =>
    Effect.gen(function*() {
      const fuzz = yield* build
      assert.strictEqual(fuzz(["random", String(SEED), "150000"]), "well\n")
    }), 120_000)

  it.live("take as JSON what JSON is, and nothing else", () =>
    Effect.gen(function*() {
      const fuzz = yield* build
      const chance = chances(SEED)
      const texts = Array.from({ length: 20_000 }, () => spoil(chance))
      const input = Buffer.concat(texts.flatMap((text) => {
        const length = Buffer.alloc(4)
        length.writeUInt32LE(text.length)
        return [length, text]
      }))
      const answers = fuzz(["judge"], input).split("\n")
      let taken = 0
      for (const [index, text] of texts.entries()) {
        const answer = answers[index] ?? ""
        // What JSON allows and we do not: which of the two would have been meant?
        if (answer === "a field is there twice") continue
        const expected = judged(text)
        taken += expected === undefined ? 0 : 1
        assert.strictEqual(answer.startsWith("ok ") ? answer.slice(3) : undefined, expected, text.toString("latin1"))
      }
      assert.isAbove(taken, 5000)
      assert.isBelow(taken, 19_000)
    }), 120_000)

  it.live("of an agent that gets random bytes leave it well, and nothing of it open", () =>
    Effect.gen(function*() {
      const { pid, places, port } = yield* agent()
      const chance = chances(SEED)
      const open = () => readdirSync(`/proc/${pid}/fd`).length
      const before = open()
      const send = (bytes: Buffer) =>
        Effect.callback<void>((resume) => {
          const socket = connect(port, "127.0.0.1", () => socket.end(bytes))
          socket.resume()
          socket.on("error", () => {})
          socket.on("close", () => resume(Effect.void))
        })
      for (let round = 0; round < 200; round++) {
        const body = chance(2) === 0
          ? spoil(chance)
          : Buffer.from(Array.from({ length: chance(3000) }, () => chance(256)))
        // Never a job: what comes is to be refused.
        const json = Buffer.from(body.toString("latin1").replaceAll("language", "other"), "latin1")
        const head = `POST /run HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: ${
          json.length + chance(3) - 1
        }\r\n\r\n`
        yield* send(chance(3) === 0 ? json : Buffer.concat([Buffer.from(head), json]))
      }
      assert.strictEqual((yield* ask(port, "GET", "/health")).body, "OK")
      assert.strictEqual((yield* runs(port, "python", "print(1)")).stdout, "1\n")
      assert.isAtMost(open(), before + 1)
      assert.isAtMost(places().length, 1)
    }), 60_000)
})
