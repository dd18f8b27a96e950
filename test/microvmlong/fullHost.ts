/**
 * A worker's machines on a state directory that fills up: `node fullHost.ts STATE`, STATE a file system of its own. Says what came of
 * each job in a line of JSON.
 */
import { Effect, Logger } from "effect"
import { spawnSync } from "node:child_process"
import { readdirSync, rmSync, statfsSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Rig from "../microvm/Rig.ts"
import * as Jobs from "../sandbox/Jobs.ts"

const [state = ""] = process.argv.slice(2)
const MiB = 1024 * 1024
const filler = join(state, "filler")

const templates = () => readdirSync(join(state, "machine-templates")).filter((name) => name !== "lock").length

/** Leaves so many bytes free. */
const fill = (rest: number) => {
  rmSync(filler, { force: true })
  const { bavail, bsize } = statfsSync(state)
  const { status } = spawnSync("fallocate", ["-l", String(bavail * bsize - rest), filler])
  if (status !== 0) throw new Error("fallocate")
}

const say = (name: string, { outcome, stderr }: Jobs.Ran) =>
  writeFileSync(1, `${JSON.stringify({ name, outcome, stderr: stderr.toString(), templates: templates() })}\n`)

// A tmpfs cannot even show the holes of a template when it is full: the VMM dies of that.
const sandboxClass = Rig.machineClass({ snapshot: false })
const writes = { args: { command: "dd if=/dev/zero of=file bs=1M count=16 conv=fsync" } }

const program = Effect.gen(function*() {
  fill(40 * MiB)
  say("without room for a template", yield* Jobs.runIn(Rig.machineClass(), writes))
  rmSync(filler)
  say("with room", yield* Jobs.runIn(sandboxClass, writes))
  fill(4 * MiB)
  say("nearly full", yield* Jobs.runIn(sandboxClass, writes))
  fill(0)
  say("full", yield* Jobs.runIn(sandboxClass, writes))
  rmSync(filler)
  say("with room again", yield* Jobs.runIn(sandboxClass, writes))
}).pipe(Effect.provide(Jobs.layerOf(sandboxClass, state)))

// Its stdout is for what came of them.
Effect.runFork(Effect.provide(program, Logger.layer([])))
