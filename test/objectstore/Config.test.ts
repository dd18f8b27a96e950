/** The object store in a worker's configuration file. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, Result } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { readStoreKeys } from "../../src/cli/ConfigFile.ts"
import { readDaemonConfig } from "../../src/schemas/DaemonText.ts"
import { fileOf, workerConfigOf } from "../../src/schemas/DaemonWorker.ts"

const keys = { accessKeyEnv: "STORE_ACCESS", secretKeyFile: "secret" }
const read = (objectStore: object) => readDaemonConfig(JSON.stringify({ objectStore }))

describe("objectStore", () => {
  it("has defaults for all but its address and keys, which stay out of the worker's settings", () => {
    const file = Result.getOrThrow(read({ endpoint: "https://store.example:9000", timeout: "5s", ...keys }))
    const { objectStore } = workerConfigOf(file)
    assert.deepStrictEqual(objectStore, {
      endpoint: "https://store.example:9000",
      region: "us-east-1",
      pathStyle: true,
      timeoutMs: 5000,
      patienceMs: 60_000
    })
    assert.deepStrictEqual(workerConfigOf({ ...file, ...fileOf(workerConfigOf(file)) }).objectStore, objectStore)
  })

  it("is refused with a path in its address, without a key, and with two places for one", () => {
    const wrong = (objectStore: object) => JSON.stringify(Result.getOrThrow(Result.flip(read(objectStore))))
    assert.include(wrong({ endpoint: "https://store.example/bucket", ...keys }), "address without a path")
    assert.include(wrong({ endpoint: "http://s", accessKeyEnv: "A" }), "exactly one of secretKeyFile and secretKeyEnv")
    assert.include(
      wrong({ endpoint: "http://s", ...keys, accessKeyFile: "a" }),
      "exactly one of accessKeyFile and accessKeyEnv"
    )
  })

  it.effect("takes its keys from files beside it and from the environment, and says which is not there", () =>
    Effect.gen(function*() {
      const folder = mkdtempSync(join(tmpdir(), "stoker-store-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(folder, { recursive: true })))
      writeFileSync(join(folder, "access"), "AKIA\nand a remark\n")
      writeFileSync(join(folder, "secret"), "secret\n")
      const content = Result.getOrThrow(
        read({ endpoint: "http://s", accessKeyFile: "access", secretKeyFile: "secret" })
      )
      const file = { path: join(folder, "stoker.json"), content }
      const found = yield* readStoreKeys(file, {
        endpoint: "http://s",
        accessKeyFile: "access",
        secretKeyFile: "secret"
      })
      assert.deepStrictEqual([Redacted.value(found.accessKey), Redacted.value(found.secretKey)], ["AKIA", "secret"])
      const missing = yield* Effect.flip(readStoreKeys(file, { endpoint: "http://s", ...keys }))
      assert.include(missing.message, "STORE_ACCESS is not set")
    }))
})
