/**
 * Whether this host runs machines at all, which only one that boots and listens proves: /dev/kvm can be opened where no guest
 * gets any further.
 */
import { Effect } from "effect"
import { join } from "node:path"
import { Launcher } from "../host/Launcher.ts"
import { type MachineSpec, type Vmm, VmmError } from "./Vmm.ts"

const REMEDY =
  "That /dev/kvm can be opened proves nothing: this host, or the one it is a machine of, must give its machines " +
  "hardware virtualisation. Driver `qemu` with `accelerator: tcg` in the class's `machine` does without: ten times " +
  "slower, and no boundary against hostile code."

const EMULATED = "See the end of the console above; the image may have no init of ours: `stoker image build` makes one."

/**
 * Boots this machine, hears its guest, and ends it. Fails, at step `probe`, with where it stood. `isEmulated`: there is nothing
 * else to fall back to.
 */
export const probe = Effect.fn("Vmm.probe")(
  function*(vmm: Vmm, spec: MachineSpec, isEmulated: boolean) {
    const launcher = yield* Launcher
    const remedy = isEmulated ? EMULATED : REMEDY
    const failed = (reason: string) => new VmmError({ vmm: vmm.name, step: "probe", reason, remedy })
    const machine = yield* vmm.boot(spec).pipe(Effect.mapError(({ reason }) => failed(reason)))
    const wire = yield* Effect.acquireRelease(
      launcher.launch({
        procsFiles: spec.procsFiles,
        command: vmm.wire(spec, vmm.deadlines.bootMs, "probe"),
        stderrPath: join(spec.directory, "probe.said")
      }),
      ({ stream }) => Effect.sync(() => void stream.destroy())
    ).pipe(Effect.mapError(({ reason }) => failed(reason)))
    wire.stream.resume() // it says nothing, and its end is to be heard
    const heard = Effect.flatMap(
      Effect.andThen(wire.ended, wire.said),
      (said) =>
        said === "" ?
          Effect.void :
          Effect.flatMap(
            machine.console ?? Effect.succeed(""),
            (console) =>
              Effect.fail(failed(`its guest was not heard (${said}); the end of its console: ${console || "nothing"}`))
          )
    )
    yield* Effect.raceFirst(
      heard,
      Effect.flatMap(machine.ended, (words) => Effect.fail(failed(words || "the machine ended")))
    )
  },
  Effect.scoped
)
