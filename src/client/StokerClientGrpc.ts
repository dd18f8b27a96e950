/** The client over gRPC, with TLS 1.3 and a client certificate. */
import { type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf"
import { anyUnpack } from "@bufbuild/protobuf/wkt"
import * as NodeStream from "@effect/platform-node/NodeStream"
import { ChannelCredentials, Client, Metadata, type ServiceError, status as codes } from "@grpc/grpc-js"
import { Data, Effect, Layer, type Scope, Stream } from "effect"
import { createSecureContext } from "node:tls"
import { kinds } from "../layers/api/Fault.ts"
import { ErrorInfoSchema } from "../layers/grpc/gen/google/rpc/error_details_pb.js"
import { StatusSchema } from "../layers/grpc/gen/google/rpc/status_pb.js"
import * as pb from "../layers/grpc/gen/stoker/v1/stoker_pb.js"
import * as Codec from "./GrpcCodec.ts"
import { resuming } from "./Resume.ts"
import { ClientError, type ClientFailure, ConnectionError, kindNamed, StokerClient } from "./StokerClient.ts"
import type { Target } from "./Target.ts"
import { troubleOf } from "./Trouble.ts"

/** A page of 1000 jobs with their usage has about one. */
const MOST_MESSAGE_BYTES = 16 * 1024 * 1024

const channelOptions = {
  "grpc.max_receive_message_length": MOST_MESSAGE_BYTES,
  "grpc.max_send_message_length": MOST_MESSAGE_BYTES,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 5000,
  // A connection that is gone without a word is found out.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.enable_http_proxy": 0
}

interface Method<I extends DescMessage, O extends DescMessage> {
  readonly name: string
  readonly parent: { readonly typeName: string }
  readonly input: I
  readonly output: O
}

/** What grpc-js or TLS has said, before it is told in words. */
class Unusable extends Data.TaggedError("Unusable")<{ readonly cause: unknown }> {}

const isServiceError = (error: unknown): error is ServiceError =>
  error instanceof Error && "code" in error && typeof error.code === "number" && "metadata" in error

/** What the worker says of an error, if it was the worker. */
const toldBy = (error: ServiceError): ClientError | undefined => {
  const [binary] = error.metadata.get("grpc-status-details-bin")
  if (!(binary instanceof Uint8Array)) return undefined
  try {
    const infos = fromBinary(StatusSchema, binary).details.flatMap((any) => anyUnpack(any, ErrorInfoSchema) ?? [])
    const info = infos.find(({ domain }) => domain === "stoker")
    if (info === undefined) return undefined
    const remedy = info.metadata["remedy"] ?? ""
    const tail = `. ${remedy}`
    return new ClientError({
      kind: kindNamed(info.reason.toLowerCase().replaceAll("_", "-")).name,
      reason: remedy !== "" && error.details.endsWith(tail) ? error.details.slice(0, -tail.length) : error.details,
      remedy
    })
  } catch {
    return undefined
  }
}

/** A status without a worker's word: gRPC's own, about the connection or about the message. */
const isTransport = ({ code, details }: ServiceError) =>
  code === codes.UNAVAILABLE || code === codes.CANCELLED || code === codes.DEADLINE_EXCEEDED ||
  code === codes.UNKNOWN || /RST_STREAM|ECONNRESET|GOAWAY/i.test(details)

const failureOf = (target: Target, error: unknown, wasThere: boolean): Effect.Effect<ClientFailure> => {
  if (error instanceof ClientError || error instanceof ConnectionError) return Effect.succeed(error)
  const server = target.address.text
  const protocol = (reason: string) =>
    new ConnectionError({
      problem: "protocol",
      server,
      reason,
      remedy: "Check the address, and that client and worker are of about the same version.",
      cause: error
    })
  if (error instanceof Codec.NotUnderstood) return Effect.succeed(protocol(error.reason))
  if (!isServiceError(error)) return troubleOf(target, error)
  const told = toldBy(error)
  if (told !== undefined) return Effect.succeed(told)
  if (error.code === codes.UNIMPLEMENTED) return Effect.succeed(protocol(`it does not offer this: ${error.details}`))
  if (isTransport(error)) {
    return wasThere
      ? Effect.succeed(
        new ConnectionError({
          problem: "lost",
          server,
          reason: `the connection was lost (${error.details})`,
          remedy: "Try again.",
          cause: error
        })
      )
      : troubleOf(target, new Error(error.details))
  }
  const kind = Object.values(kinds).find(({ grpc }) => grpc === error.code)?.name ?? "internal"
  return Effect.succeed(new ClientError({ kind, reason: error.details, remedy: "" }))
}

const buffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
const path = (method: Method<DescMessage, DescMessage>) => `/${method.parent.typeName}/${method.name}`

const connect = (target: Target): Effect.Effect<Client, ConnectionError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const { address, credentials: { ca, cert, key } } = target
      if (cert === undefined || key === undefined) {
        return Effect.fail(
          new ConnectionError({
            problem: "credentials",
            server: address.text,
            reason: "gRPC needs a certificate, and there is none",
            remedy: "Name certificate and key (--cert, --key), or use the HTTP door with a token (https://…)."
          })
        )
      }
      return Effect.try({
        try: () => createSecureContext({ cert, key, minVersion: "TLSv1.3", ...(ca === undefined ? {} : { ca }) }),
        catch: (cause) => new Unusable({ cause })
      }).pipe(
        Effect.catch(({ cause }) => Effect.flatMap(troubleOf(target, cause), Effect.fail)),
        Effect.map((context) => {
          const host = address.host.includes(":") ? `[${address.host}]` : address.host
          return new Client(
            `${host}:${address.port}`,
            ChannelCredentials.createFromSecureContext(context),
            channelOptions
          )
        })
      )
    }),
    (client) => Effect.sync(() => client.close())
  )

