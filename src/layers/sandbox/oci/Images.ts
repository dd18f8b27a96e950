/**
 * Images as roots: a name becomes a digest, a digest an unpacked tree. skopeo fetches (it knows registries, archives,
 * credentials, policies), `LayerScan.ts` looks at what came, umoci unpacks it, confined; the tree is kept by its digest.
 * A pull runs apart from who asked for it: it goes on when they give up, and all who ask meanwhile wait for the same one.
 */
import { Clock, Deferred, Effect, type Result } from "effect"
import { createHash } from "node:crypto"
import { constants, statfsSync } from "node:fs"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { codeOf } from "../../host/Errno.ts"
import type { Host } from "../../host/Host.ts"
import { once } from "../../Once.ts"
import type { ProvisionFailed } from "../Sandbox.ts"
import { type ArchiveImage, type ImageName, type LayoutImage, parse } from "./ImageName.ts"
import * as ImageStore from "./ImageStore.ts"
import * as Tools from "./ImageTools.ts"
import { refused } from "./ImageTools.ts"
import { type ImageLimits, ImageRefused, scanLayer, Tally } from "./LayerScan.ts"
import * as Manifest from "./Manifest.ts"

/** Large images have 10 GiB and a few hundred thousand files; overlays of others take 128 layers. */
export const standardLimits: ImageLimits = { bytes: 16 * 1024 ** 3, inodes: 1_000_000, layers: 128 }

/** For all of a pull. */
const DEADLINE = "20 minutes"
/** For a question to a registry. */
const ASK = "1 minute"
/** A pull that failed is not tried again for so long: pools and jobs ask more often than that. */
const PAUSE_MS = 15_000
/** How often the room that a pull takes is looked at. */
const LOOK = "200 millis"
/** So many looks later people are told how far it is: 10 s. */
const TELL = 50
/** So much stays free whatever an image needs, in bytes. */
const RESERVE = 64 * 1024 * 1024

export interface ImagesOptions {
  readonly host: Host["Service"]
  /** A cgroup with a row in the ledger, as words before a program: nothing that runs in it outlives the worker. */
  readonly within: <A, E>(
    use: (prefix: ReadonlyArray<string>) => Effect.Effect<A, E>
  ) => Effect.Effect<A, E | ProvisionFailed>
  /** For the tools: PATH, proxies, REGISTRY_AUTH_FILE. */
  readonly env: Readonly<Record<string, string>>
  readonly limits?: ImageLimits
}

/** What a name leads to now. */
interface Resolved {
  readonly digest: string
  /** The manifest or index itself, where somebody had to be asked. */
  readonly bytes?: Buffer
}

