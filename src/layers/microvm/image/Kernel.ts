/** The kernel of an image with the modules its machines need: Debian's, one of the operator's, or another image's. */
import { Effect, Schema } from "effect"
import * as fs from "node:fs/promises"
import { basename, join } from "node:path"
import { zstdDecompressSync } from "node:zlib"
import { codeOf } from "../../host/Errno.ts"
import type { MachineImageError } from "../MachineImage.ts"
import * as Elf from "./Elf.ts"
import { failedAt, fault } from "./Fault.ts"
import { extractVmlinux, kindOf, NoKernel, releaseOf } from "./KernelFile.ts"
import { dependsOf, loadingOrder, moduleName, wanted } from "./Modules.ts"
import * as Packages from "./Packages.ts"
import * as Tools from "./Tools.ts"
import * as Verify from "./Verify.ts"

export const VMLINUX = "vmlinux"

/** A kernel and its modules as files in one folder. */
export interface Kernel {
  readonly folder: string
  /** The ELF file's name in it. */
  readonly file: string
  readonly release: string
  /** In the order in which they are loaded. */
  readonly modules: ReadonlyArray<string>
  /** The Debian package it came from. */
  readonly packages: Readonly<Record<string, string>>
}

/** Beside a kernel that was taken out of a package. */
const Facts = Schema.fromJsonString(Schema.Struct({ release: Schema.String, modules: Schema.Array(Schema.String) }))
const FACTS = "kernel.json"

const REMEDY =
  "Give another kernel with --kernel: an ELF vmlinux, a bzImage, a Debian kernel package or an image's folder"

const io = <A>(image: string, path: string, work: () => Promise<A>) =>
  Effect.tryPromise({
    try: work,
    catch: (cause) =>
      cause instanceof NoKernel ? fault(image, `${path}: ${cause.message}`, REMEDY) : failedAt(image, path)(cause)
  })

/** The ELF file in a kernel's bytes, checked; what is written is what was checked. */
const writeKernel = Effect.fnUntraced(function*(image: string, path: string, bytes: Buffer, folder: string) {
  const vmlinux = kindOf(bytes) === "bzImage" ? yield* io(image, path, () => extractVmlinux(bytes)) : bytes
  const elf = yield* io(image, path, () => Elf.inspect(Elf.readingBuffer(vmlinux)))
  const refusal = Verify.whyNoKernel(elf, vmlinux.length, process.arch)
  if (refusal !== undefined) return yield* fault(image, `the kernel ${path} ${refusal.reason}`, refusal.remedy)
  const release = releaseOf(vmlinux)
  if (release === undefined) {
    return yield* fault(image, `${path} is no Linux kernel: it does not say its version`, REMEDY)
  }
  yield* io(image, path, () => fs.writeFile(join(folder, VMLINUX), vmlinux, { mode: 0o644 }))
  return release
})

/** All modules of an unpacked package by their names. */
const modulesBelow = async (folder: string): Promise<ReadonlyMap<string, string>> => {
  const files = await fs.readdir(folder, { recursive: true })
  return new Map(
    files.filter((file) => /\.ko(?:\.(?:xz|zst))?$/.test(file)).map((file) => [moduleName(file), join(folder, file)])
  )
}

/** As the kernel loads it. */
const readModule = Effect.fnUntraced(function*(image: string, path: string, staging: string) {
  if (path.endsWith(".xz")) {
    const copy = join(staging, basename(path))
    yield* io(image, path, () => fs.copyFile(path, copy))
    yield* Tools.run({ image, argv: ["xz", "--decompress", "--force", copy], cwd: staging })
    return yield* io(image, path, () => fs.readFile(copy.slice(0, -".xz".length)))
  }
  const bytes = yield* io(image, path, () => fs.readFile(path))
  return path.endsWith(".zst") ? zstdDecompressSync(bytes) : bytes
})

