/** A Firecracker that was started: its output as far as we keep it, its end, and its death when we want it. */
import { Deferred, Effect } from "effect"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { type LaunchedProcess, Launcher } from "../../host/Launcher.ts"
import { within } from "../../Release.ts"
import type { MachineSpec } from "../Vmm.ts"
import * as Jail from "./Jail.ts"
import * as Jailer from "./Jailer.ts"
import { lastWords } from "./LastWords.ts"
import { jailPaths } from "./Requests.ts"

/** Kept of its output, in bytes. */
const TAIL_BYTES = 8192

/** Read of its output at once, in bytes, and then not for `REST_MS`: a guest may have a hand in it. What is over Firecracker drops. */
const GULP_BYTES = 65_536
const REST_MS = 1000

/** The end of its metrics: a line has some 6 KiB. */
const METRICS_BYTES = 65_536

/** Between two tries to kill it: what is being started may become its process only now. */
const PAUSE = "10 millis"

/** How long its death may take: the kernel gives back a machine's memory first. */
const DEATH_LIMIT = "10 seconds"

/** Keeps the end of what is said and lets it be said at a bounded pace. */
const listen = ({ stream }: LaunchedProcess) => {
  let kept = Buffer.alloc(0)
  let heard = 0
  stream.on("data", (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk]).subarray(-TAIL_BYTES)
    heard += chunk.length
    if (heard < GULP_BYTES) return
    heard = 0
    stream.pause()
    setTimeout(() => stream.resume(), REST_MS).unref()
  })
  return () => kept.toString("utf8")
}

const textOfFile = (path: string) => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return "" // it has ended
  }
}

const candidates = (procsFiles: ReadonlyArray<string>): ReadonlyArray<string> =>
  procsFiles.length > 0
    ? [...new Set(procsFiles.flatMap((file) => textOfFile(file).split("\n")))].filter((pid) => pid !== "")
    : readdirSync("/proc").filter((name) => /^\d+$/.test(name))

/** Its processes: of the machine's cgroup where it has one, of the host otherwise. Without the one that waits for the others. */
const processesOf = (spec: Pick<MachineSpec, "id" | "uid" | "procsFiles">) => {
  const found = candidates(spec.procsFiles).map((pid) => ({
    pid: Number(pid),
    role: Jailer.roleOf(spec, textOfFile(`/proc/${pid}/status`), textOfFile(`/proc/${pid}/cmdline`))
  }))
  const of = (wanted: Jailer.Role) => found.filter(({ role }) => role === wanted).map(({ pid }) => pid)
  return { vmm: of("vmm"), waiter: of("waiter") }
}

/** All of a machine's processes that live. */
export const pidsOf = (spec: Pick<MachineSpec, "id" | "uid" | "procsFiles">): ReadonlyArray<number> => {
  const { vmm, waiter } = processesOf(spec)
  return [...vmm, ...waiter]
}

/** Tells whether there was nothing left to kill. Who waits ends by itself, after the others: then it is known that they are dead. */
const killAll = (spec: MachineSpec) =>
  Effect.sync(() => {
    const { vmm, waiter } = processesOf(spec)
    for (const pid of vmm.length > 0 ? vmm : waiter) {
      try {
        process.kill(pid, "SIGKILL")
      } catch {
        // It has ended in between.
      }
    }
    return vmm.length + waiter.length === 0
  })

export interface VmmProcess {
  /** With its last words. */
  readonly ended: Effect.Effect<string>
  /** Kills it and waits for its end. */
  readonly kill: Effect.Effect<void>
}

/** Starts it; the scope kills it if it is still there, and waits for its end. */
export const start = Effect.fnUntraced(function*(
  spec: MachineSpec,
  jail: Jailer.JailFolders,
  command: ReadonlyArray<string>
) {
  const launcher = yield* Launcher
  const ended = yield* Deferred.make<string>()
  const begin = Effect.gen(function*() {
    const launched = yield* launcher.launch({
      procsFiles: spec.procsFiles,
      command,
      stderrPath: join(spec.directory, "vmm.said")
    })
    const heard = listen(launched)
    // Not of the scope: who waits for its end when the scope closes is to hear of it, too.
    yield* launched.ended.pipe(
      Effect.andThen(launched.said),
      Effect.flatMap((said) =>
        Effect.map(
          Effect.promise(() => Jail.readTail(join(jail.root, jailPaths.metrics), METRICS_BYTES)),
          (metrics) => lastWords(said, heard(), metrics)
        )
      ),
      Effect.flatMap((words) => Deferred.succeed(ended, words)),
      Effect.forkDetach({ startImmediately: true })
    )
    const kill = Effect.gen(function*() {
      const gone = yield* killAll(spec)
      const told = yield* Effect.timeoutOption(Deferred.await(ended), PAUSE)
      return gone && told._tag === "Some"
    }).pipe(Effect.repeat({ until: (done) => done }), Effect.asVoid)
    const vmm: VmmProcess = { ended: Deferred.await(ended), kill }
    return vmm
  })
  return yield* Effect.acquireRelease(begin, ({ kill }) => within(`firecracker of ${spec.id}`, DEATH_LIMIT)(kill))
})
