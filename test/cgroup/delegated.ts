/** A process that uses cgroups from where it was started, as a worker does, and tells what it found as JSON. */
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { Cgroups } from "../../src/layers/cgroup/Cgroup.ts"
import * as CgroupsHost from "../../src/layers/cgroup/CgroupsHost.ts"
import * as Processes from "./Processes.ts"

/** What `delegated.ts` writes. */
export interface Told {
  readonly directories: ReadonlyArray<string>
  /** The cgroup of the process itself, once it has its groups. */
  readonly own: string
  /** How the program that takes so many MiB ended, and what the kernel counted for its group. */
  readonly code: number | null
  readonly oomKills: number | undefined
}

const mebi = 1024 * 1024
const [instance = "", limitMiB = "", jobMiB = ""] = process.argv.slice(2)

const told = Effect.gen(function*() {
  const cgroups = yield* Cgroups
  const undo = cgroups.open("job")
  return yield* Effect.gen(function*() {
    const group = yield* cgroups.make("job")
    yield* group.limit({ memoryBytes: Number(limitMiB) * mebi, pids: 8, cpus: 1 })
    const program = yield* Processes.start(group, `dd if=/dev/zero of=/dev/null bs=${jobMiB}M count=1; exit $?`)
    const { code } = yield* program.ended
    return {
      directories: cgroups.directories,
      own: readFileSync("/proc/self/cgroup", "utf8").split("\n").find((line) => line.startsWith("0::"))?.slice(3) ?? "",
      code,
      oomKills: (yield* group.usage).oomKills
    } satisfies Told
  }).pipe(Effect.scoped, Effect.ensuring(Effect.orDie(Effect.andThen(undo.kill, undo.remove))))
}).pipe(Effect.provide(CgroupsHost.layer({ instance })))

process.stdout.write(`${JSON.stringify(await Effect.runPromise(told))}\n`)
