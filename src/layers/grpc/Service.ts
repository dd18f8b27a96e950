/** A gRPC service as an Effect program sees it: its description, and for each method what is done. */
import type { DescMessage, DescMethod, DescService, MessageInitShape, MessageShape } from "@bufbuild/protobuf"
import { type Effect, Schema, type Stream } from "effect"
import type { Caller } from "../../schemas/Access.ts"
import type { faultOf } from "../api/Fault.ts"
import type { Encoded } from "./Encoded.ts"

/** Who calls, and what came beside the request. */
export interface Call {
  /** By the verified certificate; nothing of the request's has part in it. */
  readonly caller: Caller
  /** The first value of a header. */
  readonly header: (name: string) => string | undefined
}

/** An answer that is a status of gRPC's own, for what is no matter of jobs. */
export class Declined extends Schema.TaggedError<Declined>()("Declined", {
  /** google.rpc.Code. */
  code: Schema.Int,
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

/** Why there is no answer. */
export type Refusal = Parameters<typeof faultOf>[0] | Declined

type Input<M extends Pick<DescMethod, "input">> = M["input"] extends infer D extends DescMessage ? MessageShape<D>
  : never
type Output<M extends Pick<DescMethod, "output">> = M["output"] extends infer D extends DescMessage ?
  MessageInitShape<D>
  : never

/** What is done for a method. Interrupted when the client cancels, goes away, or its deadline passes. */
export type Handler<M extends Pick<DescMethod, "input" | "output" | "methodKind">> = M["methodKind"] extends "unary"
  ? (request: Input<M>, call: Call) => Effect.Effect<Output<M> | Encoded, Refusal>
  : M["methodKind"] extends "server_streaming"
    ? (request: Input<M>, call: Call) => Effect.Effect<Stream.Stream<Output<M> | Encoded, Refusal>, Refusal>
  : M["methodKind"] extends "bidi_streaming" ? (request: Input<M>, call: Call) => Effect.Effect<Output<M>, Refusal>
  : never

/** All methods of a service. One that streams both ways answers each request with one message, in order. */
export type Handlers<S extends Pick<DescService, "method">> = {
  readonly [K in keyof S["method"]]: Handler<S["method"][K]>
}

/** A service with what is done for it. */
export interface Offered {
  readonly service: DescService
  readonly handlers: Readonly<Record<string, AnyHandler>>
}

/** A handler whose messages' types are forgotten: they fit, since `offer` has checked them. */
export type AnyHandler = (
  request: never,
  call: Call
) => Effect.Effect<object, Refusal> | Effect.Effect<Stream.Stream<object, Refusal>, Refusal>

/** Binds them. */
export const offer = <S extends DescService>(service: S, handlers: Handlers<S>): Offered => ({
  service,
  handlers: handlers as unknown as Offered["handlers"]
})
