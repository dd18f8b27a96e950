/** What PostgreSQL and the network refuse, in words: what happened and what to do about it. Never with a password. */
import { Data, Predicate, type Schema } from "effect"
import type { SqlError } from "effect/sql"

/** Where the journal is: `host:port/database`, and the schema. */
export interface PostgresPlace {
  readonly server: string
  readonly schema: string
}

/** What went wrong, as far as it concerns a person. */
export interface Failure {
  /** SQLSTATE, or one of ours. */
  readonly code?: string
  readonly message: string
}

/** What we ourselves refuse to go on with. */
export class Refused extends Data.TaggedError("Refused")<Failure & { readonly code: `STOKER_${string}` }> {}

type Kind =
  | "away"
  | "login"
  | "denied"
  | "database"
  | "busy"
  | "full"
  | "crowded"
  | "standby"
  | "newer"
  | "other"
  | "slow"
  | "unknown"

/** By SQLSTATE, or by its first two characters, which are its class (PostgreSQL documentation, appendix A). */
const byState: Readonly<Record<string, Kind>> = {
  "08": "away",
  "25006": "standby",
  "28": "login",
  "3D": "database",
  "40": "busy",
  "42501": "denied",
  "53100": "full",
  "53300": "crowded",
  "55P03": "busy",
  "57014": "slow",
  "57P": "away",
  "58030": "full",
  STOKER_NEWER: "newer",
  STOKER_OTHER: "other",
  STOKER_AWAY: "away",
  STOKER_SLOW: "slow"
}

const kindOf = ({ code = "" }: Failure): Kind =>
  byState[code] ?? byState[code.slice(0, 3)] ?? byState[code.slice(0, 2)] ?? "unknown"

const texts: Readonly<Record<Kind, (place: PostgresPlace) => { readonly reason: string; readonly remedy: string }>> = {
  away: ({ server }) => ({
    reason: `PostgreSQL at ${server} cannot be reached`,
    remedy: "See that it runs and that this machine may connect; the journal then goes on by itself"
  }),
  login: ({ server }) => ({
    reason: `PostgreSQL at ${server} does not let this user in`,
    remedy: "Correct user and password in the journal's URL, or what pg_hba.conf allows"
  }),
  denied: ({ schema }) => ({
    reason: `this user may not use the schema ${schema}`,
    remedy: `Let it create schemas in the database, or create ${schema} for it (\`create schema … authorization …\`)`
  }),
  database: ({ server }) => ({
    reason: `there is no such database at ${server}`,
    remedy: "Create it with `createdb`, or correct the journal's URL"
  }),
  busy: ({ server }) => ({
    reason: `another transaction at ${server} was in the way`,
    remedy: "Try again; if it stays, `select * from pg_stat_activity` shows who holds locks"
  }),
  full: ({ server }) => ({
    reason: `PostgreSQL at ${server} has no space left`,
    remedy: "Free space on its disk; the journal then goes on by itself"
  }),
  crowded: ({ server }) => ({
    reason: `PostgreSQL at ${server} takes no more connections`,
    remedy: "Raise its max_connections, or let fewer workers connect"
  }),
  standby: ({ server }) => ({
    reason: `PostgreSQL at ${server} is a standby and cannot be written`,
    remedy: "Name the primary in the journal's URL"
  }),
  newer: ({ schema, server }) => ({
    reason: `the schema ${schema} at ${server} was written by a newer version of Stoker`,
    remedy: "Use that version, or another schema or database"
  }),
  other: ({ schema, server }) => ({
    reason: `the schema ${schema} at ${server} is no journal of Stoker's`,
    remedy: "Name another database, or let that schema be called something else"
  }),
  slow: ({ server }) => ({
    reason: `PostgreSQL at ${server} did not answer in time`,
    remedy: "Ask again: whether it was written down is not known, and a repeat is harmless. See what keeps it busy"
  }),
  unknown: ({ server }) => ({
    reason: `PostgreSQL at ${server} could not be used`,
    remedy: "Try again; if it stays, report it with this message"
  })
}

/** The original words are kept at the end of the reason. */
export const explain = (failure: Failure, place: PostgresPlace) => {
  const { reason, remedy } = texts[kindOf(failure)](place)
  const code = failure.code?.startsWith("STOKER_") === true ? undefined : failure.code
  return { reason: `${reason} (${failure.message}${code === undefined ? "" : `, SQLSTATE ${code}`})`, remedy }
}

const text = (of: unknown, name: string): string | undefined =>
  Predicate.hasProperty(of, name) && typeof of[name] === "string" ? of[name] : undefined

/** SQLSTATE and words of the server, or of the network. */
export const failureOf = (error: SqlError.SqlError | Schema.SchemaError | Refused): Failure => {
  switch (error._tag) {
    case "Refused":
      return { code: error.code, message: error.message }
    case "SchemaError":
      return { code: "STOKER_OTHER", message: error.message }
    case "SqlError": {
      const { cause, ...reason } = error.reason
      const message = (text(cause, "message") ?? reason.message) || error.reason._tag
      const state = text(cause, "severity") === undefined ? undefined : text(cause, "code")
      if (state !== undefined) return { code: state, message }
      if (error.reason._tag === "AuthenticationError") return { code: "28000", message }
      return error.reason._tag === "ConnectionError" ? { code: "STOKER_AWAY", message } : { message }
    }
  }
}
