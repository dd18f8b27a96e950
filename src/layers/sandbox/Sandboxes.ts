/** Where the executor gets a sandbox from. Made on demand here; a pool keeps warm ones behind the same tag. */
import { Context, Effect, Layer, type Scope } from "effect"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"
import { Drivers, ProvisionFailed, type Sandbox } from "./Sandbox.ts"

export class Sandboxes extends Context.Service<Sandboxes, {
  readonly take: (
    sandboxClass: SandboxClass,
    disk: { readonly bytes: number; readonly inodes: number }
  ) => Effect.Effect<Sandbox, ProvisionFailed, Scope.Scope>
}>()("stoker/layers/sandbox/Sandboxes") {}

/** A fresh sandbox for every take. */
export const layerOnDemand = Layer.effect(
  Sandboxes,
  Effect.gen(function*() {
    const drivers = new Map((yield* Drivers).map((driver) => [driver.name, driver]))
    return Sandboxes.of({
      take: (sandboxClass, disk) => {
        const driver = drivers.get(sandboxClass.driver)
        return driver === undefined
          ? Effect.fail(
            new ProvisionFailed({
              driver: sandboxClass.driver,
              step: "driver",
              reason: `class ${sandboxClass.name} wants driver ${sandboxClass.driver}, which this worker does not have`,
              remedy: `Configure the class with one of: ${[...drivers.keys()].join(", ")}.`
            })
          )
          : driver.provision(sandboxClass, disk)
      }
    })
  })
)
