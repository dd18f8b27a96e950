/** Kernel modules in the order in which they can be loaded, by what each says of itself (`depends=`, as depmod reads it). */
import { section } from "./Elf.ts"

/** What a machine needs of its kernel that may be a module: its root and scratch disks, its card, randomness, vsock, overlay. */
export const wanted: ReadonlyArray<string> = [
  "virtio_mmio",
  "virtio_blk",
  "virtio_net",
  "virtio_rng",
  "vmw_vsock_virtio_transport",
  "ext4",
  "overlay"
]

/** The kernel takes `-` and `_` for the same. */
export const moduleName = (file: string): string =>
  (file.split("/").at(-1) ?? file).replace(/\.ko(?:\.[a-z0-9]+)?$/, "").replaceAll("-", "_")

/** The modules this one needs, by their names. */
export const dependsOf = (module: Buffer): ReadonlyArray<string> => {
  const facts = section(module, ".modinfo")?.toString("latin1").split("\0") ?? []
  const text = facts.find((fact) => fact.startsWith("depends="))?.slice("depends=".length) ?? ""
  return text.split(",").filter((name) => name !== "").map(moduleName)
}

/**
 * All that must be loaded for `names`, each after what it needs. `find` gives what a module depends on, `"builtin"` for one
 * that the kernel has in it. Throws, with its name, where there is no such module.
 */
export const loadingOrder = async (
  names: ReadonlyArray<string>,
  find: (name: string) => Promise<ReadonlyArray<string> | "builtin">
): Promise<ReadonlyArray<string>> => {
  const order: Array<string> = []
  const seen = new Set<string>()
  const visit = async (name: string): Promise<void> => {
    if (seen.has(name)) return
    seen.add(name)
    const needs = await find(name)
    if (needs === "builtin") return
    for (const need of needs) await visit(need)
    order.push(name)
  }
  for (const name of names) await visit(name)
  return order
}
