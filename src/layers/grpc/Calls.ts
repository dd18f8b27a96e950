/**
 * A method's handler as grpc-js calls it. Messages are encoded here and not in grpc-js: so their size is known before they
 * are handed over, and what cannot be encoded is a defect like others.
 */
import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary
} from "@bufbuild/protobuf"
import {
  type handleBidiStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type MethodDefinition,
  type ServerDuplexStream,
  type ServerWritableStream,
  type StatusObject,
  type UntypedHandleCall
} from "@grpc/grpc-js"
import { type Cause, Effect, Exit, type Fiber, Stream } from "effect"
import type { Unauthenticated } from "../api/Fault.ts"
import { Encoded } from "./Encoded.ts"
import type { AnyHandler, Call, Offered, Refusal } from "./Service.ts"
import { goingAway, statusOf } from "./Status.ts"
import type { Unread } from "./Unread.ts"

type Message = MessageShape<DescMessage>
/** A message to be, its fields as `create` takes them. */
type Init = MessageInitShape<DescMessage>

/** What the calls of one server share. */
export interface Calls {
  /** Runs a call until it ends or is interrupted. */
  readonly fork: <A>(effect: Effect.Effect<A, StatusObject>) => Fiber.Fiber<A, StatusObject>
  /** Who calls, by the peer's address. */
  readonly callerOf: (peer: string) => Call["caller"] | Unauthenticated
  readonly unread: Unread
  readonly statusOfCause: (cause: Cause.Cause<Refusal>, method: string) => Effect.Effect<StatusObject>
}

/**
 * So much of a stream may be under way in grpc-js and Node before more is asked for: what a follower costs who does not
 * read. Bytes.
 */
const UNDER_WAY = 128 * 1024

const bufferOf = ({ buffer, byteLength, byteOffset }: Uint8Array): Buffer => Buffer.from(buffer, byteOffset, byteLength)

const callOf = (caller: Call["caller"], metadata: Metadata): Call => ({
  caller,
  header: (name) => {
    const [value] = metadata.get(name)
    return typeof value === "string" ? value : undefined
  }
})

type Run = (request: Message, call: Call) => Effect.Effect<Init | Encoded, Refusal>
type RunStream = (request: Message, call: Call) => Effect.Effect<Stream.Stream<Init | Encoded, Refusal>, Refusal>

interface Origin {
  readonly metadata: Metadata
  readonly getPeer: () => string
}

const encoder = (method: DescMethod) => (init: Init | Encoded): Buffer =>
  bufferOf(init instanceof Encoded ? init.bytes : toBinary(method.output, create(method.output, init)))

/** A unary call's bytes, or the status instead of them. */
const answer = (calls: Calls, method: DescMethod, path: string, run: Run, origin: Origin, request: Message) => {
  const caller = calls.callerOf(origin.getPeer())
  if ("_tag" in caller) return Effect.fail(statusOf(caller))
  return Effect.suspend(() => run(request, callOf(caller, origin.metadata))).pipe(
    Effect.map(encoder(method)),
    Effect.catchCause((cause) => Effect.flatMap(calls.statusOfCause(cause, path), Effect.fail))
  )
}

/** Only an interruption is left that is no status: of a call that nobody waits for, or by the server's end. */
const statusIn = (exit: Exit.Failure<unknown, StatusObject>): StatusObject => {
  const failed = exit.cause.reasons.find((reason) => reason._tag === "Fail")
  return failed === undefined ? goingAway : failed.error
}

const tooMuchUnread: StatusObject = {
  code: 8,
  details: "too much of what was answered to this caller is not read yet. Read the answers, or ask for less at once.",
  metadata: new Metadata()
}

const unary =
  (calls: Calls, method: DescMethod, path: string, run: Run): handleUnaryCall<Message, Buffer> => (call, callback) => {
    const fiber = calls.fork(answer(calls, method, path, run, call, call.request))
    let isOver = false
    let over = () => fiber.interruptUnsafe()
    // Told at the end of every call, also of one that was answered.
    call.once("cancelled", () => {
      isOver = true
      over()
    })
    fiber.addObserver((exit) => {
      if (!Exit.isSuccess(exit)) return callback(statusIn(exit))
      const caller = calls.callerOf(call.getPeer())
      const { length } = exit.value
      if (isOver || "_tag" in caller) return callback(goingAway)
      if (!calls.unread.holds(caller.name, length)) return callback(tooMuchUnread)
      over = () => calls.unread.read(caller.name, length)
      callback(null, exit.value)
    })
  }

type Out = ServerWritableStream<Message, Buffer> | ServerDuplexStream<Message, Buffer>

