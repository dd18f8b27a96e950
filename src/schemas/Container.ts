/** What a container job brings: an image, what is run in it, and where its files come from and go to. */
import { Schema } from "effect"
import { ExecString } from "./ExecString.ts"

/** An image as container tools name it: `debian:12`, `registry.example/team/tool@sha256:…`. */
export const ImageReference = Schema.String.check(
  Schema.isPattern(/^[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,511}$/, { expected: "an image's reference, such as debian:12" })
)

/** A name of Kubernetes (RFC 1123): what labels and objects are called. */
export const DnsLabel = Schema.String.check(
  Schema.isPattern(/^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/, {
    expected: "1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"
  })
)

/** A bucket of an S3-compatible store. */
export const BucketName = Schema.String.check(
  Schema.isPattern(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, { expected: "a bucket's name, 3 to 63 characters" })
)

/** A variable's name. */
const VariableName = Schema.String.check(
  Schema.isPattern(/^[A-Za-z_][A-Za-z0-9_.-]{0,255}$/, { expected: "a variable's name" })
)

/** A secret that the operator has put beside the jobs. */
export const SecretName = Schema.String.check(
  Schema.isPattern(/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/, { expected: "a secret's name" })
)

/** One key of it. */
export const SecretReference = Schema.Struct({
  secret: SecretName,
  key: Schema.String.check(Schema.isPattern(/^[-._a-zA-Z0-9]{1,253}$/, { expected: "a key of a secret" }))
})
export type SecretReference = typeof SecretReference.Type

/** Where a job's files are. Which store, and its keys, are the operator's configuration. */
export const Buckets = Schema.Struct({
  input: BucketName,
  /** Absent: the input's. */
  output: Schema.optionalKey(BucketName),
  /** Of the objects' names; `-` follows it in those that are written. */
  prefix: Schema.optionalKey(Schema.String.check(
    Schema.isPattern(/^[A-Za-z0-9!_.*'()/-]{1,512}$/, { expected: "a prefix of objects' names" })
  ))
})
export type Buckets = typeof Buckets.Type

/** argv[0] of a phase whose image says what is run: the executor knows. */
export const entryPoint = "stoker-image-entry-point"

/** One container. Memory, cores and time are the phase's limits. */
export const Container = Schema.Struct({
  image: ImageReference,
  /** What people and logs call it. */
  name: DnsLabel,
  /** Replaces the image's entry point. */
  command: Schema.optionalKey(Schema.NonEmptyArray(ExecString)),
  /** Replaces the image's arguments. */
  args: Schema.optionalKey(Schema.Array(ExecString)),
  env: Schema.Record(VariableName, ExecString),
  /** Variables whose values the runtime takes from secrets; no worker reads them where a cluster runs the job. */
  secrets: Schema.Record(VariableName, SecretReference),
  buckets: Schema.optionalKey(Buckets),
  /** Its program reaches the store by itself: it sees the class's `storeSecret`, as those with buckets do. Absent: no. */
  store: Schema.optionalKey(Schema.Boolean),
  /** A secret with the registry's credentials. */
  pullSecret: Schema.optionalKey(SecretName),
  nodeSelector: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  /** How long the ended run stays to be looked at, in seconds. Absent: 30, and an hour after a failure. */
  ttlSeconds: Schema.optionalKey(Schema.Int.check(
    Schema.isBetween({ minimum: 0, maximum: 30 * 86_400 }, { expected: "seconds, 30 days at most" })
  ))
})
export type Container = typeof Container.Type
