/** A host with Firecracker's stand-in, a launcher, and folders of machines: all of it goes with the scope. */
import { Effect, Layer, Option, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as HostLive from "../../../src/layers/host/HostLive.ts"
import * as Launcher from "../../../src/layers/host/Launcher.ts"
import * as Native from "../../../src/layers/host/Native.ts"
import { Watchdog } from "../../../src/layers/host/Watchdog.ts"
import * as Firecracker from "../../../src/layers/microvm/firecracker/Firecracker.ts"
import { type MachineSpec, type Snapshot } from "../../../src/layers/microvm/Vmm.ts"
import { SandboxId } from "../../../src/schemas/Ids.ts"

export const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "stoker-fc-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

export interface StandInOptions {
  readonly version?: string
  readonly jailerVersion?: string
  /** See `StandIn.fault`. */
  readonly fault?: string
}

const quoted = (text: string) => `'${text.replaceAll("'", String.raw`'\''`)}'`

const script = (path: string, ...lines: ReadonlyArray<string>) => {
  writeFileSync(path, ["#!/bin/sh", ...lines, ""].join("\n"), { mode: 0o755 })
  return path
}

/** The two programs in a folder. */
export const programs = (into: string, { fault = "", jailerVersion, version = "1.16.1" }: StandInOptions = {}) => ({
  STOKER_FIRECRACKER: script(
    join(into, "firecracker"),
    `case "$1" in`,
    `--version) printf 'Firecracker v%s\\n\\n' ${quoted(version)};;`,
    `--snapshot-version) echo v10.0.0;;`,
    `*) exit 153;;`,
    `esac`
  ),
  STOKER_JAILER: script(
    join(into, "jailer"),
    `[ "$1" = --version ] && { printf 'Jailer v%s\\n\\n' ${quoted(jailerVersion ?? version)}; exit 0; }`,
    `export STANDIN_VERSION=${quoted(version)} STANDIN_FAULT=${quoted(fault)}`,
    `exec ${quoted(process.execPath)} ${quoted(join(import.meta.dirname, "Jailer.ts"))} "$@"`
  )
})

const watchdog = Layer.succeed(
  Watchdog,
  Watchdog.of({ mountNamespace: Option.some("/proc/self/ns/mnt"), died: Effect.never })
)

const services = (state: string) =>
  Layer.fresh(Launcher.layer).pipe(
    Layer.provideMerge(Layer.mergeAll(Native.layer, watchdog)),
    Layer.provideMerge(HostLive.layer({ stateDirectory: state })),
    Layer.provide(SecureRandom.layerWebCrypto)
  )

/** Wide: a noisy machine starts the stand-in in a second. */
const patient = { bootMs: 60_000, restoreMs: 60_000, saveMs: 60_000 }

/** A host without processes of ours, whose users nobody else has. */
export const host = Effect.fnUntraced(
  function*(options: StandInOptions = {}, settings: Partial<Firecracker.Settings> = {}) {
    const place = yield* folder
    const context = yield* Layer.build(services(join(place, "state")))
    const env = { PATH: "/usr/bin:/bin", ...programs(place, options) }
    const vmm = yield* Firecracker.make({
      wire: "tcp",
      wireProgram: "/usr/lib/wire",
      env,
      callMs: 60_000,
      ...settings,
      deadlines: { ...patient, ...settings.deadlines }
    }).pipe(Effect.provide(context))
    const image = join(place, "image")
    mkdirSync(image)
    for (const file of ["vmlinux", "initrd", "root.ext4"]) {
      writeFileSync(join(image, file), `the ${file}`, { mode: 0o600 })
    }
    return { vmm, place, image, env }
  }
)

let made = 0

/** A machine's folder with a scratch disk, and what is said of it. */
export const machine = (place: string, image: string, more: Partial<MachineSpec> = {}): MachineSpec => {
  const number = made++
  const id = Schema.decodeSync(SandboxId)(`fc${process.pid}n${number}`)
  const directory = join(place, `machine ${number}`)
  mkdirSync(directory)
  const scratch = join(directory, "scratch.img")
  writeFileSync(scratch, "disk")
  truncateSync(scratch, 2 ** 20)
  return {
    id,
    directory,
    // Of no user of a distribution, nor of another test that runs beside this one.
    uid: 1_000_000 + process.pid % 10_000 * 100 + number % 100,
    gid: 1_000_000 + process.pid % 10_000 * 100 + number % 100,
    vcpus: 2,
    memoryMib: 16,
    kernel: join(image, "vmlinux"),
    initrd: join(image, "initrd"),
    root: join(image, "root.ext4"),
    scratch,
    netns: "/proc/self/ns/net",
    bootArgs: ["quiet", "stoker.ip=169.254.77.2/30,169.254.77.1", "stoker.wire=7070"],
    procsFiles: [],
    ...more
  }
}

export const jailOf = ({ directory, id }: Pick<MachineSpec, "directory" | "id">) =>
  join(directory, "jail", "firecracker", id, "root")

/** What was asked of a machine's API, in order; bodies parsed. */
export const callsOf = (spec: Pick<MachineSpec, "directory" | "id">) => {
  const file = join(jailOf(spec), "calls")
  if (!existsSync(file)) return []
  return readFileSync(file, "utf8").trim().split("\n").map((line) => {
    const { body, call }: { readonly body: string | null; readonly call: string } = JSON.parse(line)
    const parsed: unknown = body === null ? null : JSON.parse(body)
    return { call, body: parsed }
  })
}

/** A snapshot's folder. */
export const snapshotFolder = (place: string): Snapshot["directory"] => {
  const directory = join(place, `template ${made++}`)
  mkdirSync(directory)
  return directory
}
