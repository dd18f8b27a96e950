/**
 * OCI sandboxes by crun or runsc: every namespace, a user namespace without a host user behind it, no network or one of its
 * own, no capability, a seccomp filter or another kernel, a read-only root (`oci/Roots.ts`), a workspace of a fixed size. Its
 * pid 1 is the guest.
 */
import { Config, Effect, Option } from "effect"
import { readFileSync, statfsSync } from "node:fs"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import type { SandboxId } from "../../schemas/Ids.ts"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"
import type { Cgroup } from "../cgroup/Cgroup.ts"
import { Native } from "../host/Native.ts"
import { rootsOf, SHOWN_AT, Watchdog } from "../host/Watchdog.ts"
import type { Attachment } from "../network/Network.ts"
import { once } from "../Once.ts"
import * as HostSandbox from "./HostSandbox.ts"
import * as IdRanges from "./IdRanges.ts"
import { bundleConfig, type BundleOptions, FUNCTIONS_PATH } from "./oci/Bundle.ts"
import * as Crun from "./oci/Crun.ts"
import * as Images from "./oci/Images.ts"
import { toolChecks, toolEnv } from "./oci/ImageTools.ts"
import * as Networked from "./oci/Networked.ts"
import { makeRootfs } from "./oci/Rootfs.ts"
import * as Roots from "./oci/Roots.ts"
import * as Runtimes from "./oci/Runtimes.ts"
import { compile } from "./oci/Seccomp.ts"
import { seccompProfile } from "./oci/SeccompProfile.ts"
import { type Capability, type Check, type Driver, ProvisionFailed } from "./Sandbox.ts"

/** Host groups behind the sandbox's 0–65535. No group of the host lies there by Debian's policy (subordinate ids). */
const FIRST_GID = 100_000

const image = (reason: string, cause: unknown) =>
  new ProvisionFailed({
    driver: "oci",
    step: "image",
    reason,
    remedy: "Is the state directory writable, not full, and on a file system that lets others search it?",
    cause
  })

const io = <A>(what: string, run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: (cause) => image(`${what}: ${String(cause)}`, cause) })

/** `Seccomp:` and `NoNewPrivs:` of a process, from the host's side. */
const confinement = (pid: number) => {
  const status = readFileSync(`/proc/${pid}/status`, "utf8")
  const field = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, "m").exec(status)?.[1]
  return { name: field("Name"), seccomp: field("Seccomp"), noNewPrivs: field("NoNewPrivs"), namespaces: field("NSpid") }
}

