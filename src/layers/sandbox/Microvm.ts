/**
 * Machines as sandboxes: a kernel of its own for each job, run by Firecracker or QEMU, which see nothing but their machine. The one
 * life of all of them is `microvm/Machines.ts`; here is what they are made of.
 */
import { Config, Context, Effect, Layer } from "effect"
import { execFile } from "node:child_process"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"
import { Native } from "../host/Native.ts"
import * as Firecracker from "../microvm/firecracker/Firecracker.ts"
import { MachineImages } from "../microvm/image/MachineImages.ts"
import * as MachineImagesLive from "../microvm/image/MachineImagesLive.ts"
import * as Initrd from "../microvm/Initrd.ts"
import * as Qemu from "../microvm/qemu/Qemu.ts"
import * as Scratch from "../microvm/Scratch.ts"
import type { Vmm } from "../microvm/Vmm.ts"
import * as HostNetwork from "./HostNetwork.ts"
import * as HostSandbox from "./HostSandbox.ts"
import * as Greeting from "./microvm/Greeting.ts"
import * as Machines from "./microvm/Machines.ts"
import type { MachineDriver } from "./microvm/Sizes.ts"

/** What a class's `machine` names, if it names none. */
const USUAL_IMAGE = "default"

/** It takes a hundredth of this. */
const TOOL_LIMIT_MS = 30_000

/** VMMs of one driver that differ by the class, each made when the first class asks for it. */
const vmmsOf = Effect.fnUntraced(function*(driver: MachineDriver) {
  const optional = (name: string) =>
    Config.String(name).pipe(
      Config.option,
      Config.map((found) => found._tag === "Some" ? { [name]: found.value } : {})
    )
  const native = yield* Native
  if (driver === "qemu") {
    const program = yield* optional("STOKER_QEMU")
    const options = program["STOKER_QEMU"] === undefined ? {} : { program: program["STOKER_QEMU"] }
    const kvm = yield* Qemu.make({ accelerator: "kvm", ...options })
    const tcg = yield* Qemu.make({ accelerator: "tcg", ...options })
    return {
      all: [kvm, tcg],
      usual: tcg,
      of: ({ machine }: SandboxClass) => machine?.accelerator === "tcg" ? tcg : kvm
    }
  }
  const env = {
    ...(yield* optional("STOKER_FIRECRACKER")),
    ...(yield* optional("STOKER_JAILER")),
    ...(yield* optional("PATH"))
  }
  const tcp = yield* Firecracker.make({ wire: "tcp", wireProgram: native.wire, env })
  const vsock = yield* Firecracker.make({ wire: "vsock", wireProgram: native.wire, env })
  return { all: [tcp, vsock], usual: tcp, of: ({ machine }: SandboxClass) => machine?.wire === "vsock" ? vsock : tcp }
})

/** Runs a program among the rows and cgroups, so that it never outlives the worker for long. */
const runIn =
  (hosted: HostSandbox.HostSandbox, plain: () => HostSandbox.Recipe, launch: string, path: string) =>
  (argv: readonly [string, ...ReadonlyArray<string>]) =>
    hosted.aside(plain(), (_, procsFiles) =>
      Effect.callback<string, Scratch.ScratchError>((resume) => {
        const groups = procsFiles.flatMap((file) => ["-g", file])
        const options = {
          timeout: TOOL_LIMIT_MS,
          killSignal: "SIGKILL",
          cwd: "/",
          encoding: "utf8",
          env: { PATH: path }
        } as const
        const child = execFile(launch, [...groups, "--", ...argv], options, (cause, stdout, stderr) =>
          resume(
            cause === null ? Effect.succeed(stdout) : Effect.fail(
              new Scratch.ScratchError({
                reason: `${argv[0]} failed: ${stderr.trim().slice(-2000) || cause.message}`,
                remedy: `Is ${
                  argv[0]
                } installed (\`apt-get install e2fsprogs\`), and is there room in the state directory?`,
                cause
              })
            )
          ))
        return Effect.sync(() => void child.kill("SIGKILL"))
      })).pipe(
        Effect.catchTag(
          "ProvisionFailed",
          ({ reason, remedy }) => Effect.fail(new Scratch.ScratchError({ reason, remedy }))
        )
      )

/** The driver of this name. */
export const make = Effect.fnUntraced(function*(driver: MachineDriver) {
  const hosted = yield* HostSandbox.make
  const { host } = hosted
  const native = yield* Native
  const path = yield* Config.String("PATH").pipe(Config.withDefault(""))
  const vmms = yield* vmmsOf(driver)
  const images = Context.get(
    yield* Layer.build(MachineImagesLive.layer({ stateDirectory: host.paths.state })),
    MachineImages
  )
  const leftovers: Vmm["leftovers"] = (spec) => [...new Set(vmms.all.flatMap((vmm) => vmm.leftovers(spec)))]
  const bare: HostSandbox.Recipe = {
    driver,
    ownPids: 0,
    hasOwnKernel: true,
    command: () => [],
    sealed: false,
    paths: Machines.leftovers(hosted, leftovers),
    verify: () => Effect.void
  }
  const network = yield* HostNetwork.make(hosted, () => plain())
  const plain = (): HostSandbox.Recipe => ({ ...bare, network })
  const scratch = Scratch.make({
    folder: hosted.instancePath(host.instance, "scratch"),
    // A shell that is not a login's has no /usr/sbin in its path, also root's.
    run: runIn(hosted, () => bare, native.launch, [...path.split(":"), "/usr/sbin", "/sbin"].join(":"))
  })
  const initrds = yield* Initrd.make
  const isVmm = (program: string) => driver === "qemu" ? program.startsWith("qemu-") : program.startsWith("firecracker")
  const { driver: made } = yield* Machines.make(hosted, plain, {
    driver,
    vmmOf: (sandboxClass) => Effect.succeed(vmms.of(sandboxClass)),
    leftovers,
    isVmm,
    check: vmms.usual.check,
    path,
    openImage: ({ machine }) => images.open(machine?.image ?? USUAL_IMAGE),
    initrdOf: initrds,
    greet: yield* Greeting.make(driver),
    network,
    scratch
  })
  return made
})
