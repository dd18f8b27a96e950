/** A host without a machine, for deterministic tests. */
import { Effect, Layer } from "effect"
import { join } from "node:path"
import { InstanceId } from "../../schemas/Ids.ts"
import { Host, HostError } from "./Host.ts"

/** What that host pretends. */
export interface TestHost {
  readonly instance?: string
  /** Nothing is written there by this layer. */
  readonly state?: string
  /** Other instances, and whether they are alive: the test may change it while it runs. */
  readonly others?: Map<InstanceId, boolean>
}

/** Alive are the instances that the test says are, and this one. */
export const layerTest = (options: TestHost = {}): Layer.Layer<Host> => {
  const instance = InstanceId.make(options.instance ?? "wtest")
  const state = options.state ?? "/nonexistent/stoker-test"
  const others = options.others ?? new Map<InstanceId, boolean>()
  const isAlive = (other: InstanceId) => other === instance || others.get(other) === true
  return Layer.succeed(Host, {
    instance,
    paths: {
      state,
      journal: join(state, "journal.sqlite"),
      logs: join(state, "logs"),
      artefacts: join(state, "artefacts"),
      ledger: join(state, "ledger"),
      instance: (other) => join(state, "instances", other)
    },
    isAlive: (other) => Effect.sync(() => isAlive(other)),
    others: Effect.sync(() => [...others.keys()]),
    cgroupsOf: () => Effect.succeed([]),
    forget: (other) =>
      Effect.suspend(() => {
        if (isAlive(other)) {
          return Effect.fail(
            new HostError({
              operation: "remove a dead instance's directory",
              reason: `instance ${other} is alive`,
              remedy: "Stop that worker first; its directory goes with it"
            })
          )
        }
        others.delete(other)
        return Effect.void
      })
  })
}