export const make = Effect.gen(function*() {
  const native = yield* Native
  const watchdog = yield* Watchdog
  const path = yield* Config.String("PATH").pipe(Config.withDefault("/usr/local/bin:/usr/bin:/bin"))
  const crun = Crun.find(yield* Config.String("STOKER_CRUN").pipe(Config.withDefault("crun")), path)
  const runsc = Crun.find(yield* Config.String("STOKER_RUNSC").pipe(Config.withDefault("runsc")), path)
  const hosted = yield* HostSandbox.make
  const { host } = hosted
  const own = (...parts: ReadonlyArray<string>) => hosted.instancePath(host.instance, ...parts)
  const stateRoot = own("crun")
  const idRanges = IdRanges.make(host.instance, IdRanges.containers)
  const bundles = new Map<string, string>()
  const runtimes = { crun: Runtimes.crun(crun, stateRoot), runsc: yield* Runtimes.runsc(runsc, own("runsc")) }
  const enter = Option.match(watchdog.mountNamespace, { onNone: () => [], onSome: (path) => ["-n", path] })

  /** Words that run a program in a cgroup with a row, so that it never outlives the worker for long. */
  const beside = <A, E>(
    use: (prefix: ReadonlyArray<string>, name: SandboxId) => Effect.Effect<A, E>,
    namespace: ReadonlyArray<string> = []
  ) =>
    hosted.aside(aside, (name, procsFiles) => {
      const groups = procsFiles.flatMap((file) => ["-g", file])
      return use([native.launch, ...namespace, ...groups, "--"], name)
    })

  const env = yield* toolEnv(path)
  const imageBytes = yield* Config.Int("STOKER_IMAGE_BYTES").pipe(Config.withDefault(Images.standardLimits.bytes))
  const roots = yield* Roots.make({
    instanceDirectory: own(),
    stateDirectory: host.paths.state,
    guest: native.guest,
    gid: FIRST_GID,
    images: yield* Images.make({ host, within: beside, env, limits: { ...Images.standardLimits, bytes: imageBytes } }),
    enter: Option.map(watchdog.mountNamespace, (path) => [native.launch, "-n", path, "--"]),
    functions: hosted.functions,
    env
  })

  const writeBundle = Effect.fnUntraced(function*(
    name: string,
    root: Pick<Roots.Root, "path" | "isHosts"> & { readonly isLeft?: boolean },
    disk: { readonly bytes: number; readonly inodes: number },
    firstUid: number,
    seccompBpf: string | undefined,
    network?: BundleOptions["network"]
  ) {
    const seccomp = seccompProfile(process.arch)
    if (seccomp === undefined) {
      return yield* new ProvisionFailed({
        driver: "oci",
        step: "image",
        reason: `there is no seccomp profile for ${process.arch}`,
        remedy: "Use an x86-64 or arm64 host: without its filter no sandbox is made."
      })
    }
    const bundle = own("bundles", name)
    const { isHosts, isLeft = false, path: rootfs } = root
    const config = bundleConfig({
      rootfs,
      isHosts,
      isLeft,
      disk,
      firstUid,
      firstGid: FIRST_GID,
      seccomp,
      seccompBpf,
      ...(network === undefined ? {} : { network })
    })
    yield* io(`writing ${bundle}`, async () => {
      await fs.mkdir(bundle, { recursive: true, mode: 0o711 })
      await fs.writeFile(join(bundle, "config.json"), JSON.stringify(config))
    })
    return bundle
  })

  /** Once per worker: a checked crun, the skeleton, the compiled filter. What failed is tried again: crun may come, room too. */
  const prepare = yield* once(Effect.gen(function*() {
    if (host.paths.state.startsWith(`${SHOWN_AT}/`)) {
      return yield* new ProvisionFailed({
        driver: "oci",
        step: "image",
        reason:
          `the state directory ${host.paths.state} lies below ${SHOWN_AT}, where the runtime is shown the sandboxes' roots`,
        remedy: `Use a state directory elsewhere, for instance a bind mount of it outside ${SHOWN_AT}.`
      })
    }
    const version = yield* Crun.version(crun)
    yield* io("making the root skeleton", async () => {
      for (const name of ["crun", "runsc"]) await fs.mkdir(own(name), { recursive: true, mode: 0o700 })
      await makeRootfs(join(rootsOf(own()), Roots.HOST_ROOT), native.guest, FIRST_GID)
    })
    if (hosted.functions !== undefined) {
      yield* hosted.functions.copy(join(rootsOf(own()), Roots.HOST_ROOT, FUNCTIONS_PATH))
      yield* hosted.functions.mount(join(Roots.host.path, FUNCTIONS_PATH))
    }
    const plain = yield* writeBundle("seccomp", Roots.host, { bytes: 65_536, inodes: 16 }, FIRST_GID, undefined)
    const bpf = yield* compile({
      within: (use) =>
        beside((prefix, name) => use({ name, crun: [...prefix, crun, ...Crun.globals(stateRoot)] }), enter),
      stateRoot,
      bundle: plain,
      cache: join(host.paths.state, "cache"),
      dependsOn: [JSON.stringify(seccompProfile(process.arch)), version, process.arch]
    })
    if (bpf === undefined) {
      yield* Effect.logInfo(`crun ${version} keeps no compiled filter: it compiles the profile itself`)
    }
    return bpf
  }))

  const bundleFor = Effect.fnUntraced(function*(
    runtime: Runtimes.Runtime,
    root: Roots.Root,
    disk: { readonly bytes: number; readonly inodes: number }
  ) {
    const firstUid = yield* idRanges.take
    // runsc would mount it again without nosuid and nodev, which a user namespace may not.
    const isLeft = runtime.name === "runsc" && !root.isHosts
    const name = `${isLeft ? "left-" : ""}${root.name}-${disk.bytes}-${disk.inodes}-${firstUid}`
    const bundle = bundles.get(name) ??
      (yield* writeBundle(name, { ...root, isLeft }, disk, firstUid, yield* prepare))
    bundles.set(name, bundle)
    return bundle
  })

  const verified = new Set<Runtimes.RuntimeName>()
  /** A runtime's first sandbox proves, seen from the host, that filter and namespaces are on: bundles differ by their roots. */
  const verify = (runtime: Runtimes.RuntimeName) => (cgroup: Cgroup) =>
    Effect.gen(function*() {
      if (verified.has(runtime)) return
      const pids = yield* cgroup.pids
      if (runtime === "runsc") {
        yield* Runtimes.verifyRunsc(runsc, pids)
        verified.add(runtime)
        return
      }
      const guests = pids.map(confinement).filter(({ name }) => name === "guest")
      const confined = guests.length > 0 &&
        guests.every(({ noNewPrivs, seccomp }) => seccomp === "2" && noNewPrivs === "1")
      if (!confined) {
        return yield* new ProvisionFailed({
          driver: "oci",
          step: "ready",
          reason: `the guest is not confined (${JSON.stringify(guests)})`,
          remedy: "This crun or kernel does not apply the seccomp profile; no job is run without it."
        })
      }
      verified.add(runtime)
    }).pipe(
      Effect.catchTag("CgroupError", (error) =>
        Effect.fail(
          new ProvisionFailed({
            driver: "oci",
            step: "ready",
            reason: error.message,
            remedy: error.remedy,
            cause: error
          })
        ))
    )

  const recipe = (
    bundle: string,
    runtime: Runtimes.Runtime,
    root: Pick<Roots.Root, "env" | "imageRun">
  ): HostSandbox.Recipe => ({
    driver: "oci",
    ownPids: runtime.ownPids,
    ownMemoryBytes: runtime.ownMemoryBytes,
    hasOwnKernel: runtime.hasOwnKernel,
    command: (id) => runtime.command(bundle, id),
    sealed: runtime.sealed,
    paths: (instance, id) => [...leftovers(instance, id), ...networked.paths(instance, id)],
    network: networked.network,
    env: () => root.env,
    ...(root.imageRun === undefined ? {} : { imageRun: root.imageRun }),
    ...(hosted.functions === undefined ? {} : { functions: hosted.functions.in(FUNCTIONS_PATH) }),
    verify: verify(runtime.name)
  })
  const leftovers = Runtimes.leftovers(hosted.instancePath)
  /** For what is no sandbox, and for those of others. */
  const plain = () => recipe("", runtimes.crun, { env: {} })
  const networked = yield* Networked.make(hosted, plain)
  const aside = plain()

  /** Its bundle is its own, because it names its network namespace. */
  const networkedRecipe = Effect.fnUntraced(function*(
    sandboxClass: SandboxClass,
    disk: { readonly bytes: number; readonly inodes: number },
    root: Roots.Root
  ) {
    if (sandboxClass.runtime === "runsc") {
      return yield* new ProvisionFailed({
        driver: "oci",
        step: "network",
        reason: `class ${sandboxClass.name} wants a network with runsc, which has a network stack of its own`,
        remedy: "Use crun for classes with a network, or network none."
      })
    }
    const firstUid = yield* idRanges.take
    const bpf = yield* prepare
    let attachment: Attachment | undefined
    const made: HostSandbox.Recipe = {
      ...recipe("", runtimes.crun, root),
      command: (id) => runtimes.crun.command(own("bundles", id), id),
      prepare: (id) =>
        Effect.gen(function*() {
          const attached = yield* networked.attach(id, sandboxClass)
          attachment = attached.attachment
          yield* writeBundle(id, root, disk, firstUid, bpf, attached.bundle)
        }),
      verify: (cgroup) => Effect.andThen(verify("crun")(cgroup), networked.verify(cgroup, attachment))
    }
    return made
  })

  const driver: Driver = {
    name: "oci",
    capabilities: new Set<Capability>([
      "isolation",
      "memory-limit",
      "cpu-limit",
      "pids-limit",
      "disk-limit",
      "usage",
      "own-cpu",
      "memory-workspace",
      "loopback-only",
      ...hosted.holds
    ]),
    prepare: (sandboxClass) => sandboxClass.root === undefined ? Effect.void : Effect.asVoid(roots.of(sandboxClass)),
    provision: Effect.fn("Oci.provision")(function*(sandboxClass, disk) {
      const root = yield* roots.of(sandboxClass)
      if (sandboxClass.network !== "none") {
        return yield* hosted.provision(yield* networkedRecipe(sandboxClass, disk, root), sandboxClass)
      }
      const runtime = sandboxClass.runtime === "runsc" ? yield* runtimes.runsc : runtimes.crun
      return yield* hosted.provision(recipe(yield* bundleFor(runtime, root, disk), runtime, root), sandboxClass)
    }),
    accepts: hosted.accepts,
    reap: (row) => hosted.reap(aside, row),
    rootIdentity: roots.identity,
    check: Effect.gen(function*() {
      const found = yield* Effect.result(Crun.version(crun))
      const runtime: Check = found._tag === "Success"
        ? { name: "crun", status: "ok", detail: `${crun} ${found.success}${Crun.remarks(crun, found.success)}` }
        : { name: "crun", status: "missing", detail: found.failure.reason, remedy: found.failure.remedy }
      const root: Check = process.getuid?.() === 0
        ? { name: "root", status: "ok", detail: "the worker may make namespaces and map ids" }
        : {
          name: "root",
          status: "missing",
          detail: "the worker does not run as root",
          remedy: "Run it as root: jobs still run as an unprivileged user of their own user namespace."
        }
      const profile: Check = seccompProfile(process.arch) === undefined
        ? {
          name: "seccomp",
          status: "missing",
          detail: `no profile for ${process.arch}`,
          remedy: "Use x86-64 or arm64."
        }
        : { name: "seccomp", status: "ok", detail: `profile for ${process.arch}` }
      const others = yield* toolChecks(env, runsc)
      return [runtime, root, profile, yield* userNamespaces, freeSpace(host.paths.state), ...others]
    }),
    checkClass: (sandboxClass) =>
      Effect.map(
        Effect.all([
          Runtimes.check(runsc, sandboxClass),
          roots.check(sandboxClass),
          networked.network.check(sandboxClass)
        ]),
        (checks) => checks.flat()
      )
  }
  return driver
})

const userNamespaces = Effect.sync((): Check => {
  const text = readOr("/proc/sys/user/max_user_namespaces", "0").trim()
  return Number(text) > 0
    ? { name: "user namespaces", status: "ok", detail: `up to ${text}` }
    : {
      name: "user namespaces",
      status: "missing",
      detail: "the kernel allows none",
      remedy: "sysctl -w user.max_user_namespaces=15000"
    }
})

const readOr = (path: string, otherwise: string) => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return otherwise
  }
}

const freeSpace = (path: string): Check => {
  const { bavail, bsize } = statfsSync(path)
  const mebibytes = Math.floor((bavail * bsize) / 1024 ** 2)
  return mebibytes >= 256
    ? { name: "state directory", status: "ok", detail: `${path}, ${mebibytes} MiB free` }
    : {
      name: "state directory",
      status: "warning",
      detail: `${path}, ${mebibytes} MiB free`,
      remedy: "Free some space."
    }
}
