/**
 * Compiles the seccomp profile once. crun spends most of a container's start on compiling it; given the kernel's own
 * filter program in an annotation it does not (measured: 12 ms instead of 16–32). The compiler is crun itself: it leaves
 * the program it made in its state directory, which is read between `create` and `delete`.
 */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { ProvisionFailed } from "../Sandbox.ts"
import { execute } from "./Crun.ts"

/** Where crun runs for a moment: with a ledger row and a cgroup, for a worker may die while a container stands there. */
export interface Place {
  /** Program and arguments up to crun's own: launcher, mount namespace, cgroups, crun, its globals. */
  readonly crun: ReadonlyArray<string>
  /** Of the container. */
  readonly name: string
}

export interface CompileOptions {
  /** Gives a place for as long as it is used. */
  readonly within: <A, E>(use: (place: Place) => Effect.Effect<A, E>) => Effect.Effect<A, E | ProvisionFailed>
  readonly stateRoot: string
  /** A bundle with the profile and without the annotation. */
  readonly bundle: string
  /** Compiled programs are kept here over restarts. */
  readonly cache: string
  /** What the result depends on: profile, crun's version, architecture. */
  readonly dependsOn: ReadonlyArray<string>
}

const failed = (reason: string, cause: unknown) =>
  new ProvisionFailed({
    driver: "oci",
    step: "image",
    reason: `the seccomp profile could not be compiled: ${reason}`,
    remedy: "Is the state directory writable and not full? Run `stoker doctor`.",
    cause
  })

const io = <A>(what: string, run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: (cause) => failed(`${what}: ${String(cause)}`, cause) })

/** The filter as base64, or `undefined` from a crun that does not leave it: then it compiles the profile each time. */
export const compile = Effect.fnUntraced(function*(options: CompileOptions) {
  const hash = createHash("sha256").update(options.dependsOn.join("\u0000")).digest("hex").slice(0, 32)
  const cached = join(options.cache, `seccomp-${hash}.bpf`)
  const known = yield* Effect.promise(() => fs.readFile(cached).catch(() => undefined))
  if (known !== undefined && known.length > 0) return known.toString("base64")

  const filter = yield* options.within(({ crun: [program = "crun", ...args], name }) =>
    execute(program, [...args, "create", "--bundle", options.bundle, name], "container").pipe(
      Effect.andThen(
        Effect.promise(() => fs.readFile(join(options.stateRoot, name, "seccomp.bpf")).catch(() => undefined))
      ),
      Effect.ensuring(Effect.ignore(execute(program, [...args, "delete", "--force", name])))
    )
  )
  if (filter === undefined || filter.length === 0 || filter.length % 8 !== 0) return undefined
  yield* io("writing the cache", async () => {
    await fs.mkdir(options.cache, { recursive: true, mode: 0o700 })
    const fresh = `${cached}.${process.pid}`
    await fs.writeFile(fresh, filter, { mode: 0o600 })
    await fs.rename(fresh, cached)
  })
  return filter.toString("base64")
})
