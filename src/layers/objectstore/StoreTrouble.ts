/** What goes wrong with a store: whether it may pass, and what somebody can do about it. */
import { ObjectStoreError } from "./ObjectStore.ts"

export interface Trouble {
  readonly _tag: "Trouble"
  readonly code: string
  readonly reason: string
  /** The same may go well another time. */
  readonly isPassing: boolean
  /** The request may have been carried out all the same. */
  readonly isAmbiguous: boolean
  /** Not before, in milliseconds, as the store asked. */
  readonly retryAfterMs?: number
  readonly region?: string
  readonly cause?: unknown
}

export const trouble = (
  code: string,
  reason: string,
  rest: Partial<Omit<Trouble, "_tag" | "code" | "reason">> = {}
): Trouble => ({ _tag: "Trouble", code, reason, isPassing: false, isAmbiguous: false, ...rest })

/** Codes that say that it may pass, whatever the status. */
const passing: ReadonlySet<string> = new Set([
  "SlowDown",
  "InternalError",
  "RequestTimeout",
  "ServiceUnavailable",
  "OperationAborted",
  // What came was not what was sent.
  "BadDigest",
  "IncompleteBody"
])

/** An answer with a status that is none of success. */
export const refused = (
  status: number,
  said: { readonly code: string; readonly message: string; readonly region?: string } | undefined,
  retryAfter: string | undefined
): Trouble => {
  const usual = status === 403 ? "AccessDenied" : status === 404 ? "NotFound" : `Status${status}`
  const { code = usual, message = "" } = said ?? {}
  const seconds = Number(retryAfter)
  return trouble(code, `it answered ${status} ${code}${message === "" ? "" : `: ${message}`}`, {
    isPassing: passing.has(code) || status === 429 || status === 408 || (status >= 500 && status !== 501),
    isAmbiguous: status >= 500,
    ...(seconds > 0 ? { retryAfterMs: Math.min(seconds, 60) * 1000 } : {}),
    ...(said?.region === undefined ? {} : { region: said.region })
  })
}

/** A connection that could not be made, or broke. */
export const broken = (cause: Error): Trouble => {
  const code = "code" in cause && typeof cause.code === "string" ? cause.code : ""
  const said = cause.message === "" ? code : cause.message
  // An authority nobody trusts stays one.
  return code.includes("CERT") || code.includes("TLS") || code.includes("SSL") || code.includes("SIGNED")
    ? trouble("Untrusted", `its certificate is not trusted: ${said}`, { cause })
    : trouble("Unreachable", `it cannot be reached: ${said}`, { isPassing: true, isAmbiguous: true, cause })
}

const remedies: Readonly<Record<string, string>> = {
  NoSuchBucket: "Make the bucket, or name another one: workers make none.",
  NoSuchKey: "Put the object there, or name another one.",
  NotFound: "Put it there, or name another one.",
  AccessDenied: "Give the worker's access key the right to read, list and write this bucket.",
  SignatureDoesNotMatch: "Put the right secret key where objectStore.secretKeyFile or secretKeyEnv says.",
  InvalidAccessKeyId: "Put the right access key where objectStore.accessKeyFile or accessKeyEnv says.",
  RequestTimeTooSkewed: "Set this host's clock: signatures hold for a quarter of an hour.",
  Untrusted: "Use a certificate this host trusts; NODE_EXTRA_CA_CERTS names a file of further authorities.",
  Unreachable: "Check objectStore.endpoint, and that the store runs and can be reached from here.",
  TimedOut: "See what the store is doing; objectStore.timeout says how long it may be silent.",
  TooSlow: "See what slows the store or the way to it: less than 16 KiB a second came through.",
  Truncated: "See the store's log: it did not keep or give all of the object.",
  Corrupt: "See the store's log: what it has is not what was sent.",
  Changed: "Let nobody replace objects while a job takes them.",
  TooLarge: "Split it: an object has 10,000 parts of 8 MiB at most.",
  QuotaExceeded: "Make room in the bucket, or raise its quota.",
  EntityTooLarge: "Raise the store's largest object, or split it.",
  SlowDown: "Send fewer jobs at once, or make the store faster.",
  NotUnderstood: "Check objectStore.endpoint: what answers there does not speak S3."
}

/** As callers see it. */
export const told = (
  operation: ObjectStoreError["operation"],
  bucket: string,
  key: string | undefined,
  { cause, code, reason, region }: Trouble
): ObjectStoreError =>
  new ObjectStoreError({
    operation,
    bucket,
    ...(key === undefined ? {} : { key }),
    code,
    reason,
    remedy: region === undefined
      ? remedies[code] ?? "See the store's log, and its documentation for this code."
      : `Set objectStore.region to ${region}.`,
    ...(cause === undefined ? {} : { cause })
  })
