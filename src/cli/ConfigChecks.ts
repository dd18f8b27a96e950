/** What a configuration names beside itself: files of certificates, roles, tokens and functions, and what schedules start. */
import { Effect, Layer, Option } from "effect"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { builtIns } from "../functions/BuiltIn.ts"
import * as Access from "../layers/api/Access.ts"
import * as Tls from "../layers/api/Tls.ts"
import * as Tokens from "../layers/api/Tokens.ts"
import * as FunctionFiles from "../layers/functions/FunctionFiles.ts"
import type { Check } from "../layers/sandbox/Sandbox.ts"
import type { Definition } from "../schemas/Function.ts"
import type { ApiWiring } from "../wiring.ts"
import type { WorkerSetup } from "./WorkerSetup.ts"

interface Refused {
  readonly file: string
  readonly reason: string
  readonly remedy: string
}

const finding = ({ file, reason, remedy }: Refused): Check => ({
  name: file,
  status: "missing",
  detail: reason,
  remedy
})

/** A worker would build it at its start. */
const tried = <A>(layer: Layer.Layer<A, Refused>) =>
  Effect.scoped(Layer.build(layer)).pipe(
    Effect.as<ReadonlyArray<Check>>([]),
    Effect.catch((refused) => Effect.succeed([finding(refused)]))
  )

const doors = ({ roles, tls, tokens }: ApiWiring) =>
  Effect.map(
    Effect.all([
      tried(Tls.layerFiles(tls, "server")),
      roles === undefined ? Effect.succeed([]) : tried(Access.layerFile(roles)),
      tokens === undefined ? Effect.succeed([]) : tried(Tokens.layerFile(tokens))
    ]),
    (found) => found.flat()
  )

/** The functions of files; they are bundled and loaded in a place of their own. */
const ownFunctions = (files: ReadonlyArray<string>) =>
  Effect.acquireUseRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "stoker-check-"))),
    (stateDirectory) => FunctionFiles.load({ files, stateDirectory, taken: new Set(builtIns.map(({ name }) => name)) }),
    (place) => Effect.promise(() => rm(place, { recursive: true, force: true }).catch(() => undefined))
  ).pipe(Effect.map(({ definitions }) => definitions))

/** Why what a schedule starts would be rejected each time. */
const schedules = Effect.fnUntraced(function*(
  { config }: Pick<WorkerSetup, "config">,
  definitions: ReadonlyArray<Definition>
) {
  const found: Array<Check> = []
  for (const { args, function: wanted, name } of config.cron ?? []) {
    const definition = definitions.find((one) => one.name === wanted)
    if (definition === undefined) {
      found.push({
        name: `schedule ${name}`,
        status: "missing",
        detail: `there is no function ${wanted}`,
        remedy: `There are ${definitions.map((one) => one.name).toSorted().join(", ")}.`
      })
      continue
    }
    yield* definition.check(args).pipe(
      Effect.catch(({ reason, remedy }) =>
        Effect.sync(() =>
          void found.push({ name: `schedule ${name}`, status: "missing", detail: `${wanted}: ${reason}`, remedy })
        )
      )
    )
  }
  return found
})

/** What would keep a worker with this configuration from its start, or its schedules from ever running. */
export const namedByConfig = Effect.fn("ConfigChecks.namedByConfig")(function*(
  { api, config, functions }: Pick<WorkerSetup, "api" | "config" | "functions">
) {
  const served = Option.isNone(api) ? [] : yield* doors(api.value)
  if (functions.length === 0) return [...served, ...yield* schedules({ config }, builtIns)]
  // Which functions there are is not known before their files are good.
  const rest = yield* Effect.matchEffect(ownFunctions(functions), {
    onFailure: (refused) => Effect.succeed([finding(refused)]),
    onSuccess: (own) => schedules({ config }, [...builtIns, ...own])
  })
  return [...served, ...rest]
})
