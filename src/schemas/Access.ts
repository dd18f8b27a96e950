/** Who may do what at the doors of the control plane, and the file that says so. */
import { Schema } from "effect"
import { Owner } from "./Ids.ts"

/** What a caller can ask of the control plane. `output` reads and follows, and brings artefacts. */
export const Method = Schema.Literals(["start", "stop", "status", "list", "output", "functions", "delete"])
export type Method = typeof Method.Type

/** `own`: of jobs whose owner is the caller. `super`: of everybody's, and jobs may be started for others. */
export const Right = Schema.Literals(["none", "own", "super"])
export type Right = typeof Right.Type

/** One right for everything, or one for each method; what is not named is `none`. */
export const Rights = Schema.Union([
  Right,
  Schema.Struct(
    Object.fromEntries(Method.literals.map((method) => [method, Schema.optionalKey(Right)])) as {
      readonly [M in Method]: Schema.optionalKey<typeof Right>
    }
  )
])
export type Rights = typeof Rights.Type

/** `{"users": {"admin": "super", "alice": {"start": "own", "status": "own"}, "*": "own"}}`; `*`: who is not named. */
export const RolesFile = Schema.Struct({
  users: Schema.Record(Schema.String, Rights).check(
    Schema.makeFilter(
      (users: Readonly<Record<string, Rights>>) =>
        Object.keys(users).every((name) => name === "*" || Schema.is(Owner)(name)),
      { expected: "names of users (letters, digits, '.', '_', '@', '-'), or * for all others" }
    )
  )
})
export type RolesFile = typeof RolesFile.Type

/** What a worker without such a file has: everybody whose certificate it trusts sees to their own jobs. */
export const standardRoles: RolesFile = { users: { "*": "own" } }

/** A caller's right to one method. */
export const rightOf = ({ users }: RolesFile, name: string, method: Method): Right => {
  const rights = Object.hasOwn(users, name) ? users[name] : users["*"]
  return typeof rights === "string" ? rights : rights?.[method] ?? "none"
}

/** Whoever asks: by a verified certificate, a bearer token, or as the worker's own user. Never by a header of their own. */
export interface Caller {
  /** The owner of what they start. */
  readonly name: Owner
  readonly via: "certificate" | "token" | "local"
  /** HOST:PORT they call from, for the audit log. */
  readonly from?: string
}
