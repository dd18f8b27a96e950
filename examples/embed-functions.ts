/**
 * Functions of one's own in a worker of one's own, and a client that asks it as any other program would: over gRPC, known
 * by its certificate. The client's part alone needs no more than `stoker/client`.
 *
 *   npx stoker certs init --dir certs && npx stoker certs issue server --host localhost --dir certs
 *   npx stoker certs issue client alice --dir certs
 *   node examples/embed-functions.ts certs       (as root, after `npm run setup`; STOKER_DRIVER=process needs less)
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Effect, Layer, Stream } from "effect"
import { join } from "node:path"
import { Ids, layerApi, layerWorker, WorkerConfig } from "stoker"
import { parseAddress, readCredentials, StokerClient, StokerClientGrpc } from "stoker/client"

const certs = process.argv[2] ?? "certs"
const server = process.env["STOKER_SERVER"] ?? "grpc://localhost:7077"
const driver = process.env["STOKER_DRIVER"] ?? "oci"
const files = (name: string) => ({
  ca: join(certs, "ca.crt"),
  cert: join(certs, `${name}.crt`),
  key: join(certs, `${name}.key`)
})

const address = parseAddress(server)
if (address === undefined) throw new Error(`${server} is no address`)

const worker = layerApi({ grpc: `${address.host}:${address.port}`, tls: files("server") }).pipe(
  Layer.provideMerge(layerWorker({
    stateDirectory: process.env["STOKER_STATE"] ?? "/tmp/stoker-functions",
    config: {
      ...WorkerConfig.standardConfig,
      classes: [WorkerConfig.standardClass(driver, driver)],
      defaultClass: Ids.ClassName.make(driver)
    },
    functions: [],
    functionFiles: [join(import.meta.dirname, "my-functions.ts")]
  })),
  Layer.provide(NodeServices.layer)
)

const client = Layer.unwrap(
  Effect.map(readCredentials(server, files("alice")), (credentials) => StokerClientGrpc.layer({ address, credentials }))
)

const program = Effect.gen(function*() {
  const stoker = yield* StokerClient
  for (const { description, name } of yield* stoker.functions) yield* Console.log(`${name} ${description}`)
  const { id } = yield* stoker.start({ function: "words", args: { text: "the cat and the dog" } })
  // From the first byte to the end, however often the connection breaks on the way.
  yield* Stream.runForEach(stoker.follow({ id }), (event) =>
    event._tag === "Bytes"
      ? Effect.sync(() => process.stdout.write(event.bytes))
      : event._tag === "Ended"
      ? Console.log(`${event.job.id} ended:`, event.job.outcome)
      : Effect.void)
  // What a function does not take is refused before there is a job.
  const refused = yield* Effect.flip(stoker.start({ function: "collatz", args: { from: -1 } }))
  yield* Console.log(`refused: ${refused.reason}`)
})

program.pipe(Effect.provide(Layer.provideMerge(client, worker)), NodeRuntime.runMain)
