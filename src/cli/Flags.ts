/** Flags that several commands have. Bounds are those of the schemas; a wrong value is told with the flag's name. */
import { Config, Effect, Option, Result, Schema } from "effect"
import { Argument, CliError, Flag } from "effect/cli"
import { BucketName, Buckets, Container, ImageReference, SecretName, SecretReference } from "../schemas/Container.ts"
import { type JobKey, JobKey as JobKeySchema } from "../schemas/Ids.ts"
import { LimitsRequest, OutputPolicy, standardDefaults } from "../schemas/Limits.ts"
import { ArtefactPath, mostArtefacts } from "../schemas/Program.ts"
import { priorities, type Priority, RetryPolicy, standardRetry, standardTerms, type Terms } from "../schemas/Terms.ts"
import { parseBytes, parseDuration, parseNumber } from "../schemas/Units.ts"
import { formatBytes, formatMicros } from "./Units.ts"
import { driverNames } from "./WorkerConfigs.ts"

/** `--state` */
export const state = Flag.String("state").pipe(
  Flag.withDescription("State directory (default: STOKER_STATE, /var/lib/stoker for root, ~/.local/state/stoker)"),
  Flag.withMetavar("DIR"),
  Flag.optional
)

/** `--config` */
export const config = Flag.String("config").pipe(
  Flag.withDescription("Configuration file (default: STOKER_CONFIG, else none); `stoker config example` shows one"),
  Flag.withMetavar("FILE"),
  Flag.optional
)

/** A flag that is there or not. */
export const onOff = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withoutNegation, Flag.withDefault(false), Flag.withDescription(description))

export const json = onOff("json", "Print JSON on stdout, and nothing else")

const decodeLimits = Schema.decodeUnknownResult(LimitsRequest)

/** The text of a flag as milliseconds. */
export const asDuration = (name: string) => (flag: Flag.Flag<string>) =>
  Flag.mapEffect(flag, (value) => {
    const parsed = parseDuration(value)
    return Result.isSuccess(parsed)
      ? Effect.succeed(parsed.success)
      : Effect.fail(new CliError.InvalidValue({ option: name, value, expected: parsed.failure, kind: "flag" }))
  })

/** The broker: `--amqp`, else AMQP_URL. */
export const amqp = Flag.Redacted("amqp").pipe(
  Flag.withFallbackConfig(Config.Redacted("AMQP_URL")),
  Flag.withDescription(
    "RabbitMQ, amqp://user:password@host:port/vhost (default: AMQP_URL; better there, others see flags)"
  ),
  Flag.withMetavar("URL"),
  Flag.optional
)

/** A shared journal: `--journal`, else STOKER_JOURNAL. */
export const journal = Flag.Redacted("journal").pipe(
  Flag.withFallbackConfig(Config.Redacted("STOKER_JOURNAL")),
  Flag.withDescription(
    "Journal shared by many hosts, postgres://user:password@host:port/database?schema=stoker (default: " +
      "STOKER_JOURNAL; better there, others see flags; without: a file in the state directory)"
  ),
  Flag.withMetavar("URL"),
  Flag.optional
)

/** "Expected bytes from 4194304 to 4398046511104" in the units of the flags. */
const humanBounds = (message: string): string => {
  const [, what = "", least = "", most = ""] = /Expected (.*) from ([\d.]+) to ([\d.]+)/.exec(message) ?? []
  const shown = {
    bytes: formatBytes,
    "bytes a second": (rate: number) => `${formatBytes(rate)} a second`,
    milliseconds: (ms: number) => formatMicros(ms * 1000)
  }[what] ?? String
  return least === "" ? message.split("\n")[0] ?? message : `${shown(Number(least))} to ${shown(Number(most))}`
}

