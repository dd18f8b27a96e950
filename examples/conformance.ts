/**
 * How the makers of a driver or an executor prove that Stoker can use it: the cases of the contracts, run against theirs.
 * Here it is one of Stoker's own, in a worker; yours comes into the worker with `drivers`.
 *
 *   node examples/conformance.ts [WORDS]       (as root; WORDS: only the cases whose name has them)
 */
import { Console, Effect } from "effect"
import { readdirSync } from "node:fs"
import { Drivers, type Executor, Host, Ids, layerWorker, type SandboxClass, WorkerConfig } from "stoker"
import { type Case, casesFor, ConformanceDriver, ConformanceHost, driverCases, executorCases } from "stoker/conformance"

const [words = ""] = process.argv.slice(2)
const driver = process.env["STOKER_DRIVER"] ?? "process"
const sandboxClass = WorkerConfig.standardClass(driver, driver)
const unmakeable: SandboxClass.SandboxClass = {
  ...sandboxClass,
  name: Ids.ClassName.make("unmakeable"),
  cpuset: "4090-4095"
}

const program = Effect.gen(function*() {
  const { paths } = yield* Host
  const [made] = yield* Drivers
  if (made === undefined) return yield* Effect.die("there is no driver")
  const host = ConformanceHost.of({
    capabilities: made.capabilities,
    sandboxClass,
    unmakeable,
    programs: { shell: "/bin/sh", python: "python3" },
    // Yours also looks for processes, cgroups, pods, machines: whatever your sandboxes are made of.
    leftovers: Effect.sync(() => readdirSync(paths.ledger)),
    // Yours kills a worker that holds a sandbox; without that the cases of `reap` cannot be tried.
    orphan: Effect.die("no worker was killed"),
    slowness: 1
  })
  const all: ReadonlyArray<Case<Executor | ConformanceDriver | ConformanceHost>> = [...executorCases, ...driverCases]
  const cases = casesFor(all, made.capabilities).filter(({ name }) => name.includes(words))
  for (const { check, name } of cases) {
    const said = yield* Effect.match(check, { onSuccess: () => "ok", onFailure: ({ message }) => message }).pipe(
      Effect.provideService(ConformanceHost, host),
      Effect.provideService(ConformanceDriver, made)
    )
    yield* Console.log(`${name}: ${said}`)
  }
})

await program.pipe(
  Effect.provide(layerWorker({
    stateDirectory: process.env["STOKER_STATE"] ?? "/tmp/stoker-example",
    config: { ...WorkerConfig.standardConfig, classes: [sandboxClass, unmakeable], defaultClass: sandboxClass.name }
  })),
  Effect.runPromise
)
