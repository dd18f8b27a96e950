/** The identifiers of the system. Their alphabets are safe in file names, queue names, routing keys and URLs. */
import { Schema } from "effect"

const safe = (what: string, pattern: RegExp, maximum: number, rule: string) =>
  Schema.String.check(
    Schema.isBetweenLength(1, maximum, { expected: `${what}: 1 to ${maximum} characters` }),
    Schema.isPattern(pattern, { expected: `${what}: ${rule}` })
  )

/**
 * What a client calls its job: 1–128 of `A–Z a–z 0–9 . _ -`, beginning with a letter or digit, without `..`.
 * Kept below 128 so that `job_status_<id>` stays within AMQP's 255 bytes.
 */
export const JobId = safe(
  "a job id",
  /^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]*$/,
  128,
  "letters, digits, '.', '_' and '-', beginning with a letter or digit, without '..'"
).pipe(Schema.brand("JobId"))
export type JobId = typeof JobId.Type

/** Who a job belongs to: a certificate's name, a broker user, or `local`. */
export const Owner = safe(
  "an owner",
  /^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._@-]*$/,
  128,
  "letters, digits, '.', '_', '@' and '-', beginning with a letter or digit, without '..'"
).pipe(Schema.brand("Owner"))
export type Owner = typeof Owner.Type

/** The door a job came through: `embedded`, `codebench`, later `grpc`, `http`. */
export const IntakeName = safe("an intake", /^[a-z][a-z0-9-]*$/, 32, "lower-case letters, digits and '-'").pipe(
  Schema.brand("IntakeName")
)
export type IntakeName = typeof IntakeName.Type

/** A job's identity: the same id from another door or owner is another job. */
export const JobKey = Schema.Struct({ intake: IntakeName, owner: Owner, id: JobId })
export type JobKey = typeof JobKey.Type

/** One line of text for a key; no part can contain `/`. Primary key of the journal and name in logs. */
export const keyText = (key: JobKey): string => `${key.intake}/${key.owner}/${key.id}`

/** Ours, random, 20 lower-case letters and digits: names cgroup, container, directory and ledger row of one sandbox. */
export const SandboxId = safe("a sandbox id", /^[a-z0-9]+$/, 32, "lower-case letters and digits").pipe(
  Schema.brand("SandboxId")
)
export type SandboxId = typeof SandboxId.Type

/** One run of one worker process. Names its cgroups (`stoker-<instance>`), its ledger rows and its lock. */
export const InstanceId = safe("an instance id", /^[a-z0-9][a-z0-9-]*$/, 32, "lower-case letters, digits and '-'").pipe(
  Schema.brand("InstanceId")
)
export type InstanceId = typeof InstanceId.Type

/** A sandbox class as the configuration names it, e.g. `oci-small`. */
export const ClassName = safe("a sandbox class", /^[a-z0-9][a-z0-9-]*$/, 48, "lower-case letters, digits and '-'").pipe(
  Schema.brand("ClassName")
)
export type ClassName = typeof ClassName.Type

/** A function's name, e.g. `code`, `command`, `fib`. */
export const FunctionName = safe("a function", /^[a-z][a-z0-9-]*$/, 48, "lower-case letters, digits and '-'").pipe(
  Schema.brand("FunctionName")
)
export type FunctionName = typeof FunctionName.Type