/** Takes kernel and modules out of an unpacked package of Debian's. */
const take = (image: string, staging: string) =>
  Effect.fnUntraced(function*(unpacked: string, folder: string): Effect.fn.Return<void, MachineImageError> {
    const boot = join(unpacked, "boot")
    const [file] = (yield* io(image, boot, () => fs.readdir(boot).catch(() => []))).filter((each) =>
      each.startsWith("vmlinuz-")
    )
    if (file === undefined) return yield* fault(image, "the package has no kernel in /boot", REMEDY)
    const path = join(boot, file)
    const release = yield* writeKernel(image, path, yield* io(image, path, () => fs.readFile(path)), folder)
    const homes = [join(unpacked, "lib/modules", release), join(unpacked, "usr/lib/modules", release)]
    const home = (yield* Effect.filter(homes, (each) =>
      Effect.promise(() => fs.access(each).then(() => true, () => false))))[0]
    if (home === undefined) return yield* fault(image, `the package has no modules for its kernel ${release}`, REMEDY)
    const there = yield* io(image, home, () => modulesBelow(home))
    const builtin = new Set(
      (yield* io(image, home, () => fs.readFile(join(home, "modules.builtin"), "utf8"))).trim().split("\n").map(
        moduleName
      )
    )
    const bytes = new Map<string, Buffer>()
    for (let names = wanted; names.length > 0;) {
      const next: Array<string> = []
      for (const name of names) {
        const found = there.get(name)
        if (found === undefined || bytes.has(name)) continue
        const module = yield* readModule(image, found, staging)
        bytes.set(name, module)
        next.push(...dependsOf(module))
      }
      names = next
    }
    const order = yield* io(image, home, () =>
      loadingOrder(wanted, async (name) => {
        const module = bytes.get(name)
        if (module !== undefined) return dependsOf(module)
        if (builtin.has(name)) return "builtin"
        throw new NoKernel(`it has no driver ${name}, which machines need`)
      }))
    const modules = order.map((name) => `${name}.ko`)
    for (const name of order) {
      yield* io(image, folder, () => fs.writeFile(join(folder, `${name}.ko`), bytes.get(name) ?? "", { mode: 0o644 }))
    }
    yield* io(image, folder, () => fs.writeFile(join(folder, FACTS), JSON.stringify({ release, modules })))
  })

const facts = Effect.fnUntraced(function*(image: string, folder: string) {
  const path = join(folder, FACTS)
  const text = yield* io(image, path, () => fs.readFile(path, "utf8"))
  return yield* Schema.decodeEffect(Facts)(text).pipe(
    Effect.mapError((cause) => fault(image, `${path} is none of ours`, `Remove ${folder}, then try again`, cause))
  )
})

const FAMILY = /^linux-image-[0-9].*-cloud-(?:amd64|arm64)$/
/** By Node's name of the architecture. */
const metaPackages: ReadonlyMap<string, string> = new Map([
  ["x64", "linux-image-cloud-amd64"],
  ["arm64", "linux-image-cloud-arm64"]
])

const ofDebian = Effect.fnUntraced(function*(shop: Packages.Workshop) {
  const name = yield* Packages.behind(shop, metaPackages.get(process.arch) ?? "linux-image-cloud", FAMILY)
  const taken = yield* Packages.obtain(shop, { name, family: FAMILY, take: take(shop.image, shop.staging) })
  const known = yield* facts(shop.image, taken.folder)
  return { ...known, file: VMLINUX, folder: taken.folder, packages: { [taken.name]: taken.version } } satisfies Kernel
})

/** A package, a bzImage or a vmlinux of the operator's. */
const ofFile = Effect.fnUntraced(function*(shop: Packages.Workshop, path: string) {
  const { image, staging } = shop
  const folder = join(staging, "kernel")
  yield* io(image, folder, () => fs.mkdir(folder, { mode: 0o700 }))
  const head = yield* io(image, path, async () => {
    const file = await fs.open(path, "r")
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(1024), 0, 1024, 0)
      return buffer.subarray(0, bytesRead)
    } finally {
      await file.close()
    }
  })
  const kind = kindOf(head)
  if (kind === "deb") {
    const { name, version } = yield* Packages.fileIs(shop, path)
    const unpacked = join(staging, "kernel-files")
    yield* Packages.unpack(shop, path, unpacked)
    yield* take(image, staging)(unpacked, folder)
    return { ...(yield* facts(image, folder)), file: VMLINUX, folder, packages: { [name]: version } } satisfies Kernel
  }
  if (kind === "unknown") return yield* fault(image, `${path} is no kernel`, REMEDY)
  const bytes = yield* io(image, path, () => fs.readFile(path))
  const release = yield* writeKernel(image, path, bytes, folder)
  return { folder, file: VMLINUX, release, modules: [], packages: {} } satisfies Kernel
})

const ofImage = Effect.fnUntraced(function*(shop: Packages.Workshop, path: string) {
  const { directory, manifest } = yield* Verify.open(path, path, shop.places.verified)
  const packages = Object.entries(manifest.recipe.packages).filter(([name]) => name.startsWith("linux-image"))
  return {
    folder: directory,
    file: manifest.kernel.file,
    release: manifest.kernelRelease,
    modules: manifest.modules.map(({ file }) => file),
    packages: Object.fromEntries(packages)
  } satisfies Kernel
})

/** The kernel that `path` names, or Debian's. */
export const obtain = Effect.fnUntraced(function*(shop: Packages.Workshop, path: string | undefined) {
  if (path === undefined) return yield* ofDebian(shop)
  const stat = yield* Effect.tryPromise({
    try: () => fs.stat(path),
    catch: (cause) =>
      codeOf(cause) === "ENOENT"
        ? fault(shop.image, `${path} is not there`, REMEDY, cause)
        : failedAt(shop.image, path)(cause)
  })
  return stat.isDirectory() ? yield* ofImage(shop, path) : yield* ofFile(shop, path)
})
