/** What a caller may do, by the operator's file of roles. */
import { Context, Effect, Layer } from "effect"
import { type Caller, type Method, type Right, rightOf, RolesFile, standardRoles } from "../../schemas/Access.ts"
import { documentReader } from "../../schemas/JsonDocument.ts"
import { type FileRefused, watched, type WatchOptions } from "../config/Watched.ts"
import { decodeFile } from "./ConfiguredFile.ts"

/** Rights of callers, as of now. */
export class Access extends Context.Service<Access, {
  readonly right: (caller: Caller, method: Method) => Effect.Effect<Right>
}>()("stoker/layers/api/Access") {}

/** The worker's own user is asked for nothing: it could end the process or write the file of roles. */
const rightIn = (roles: RolesFile, { name, via }: Caller, method: Method): Right =>
  via === "local" ? "super" : rightOf(roles, name, method)

const readRoles = documentReader(RolesFile)

const remedy =
  `It looks like {"users": {"admin": "super", "alice": {"start": "own", "status": "own"}, "*": "none"}}; the methods are ` +
  "start, stop, status, list, output, functions, delete; the rights none, own, super."

/** A file of roles, read again when it changes. A change that cannot be read is refused in the log; the former roles stay. */
export const layerFile = (
  file: string,
  options: Pick<WatchOptions<string, unknown>, "poll"> = {}
): Layer.Layer<Access, FileRefused> =>
  Layer.effect(
    Access,
    Effect.map(
      watched({
        what: "the roles",
        files: { file },
        read: (texts) => decodeFile(file, readRoles(texts.file), remedy),
        ...options
      }),
      ({ current }) => ({
        right: (caller, method) => Effect.map(current, (roles) => rightIn(roles, caller, method))
      })
    )
  )

/** Roles that never change; without any, everybody sees to their own jobs. */
export const layerFixed = (roles: RolesFile = standardRoles): Layer.Layer<Access> =>
  Layer.succeed(Access, { right: (caller, method) => Effect.succeed(rightIn(roles, caller, method)) })
