/** A gRPC door over the memory's control plane, and Python's grpcio to knock at it. */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Effect, Layer, Schema, type Scope } from "effect"
import { execFile } from "node:child_process"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import type { JobApi } from "../../src/layers/api/JobApi.ts"
import { layerFixed, type Tls } from "../../src/layers/api/Tls.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import { type GrpcOptions, make } from "../../src/layers/grpc/GrpcServer.ts"
import type { Served } from "../../src/layers/grpc/Server.ts"
import { make as defineFunction } from "../../src/schemas/Function.ts"
import * as JobApiMemory from "../api/JobApiMemory.ts"
import { certificates, writeMaterial } from "../support/Certs.ts"

/** For its title alone. */
const fib = defineFunction({
  name: "fib",
  title: "Fibonacci",
  description: "calculates.",
  args: Schema.Struct({ number: Schema.Int }),
  handler: () => Effect.void
})

const run = promisify(execFile)
const root = join(import.meta.dirname, "../..")

/** Debian's, which has grpcio; another one on PATH need not. */
const python = "/usr/bin/python3"

/** A folder with what Python needs: `stubs` made of proto/, `certs`. Made once a file; the process removes it. */
const folder = (() => {
  let made: Promise<string> | undefined
  return () => made ??= makeFolder()
})()

const makeFolder = async () => {
  const folder = mkdtempSync(join(tmpdir(), "grpc-"))
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }))
  const made = await certificates()
  for (const name of ["alice", "bob", "admin", "expired", "rogue", "server"] as const) {
    writeMaterial(join(folder, "certs"), name, made[name])
  }
  writeMaterial(join(folder, "certs"), "nobody", await made.sign({ CN: "nobody" }))
  const files = readdirSync(join(root, "proto"), { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".proto")
  )
  await run("protoc", [
    `--proto_path=${join(root, "proto")}`,
    "--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin",
    `--python_out=${folder}`,
    `--grpc_python_out=${folder}`,
    ...files
  ])
  return folder
}

/** What a call of a Python file printed: the JSON of its last line. */
export const pythonRun = <A>(file: string, port: number, ...args: ReadonlyArray<string>): Effect.Effect<A> =>
  Effect.promise(async (signal) => {
    const made = await folder()
    const { stdout } = await run(python, [join(import.meta.dirname, file), String(port), made, ...args], {
      signal,
      maxBuffer: 64 * 1024 * 1024,
      env: { PATH: "/usr/bin:/bin", PYTHONDONTWRITEBYTECODE: "1" }
    })
    return JSON.parse(stdout.trim().split("\n").at(-1) ?? "null") as A
  })

/** Runs a test with a door of its own; `JobApiMemory.Memory` and `JobApi` are the same as the door's. */
export const withDoor = <A, E>(
  use: (served: Served) => Effect.Effect<A, E, JobApiMemory.Memory | JobApi | Tls | Scope.Scope>,
  options: Partial<GrpcOptions> = {},
  tls?: Layer.Layer<Tls>
) =>
  Effect.gen(function*() {
    const { server } = yield* Effect.promise(certificates)
    const services = Layer.mergeAll(
      JobApiMemory.layer,
      Functions.layer([fib]),
      tls ?? layerFixed(server),
      layerSecureRandom
    )
    return yield* Effect.flatMap(make({ listen: "127.0.0.1:0", ...options }), use).pipe(
      Effect.scoped,
      Effect.provide(services)
    )
  })