/** A limit of the job. */
const limit = (
  name: string,
  field: keyof LimitsRequest,
  parse: (text: string) => Result.Result<number, string>,
  metavar: string,
  description: string
) =>
  Flag.String(name).pipe(
    Flag.mapEffect((value) => {
      const invalid = (expected: string) =>
        Effect.fail(new CliError.InvalidValue({ option: name, value, expected, kind: "flag" }))
      const parsed = parse(value)
      if (Result.isFailure(parsed)) return invalid(parsed.failure)
      const checked = decodeLimits({ [field]: parsed.success })
      if (Result.isSuccess(checked)) return Effect.succeed(parsed.success)
      return invalid(humanBounds(checked.failure.message))
    }),
    Flag.withMetavar(metavar),
    Flag.withDescription(description),
    Flag.optional
  )

/** Limits of the run phase, by the names of `LimitsRequest`. */
export const limits = {
  wallMs: limit("wall", "wallMs", parseDuration, "TIME", "Elapsed time (default 10s)"),
  cpuMs: limit(
    "cpu-time",
    "cpuMs",
    parseDuration,
    "TIME",
    "CPU time of all its processes (default 10s, or --wall if that is more)"
  ),
  memoryBytes: limit("memory", "memoryBytes", parseBytes, "SIZE", "Memory, with its files (default 256M)"),
  diskBytes: limit("disk", "diskBytes", parseBytes, "SIZE", "Files in its workspace (default 512M)"),
  fileBytes: limit("file-size", "fileBytes", parseBytes, "SIZE", "Any one file it writes (default 64M)"),
  pids: limit("pids", "pids", parseNumber, "N", "Processes and threads (default 64)"),
  cpus: limit("cpus", "cpus", parseNumber, "N", "Cores, 0.5 is half of one (default 1)"),
  outputBytes: limit(
    "output-limit",
    "outputBytes",
    parseBytes,
    "SIZE",
    "Kept output, of stdout and stderr each; the middle of more is left out (default 1M)"
  ),
  cpuWeight: limit(
    "cpu-weight",
    "cpuWeight",
    parseNumber,
    "N",
    "Share of the cores while they are scarce (default 100)"
  ),
  memoryHighBytes: limit(
    "memory-high",
    "memoryHighBytes",
    parseBytes,
    "SIZE",
    "Above this it is slowed down (default none; needs cgroup v2)"
  ),
  swapBytes: limit("swap", "swapBytes", parseBytes, "SIZE", "Swap on top of --memory (default none)"),
  oomGroup: Flag.Boolean("oom-group").pipe(
    Flag.withoutNegation,
    Flag.withDescription("Out of memory ends all of it, not one process (needs cgroup v2)"),
    Flag.optional
  ),
  ioWeight: limit("io-weight", "ioWeight", parseNumber, "N", "Share of busy disks (default 100; needs cgroup v2, BFQ)"),
  ioReadBytesPerSec: limit("io-read", "ioReadBytesPerSec", parseBytes, "SIZE", "Read a second, from each disk"),
  ioWriteBytesPerSec: limit("io-write", "ioWriteBytesPerSec", parseBytes, "SIZE", "Written a second, to each disk"),
  ioReadsPerSec: limit("io-reads", "ioReadsPerSec", parseNumber, "N", "Read operations a second, of each disk"),
  ioWritesPerSec: limit("io-writes", "ioWritesPerSec", parseNumber, "N", "Write operations a second, of each disk"),
  outputPolicy: Flag.Literals("over-output", OutputPolicy.literals).pipe(
    Flag.withDescription("What more output does: truncate leaves out its middle (default), kill ends the job"),
    Flag.optional
  )
}

/**
 * The limits that were given. Who asks for more elapsed time wants to use it; but a container may be a cluster's, which
 * limits no CPU time.
 */
export const limitsOf = (
  flags: { readonly [K in keyof typeof limits]: Option.Option<number | boolean | OutputPolicy> },
  isCluster = false
): LimitsRequest => {
  const given: LimitsRequest = Object.fromEntries(
    Object.entries(flags).flatMap(([name, value]) => Option.isSome(value) ? [[name, value.value]] : [])
  )
  const { cpuMs, wallMs } = given
  return !isCluster && cpuMs === undefined && wallMs !== undefined && wallMs > standardDefaults.cpuMs
    ? { ...given, cpuMs: wallMs }
    : given
}

