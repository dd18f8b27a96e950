/** The contract of the store of machine images: they are made once, checked when they are opened, and never change. */
import { Context, type Effect } from "effect"
import type { Language, MachineImage, MachineImageError, Manifest } from "../MachineImage.ts"

/** What the root is made of. `given`: a copy of this ext4 file system; an absolute path. */
export type Root =
  | { readonly base: "minimal" }
  | { readonly base: "debian"; readonly languages: ReadonlyArray<Language> }
  | { readonly base: "given"; readonly file: string }

/** What an image is to be made of. */
export interface Recipe {
  /** What it can be opened by: 1 to 64 letters, digits, '.', '_' and '-'. One that had the name before keeps its identity only. */
  readonly name: string
  readonly root: Root
  /**
   * Absolute path of the kernel: an ELF `vmlinux` or a bzImage that has all drivers built in, a Debian package of a kernel, or the
   * folder of an image, whose kernel and modules are taken. Absent: the newest cloud kernel that apt knows.
   */
  readonly kernel?: string
}

/** An image in the store, whole or not. */
export interface ListedImage {
  readonly identity: string
  /** In order. None: only its identity opens it. */
  readonly names: ReadonlyArray<string>
  readonly directory: string
  /** What it takes on the disk, in bytes. */
  readonly diskBytes: number
  /** Or why it has none that can be read. */
  readonly manifest: Manifest | MachineImageError
}

export class MachineImages extends Context.Service<MachineImages, {
  /** `<state>/machine-images` */
  readonly directory: string
  /**
   * The image of that name, identity (or the beginning of one, 8 characters or more), or in that folder (absolute), found whole
   * and made for this machine. Its files are read once; from then on, also by other processes, an unchanged file is known by
   * its inode, size and time.
   */
  readonly open: (nameOrFolder: string) => Effect.Effect<MachineImage, MachineImageError>
  /**
   * Makes an image and gives it its name; what comes out the same as one that is there is that one. `told` hears each step.
   * Interrupted or failed it leaves nothing; killed, the next build clears it away.
   */
  readonly build: (
    recipe: Recipe,
    told: (step: string) => Effect.Effect<void>
  ) => Effect.Effect<MachineImage, MachineImageError>
  /** All there are, those with names first. */
  readonly list: Effect.Effect<ReadonlyArray<ListedImage>, MachineImageError>
  /** Takes a name away, and with its last name the image; by its identity, the image with all names. Gives what went. */
  readonly remove: (
    name: string
  ) => Effect.Effect<{ readonly names: ReadonlyArray<string>; readonly identity?: string }, MachineImageError>
}>()("stoker/layers/microvm/image/MachineImages") {}