const digestOf = (bytes: Buffer) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`

const inMebibytes = (bytes: number) => `${Math.ceil(bytes / 1024 ** 2)} MiB`

/** All that lies below a directory. Links are not followed, which `readdir`'s own recursion does. */
async function* below(path: string): AsyncGenerator<string> {
  for (const entry of await fs.readdir(path, { withFileTypes: true })) {
    const found = join(path, entry.name)
    yield found
    if (entry.isDirectory()) yield* below(found)
  }
}

/** Bytes and files below a directory, no further than needed to know that they are too many. */
const used = async (path: string, limits: { readonly bytes: number; readonly inodes: number }) => {
  let [bytes, inodes] = [0, 0]
  const left = [path]
  for (let folder = left.pop(); folder !== undefined; folder = left.pop()) {
    for (const entry of await fs.readdir(folder, { withFileTypes: true }).catch(() => [])) {
      const found = join(folder, entry.name)
      inodes += 1
      if (entry.isDirectory()) left.push(found)
      else bytes += ((await fs.lstat(found).catch(() => undefined))?.blocks ?? 0) * 512
      if (bytes > limits.bytes || inodes > limits.inodes) return { bytes, inodes }
    }
  }
  return { bytes, inodes }
}

export const make = Effect.fnUntraced(function*(options: ImagesOptions) {
  const { env, host, within } = options
  const limits = options.limits ?? standardLimits
  const store = yield* ImageStore.make(host)
  const scope = yield* Effect.scope
  const opened = yield* once(store.open)
  const unpacker = yield* once(Tools.checkUmoci(env))
  const architecture = Manifest.architectureOf(process.arch)

  // Other tools know the variable, skopeo has a flag for it.
  const { CONTAINERS_REGISTRIES_CONF: registries } = env
  const skopeo: readonly [string, ...Array<string>] = registries === undefined
    ? ["skopeo"]
    : ["skopeo", `--registries-conf=${registries}`]

  const no = (name: string, reason: string, remedy: string, cause?: unknown) =>
    refused(`image ${name}: ${reason}`, remedy, cause)
  const unsuited = (name: string) => (reason: string) => no(name, reason, "Name another image, or make this one again.")

  const call = (image: string, prefix: ReadonlyArray<string>, cwd: string, argv: readonly [string, ...Array<string>]) =>
    Tools.run({ prefix, argv, cwd, env: { ...env, HOME: cwd, TMPDIR: cwd } }).pipe(
      Effect.catchTag("ToolFailed", (failed) => Effect.fail(Tools.explain(image, failed)))
    )

  /** The manifest or index a name stands for, as it is. */
  const ask = (image: string, source: string) =>
    within((prefix) =>
      call(image, [...prefix, ...Tools.reading(limits.bytes)], store.home, [...skopeo, "inspect", "--raw", source])
    ).pipe(
      Effect.timeoutOrElse({
        duration: ASK,
        orElse: () =>
          Effect.fail(no(image, `no answer within ${ASK}`, "Is the registry well? Ask it by hand with skopeo."))
      })
    )

  const layoutSource = ({ path, tag }: LayoutImage | ArchiveImage, kind: string) =>
    tag === undefined ? `${kind}:${path}` : `${kind}:${path}:${tag}`

  /** A tag is asked for once for each worker: until it ends, a class means one image. */
  const resolve = Effect.fnUntraced(
    function*(image: ImageName): Effect.fn.Return<Resolved | undefined, ProvisionFailed> {
      switch (image._tag) {
        case "Registry": {
          if (image.digest !== undefined) return { digest: image.digest }
          const bytes = yield* ask(image.name, `docker://${image.name}`)
          return { digest: digestOf(bytes), bytes }
        }
        case "Layout": {
          yield* local(image)
          const bytes = yield* ask(image.name, layoutSource(image, "oci"))
          return { digest: digestOf(bytes), bytes }
        }
        case "Archive": {
          yield* local(image)
          const digest = yield* store.recall(image.path, image.tag)
          return digest === undefined ? undefined : { digest }
        }
      }
    }
  )

  /** That it is there, in words of our own. */
  const local = Effect.fnUntraced(function*(image: LayoutImage | ArchiveImage) {
    const stat = yield* Effect.tryPromise({
      try: () => fs.stat(image.path),
      catch: (cause) =>
        no(
          image.name,
          `${image.path} ${codeOf(cause) === "ENOENT" ? "is not there" : `cannot be read: ${String(cause)}`}`,
          "Give the absolute path of an archive or layout of this host.",
          cause
        )
    })
    const isWanted = image._tag === "Layout" ? stat.isDirectory() : stat.isFile()
    if (!isWanted) {
      return yield* no(
        image.name,
        `${image.path} is no ${image._tag === "Layout" ? "directory" : "file"}`,
        "An archive is a file, a layout a directory."
      )
    }
    if (image._tag === "Archive" && stat.size > limits.bytes) {
      return yield* unsuited(image.name)(`${image.path} is larger than ${limits.bytes} bytes, the most that is allowed`)
    }
  })

  /** Looks at what a manifest says before any of its layers is fetched. */
  const precheck = Effect.fnUntraced(function*(name: string, bytes: Buffer) {
    const image = yield* Effect.mapError(Effect.fromResult(Manifest.parseImage(bytes)), unsuited(name))
    yield* Effect.mapError(Effect.fromResult(Manifest.compressions(image)), unsuited(name))
    const size = image.layers.reduce((sum, layer) => sum + layer.size, image.config.size)
    if (image.layers.length > limits.layers) {
      return yield* unsuited(name)(
        `it has ${image.layers.length} layers, and ${limits.layers} are the most that are allowed`
      )
    }
    if (size > limits.bytes) {
      return yield* unsuited(name)(`its layers have ${size} bytes, and ${limits.bytes} are the most that are allowed`)
    }
    return { size, layers: image.layers.length }
  })

  /** The source's manifest for this machine, checked; an index is followed to it. */
  const settle = Effect.fnUntraced(function*(
    name: string,
    resolved: Resolved,
    manifestOf: (digest: string) => Effect.Effect<Buffer, ProvisionFailed>
  ) {
    const bytes = resolved.bytes ?? (yield* manifestOf(resolved.digest))
    if (digestOf(bytes) !== resolved.digest) {
      return yield* unsuited(name)(`what came for ${resolved.digest} has the digest ${digestOf(bytes)}`)
    }
    if (!Manifest.isIndex(bytes)) return { digest: resolved.digest, ...(yield* precheck(name, bytes)) }
    const digest = yield* Effect.mapError(
      Effect.fromResult(Manifest.chooseFrom(bytes, architecture)),
      unsuited(name)
    )
    const manifest = yield* manifestOf(digest)
    return { digest, ...(yield* precheck(name, manifest)) }
  })

  /** Layers come as they are, but for archives: those of Docker say that they are packed and are not. */
  const copy = (name: string, prefix: ReadonlyArray<string>, cwd: string, source: string) =>
    call(name, prefix, cwd, [
      ...skopeo,
      "--override-os=linux",
      `--override-arch=${architecture}`,
      "--tmpdir=.",
      "copy",
      "--quiet",
      "--format=oci",
      ...(source.includes("-archive:") ? [] : ["--dest-oci-accept-uncompressed-layers"]),
      source,
      "oci:layout:image"
    ])

  const own = (path: string, uid: number) =>
    Effect.tryPromise({
      try: async () => {
        for await (const found of below(path)) await fs.lchown(found, uid, uid)
        await fs.lchown(path, uid, uid)
      },
      catch: (cause) =>
        refused(`${path}: ${String(cause)}`, "Is the state directory on a file system with owners?", cause)
    })

  const readBlob = (name: string, layout: string, digest: string) =>
    Effect.tryPromise({
      try: async () => {
        const bytes = await fs.readFile(join(layout, "blobs", "sha256", digest.slice("sha256:".length)))
        if (digestOf(bytes) !== digest) throw new ImageRefused(`blob ${digest} has the digest ${digestOf(bytes)}`)
        return bytes
      },
      catch: (cause) => cause instanceof ImageRefused ? unsuited(name)(cause.message) : unsuited(name)(String(cause))
    })

  /** Brings the image into `staging/layout`. From a registry and a layout skopeo only copies blobs; an archive it unpacks. */
  const fetch = Effect.fnUntraced(function*(image: ImageName, resolved: Resolved | undefined, staging: string) {
    const { name } = image
    if (image._tag === "Archive") {
      // A copy of its own: it cannot change any more, and the one who reads it needs no right to where it lies.
      yield* Effect.tryPromise({
        try: async () => {
          await fs.copyFile(image.path, join(staging, "archive"), constants.COPYFILE_FICLONE)
          await fs.chmod(join(staging, "archive"), 0o600)
        },
        catch: (cause) =>
          no(name, `${image.path} cannot be copied: ${String(cause)}`, "Is there room in the state directory?", cause)
      })
      yield* own(staging, Tools.UNPACKER)
      yield* Effect.logInfo(`image ${name}: reading it`)
      yield* within((prefix) =>
        copy(
          name,
          [...prefix, ...Tools.confined(limits.bytes)],
          staging,
          layoutSource({ ...image, path: "archive" }, image.format)
        )
      )
      yield* Effect.promise(() => fs.rm(join(staging, "archive")))
      return
    }
    const sourceOf = image._tag === "Registry"
      ? (digest: string) => `docker://${image.repository}@${digest}`
      : () => layoutSource(image, "oci")
    const manifestOf = (digest: string) =>
      image._tag === "Registry" ? ask(name, sourceOf(digest)) : readBlob(name, image.path, digest)
    const { digest, layers, size } = yield* settle(
      name,
      resolved ?? (yield* unsuited(name)("it has no digest")),
      manifestOf
    )
    yield* Effect.logInfo(`image ${name}: fetching ${layers} layers, ${inMebibytes(size)}`)
    yield* within((prefix) => copy(name, [...prefix, ...Tools.reading(limits.bytes)], staging, sourceOf(digest)))
    yield* own(staging, Tools.UNPACKER)
  })

  /** All there is to know of a fetched image, or why it is not unpacked. */
  const inspect = Effect.fnUntraced(function*(name: string, layout: string) {
    const bad = unsuited(name)
    const take = <A>(result: Result.Result<A, string>) => Effect.mapError(Effect.fromResult(result), bad)
    const index = yield* take(
      Manifest.parseIndex(
        yield* Effect.tryPromise({
          try: () => fs.readFile(join(layout, "index.json")),
          catch: (cause) => bad(String(cause))
        })
      )
    )
    const [descriptor] = index.manifests
    if (descriptor === undefined) return yield* bad("it holds no image")
    const bytes = yield* readBlob(name, layout, descriptor.digest)
    yield* precheck(name, bytes)
    const image = yield* take(Manifest.parseImage(bytes))
    const compressions = yield* take(Manifest.compressions(image))
    const configuration = yield* take(Manifest.parseConfiguration(yield* readBlob(name, layout, image.config.digest)))
    if (configuration.os !== "linux" || configuration.architecture !== architecture) {
      return yield* no(
        name,
        `it is for ${configuration.os}/${configuration.architecture}, and this host is linux/${architecture}`,
        "Name an image for this host's architecture."
      )
    }
    const diffIds = configuration.rootfs.diff_ids
    if (diffIds.length !== image.layers.length) {
      return yield* bad(`it has ${image.layers.length} layers, and its configuration names ${diffIds.length}`)
    }
    const env = yield* take(Manifest.environmentOf(configuration))
    const tally = new Tally(limits)
    for (const [number, layer] of image.layers.entries()) {
      const path = join(layout, "blobs", "sha256", layer.digest.slice("sha256:".length))
      const compression = compressions[number] ?? "none"
      // umoci before 0.5 does not know it, and Debian 12 has 0.4.7.
      if (compression === "zstd") {
        return yield* no(
          name,
          "its layers are packed with zstd, which umoci does not unpack",
          "Pack them with gzip: `skopeo copy --dest-compress-format=gzip`."
        )
      }
      yield* Effect.tryPromise({
        try: (signal) =>
          scanLayer({ path, compression, digest: layer.digest, diffId: diffIds[number] ?? "" }, tally, limits, signal),
        catch: (cause) => bad(cause instanceof ImageRefused ? cause.message : String(cause))
      })
    }
    const run = Manifest.runOf(configuration)
    return { digest: descriptor.digest, env, run, bytes: tally.bytes, inodes: tally.inodes }
  })

  /** Ends a pull that takes more than it may, while it does: first the whole file system is looked at, which is cheap. */
  const guard = (name: string, staging: string) => {
    const before = statfsSync(staging)
    let looks = 0
    // While an archive is read it is there three times: packed, taken apart, as a layout. Then layout and tree.
    const most = { bytes: 3 * limits.bytes, inodes: 2 * limits.inodes + 1000 }
    return Effect.gen(function*() {
      const { bavail, bsize, ffree } = statfsSync(staging)
      if (bavail * bsize < RESERVE) {
        return yield* no(name, "the disk is nearly full", "Free some space in the state directory.")
      }
      const taken = (before.bavail - bavail) * bsize
      if (++looks % TELL === 0) yield* Effect.logInfo(`image ${name}: about ${inMebibytes(Math.max(0, taken))} so far`)
      if (taken <= most.bytes && before.ffree - ffree <= most.inodes) return
      const found = yield* Effect.promise(() => used(staging, most))
      if (found.bytes > most.bytes || found.inodes > most.inodes) {
        return yield* unsuited(name)("taken apart it needs more bytes or files than are allowed")
      }
    }).pipe(Effect.delay(LOOK), Effect.forever)
  }

  const pull = Effect.fnUntraced(function*(image: ImageName, resolved: Resolved | undefined) {
    const { name } = image
    const began = yield* Clock.currentTimeMillis
    const staging = yield* store.staging
    const work = Effect.gen(function*() {
      yield* unpacker
      yield* fetch(image, resolved, staging)
      const facts = yield* inspect(name, join(staging, "layout"))
      yield* Effect.logInfo(`image ${name}: unpacking ${facts.inodes} files, ${inMebibytes(facts.bytes)}`)
      yield* Effect.promise(() => fs.mkdir(join(staging, "ready"), { mode: 0o755 }))
      yield* own(join(staging, "ready"), Tools.UNPACKER)
      yield* within((prefix) =>
        call(name, [...prefix, ...Tools.confined(limits.bytes)], staging, [
          "umoci",
          "--log=error",
          "raw",
          "unpack",
          "--rootless",
          "--image=layout:image",
          "ready/root"
        ])
      )
      // On the disk before it has its name: a machine that goes down now must not leave half an image that looks whole.
      yield* within((prefix) => call(name, prefix, staging, ["sync", "--file-system", "."]))
      return facts
    })
    const facts = yield* Effect.raceFirst(work, guard(name, staging))
    const stored = yield* store.publish(join(staging, "ready"), {
      digest: resolved?.digest ?? facts.digest,
      name,
      bytes: facts.bytes,
      inodes: facts.inodes,
      env: facts.env,
      run: facts.run
    })
    const seconds = ((yield* Clock.currentTimeMillis) - began) / 1000
    yield* Effect.logInfo(`image ${name}: ready after ${seconds.toFixed(1)} s, ${stored.digest}`)
    return stored
  }, Effect.scoped)

  const named = (text: string) =>
    Effect.mapError(Effect.fromResult(parse(text)), (reason) =>
      refused(
        reason,
        "Name one as container tools do: debian:12, oci-archive:/path.tar, docker-archive:/path.tar, oci:/layout:tag."
      ))

  const obtain = Effect.fnUntraced(function*(text: string) {
    const image = yield* named(text)
    yield* opened
    const resolved = yield* resolve(image)
    const found = resolved === undefined ? undefined : yield* store.find(resolved.digest)
    const stored = found ?? (yield* pull(image, resolved))
    if (image._tag === "Archive" && resolved === undefined) {
      yield* store.remember(image.path, image.tag, stored.digest)
    }
    return stored
  }, (effect, text) =>
    Effect.timeoutOrElse(effect, {
      duration: DEADLINE,
      orElse: () =>
        Effect.fail(
          no(text, `it was not there within ${DEADLINE}`, "Is the registry slow? Pull it into an archive by hand.")
        )
    }))

  interface Pull {
    readonly done: Deferred.Deferred<ImageStore.StoredImage, ProvisionFailed>
    /** When it failed, in milliseconds. */
    failedAt: number | undefined
  }
  const pulls = new Map<string, Pull>()

  /** In one step, so that nobody else begins the same. */
  const start = (text: string) =>
    Effect.suspend(() => {
      const entry: Pull = { done: Deferred.makeUnsafe<ImageStore.StoredImage, ProvisionFailed>(), failedAt: undefined }
      pulls.set(text, entry)
      return Effect.onExit(obtain(text), (exit) =>
        Effect.gen(function*() {
          if (exit._tag === "Failure") entry.failedAt = yield* Clock.currentTimeMillis
          yield* Deferred.done(entry.done, exit)
        })).pipe(Effect.ignore, Effect.forkIn(scope), Effect.as(entry))
    })

  return {
    /** What can be said of a name without asking anybody else: whether it is one, and is there if it is of this host. */
    check: Effect.fnUntraced(function*(text: string) {
      const image = yield* named(text)
      if (image._tag !== "Registry") yield* local(image)
      yield* unpacker
      return image._tag === "Registry" && image.digest === undefined
        ? `${text}, asked for when its first sandbox is made`
        : text
    }),
    /**
     * The image, pulled if it has to be. Whoever is interrupted while waiting leaves the pull to itself. A failure is told
     * to all who ask within the next seconds, then it is tried anew.
     */
    get: Effect.fnUntraced(function*(text: string): Effect.fn.Return<ImageStore.StoredImage, ProvisionFailed> {
      const now = yield* Clock.currentTimeMillis
      const known = pulls.get(text)
      const usable = known !== undefined && (known.failedAt === undefined || now - known.failedAt < PAUSE_MS)
      const { done } = usable ? known : yield* Effect.uninterruptible(start(text))
      return yield* Deferred.await(done)
    })
  }
})

export type Images = Effect.Success<ReturnType<typeof make>>