/** The client, over a connection that lasts as long as the layer's scope. Connects with the first question. */
export const layer = (target: Target): Layer.Layer<StokerClient, ConnectionError> =>
  Layer.effect(
    StokerClient,
    Effect.gen(function*() {
      const client = yield* connect(target)
      const methods = pb.JobService.method

      const ask = <I extends DescMessage, O extends DescMessage>(
        method: Method<I, O>,
        request: MessageShape<I>
      ): Effect.Effect<MessageShape<O>, ClientFailure> =>
        Effect.callback<MessageShape<O>, Unusable>((resume) => {
          const call = client.makeUnaryRequest(
            path(method),
            (message: MessageShape<I>) => buffer(toBinary(method.input, message)),
            (bytes: Buffer) => fromBinary(method.output, bytes),
            request,
            new Metadata(),
            (error, answer) =>
              resume(
                error === null && answer !== undefined
                  ? Effect.succeed(answer)
                  : Effect.fail(new Unusable({ cause: error }))
              )
          )
          return Effect.sync(() => call.cancel())
        }).pipe(Effect.catch(({ cause }) => Effect.flatMap(failureOf(target, cause, false), Effect.fail)))

      /** Ends the call when nobody takes its messages any more. Gives no more than is taken. */
      const stream = <I extends DescMessage, O extends DescMessage>(
        method: Method<I, O>,
        request: MessageShape<I>
      ): Stream.Stream<MessageShape<O>, ClientFailure> =>
        Stream.unwrap(Effect.gen(function*() {
          let wasThere = false
          const call = yield* Effect.acquireRelease(
            Effect.sync(() =>
              client.makeServerStreamRequest(
                path(method),
                (message: MessageShape<I>) => buffer(toBinary(method.input, message)),
                (bytes: Buffer) => fromBinary(method.output, bytes),
                request,
                new Metadata()
              )
            ),
            (call) => Effect.sync(() => call.cancel())
          )
          // Cancelling is told as an error too, when nobody listens any more: without a listener it would end the process.
          call.on("error", () => undefined)
          call.on("metadata", () => {
            wasThere = true
          })
          return NodeStream.fromReadable<MessageShape<O>, unknown>({
            evaluate: () => call,
            onError: (error) => error,
            chunkSize: 8
          }).pipe(
            Stream.catch((error) => Stream.fromEffect(Effect.flatMap(failureOf(target, error, wasThere), Effect.fail)))
          )
        }))

      const understood = <A>(effect: Effect.Effect<A, Codec.NotUnderstood | ClientFailure>) =>
        effect.pipe(Effect.catch((error) => Effect.flatMap(failureOf(target, error, true), Effect.fail)))

      const jobOf = (answer: Effect.Effect<{ readonly job?: pb.Job | undefined }, ClientFailure>) =>
        understood(Effect.flatMap(answer, ({ job }) => Codec.jobOf(job)))

      return StokerClient.of({
        start: (request) => jobOf(ask(methods.start, Codec.startTo(request))),
        stop: (job) => jobOf(ask(methods.stop, Codec.stopTo(job))),
        status: (job) => jobOf(ask(methods.status, Codec.statusTo(job))),
        list: Effect.fnUntraced(function*(request = {}) {
          const { jobs, next } = yield* ask(methods.list, Codec.listTo(request))
          const views = yield* understood(Effect.forEach(jobs, Codec.jobOf))
          return { jobs: views, ...(next === "" ? {} : { next }) }
        }),
        read: (request) => Effect.map(ask(methods.read, Codec.readTo(request)), Codec.sliceOf),
        follow: (request) =>
          resuming(target.address.text, (again) =>
            stream(methods.follow, Codec.followTo(again)).pipe(
              Stream.mapEffect((message) => understood(Codec.eventsOf(message))),
              Stream.flatMap(Stream.fromIterable)
            ), request),
        artefact: Effect.fnUntraced(function*(job, name, { maxBytes, offset }) {
          const given: Array<Uint8Array> = []
          let size = 0
          let about: pb.Artefact | undefined
          yield* stream(methods.artefact, Codec.artefactTo(job, name, offset)).pipe(
            Stream.runForEachWhile(({ artefact, data }) =>
              Effect.sync(() => {
                about ??= artefact
                given.push(data.subarray(0, maxBytes - size))
                size = Math.min(maxBytes, size + data.length)
                return size < maxBytes
              })
            )
          )
          if (about === undefined) {
            return yield* Effect.flatMap(
              failureOf(target, new Codec.NotUnderstood({ reason: "the answer names no file" }), true),
              Effect.fail
            )
          }
          return { artefact: Codec.artefactOf(about), offset, bytes: Buffer.concat(given) }
        }),
        functions: Effect.flatMap(
          ask(methods.functions, Codec.functionsTo),
          ({ functions }) => understood(Effect.forEach(functions, Codec.functionOf))
        ),
        remove: (job) => Effect.asVoid(ask(methods.delete, Codec.deleteTo(job)))
      })
    })
  )