/** Where sandboxes come from. */
export const driver = Flag.Literals("driver", driverNames).pipe(
  Flag.withDescription(
    "oci: isolated containers (default); firecracker, qemu: a microVM, of the image `default`; process: NO isolation, for " +
      "trusted programs"
  ),
  Flag.optional
)

export const sandboxClass = Flag.String("class").pipe(
  Flag.withDescription("Sandbox class, as the worker has them (default: the worker's)"),
  Flag.withMetavar("NAME"),
  Flag.optional
)

const env = Flag.String("env").pipe(
  Flag.mapEffect((value) => {
    const at = value.indexOf("=")
    return at > 0
      ? Effect.succeed([value.slice(0, at), value.slice(at + 1)] as const)
      : Effect.fail(new CliError.InvalidValue({ option: "env", value, expected: "NAME=VALUE", kind: "flag" }))
  }),
  Flag.withMetavar("NAME=VALUE"),
  Flag.withDescription("A variable for the program; may be repeated"),
  Flag.between(0, 1000)
)

const isArtefactPath = Schema.is(ArtefactPath)

/** Files to bring back, for `run` and `submit`. */
const artefact = Flag.String("artefact").pipe(
  Flag.mapEffect((value) =>
    isArtefactPath(value)
      ? Effect.succeed(value)
      : Effect.fail(
        new CliError.InvalidValue({
          option: "artefact",
          value,
          expected: "a relative path in the workspace, without '..' and control characters",
          kind: "flag"
        })
      )
  ),
  Flag.withMetavar("PATH"),
  Flag.withDescription("A file to bring back from its workspace, however it ends; may be repeated"),
  Flag.between(0, mostArtefacts)
)

export const overwrite = onOff("overwrite", "Replace files that are there already")

/** Where the files of `--artefact` go. */
export const out = Flag.String("out").pipe(
  Flag.withDescription("Directory for the files of --artefact (default: this one)"),
  Flag.withMetavar("DIR"),
  Flag.optional
)

/** A text that a schema takes. */
const checked = (name: string, is: (text: string) => boolean, expected: string, metavar: string, description: string) =>
  Flag.String(name).pipe(
    Flag.mapEffect((value) =>
      is(value)
        ? Effect.succeed(value)
        : Effect.fail(new CliError.InvalidValue({ option: name, value, expected, kind: "flag" }))
    ),
    Flag.withMetavar(metavar),
    Flag.withDescription(description),
    Flag.optional
  )

/** What a container is made of, for `run`. */
export const image = {
  image: checked(
    "image",
    Schema.is(ImageReference),
    "an image's reference, such as debian:12",
    "REFERENCE",
    "Run a container of this image; what follows -- are its arguments, as with docker run"
  ),
  entrypoint: checked(
    "entrypoint",
    (text) => text !== "",
    "the name of a program",
    "PROGRAM",
    "Run this program of the image in place of its entry point"
  )
}

const isSecret = Schema.is(SecretReference)
const isVariable = Schema.is(Container.fields.secrets)

const secret = Flag.String("secret").pipe(
  Flag.mapEffect((value) => {
    const [, name = "", secret = "", key = ""] = /^([^=]+)=([^:]+):(.+)$/.exec(value) ?? []
    const found = { secret, key }
    return isSecret(found) && isVariable({ [name]: found })
      ? Effect.succeed([name, found] as const)
      : Effect.fail(new CliError.InvalidValue({ option: "secret", value, expected: "NAME=SECRET:KEY", kind: "flag" }))
  }),
  Flag.withMetavar("NAME=SECRET:KEY"),
  Flag.withDescription("A variable whose value is in a secret of the cluster; may be repeated"),
  Flag.between(0, 100)
)

