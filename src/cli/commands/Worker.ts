/** `stoker worker` */
import { Effect, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { HttpListen } from "../../schemas/HttpListen.ts"
import * as Flags from "../Flags.ts"
import { driverNames } from "../WorkerConfigs.ts"

const driver = Flag.Literals("driver", driverNames).pipe(
  Flag.withDescription("Offer a class for this driver; may be repeated, the first is the default (default: oci)"),
  Flag.between(0, driverNames.length)
)

const slots = Flag.Int("slots").pipe(
  Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000 }, { expected: "1 to 10000" }))),
  Flag.withDescription("Jobs that run at once (default 2)"),
  Flag.withMetavar("N"),
  Flag.optional
)

const warm = Flag.Int("warm").pipe(
  Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_000 }, { expected: "0 to 10000" }))),
  Flag.withDescription("Sandboxes kept ready for jobs to come (default: as many as slots; 0: none)"),
  Flag.withMetavar("N"),
  Flag.optional
)

const drain = Flag.String("drain").pipe(
  Flag.withDescription("How long running jobs have to end after SIGTERM (default 30s)"),
  Flag.withMetavar("TIME"),
  Flags.asDuration("drain"),
  Flag.optional
)

export const worker = Command.make(
  "worker",
  {
    config: Flags.config,
    amqp: Flags.amqp,
    state: Flags.state,
    journal: Flags.journal,
    slots,
    warm,
    drain,
    ownLongJobs: Flags.onOff(
      "own-long-jobs",
      "Let this worker's journal keep jobs that may run longer than RabbitMQ lets them be held (25 min)"
    ),
    drivers: driver,
    defaultClass: Flags.sandboxClass,
    functions: Flag.String("functions").pipe(
      Flag.withDescription("Offer the functions that this file of TypeScript or JavaScript exports; may be repeated"),
      Flag.withMetavar("FILE"),
      Flag.between(0, 100)
    ),
    http: Flag.String("http").pipe(
      Flag.withDescription("Serve /livez, /readyz and /metrics there, for probes (default: on the admin socket only)"),
      Flag.withMetavar("HOST:PORT"),
      Flag.withSchema(HttpListen),
      Flag.optional
    ),
    api: {
      grpc: Flag.String("grpc").pipe(
        Flag.withDescription("Serve the gRPC services there, to callers with certificates (needs --tls)"),
        Flag.withMetavar("HOST:PORT"),
        Flag.withSchema(HttpListen),
        Flag.optional
      ),
      http: Flag.String("api").pipe(
        Flag.withDescription("Serve the HTTP API there, to callers with certificates (needs --tls)"),
        Flag.withMetavar("HOST:PORT"),
        Flag.withSchema(HttpListen),
        Flag.optional
      ),
      tls: Flag.String("tls").pipe(
        Flag.withDescription("Folder with ca.crt, server.crt and server.key; `stoker certs` makes it"),
        Flag.withMetavar("DIR"),
        Flag.optional
      ),
      roles: Flag.String("roles").pipe(
        Flag.withDescription("Who may do what there (default: all see to their own jobs)"),
        Flag.withMetavar("FILE"),
        Flag.optional
      )
    },
    logFormat: Flag.Literals("log-format", ["auto", "pretty", "json"]).pipe(
      Flag.withDescription("auto: pretty on a terminal, else JSON lines. LOG_LEVEL says how much (default auto)"),
      Flag.optional
    )
  },
  Effect.fn(function*(flags) {
    const { runWorker } = yield* Effect.promise(() => import("../RunWorker.ts"))
    yield* runWorker(flags)
  })
).pipe(
  Command.withDescription(
    "Take jobs until told to stop: those of `stoker submit` in the same state directory (or STOKER_JOURNAL, which workers " +
      "of many hosts share) and, with AMQP_URL, those of CodeBench clients and of the queues stoker.jobs. SIGTERM or " +
      "Ctrl-C lets running jobs end; a second one ends them at once. SIGHUP reads the configuration file again. Flags " +
      "and environment are stronger than the file. OTEL_EXPORTER_OTLP_ENDPOINT and the other OTEL_ variables send " +
      "traces, metrics and logs to an OpenTelemetry collector."
  ),
  Command.withShortDescription("Take jobs from RabbitMQ and the embedded queue"),
  Command.withExamples([
    { command: "stoker worker --slots 4", description: "The embedded queue only" },
    {
      command: "STOKER_JOURNAL=postgres://stoker:secret@db/stoker stoker worker",
      description: "One queue for many hosts"
    },
    { command: "AMQP_URL=amqp://guest:guest@localhost:5672 stoker worker", description: "CodeBench clients as well" },
    { command: "stoker worker --functions my-functions.ts", description: "With functions of your own" },
    { command: "stoker worker --config /etc/stoker/stoker.json", description: "As the file says" }
  ])
)
