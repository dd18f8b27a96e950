/** How what went wrong is told over gRPC: a code, a sentence, and both again for programs in `grpc-status-details-bin`. */
import { create, toBinary } from "@bufbuild/protobuf"
import { anyPack } from "@bufbuild/protobuf/wkt"
import { Metadata, type StatusObject } from "@grpc/grpc-js"
import { Cause, Effect, Option } from "effect"
import { SecureRandom } from "effect/crypto"
import { faultOf, internal, type Kind } from "../api/Fault.ts"
import { randomName } from "../host/RandomName.ts"
import { ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js"
import { StatusSchema } from "./gen/google/rpc/status_pb.js"
import { Declined, type Refusal } from "./Service.ts"

/** Clients refuse headers beyond 8 KiB in all; the sentence is in them twice. Characters as they are sent, `%C3%A9` for é. */
const MOST_SENT = 2000
const MOST_REMEDY_SENT = 1000

/** grpc-js encodes it as a URI, which throws where half a surrogate pair stands alone. */
const sentence = (text: string, most = MOST_SENT): string => {
  const whole = text.toWellFormed()
  let sent = 0
  let end = 0
  for (const character of whole) {
    sent += encodeURI(character).length
    if (sent > most) return `${whole.slice(0, end)}…`
    end += character.length
  }
  return whole
}

const told = (kind: Kind, reason: string, remedy: string): StatusObject => {
  const details = sentence(remedy === "" ? reason : `${reason}. ${remedy}`)
  const info = create(ErrorInfoSchema, {
    reason: kind.name.toUpperCase().replaceAll("-", "_"),
    domain: "stoker",
    metadata: { remedy: sentence(remedy, MOST_REMEDY_SENT) }
  })
  const status = create(StatusSchema, { code: kind.grpc, message: details, details: [anyPack(ErrorInfoSchema, info)] })
  const metadata = new Metadata()
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, status)))
  return { code: kind.grpc, details, metadata }
}

/** A refusal as gRPC tells it. */
export const statusOf = (error: Refusal): StatusObject => {
  if (error instanceof Declined) return { code: error.code, details: sentence(error.reason), metadata: new Metadata() }
  const { kind, reason, remedy } = faultOf(error)
  return told(kind, reason, remedy)
}

/** The worker goes away; the same call can be made to another one, or a little later. */
export const goingAway: StatusObject = {
  code: 14,
  details: "the worker goes away. Try again in a moment.",
  metadata: new Metadata()
}

/** Of anything that can end a call but an interruption. A defect is in the log under a name, which the caller is told. */
export const statusOfCause = Effect.fnUntraced(function*(cause: Cause.Cause<Refusal>, method: string) {
  const error = Cause.findErrorOption(cause)
  if (Option.isSome(error)) return statusOf(error.value)
  const name = yield* randomName(yield* SecureRandom.SecureRandom, 8)
  yield* Effect.annotateLogs(Effect.logError("a gRPC call met a defect of Stoker", cause), { method, defect: name })
  return told(internal, `a defect of Stoker, ${name} in the worker's log`, "Please report it.")
})