/** And for `submit`, whose workers may have clusters and object stores. */
export const container = {
  ...image,
  bucket: checked(
    "bucket",
    Schema.is(BucketName),
    "a bucket's name, 3 to 63 characters",
    "NAME",
    "The container's files come from this bucket, and go there"
  ),
  outputBucket: checked(
    "output-bucket",
    Schema.is(BucketName),
    "a bucket's name, 3 to 63 characters",
    "NAME",
    "They go to this one instead"
  ),
  prefix: checked(
    "prefix",
    (prefix) => Schema.is(Buckets)({ input: "bucket", prefix }),
    "a prefix of objects' names",
    "TEXT",
    "Only objects whose names begin with this and '-'"
  ),
  secret,
  pullSecret: checked(
    "pull-secret",
    Schema.is(SecretName),
    "a secret's name",
    "SECRET",
    "A secret of the cluster with the registry's credentials"
  )
}

/** What a job is made of, for `run` and `submit`. */
export const job = {
  files: Argument.String("file").pipe(
    Argument.withDescription("Source files: .c .cpp .cc .cxx .py .go, and others they need"),
    Argument.variadic()
  ),
  language: Flag.Literals("language", ["c", "cpp", "python", "go"]).pipe(
    Flag.withDescription("The language, when the files' names do not tell"),
    Flag.optional
  ),
  variant: Flag.String("variant").pipe(
    Flag.withDescription("Compiler or interpreter: gcc, clang, g++, clang++, cpython3, go"),
    Flag.withMetavar("NAME"),
    Flag.optional
  ),
  stdin: Flag.String("stdin").pipe(
    Flag.withDescription("Standard input of the program: a file, or - for this command's own"),
    Flag.withMetavar("FILE|-"),
    Flag.optional
  ),
  env,
  noCache: onOff("no-cache", "Compile also what was compiled before"),
  artefact,
  class: sandboxClass,
  limits
}

/** The terms of a job in the embedded queue. */
export const terms = {
  priority: Flag.Literals("priority", priorities).pipe(
    Flag.withDescription("Which jobs begin first (default normal). Lower ones get fewer turns, and are never starved"),
    Flag.optional
  ),
  delay: Flag.String("delay").pipe(
    Flag.withDescription("Not to begin before this is over"),
    Flag.withMetavar("TIME"),
    asDuration("delay"),
    Flag.optional
  ),
  ttl: Flag.String("ttl").pipe(
    Flag.withDescription("Not to begin after this: then it is kept as a dead letter"),
    Flag.withMetavar("TIME"),
    asDuration("ttl"),
    Flag.optional
  ),
  tries: Flag.Int("tries").pipe(
    Flag.withSchema(RetryPolicy.fields.maxAttempts),
    Flag.withDescription(
      `How often it is tried when the failure is not the program's (default ${standardRetry.maxAttempts}; 1: once)`
    ),
    Flag.withMetavar("N"),
    Flag.optional
  )
}

/** As they were given. Times are milliseconds. */
export interface TermsFlags {
  readonly priority: Option.Option<Priority>
  readonly delay: Option.Option<number>
  readonly ttl: Option.Option<number>
  readonly tries: Option.Option<number>
}

/** The names of those that were given. */
export const givenTerms = (flags: TermsFlags): ReadonlyArray<string> =>
  Object.entries(flags).flatMap(([name, value]) => Option.isSome(value) ? [`--${name}`] : [])

/** What they mean for a job that is submitted now. */
export const termsOf = ({ delay, priority, tries, ttl }: TermsFlags, nowMs: number): Terms => ({
  priority: Option.getOrElse(priority, () => standardTerms.priority),
  ...(Option.isSome(delay) ? { notBeforeMs: nowMs + delay.value } : {}),
  ...(Option.isSome(ttl) ? { expiresAtMs: nowMs + ttl.value } : {}),
  retry: { ...standardRetry, maxAttempts: Option.getOrElse(tries, () => standardRetry.maxAttempts) }
})

const decodeKey = Schema.decodeUnknownOption(JobKeySchema)

/** A job as it is asked for: its id, or all of its key as `list` and `status` print it. */
export interface JobName {
  readonly id: string
  readonly key: Option.Option<JobKey>
}

export const jobName = Argument.String("id").pipe(
  Argument.withDescription("The id that submit and list print, or DOOR/OWNER/ID"),
  Argument.map((text): JobName => {
    const [intake, owner, id] = text.split("/")
    return { id: id ?? text, key: decodeKey({ intake, owner, id }) }
  })
)
