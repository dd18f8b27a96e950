/** The small C programs that stand beside a job. */
import { Context, Effect, Layer } from "effect"
import { accessSync, closeSync, constants, openSync, readSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { built } from "../Built.ts"
import { HostError } from "./Host.ts"

/**
 * The guest inside a sandbox, the launcher into a cgroup, the watchdog over the worker; and of microVMs the first process,
 * the way to their guest, and the agent of the older worker; into the jail of QEMU, a library for it, and the rate of this
 * processor's counter. Each is a source of its name in `native`.
 */
export const programs = [
  "agent",
  "confine",
  "guest",
  "init",
  "launch",
  "tsc",
  "watchdog",
  "wire",
  "lookonly.so"
] as const

type Program = typeof programs[number]

/** Absolute paths. */
export class Native extends Context.Service<Native, Readonly<Record<Program, string>>>()(
  "stoker/layers/host/Native"
) {}

/** Where they are built to in a checkout, and where they lie in the package. */
const directory = fileURLToPath(
  {
    source: new URL("../../../build/native/", import.meta.url),
    modules: new URL("../../../native/", import.meta.url),
    bundle: new URL("./native/", import.meta.url)
  }[built]
)

/** The script that builds them for this machine: it knows where to. */
const builder = fileURLToPath(
  {
    source: new URL("../../../native/build", import.meta.url),
    modules: new URL("../../../../native/build", import.meta.url),
    bundle: new URL("../native/build", import.meta.url)
  }[built]
)

/** `e_machine` of an ELF file by Node's name of the architecture (elf(5)). */
const machines: ReadonlyMap<string, number> = new Map([["x64", 62], ["arm64", 183]])

/** Why the file is no program of this machine, or nothing. Throws when it cannot be read or run. */
const misfit = (file: string): string | undefined => {
  accessSync(file, constants.X_OK)
  const header = new Uint8Array(20)
  const descriptor = openSync(file, "r")
  try {
    readSync(descriptor, header)
  } finally {
    closeSync(descriptor)
  }
  const found = new DataView(header.buffer).getUint16(18, true)
  const wanted = machines.get(process.arch)
  if (wanted === undefined || found === wanted) return undefined
  const name = [...machines].find(([, machine]) => machine === found)?.[0] ?? "another machine"
  return `${file} was built for ${name}, and this is ${process.arch}`
}

const find = (folder: string, program: string) =>
  Effect.gen(function*() {
    const file = folder + program
    const operation = `find the ${program} program`
    const remedy = `Run \`${builder}\`, which builds it with this machine's C compiler.`
    const reason = yield* Effect.try({
      try: () => misfit(file),
      catch: (cause) => new HostError({ operation, reason: `${file} is not an executable file`, remedy, cause })
    })
    return reason === undefined ? file : yield* new HostError({ operation, reason, remedy })
  })

/** Those in a folder, whose name ends with a slash. Fails when one is missing or was built for another architecture. */
export const layerFolder = (folder: string): Layer.Layer<Native, HostError> =>
  Layer.effect(
    Native,
    Effect.gen(function*() {
      const files = yield* Effect.forEach(
        programs,
        (program) => Effect.map(find(folder, program), (file) => [program, file] as const)
      )
      return Native.of(Object.fromEntries(files) as Record<Program, string>)
    })
  )

/** Those of this checkout or package: nothing can be run without them. */
export const layer = layerFolder(directory)