const drained = (call: Out): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const go = () => resume(Effect.void)
    call.once("drain", go)
    return Effect.sync(() => void call.off("drain", go))
  })

/**
 * Hands messages over while there is room, and goes on when half of it is free again. A cancelled call neither drains nor
 * calls back: then the fiber is interrupted.
 */
const sender = (call: Out, encode: (init: Init | Encoded) => Buffer) => {
  let underWay = 0
  let goOn: (() => void) | undefined
  const written = (bytes: number) => () => {
    underWay -= bytes
    if (goOn === undefined || underWay > UNDER_WAY / 2 || call.writableLength > call.writableHighWaterMark / 2) return
    const go = goOn
    goOn = undefined
    go()
  }
  const room = Effect.callback<void>((resume) => {
    goOn = () => resume(Effect.void)
  })
  const from = (inits: ReadonlyArray<Init | Encoded>, first: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      for (let at = first; at < inits.length; at++) {
        const init = inits[at]
        if (init === undefined) continue
        const frame = encode(init)
        underWay += frame.length
        const takesMore = call.write(frame, written(frame.length))
        if (!takesMore || underWay >= UNDER_WAY) return Effect.andThen(room, from(inits, at + 1))
      }
      return Effect.void
    })
  return (inits: ReadonlyArray<Init | Encoded>) => from(inits, 0)
}

const finish = (call: Out) => (exit: Exit.Exit<void, StatusObject>) => {
  if (Exit.isSuccess(exit)) call.end()
  // How grpc-js wants to be told of a status at the end of a stream.
  else call.emit("error", statusIn(exit))
}

const serverStream =
  (calls: Calls, method: DescMethod, path: string, run: RunStream): handleServerStreamingCall<Message, Buffer> =>
  (call) => {
    const caller = calls.callerOf(call.getPeer())
    if ("_tag" in caller) return finish(call)(Exit.fail(statusOf(caller)))
    const send = sender(call, encoder(method))
    const fiber = calls.fork(
      Effect.suspend(() => run(call.request, callOf(caller, call.metadata))).pipe(
        Effect.flatMap((stream) => Stream.runForEachArray(stream, send)),
        Effect.catchCause((cause) => Effect.flatMap(calls.statusOfCause(cause, path), Effect.fail))
      )
    )
    call.once("cancelled", () => fiber.interruptUnsafe())
    fiber.addObserver(finish(call))
  }

/** One answer for each request, in order; the next request is read once the answer is on its way. */
const bidiStream =
  (calls: Calls, method: DescMethod, path: string, run: Run): handleBidiStreamingCall<Message, Buffer> => (call) => {
    const requests = Stream.fromAsyncIterable<Message, never>(call, () => undefined as never)
    const fiber = calls.fork(
      requests.pipe(
        Stream.rechunk(1),
        Stream.runForEach((request) =>
          Effect.flatMap(
            answer(calls, method, path, run, call, request),
            (frame) => Effect.suspend(() => call.write(frame) ? Effect.void : drained(call))
          )
        )
      )
    )
    call.once("cancelled", () => fiber.interruptUnsafe())
    fiber.addObserver(finish(call))
  }

/** An answer is bytes already. */
const definitionOf = (method: DescMethod, path: string): MethodDefinition<Message, Buffer> => ({
  path,
  requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
  responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
  requestSerialize: (message) => bufferOf(toBinary(method.input, message)),
  requestDeserialize: (bytes) => fromBinary(method.input, bytes),
  responseSerialize: (bytes) => bytes,
  responseDeserialize: (bytes) => bytes
})

const handlerOf = (calls: Calls, method: DescMethod, path: string, handler: AnyHandler): UntypedHandleCall => {
  switch (method.methodKind) {
    case "unary":
      return unary(calls, method, path, handler as Run)
    case "server_streaming":
      return serverStream(calls, method, path, handler as RunStream)
    case "bidi_streaming":
      return bidiStream(calls, method, path, handler as Run)
    case "client_streaming":
      throw new Error(`${path} streams requests for one answer, which no service of ours does`)
  }
}

/** A service for `addService`. */
export const implement = (calls: Calls, { handlers, service }: Offered) => {
  const methods = service.methods.map((method) => {
    const path = `/${service.typeName}/${method.name}`
    const handler = handlers[method.localName]
    if (handler === undefined) throw new Error(`nothing is done for ${path}`)
    return {
      name: method.localName,
      definition: definitionOf(method, path),
      run: handlerOf(calls, method, path, handler)
    }
  })
  return {
    definition: Object.fromEntries(methods.map(({ definition, name }) => [name, definition])),
    implementation: Object.fromEntries(methods.map(({ name, run }) => [name, run]))
  }
}
