/** `stoker config`: checks, shows and explains a worker's configuration. */
import { Effect, Option, Redacted, Schema } from "effect"
import { DaemonConfig } from "../schemas/DaemonConfig.ts"
import { example } from "../schemas/DaemonExample.ts"
import { fileOf } from "../schemas/DaemonWorker.ts"
import type { ApiWiring } from "../wiring.ts"
import { ExitWith, usageFailure } from "./CliFailure.ts"
import { namedByConfig } from "./ConfigChecks.ts"
import { USUAL_PLACE } from "./ConfigFile.ts"
import { exitCode } from "./ExitCode.ts"
import { examineFor } from "./HostChecks.ts"
import * as Loggers from "./Loggers.ts"
import { print, say } from "./Output.ts"
import * as Signals from "./Signals.ts"
import { type SetupFlags, workerSetup } from "./WorkerSetup.ts"

const logged = Loggers.layer({ format: "auto", usual: "Fatal" })

/** A worker's flags, none of them given. */
const noFlags: SetupFlags = {
  config: Option.none(),
  amqp: Option.none(),
  journal: Option.none(),
  state: Option.none(),
  http: Option.none(),
  functions: [],
  logFormat: Option.none(),
  api: { grpc: Option.none(), http: Option.none(), tls: Option.none(), roles: Option.none() },
  drivers: [],
  defaultClass: Option.none(),
  slots: Option.none(),
  warm: Option.none(),
  drain: Option.none(),
  ownLongJobs: false
}

export const checkConfig = Effect.fn("RunConfig.checkConfig")(
  function*(options: { readonly file: Option.Option<string>; readonly connect: boolean }) {
    const setup = yield* workerSetup({ ...noFlags, config: options.file })
    if (Option.isNone(setup.file)) {
      return yield* usageFailure(
        "no configuration file is named",
        `Name it: stoker config check ${USUAL_PLACE}, or set STOKER_CONFIG.`
      )
    }
    const { amqp, api, config, functions, stateDirectory } = setup
    const sections = yield* Signals.interruptible(
      examineFor({ stateDirectory, classes: config.classes, amqp: options.connect ? amqp : Option.none() })
    )
    const named = { title: "configuration", checks: yield* Signals.interruptible(namedByConfig(setup)) }
    const wrong = [named, ...sections].flatMap(({ checks, title }) =>
      checks.filter(({ status }) => status !== "ok").map((check) => ({ ...check, title }))
    )
    for (const { detail, name, remedy, status, title } of wrong) {
      yield* say(
        `stoker: ${status === "warning" ? "warning: " : ""}${title}: ${name}: ${detail}\n  ${remedy ?? ""}`.trimEnd()
      )
    }
    if (wrong.some(({ status }) => status === "missing")) return yield* new ExitWith({ code: exitCode.usage })
    yield* print([
      `ok: ${setup.file.value}`,
      `  state      ${stateDirectory}`,
      `  slots      ${config.slots}`,
      `  classes    ${config.classes.map(({ driver, name }) => `${name} (${driver})`).join(", ")}`,
      `  broker     ${Option.isNone(amqp) ? "none" : options.connect ? "connected" : "not asked (--connect does)"}`,
      ...(config.objectStore === undefined ? [] : [`  store      ${config.objectStore.endpoint}`]),
      ...Option.match(api, {
        onNone: () => [],
        onSome: ({ grpc, http }) => [
          `  doors      ${
            [grpc === undefined ? [] : `gRPC ${grpc}`, http === undefined ? [] : `HTTP ${http}`].flat().join(", ")
          }`
        ]
      }),
      ...(functions.length === 0 ? [] : [`  functions  ${functions.join(", ")}`])
    ].join("\n"))
  },
  Effect.provide(logged)
)

/** An address without its password. */
const masked = (url: string): string => {
  if (!URL.canParse(url)) return "****"
  const parsed = new URL(url)
  if (parsed.password !== "") parsed.password = "****"
  return parsed.href
}

/** Without the secret that signs webhooks. */
const shownApi = ({ tls, webhooks, ...api }: ApiWiring): NonNullable<DaemonConfig["api"]> => {
  const [first, ...others] = webhooks?.allow ?? []
  return {
    ...api,
    ...tls,
    ...(first === undefined ? {} : { webhooks: { allow: [first, ...others], secretFile: "****" } })
  }
}

export const showConfig = Effect.fn("RunConfig.showConfig")(
  function*(flags: Pick<SetupFlags, "config" | "state" | "amqp">) {
    const { amqp, api, config, functions, http, log, stateDirectory } = yield* workerSetup({ ...noFlags, ...flags })
    const file = fileOf(config)
    const effective: DaemonConfig = {
      stateDirectory,
      ...file,
      ...(file.objectStore === undefined
        ? {}
        : { objectStore: { ...file.objectStore, accessKeyFile: "****", secretKeyFile: "****" } }),
      ...(functions.length === 0 ? {} : { functions }),
      ...(Option.isSome(amqp) ? { amqp: { url: masked(Redacted.value(amqp.value)) } } : {}),
      ...(Option.isSome(http) ? { http: { listen: http.value } } : {}),
      ...(Option.isSome(api) ? { api: shownApi(api.value) } : {}),
      log
    }
    yield* print(JSON.stringify(yield* Effect.orDie(Schema.encodeEffect(DaemonConfig)(effective)), null, 2))
  },
  Effect.provide(logged)
)

export const showExample = print(example)
